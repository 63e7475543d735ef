"""Vendors' units and what they are in SI. Each conversion exists once, here.

Dividing by a power of ten, which is exact, rounds once; multiplying by its inverse rounds twice.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of a vendor's interface, linear in the SI unit.

    Attributes:
        name: as people write it.
        per_si: how many of it one SI unit makes.
        zero: the vendor's value at SI zero.
        whole: the interface takes whole numbers only; the nearest one is sent.
        most: the largest whole number there is.
    """

    name: str
    per_si: float
    zero: float = 0.0
    whole: bool = False
    most: float = math.inf

    def to_si(self, value: float) -> float:
        """The vendor's value in SI units."""
        return (value - self.zero) / self.per_si

    def from_si(self, value: float) -> float:
        """An SI value in the vendor's unit."""
        exact = value * self.per_si + self.zero
        return min(float(round(exact)), self.most) if self.whole else exact

    def range_to_si(self, ends: tuple[float, float]) -> tuple[float, float]:
        """The vendor's lower and upper end in SI units."""
        return self.to_si(ends[0]), self.to_si(ends[1])

    @property
    def step_si(self) -> float:
        """The smallest change, in SI units: half of it is how far a read-back may be off."""
        return 1 / self.per_si if self.whole else 0.0


METRES = Unit("m", 1.0)
MILLIMETRES = Unit("mm", 1e3)
MICROMETRES = Unit("um", 1e6)
WHOLE_MICROMETRES = Unit("um", 1e6, whole=True)
NANOMETRES = Unit("nm", 1e9)
WHOLE_NANOMETRES = Unit("nm", 1e9, whole=True)
MILLISECONDS = Unit("ms", 1e3)
WHOLE_NANOSECONDS = Unit("ns", 1e9, whole=True)
DEGREES = Unit("deg", 180 / math.pi)
WHOLE_MILLIDEGREES = Unit("mdeg", 180e3 / math.pi, whole=True)
WHOLE_TENTHS_OF_DEGREES = Unit("0.1 deg", 1800 / math.pi, whole=True)
PICOAMPERES = Unit("pA", 1e12)
KILOVOLTS = Unit("kV", 1e-3)
PERCENT = Unit("%", 100.0)
DAC_16 = Unit("of 0 to 65535", 32768.0, zero=32768.0, whole=True, most=65535.0)
"""A 16-bit converter around its centre, for fractions of the full range, -1 to 1."""
