"""What a focus measure says of a frame."""

import math
from dataclasses import dataclass
from typing import Self

FAINTEST = 1e-12
"""Keeps logarithms and ratios finite on frames without any contrast."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A focus measure's value, above zero, and its relative standard deviation from noise."""

    value: float
    relative_std: float

    @classmethod
    def of(cls, value: float, std: float) -> Self:
        """A reading of at least its own uncertainty: fainter cannot be told from nothing."""
        floored = max(value, std, FAINTEST)
        return cls(value=floored, relative_std=max(std, FAINTEST) / floored)

    @property
    def sharpness(self) -> float:
        """Natural logarithm of the value."""
        return math.log(self.value)
