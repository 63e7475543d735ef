"""What may be asked of one instrument with one specimen holder.

Nothing has a default: whoever writes the file has thought about every value. SI units.
"""

import math
from typing import Annotated

import msgspec

from semagent.options import Options
from semagent.types import FURTHEST_WORKING_DISTANCE_M

# No microscope goes beyond these: a larger limit was written in another unit.
_CEILINGS = {
    "working_distance_m": FURTHEST_WORKING_DISTANCE_M,
    "stigmator": 1.0,
    "beam_shift_m": 0.005,
    "stage_x_m": 1.0,
    "stage_y_m": 1.0,
    "stage_z_m": 1.0,
    "stage_rotation_rad": 4 * math.pi,
    "stage_tilt_rad": math.pi,
}
_DWELL_CEILING_S = 0.01
# No microscope reads back worse: with a larger tolerance a hand on it would go unnoticed.
_TOLERANCE_CEILINGS = {
    **_CEILINGS,
    "beam_shift_m": 5e-5,
    "stage_x_m": 0.01,
    "stage_y_m": 0.01,
    "stage_z_m": 0.01,
    "stage_rotation_rad": 0.05,
    "stage_tilt_rad": 0.05,
    "dwell_s": 5e-4,
    "region": 0.1,
}
_TIMES_S = {
    "travel_window_s": (1.0, 604800.0),
    "max_evidence_age_s": (0.001, 600.0),
    "heartbeat_timeout_s": (0.01, 60.0),
}
"""Shortest and longest: beyond them a limit was written in another unit, or protects nobody."""
_ROUNDING = 1e-9


class AxisLimits(Options, frozen=True, kw_only=True):
    """Limits of one axis, in its unit; all are inclusive.

    Attributes:
        min: lowest position.
        max: highest position.
        max_step: largest move at once, from the *measured* position.
        max_travel: largest sum of moves within ``travel_window_s``, counting the way back to
            where the axis stood when the window began.
    """

    min: float
    max: float
    max_step: float
    max_travel: float

    def __post_init__(self) -> None:
        _require(-math.inf < self.min < self.max < math.inf, "min must be below max, both finite")
        _require(self.max_step > 0, "max_step must be positive")
        _require(
            2 * self.max_step <= self.max_travel < math.inf,
            "max_travel must be finite and at least twice max_step: it counts the way back",
        )


class ScanLimits(Options, frozen=True, kw_only=True):
    """Limits of how frames are scanned, that is, of the dose each pixel gets.

    Attributes:
        dwell_s: shortest and longest dwell time.
        max_frame_averages: most scans averaged into one frame.
        min_region: smallest width and height of a scanned region, as a fraction of the field:
            a small region exposes the same spot again and again.
    """

    dwell_s: tuple[float, float]
    max_frame_averages: Annotated[int, msgspec.Meta(ge=1)]
    min_region: Annotated[float, msgspec.Meta(gt=0, le=1)]

    def __post_init__(self) -> None:
        low, high = self.dwell_s
        _require(0 < low <= high, "dwell_s must be [shortest, longest], positive")
        _plausible("dwell_s", high, _DWELL_CEILING_S)


class KeepOut(Options, frozen=True, kw_only=True):
    """A box in which specimen, stage and pole piece could meet; its faces belong to it.

    Nothing may move into it, through it or within it. ``-.inf`` and ``.inf`` leave a side open.
    """

    working_distance_m: tuple[float, float]
    stage_z_m: tuple[float, float]
    stage_tilt_rad: tuple[float, float]

    def __post_init__(self) -> None:
        for key in self.__struct_fields__:
            low, high = getattr(self, key)
            _require(low <= high, f"{key} must be [low, high]")
            for value in (low, high):
                if not math.isinf(value):
                    _plausible(key, value, _CEILINGS[key])


