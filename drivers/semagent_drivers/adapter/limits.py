"""Refuse, never clip: ranges of an instrument and the one way to check a value against them."""

import math
from collections.abc import Mapping

import msgspec

from semagent.display import Quantity, show_alike
from semagent.errors import CommandRefusedError
from semagent.types import Region, Value

Range = tuple[float, float]

_QUANTITIES: Mapping[str, Quantity] = {"m": "length", "rad": "angle", "s": "dwell"}


class Limits(Value, frozen=True, kw_only=True):
    """What an instrument takes, read from it where it says so and from the options otherwise.

    Attributes:
        working_distance_m: range of the working distance.
        beam_shift_m: range of either axis of the beam shift.
        stage: range of each stage axis that can be moved, by name as in `StagePosition`.
        dwell_s: range of the dwell; ``None`` if it cannot be set.
        frame_averages: most scans averaged into a frame; 1 if it cannot be set.
        smallest_region: smallest edge of a region, relative to the field; ``None`` if only the
            whole field can be scanned.
    """

    working_distance_m: Range
    beam_shift_m: Range = (0.0, 0.0)
    stage: Mapping[str, Range] = msgspec.field(default_factory=dict)
    dwell_s: Range | None = None
    frame_averages: int = 1
    smallest_region: float | None = None


def require_within(name: str, value: float, limits: Range, unit: str) -> None:
    """Refuse a value outside ``limits``; NaN is outside of everything.

    Raises:
        CommandRefusedError: with value, unit and limits.
    """
    low, high = limits
    # An infinite limit is no reason to let an infinite value through.
    if not (low <= value <= high and math.isfinite(value)):
        said, least, most = in_words(unit, value, low, high)
        raise CommandRefusedError(
            f"{name} {said} is outside {least.removesuffix(f' {unit}')} to {most}"
        )


def axis_in_words(axis: str) -> tuple[str, str]:
    """What operators call a stage axis, and its unit, e.g. ``stage x`` and ``m`` for ``x_m``."""
    name, unit = axis.rsplit("_", 1)
    return f"stage {name}", unit


def in_words(unit: str, *values: float) -> list[str]:
    """Write values of one unit as an operator reads them, fit to be compared by eye."""
    if unit in _QUANTITIES:
        return show_alike(_QUANTITIES[unit], *values)
    return [f"{value:.9g} {unit}" for value in values]


def require_region(region: Region, smallest: float) -> None:
    """Refuse a region that leaves the field or is too small.

    Raises:
        CommandRefusedError: with value and limits.
    """
    for name, start, length in (
        ("left, width", region.left, region.width),
        ("top, height", region.top, region.height),
    ):
        if not (start >= 0 and length > 0 and start + length <= 1 + 1e-9):
            raise CommandRefusedError(
                f"region {name}: {start}, {length} does not lie within 0 to 1 of the field"
            )
        if length < smallest:
            raise CommandRefusedError(
                f"region {name}: {length} is less than {smallest} of the field"
            )
