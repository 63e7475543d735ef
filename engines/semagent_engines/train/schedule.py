"""How long to train, and the learning rate on the way."""

import math
from dataclasses import dataclass

_WARM_UP = 200


@dataclass(frozen=True)
class Budget:
    """A number of optimiser steps, or wall-clock minutes, or both; whichever ends first.

    Attributes:
        steps: optimiser steps, ``None`` for no limit.
        minutes: training time, summed over resumed runs, ``None`` for no limit.

    Raises:
        ValueError: neither is given.
    """

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ValueError("give a number of steps, or minutes, or both")

    def progress(self, step: int, elapsed_s: float) -> float:
        """Share of the budget that is used, 0 to 1."""
        shares = []
        if self.steps is not None:
            shares.append(step / max(self.steps, 1))
        if self.minutes is not None:
            shares.append(elapsed_s / max(60.0 * self.minutes, 1e-9))
        return min(max(shares), 1.0)

    def remaining_s(self, step: int, elapsed_s: float) -> float | None:
        """Time left at the present pace; ``None`` before there is a pace."""
        progress = self.progress(step, elapsed_s)
        return elapsed_s * (1 - progress) / progress if progress > 0 else None


def learning_rate(peak: float, step: int, progress: float) -> float:
    """Linear warm-up over the first 200 steps, then half a cosine to 1 % of ``peak``."""
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
    return peak * cosine * min(1.0, (step + 1) / _WARM_UP)
