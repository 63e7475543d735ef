"""Where a specimen may be stepped: straight edges between the places that were focused.

A cleaved specimen, or two pieces side by side, is smooth on both sides of an edge. Each way in
which a straight line parts the places is a hypothesis, and that there is no edge is one more. An
edge adds one column to the regression, 1 beyond it and 0 before; how much better the fit is with
it says how likely it is. A prediction is the mean over all of them, and where they contradict each
other it is as uncertain as they are apart. That holds as well between the places on both sides of
an edge, as nobody knows where between them it is.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_DIRECTIONS = 24  # of edges
_STEPPED = 0.05  # probability of an edge before anything is known
_APART = 1e-3  # of the reach: places less far from each other along a direction are not parted
_NEGLIGIBLE = 1e-6  # probability


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Edges that the places allow, K of them; lengths along the specimen over the reach.

    Attributes:
        normals: directions across, shape (K, 2).
        low: along the normal, the last place before the edge, shape (K,).
        high: the first place beyond, shape (K,).
        odds: probability of each, shape (K,); what is missing to 1 is that there is none.
        height_m: of the side beyond, shape (K,).
        variance_m2: of these, shape (K,).
        taken: what the coefficients of the smooth surface lose to a step of 1, shape (K, C).
    """

    normals: Floats
    low: Floats
    high: Floats
    odds: Floats
    height_m: Floats
    variance_m2: Floats
    taken: Floats

    def beyond(self, at: Floats) -> Floats:
        """Probability that points, shape (..., 2), are beyond each edge, shape (..., K)."""
        return np.clip((at @ self.normals.T - self.low) / (self.high - self.low), 0.0, 1.0)

    def at(self, row: Floats) -> tuple[float, float]:
        """What the edges add to the smooth surface that was fitted without: mean and variance.

        Args:
            row: what the coefficients are multiplied by there, shape (C,), u and v second.
        """
        beyond = self.beyond(row[1:3])
        lever = beyond - self.taken @ row
        added_m = lever * self.height_m
        mean_m = float(self.odds @ added_m)
        square = added_m**2 + lever**2 * self.variance_m2 + beyond * (1 - beyond) * self.height_m**2
        return mean_m, max(0.0, float(self.odds @ square) - mean_m**2)

    @property
    def likeliest(self) -> int | None:
        """Index of the likeliest edge, if one is likelier than that there is none."""
        return int(self.odds.argmax()) if self.odds.sum() > 0.5 else None


def find_steps(rows: Floats, weight: Floats, left_m: Floats, known: Floats, step_m: float) -> Steps:
    """Find the edges between places.

    Args:
        rows: of the regression without edge, shape (N, C), of which u and v are second.
        weight: of each place, one over its variance, shape (N,).
        left_m: what that regression leaves, shape (N,).
        known: covariance of its coefficients, shape (C, C).
        step_m: standard deviation of the height that is expected of a step.
    """
    angles = np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    normals = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    along = normals @ rows[:, 1:3].T
    order = along.argsort(axis=1)
    along = np.take_along_axis(along, order, axis=1)
    # Sums over the places beyond are those over all without those before.
    told = weight[:, np.newaxis] * np.column_stack([rows, left_m])
    beyond = told.sum(axis=0) - told[order].cumsum(axis=1)
    which, last = np.nonzero(np.diff(along, axis=1) > _APART)
    low, high = along[which, last], along[which, last + 1]
    pull, left = beyond[which, last, :-1], beyond[which, last, -1]
    taken = pull @ known
    # The first column is 1: its sum is that of the weights.
    certainty = np.maximum(pull[:, 0] - (taken * pull).sum(axis=1), 0.0) + step_m**-2
    height_m = left / certainty
    gain = (certainty * height_m**2 - np.log(certainty * step_m**2)) / 2
    gain += np.log(_STEPPED * (high - low) / (2 * _DIRECTIONS))
    top = gain.max(initial=0.0)
    odds = np.exp(gain - top)
    odds /= odds.sum() + (1 - _STEPPED) * np.exp(-top)
    kept = odds > _NEGLIGIBLE
    return Steps(
        normals=normals[which[kept]],
        low=low[kept],
        high=high[kept],
        odds=odds[kept],
        height_m=height_m[kept],
        variance_m2=1 / certainty[kept],
        taken=taken[kept],
    )
