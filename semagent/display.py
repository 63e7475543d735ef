"""Values as an operator reads them: millimetres, micrometres, degrees."""

import math
from collections.abc import Iterable
from typing import Literal

from semagent.types import Region

Quantity = Literal["length", "angle", "time", "dwell", "fraction"]
"""What a value is of; in SI units: metres, radians, seconds, seconds, 1."""

_UNITS = {
    "angle": (math.degrees(1), "°"),
    "time": (1, " s"),
    "dwell": (1e6, " µs"),
    "fraction": (1, ""),
}


def show(quantity: Quantity, value: float) -> str:
    """Write one value."""
    (text,) = show_alike(quantity, value)
    return text


def show_alike(quantity: Quantity, *values: float) -> list[str]:
    """Write values of one quantity, all in the same unit, fit to be compared by eye.

    Different values come out different: where six digits, of a time three or the whole seconds,
    hide why a limit was broken, more are shown.
    """
    factor, unit = _unit(quantity, values)
    fewest = max(3, len(f"{max(values):.0f}")) if quantity == "time" else 6
    for digits in range(fewest, 18):
        texts = [f"{value * factor:.{digits}g}{unit}" for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return texts


def show_region(region: Region) -> str:
    """Write the edges of a scan region."""
    return (
        f"left {region.left:g}, top {region.top:g}, width {region.width:g}, "
        f"height {region.height:g}"
    )


def _unit(quantity: Quantity, values: Iterable[float]) -> tuple[float, str]:
    if quantity != "length":
        return _UNITS[quantity]
    largest = max((abs(value) for value in values if math.isfinite(value)), default=math.inf)
    if largest >= 1e-3:
        return 1e3, " mm"
    if largest >= 1e-6:
        return 1e6, " µm"
    return 1e9, " nm"
