"""What the instrument says of its ranges."""

import math
from typing import Any, NamedTuple

from semagent.errors import MicroscopeError
from semagent_drivers.adapter import Limits
from semagent_drivers.autoscript.options import AutoScriptOptions

# AutoScript's axis, and ours.
AXES = {
    "x": "x_m",
    "y": "y_m",
    "z": "z_m",
    "r": "rotation_rad",
    "t": "tilt_rad",
}
_ENDLESS = "r"
"""The axis of the stage that has no end, and for which no limits are given."""

_ANY_ANGLE_RAD = (-2 * math.pi, 2 * math.pi)


class Instrument(NamedTuple):
    """What is asked once, when connecting.

    Attributes:
        stigmator_full: the stigmators' values at full range, x and y.
        keeps_lens: focus can be changed without degaussing the lens.
    """

    name: str
    limits: Limits
    stigmator_full: tuple[float, float]
    keeps_lens: bool


def describe(client: Any, raw: Any, options: AutoScriptOptions) -> Instrument:
    """Ask for everything that does not change; called on the vendor's thread.

    ``raw`` is the coordinate system of the stage that its ranges and positions are in.

    Raises:
        MicroscopeError: a range makes no sense.
    """
    beam, stage = client.beams.electron_beam, client.specimen.stage
    stigmator = beam.stigmator.limits
    full = tuple(min(-axis.min, axis.max) for axis in (stigmator.limits_x, stigmator.limits_y))
    if not all(value > 0 for value in full):
        raise MicroscopeError(f"AutoScript gives stigmator limits around no centre: {stigmator}")
    shift = beam.beam_shift.limits
    shift_m = min(min(-axis.min, axis.max) for axis in (shift.limits_x, shift.limits_y))
    distance, dwell = beam.working_distance.limits, beam.scanning.dwell_time.limits
    system = client.service.system
    return Instrument(
        name=f"{system.name} (xT {system.version})",
        limits=Limits(
            working_distance_m=(distance.min, distance.max),
            beam_shift_m=(-shift_m, shift_m),
            stage=_stage(stage, raw),
            dwell_s=(dwell.min, dwell.max),
            frame_averages=options.max_frame_averages,
            smallest_region=options.smallest_region,
        ),
        stigmator_full=(full[0], full[1]),
        keeps_lens=hasattr(beam.working_distance, "set_value_no_degauss"),
    )


def _stage(stage: Any, raw: Any) -> dict[str, tuple[float, float]]:
    if not stage.is_installed:
        return {}
    stage.set_default_coordinate_system(raw)
    ranges = {}
    for theirs, ours in AXES.items():
        if theirs == _ENDLESS:
            ranges[ours] = _ANY_ANGLE_RAD
        else:
            limits = stage.get_axis_limits(theirs)
            ranges[ours] = (limits.min, limits.max)
    return ranges