class ReadbackTolerance(Options, frozen=True, kw_only=True):
    """How far a read-back may lie from what it should be, in the unit of each axis.

    It serves two questions only: was the command carried out, and has somebody moved an axis
    by hand. No limit is ever widened by it. It also covers axes semagent may not move.

    Attributes:
        region: for each edge of the scanned region, as a fraction of the field.
    """

    working_distance_m: float
    stigmator: float
    beam_shift_m: float
    stage_x_m: float
    stage_y_m: float
    stage_z_m: float
    stage_rotation_rad: float
    stage_tilt_rad: float
    dwell_s: float
    region: float

    def __post_init__(self) -> None:
        for key in self.__struct_fields__:
            value = getattr(self, key)
            _require(value >= 0, f"{key}: {value:g} must not be negative")
            _plausible(key, value, _TOLERANCE_CEILINGS[key])


class Envelope(Options, frozen=True, kw_only=True):
    """Everything the gate has to know. An axis set to null is one semagent may not move.

    Attributes:
        specimen_holder: the holder, and specimen height, that these limits were made for.
        stigmator: for each of the two stigmators.
        beam_shift_m: for each of the two directions.
        allow_unblank: whether semagent may let the beam on the specimen.
        travel_window_s: time over which ``max_travel`` is summed.
        max_evidence_age_s: oldest frame, from the end of its exposure, the agent may act on.
        operator_hold_s: after a command of the operator the agent may act only on frames
            exposed at least this much later.
        heartbeat_timeout_s: silence of the control role after which the gate disarms.
    """

    specimen_holder: Annotated[str, msgspec.Meta(min_length=1)]
    working_distance_m: AxisLimits | None
    stigmator: AxisLimits | None
    beam_shift_m: AxisLimits | None
    stage_x_m: AxisLimits | None
    stage_y_m: AxisLimits | None
    stage_z_m: AxisLimits | None
    stage_rotation_rad: AxisLimits | None
    stage_tilt_rad: AxisLimits | None
    scan: ScanLimits | None
    allow_unblank: bool
    keep_out: tuple[KeepOut, ...]
    travel_window_s: float
    max_evidence_age_s: float
    operator_hold_s: float
    heartbeat_timeout_s: float
    readback_tolerance: ReadbackTolerance

    def __post_init__(self) -> None:
        for key, (shortest_s, longest_s) in _TIMES_S.items():
            value_s = getattr(self, key)
            _require(
                shortest_s <= value_s <= longest_s,
                f"{key}: {value_s:g} s: must be {shortest_s:g} to {longest_s:g} s",
            )
        _require(
            0 <= self.operator_hold_s < math.inf, "operator_hold_s must be finite, not negative"
        )
        for key, ceiling in _CEILINGS.items():
            limits = self.limits(key)
            if limits is None:
                continue
            _plausible(key, limits.min, ceiling)
            _plausible(key, limits.max, ceiling)
            # Otherwise an instrument that ignores its commands would go unnoticed.
            _require(
                self.tolerance(key) < limits.max_step,
                f"readback_tolerance.{key} must be below {key}.max_step",
            )

    def limits(self, key: str) -> AxisLimits | None:
        """Limits of the axis called ``key``."""
        limits: AxisLimits | None = getattr(self, key)
        return limits

    def tolerance(self, key: str) -> float:
        """Read-back tolerance of the axis called ``key``."""
        tolerance: float = getattr(self.readback_tolerance, key)
        return tolerance

    def longest_step(self, key: str) -> float | None:
        """The longest step worth asking for; ``None`` where there is no limit, or no moving.

        The gate measures a step from where the axis reads back, which may be off by the
        tolerance. The gate itself goes by ``max_step`` alone.
        """
        limits = self.limits(key)
        if limits is None:
            return None
        reserve = max(self.tolerance(key), _ROUNDING * limits.max_step)
        return limits.max_step - min(reserve, limits.max_step / 2)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _plausible(key: str, value: float, ceiling: float) -> None:
    _require(
        abs(value) <= ceiling,
        f"{key}: {value:g} is more than any microscope has ({ceiling:g}); lengths are in "
        "metres, angles in radians, times in seconds, stigmators a fraction of full range",
    )
