"""The simulated microscope, beside which somebody sits who changes one thing once.

A hand whose name ends with ``meanwhile`` comes while the last of the moves is carried out.
"""

from collections.abc import Mapping
from typing import Any

from semagent.clock import Clock
from semagent.types import (
    Frame,
    MicroscopeAction,
    MicroscopeState,
    MoveStage,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
)
from semagent_drivers import simulated


class Touched:
    """Everything but the hand is the simulated microscope."""

    def __init__(
        self, microscope: simulated.SimulatedMicroscope, after_moves: int, hand: str
    ) -> None:
        self._microscope = microscope
        self._moves_left = after_moves
        self._hand, _, meanwhile = hand.partition(" ")
        self._meanwhile = bool(meanwhile)
        self._waits = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._microscope, name)

    def apply(self, action: MicroscopeAction) -> None:
        """Carry out what the agent commands."""
        self._microscope.apply(action)
        self._moves_left -= 1
        if self._meanwhile:
            self._touch()

    def acquire(self, timeout_s: float) -> Frame:
        """Expose a frame; after the one that follows so many moves the hand comes."""
        frame = self._microscope.acquire(timeout_s)
        self._touch()
        return frame

    def _touch(self) -> None:
        if self._waits and self._moves_left <= 0:
            self._waits = False
            self._microscope.apply(_change(self._hand, self._microscope.read_state()))


def _change(hand: str, state: MicroscopeState) -> MicroscopeAction:
    match hand:
        case "focus":
            here_m = state.optics.working_distance_m
            return SetWorkingDistance(working_distance_m=here_m + 20e-6)
        case "stigmators":
            return SetStigmator(x=0.05, y=0.0)
        case "stage":
            return MoveStage(x_m=5e-6)
    return SetScan(dwell_s=2 * (state.scan.dwell_s or 0.0))


def open_microscope(options: Mapping[str, Any], *, clock: Clock) -> Touched:
    """Take ``after_moves``, ``hand`` and the options of the simulated microscope."""
    plain = dict(options)
    after_moves, hand = plain.pop("after_moves"), plain.pop("hand")
    return Touched(simulated.open_microscope(plain, clock=clock), after_moves, hand)
