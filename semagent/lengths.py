"""Lengths as people read them."""

import math

_UNKNOWN = "-"


def show_distance(value_m: float | None) -> str:
    """Write a working distance, to a tenth of a micrometre, e.g. ``5.0321 mm``; ``-`` for none."""
    return _UNKNOWN if value_m is None or math.isnan(value_m) else show_distances(value_m)


def show_distances(*values_m: float, between: str = "to") -> str:
    """Write working distances that share a unit, e.g. ``5.0200 to 5.0400 mm``."""
    return f"{f' {between} '.join(f'{value_m * 1e3:.4f}' for value_m in values_m)} mm"


def show_length(value_m: float | None, *, sign: bool = False) -> str:
    """Write any other length, e.g. ``12.3 µm`` or ``498 nm``; ``-`` for none.

    Three digits, but nanometres without decimals, and below ten of them with one.

    Args:
        value_m: the length.
        sign: write a plus sign too.
    """
    if value_m is None:
        return _UNKNOWN
    plus = "+" if sign else ""
    shown_m = abs(float(f"{value_m:.2e}"))  # what three digits show may need the next unit
    for per_m, unit in ((1e3, "mm"), (1e6, "µm")):
        size = shown_m * per_m
        if size >= 1:
            decimals = 2 if size < 10 else 1 if size < 100 else 0
            return f"{value_m * per_m:{plus}.{decimals}f} {unit}"
    return f"{value_m * 1e9:{plus}.{0 if shown_m >= 1e-8 else 1}f} nm"
