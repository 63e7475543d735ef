"""Numbers as microscope vendors write them, turned into SI units.

Vendors write ``6.2 mm``, ``500.00 K X``, ``8100 um``, ``=500.0 V``, ``1.5E-3`` and, on
computers set to some languages, ``6,2 mm``. A number whose unit is not known is no number: it
becomes ``None``, never a guess.
"""

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_DEGREE = math.pi / 180

# Unit, in lower case, to the factor that makes it SI. No vendor writes a prefix that differs
# from another one by its case alone.
LENGTH: Mapping[str, float] = MappingProxyType(
    {
        "m": 1.0,
        "mm": 1e-3,
        "µm": 1e-6,
        "um": 1e-6,
        "nm": 1e-9,
        "å": 1e-10,
        "pm": 1e-12,
        "fm": 1e-15,
    }
)
TIME: Mapping[str, float] = MappingProxyType(
    {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "ns": 1e-9}
)
VOLTAGE: Mapping[str, float] = MappingProxyType({"v": 1.0, "volt": 1.0, "kv": 1e3})
CURRENT: Mapping[str, float] = MappingProxyType(
    {"a": 1.0, "ma": 1e-3, "µa": 1e-6, "ua": 1e-6, "na": 1e-9, "pa": 1e-12}
)
ANGLE: Mapping[str, float] = MappingProxyType(
    {"rad": 1.0, "°": _DEGREE, "deg": _DEGREE, "degree": _DEGREE}
)
FRACTION: Mapping[str, float] = MappingProxyType({"": 1.0, "%": 0.01})
MAGNIFICATION: Mapping[str, float] = MappingProxyType({"": 1.0, "x": 1.0, "k x": 1e3, "kx": 1e3})

_NUMBER_AND_UNIT = re.compile(r"\s*=?\s*([+-]?[\d.,]+(?:[eE][+-]?\d+)?)\s*(.*?)\s*", re.DOTALL)
_GREEK_MU, _MICRO_SIGN = "\u03bc", "\u00b5"


def to_si(value: Any, units: Mapping[str, float], default: str = "") -> float | None:
    """Convert a vendor's number to SI.

    Args:
        value: a number, or text that begins with one and may end with its unit.
        units: one of the tables of this module.
        default: unit of a number that comes without one.

    Returns:
        The finite value in SI units; ``None`` for what is no number, is not finite, or has a
        unit that is not in ``units``.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        number, unit = float(value), ""
    else:
        match = _NUMBER_AND_UNIT.fullmatch(str(value))
        if match is None:
            return None
        digits, unit = match.groups()
        # "6,2" has a decimal comma; "1,234.5" separates thousands with it.
        digits = digits.replace(",", "" if "." in digits else ".")
        try:
            number = float(digits)
        except ValueError:
            return None
    factor = units.get((unit or default).lower().replace(_GREEK_MU, _MICRO_SIGN))
    if factor is None:
        return None
    # 15 digits hold any number a vendor writes, without the binary noise that 4.86 * 1e-3 has.
    result = float(f"{number * factor:.15g}")
    return result if math.isfinite(result) else None


def positive(value: float | None) -> float | None:
    """``value`` if it is above zero: vendors write 0 where nothing was measured."""
    return value if value is not None and value > 0 else None


def text(value: Any) -> str | None:
    """``value`` as text without surrounding blanks, ``None`` if nothing remains."""
    stripped = "" if value is None else str(value).strip()
    return stripped or None
