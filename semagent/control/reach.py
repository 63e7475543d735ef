"""How far beam shift and stage may go, and the way there in commands the gate lets through."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semagent.legs import legs, pair_legs
from semagent.memory import Calibration, Matrix
from semagent.types import MoveStage, SetBeamShift, StagePosition

BEYOND = "the drift is beyond the range of the beam shift"
PLAYS = 3.0
"""Times the measured play that stage moves go too far."""


@dataclass(frozen=True, slots=True)
class Axis:
    """How far one axis may be moved.

    Attributes:
        tolerance: change of what is read back that is no change.
    """

    low: float
    high: float
    max_step: float
    tolerance: float

    def holds(self, value: float) -> bool:
        """Whether a position is within reach."""
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Reach:
    """What may be moved; ``None`` may not."""

    beam_shift: Axis | None = None
    stage_x: Axis | None = None
    stage_y: Axis | None = None


def beam_legs(
    here: tuple[float, float], target: tuple[float, float], max_step: float
) -> list[SetBeamShift]:
    """Equal steps there, none longer than allowed along either axis."""
    return [SetBeamShift(x_m=x_m, y_m=y_m) for x_m, y_m in pair_legs(here, target, max_step)]


def stage_legs(
    reach: Reach,
    known: Calibration,
    home: StagePosition,
    here: StagePosition,
    displacement: npt.NDArray[np.float64],
) -> list[MoveStage] | str:
    """How the stage displaces the picture, counted from ``home``; or why it cannot.

    One axis after the other, each from the side that leaves no play.
    """
    if known.image_shift_per_stage is None or known.stage_backlash_m is None:
        return f"{BEYOND}, and what the stage does is not known: run semagent calibrate"
    change = solved(known.image_shift_per_stage, displacement)
    limits = {"x_m": reach.stage_x, "y_m": reach.stage_y}
    moves: list[MoveStage] = []
    for index, (name, axis) in enumerate(limits.items()):
        home_m: float | None = getattr(home, name)
        here_m: float | None = getattr(here, name)
        if axis is None or home_m is None or here_m is None or change is None:
            return f"{BEYOND}, and the safety envelope does not allow the stage to be moved"
        target_m = home_m + change[index]
        if not axis.holds(target_m):
            return f"{BEYOND} and of stage {name[0]}"
        way = legs(
            here_m,
            target_m,
            approach=PLAYS * known.stage_backlash_m.value,
            max_step=axis.max_step,
            lowest=axis.low,
        )
        moves += [MoveStage(**{name: leg_m}) for leg_m in way]
    return moves


def solved(matrix: Matrix, effect: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """The causes of an effect; ``None`` if a calibration says that there are none."""
    try:
        return matrix.solve((float(effect[0]), float(effect[1])))
    except ZeroDivisionError:
        return None
