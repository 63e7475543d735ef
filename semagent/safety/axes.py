"""The axes the gate watches over, and where each is found in a state and in an action."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

from semagent.display import Quantity
from semagent.types import (
    MicroscopeAction,
    MicroscopeState,
    MoveStage,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
)


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis.

    Attributes:
        name: for people.
        key: its limits and tolerance in the envelope.
        quantity: what its values are of.
        read: its measured value in a state, ``None`` where the instrument cannot say.
    """

    name: str
    key: str
    quantity: Quantity
    read: Callable[[MicroscopeState], float | None]


WORKING_DISTANCE = Axis(
    "working distance", "working_distance_m", "length", lambda s: s.optics.working_distance_m
)
STIGMATOR_X = Axis("stigmator x", "stigmator", "fraction", lambda s: s.optics.stigmator_x)
STIGMATOR_Y = Axis("stigmator y", "stigmator", "fraction", lambda s: s.optics.stigmator_y)
BEAM_SHIFT_X = Axis("beam shift x", "beam_shift_m", "length", lambda s: s.optics.beam_shift_x_m)
BEAM_SHIFT_Y = Axis("beam shift y", "beam_shift_m", "length", lambda s: s.optics.beam_shift_y_m)
STAGE_X = Axis("stage x", "stage_x_m", "length", lambda s: s.stage.x_m)
STAGE_Y = Axis("stage y", "stage_y_m", "length", lambda s: s.stage.y_m)
STAGE_Z = Axis("stage z", "stage_z_m", "length", lambda s: s.stage.z_m)
STAGE_ROTATION = Axis(
    "stage rotation", "stage_rotation_rad", "angle", lambda s: s.stage.rotation_rad
)
STAGE_TILT = Axis("stage tilt", "stage_tilt_rad", "angle", lambda s: s.stage.tilt_rad)

AXES = (
    WORKING_DISTANCE,
    STIGMATOR_X,
    STIGMATOR_Y,
    BEAM_SHIFT_X,
    BEAM_SHIFT_Y,
    STAGE_X,
    STAGE_Y,
    STAGE_Z,
    STAGE_ROTATION,
    STAGE_TILT,
)


def targets(action: MicroscopeAction) -> Mapping[Axis, float]:
    """Where ``action`` would send which axes; empty for actions that move none."""
    match action:
        case SetWorkingDistance():
            return {WORKING_DISTANCE: action.working_distance_m}
        case SetStigmator():
            return {STIGMATOR_X: action.x, STIGMATOR_Y: action.y}
        case SetBeamShift():
            return {BEAM_SHIFT_X: action.x_m, BEAM_SHIFT_Y: action.y_m}
        case MoveStage():
            stage = {
                STAGE_X: action.x_m,
                STAGE_Y: action.y_m,
                STAGE_Z: action.z_m,
                STAGE_ROTATION: action.rotation_rad,
                STAGE_TILT: action.tilt_rad,
            }
            return {axis: target for axis, target in stage.items() if target is not None}
        case SetScan() | SetBlanked():
            return {}
        case _:
            assert_never(action)
