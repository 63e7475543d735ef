"""The simulated microscope, beside which somebody sits who doubles the dwell time once."""

from collections.abc import Mapping
from typing import Any

from semagent.clock import Clock
from semagent.types import Frame, MicroscopeAction, SetScan
from semagent_drivers import simulated


class Touched:
    """Everything but the hand is the simulated microscope."""

    def __init__(self, microscope: simulated.SimulatedMicroscope, after_moves: int) -> None:
        self._microscope = microscope
        self._moves_left = after_moves
        self._waits = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._microscope, name)

    def apply(self, action: MicroscopeAction) -> None:
        """Carry out what the agent commands."""
        self._microscope.apply(action)
        self._moves_left -= 1

    def acquire(self, timeout_s: float) -> Frame:
        """Expose a frame; after the one that follows so many moves the hand comes."""
        frame = self._microscope.acquire(timeout_s)
        if self._waits and self._moves_left <= 0:
            self._waits = False
            self._microscope.apply(SetScan(dwell_s=2 * (frame.header.scan.dwell_s or 0.0)))
        return frame


def open_microscope(options: Mapping[str, Any], *, clock: Clock) -> Touched:
    """Take ``after_moves`` and the options of the simulated microscope."""
    plain = {name: value for name, value in options.items() if name != "after_moves"}
    return Touched(simulated.open_microscope(plain, clock=clock), options["after_moves"])
