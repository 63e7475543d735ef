"""Faults on demand: which strikes when, drawn reproducibly."""

from enum import StrEnum

import numpy as np

from semagent_drivers.simulated.options import Fault, FaultOptions

_EXPOSURES, _COMMANDS = 3, 4  # streams of the seed


class ExposureFault(StrEnum):
    """What can go wrong with an exposure, the gravest first."""

    DISCONNECT = "disconnect"
    LATE = "late"
    WRONG_SIZE = "wrong_size"
    FROZEN = "frozen"
    BLANK = "blank"
    INCOMPLETE = "incomplete"
    SATURATED = "saturated"


class CommandFault(StrEnum):
    """What can go wrong with a command."""

    REFUSED = "refused"
    IGNORED = "ignored"


class FaultPlan:
    """Decides which faults strike. What strikes one exposure does not depend on the others."""

    def __init__(self, options: FaultOptions, seed: int) -> None:
        self._options = options
        self._seed = seed

    def exposure(self, number: int) -> frozenset[ExposureFault]:
        """Faults of the exposure with this number, from 1."""
        draws = self._draws(_EXPOSURES, number, len(ExposureFault))
        return frozenset(
            kind
            for kind, draw in zip(ExposureFault, draws, strict=True)
            if _strikes(getattr(self._options, kind.value), number, draw)
        )

    def command(self, number: int) -> CommandFault | None:
        """Fault of the command with this number, from 1."""
        draws = self._draws(_COMMANDS, number, len(CommandFault))
        for kind, draw in zip(CommandFault, draws, strict=True):
            if _strikes(getattr(self._options, kind.value), number, draw):
                return kind
        return None

    def _draws(self, stream: int, number: int, count: int) -> list[float]:
        sequence = np.random.SeedSequence(self._seed, spawn_key=(stream, number))
        rng = np.random.Generator(np.random.SFC64(sequence))
        return [rng.random() for _ in range(count)]


def _strikes(fault: Fault, number: int, draw: float) -> bool:
    return number in fault.at or draw < fault.probability
