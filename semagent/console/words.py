"""Actions as an operator would say them."""

from semagent.display import show, show_region
from semagent.types import (
    Action,
    Arm,
    Disarm,
    MoveStage,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
    Stop,
)


def action_words(action: Action) -> str:
    """One action in a few words, with units."""
    match action:
        case SetWorkingDistance(working_distance_m=value):
            return f"working distance {show('length', value)}"
        case SetStigmator(x=x, y=y):
            return f"stigmators {x:+.4f}, {y:+.4f}"
        case SetBeamShift(x_m=x_m, y_m=y_m):
            return f"beam shift {show('length', x_m)}, {show('length', y_m)}"
        case MoveStage():
            return f"stage {_stage(action)}"
        case SetScan():
            return f"scan {_scan(action)}"
        case SetBlanked(blanked=blanked):
            return "blank the beam" if blanked else "let the beam on"
        case Stop():
            return "stop"
        case Arm():
            return "arm"
        case Disarm(reason=reason):
            return f"disarm: {reason}"


def _stage(action: MoveStage) -> str:
    lengths = {"x": action.x_m, "y": action.y_m, "z": action.z_m}
    angles = {"rotation": action.rotation_rad, "tilt": action.tilt_rad}
    parts = [f"{axis} {show('length', v)}" for axis, v in lengths.items() if v is not None]
    parts += [f"{axis} {show('angle', v)}" for axis, v in angles.items() if v is not None]
    return ", ".join(parts)


def _scan(action: SetScan) -> str:
    parts = []
    if action.dwell_s is not None:
        parts.append(f"dwell {show('dwell', action.dwell_s)}")
    if action.frame_averages is not None:
        parts.append(f"{action.frame_averages} averages")
    if action.region is not None:
        parts.append(f"region {show_region(action.region)}")
    return ", ".join(parts)
