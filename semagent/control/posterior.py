"""What a set of modes says of focus together: weights, an interval, the next place to look."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semagent.control.fit import Modes
from semagent.spectrum import Array

INFLATION = 1.0
"""True errors of focus over those of the normal approximation, measured on simulated fields."""
OTHER_INFLATION = 1.6
"""The same of the rest: astigmatism and what the stigmators do are harder to tell apart."""
LEAST_STD = 0.08
"""Half depths of field below which no estimate is trusted."""
TEMPER = 0.3
"""Differences of evidence count this much: errors of the model are shared by many bins."""

_SAME = np.array([0.4, 0.5, 0.5])
"""Distance, in half depths of field, within which focus and astigmatism are one mode."""

_MATTERS = 12.0  # log of the odds, tempered, at which a mode is next to nothing beside another
_HALVINGS = 24  # to a tenth of a millionth of the range

_Part = tuple[float, float, float]  # weight, focus and its standard deviation


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """A mixture of normal distributions of the beam's parameters.

    Attributes:
        weights: shape (M,), summing to 1, falling.
        beam: shape (M, W); see `semagent.control.fit`.
        covariance: shape (M, W, W), inflated to what errors really are.
        log_evidence: of all modes together.
    """

    weights: Array
    beam: Array
    covariance: Array
    log_evidence: float

    @property
    def focus(self) -> Array:
        """Focus of each mode, shape (M,)."""
        return self.beam[:, 0]

    @property
    def focus_std(self) -> Array:
        """Standard deviation of the focus of each mode, shape (M,)."""
        return np.asarray(np.sqrt(self.covariance[:, 0, 0]))

    @property
    def mean(self) -> float:
        """Mean focus."""
        return float(self.weights @ self.focus)

    @property
    def std(self) -> float:
        """Standard deviation of focus, over all modes."""
        spread = self.focus_std**2 + (self.focus - self.mean) ** 2
        return math.sqrt(float(self.weights @ spread))

    def interval90(self) -> tuple[float, float]:
        """Central 90 % credible interval of focus."""
        parts = self._parts
        return _quantile(parts, 0.05), _quantile(parts, 0.95)

    def below(self, place: float) -> float:
        """Probability that focus is below a place."""
        return _below(self._parts, place)

    @property
    def _parts(self) -> list[_Part]:
        columns = (self.weights.tolist(), self.focus.tolist(), self.focus_std.tolist())
        return list(zip(*columns, strict=True))


def _below(parts: list[_Part], place: float) -> float:
    return sum(
        weight * 0.5 * (1 + math.erf((place - focus) / (std * math.sqrt(2))))
        for weight, focus, std in parts
    )


def _quantile(parts: list[_Part], level: float) -> float:
    low = min(focus - 5 * std for _, focus, std in parts)
    high = max(focus + 5 * std for _, focus, std in parts)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _below(parts, middle) < level:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def combine(modes: Modes, most: int, focus_inflation: float = INFLATION) -> Posterior:
    """The posterior of at most ``most`` different modes."""
    modes = modes.among(np.argsort(-modes.log_evidence, kind="stable"))
    kept = _different(modes, most)
    inflation = np.full(modes.beam.shape[1], OTHER_INFLATION)
    inflation[0] = focus_inflation
    covariance = modes.covariance[kept] * inflation[:, None] * inflation
    covariance[:, range(3), range(3)] += LEAST_STD**2
    relative = TEMPER * (modes.log_evidence[kept] - modes.log_evidence[kept[0]])
    weights = np.exp(relative)
    total = float(weights.sum())
    return Posterior(
        weights=weights / total,
        beam=modes.beam[kept],
        covariance=covariance,
        log_evidence=float(modes.log_evidence[kept[0]] + math.log(total)),
    )


def _different(modes: Modes, most: int) -> list[int]:
    """The likeliest of each group of modes that are the same, with what matters of likelihood."""
    matters = ~(modes.log_evidence < modes.log_evidence[0] - _MATTERS / TEMPER)
    beam = modes.beam[matters, :3]
    std = np.sqrt(np.diagonal(modes.covariance[matters], axis1=1, axis2=2)[:, :3])
    # A wide mode around a narrow one is another: the narrow one does not stand for its width.
    near = _SAME + np.minimum(std[:, None], std)
    same = (np.abs(beam[:, None] - beam) <= near).all(axis=2).tolist()
    kept: list[int] = []
    for index, alike in enumerate(same):
        if len(kept) < most and not any(alike[other] for other in kept):
            kept.append(index)
    return kept


def mirrored(beam: Array, places: Sequence[float]) -> Array:
    """Beams whose focus is on the other side of each place: there they blur nearly the same.

    Args:
        beam: as in `Posterior`, shape (M, W).
        places: N working distances.

    Returns:
        Shape (N * M, W).
    """
    images = np.repeat(beam[None], len(places), axis=0)
    images[:, :, 0] = 2 * np.asarray(places)[:, None] - beam[:, 0]
    images[:, :, 1:3] *= -1
    return np.asarray(images.reshape(-1, beam.shape[1]))
