"""Where focus is over the specimen: a surface fitted to a few places, with its uncertainty.

A Bayesian linear regression of the focal working distance on plane, curvature and a steady drift.
How strongly a specimen is tilted, bent and drifting is limited by what is expected of it, so that
one place gives a prediction already, with an honest uncertainty, and many decide by themselves
whether there is a curvature, or an edge with a step (`semagent.steps`). A place that contradicts
all the others is left out: there was dust, or a hole.
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from semagent.steps import Floats, Steps, find_steps

Sizes = float | Floats
Origin = tuple[float, float, float, float]

_OUTLIER = 4.0  # standard deviations by which a place has to contradict the others
_MOST_OUTLIERS = 0.34  # of all places
_ANYWHERE_M = 0.01  # standard deviation of the working distance before anything is known


@dataclass(frozen=True, slots=True)
class Focused:
    """A place where focus was found."""

    x_m: float
    y_m: float
    time_s: float
    working_distance_m: float
    sigma_m: float


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected of a specimen: standard deviations.

    Attributes:
        slope: height per length.
        sag_m: curvature along, and twist over, ``reach_m``.
        drift_m_per_s: drift of focus.
        reach_m: half the extent of the area.
        step_m: height of a step, where there is one.
    """

    slope: float
    sag_m: float
    drift_m_per_s: float
    reach_m: float
    step_m: float


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A fitted surface.

    Attributes:
        origin: x, y and working distance in the middle of the places, and the time of the last:
            (x_m, y_m, time_s, working_distance_m).
        reach_m: length by which x and y are divided.
        coefficients: constant, slopes along x and y, curvatures, and drift, shape (7,), of the
            surface without step.
        covariance: of these, shape (7, 7).
        steps: the edges that it may have.
        rejected: indices of the places that were left out.
        residual_m: root mean square of what the fit leaves at the others.
        uneven_m2: variance of the specimen around it, which errors of the focusings do not explain.
    """

    origin: Origin
    reach_m: float
    coefficients: Floats
    covariance: Floats
    steps: Steps
    rejected: tuple[int, ...]
    residual_m: float
    uneven_m2: float

    def at(self, x_m: float, y_m: float, time_s: float) -> tuple[float, float]:
        """Focal working distance and its standard deviation."""
        row = _rows(self.origin, self.reach_m, x_m, y_m, time_s)
        added_m, variance = self.steps.at(row)
        return (
            self.origin[3] + float(row @ self.coefficients) + added_m,
            math.sqrt(float(row @ self.covariance @ row) + variance + self.uneven_m2),
        )

    def doubted(self, x_m: float, y_m: float, places: Sequence[Focused]) -> bool:
        """Whether the nearest of the places it was fitted to was left out.

        That may have been dust. It may be the specimen that is stepped there, and then the surface
        is as sure as anywhere, and wrong.
        """
        return nearest(x_m, y_m, places) in self.rejected

    @property
    def middle_m(self) -> float:
        """Focal working distance in the middle of the places, at the last of them."""
        x_m, y_m, time_s, _ = self.origin
        return self.at(x_m, y_m, time_s)[0]

    @property
    def tilt(self) -> tuple[float, float]:
        """Change of the focal working distance per length along x and y, at the middle."""
        _, x_m, y_m, *_ = self._smooth
        return float(x_m) / self.reach_m, float(y_m) / self.reach_m

    @property
    def sag_m(self) -> tuple[float, float, float]:
        """Curvature along x, twist and curvature along y, over ``reach_m``."""
        first, second, third = self._smooth[3:6]
        return float(first), float(second), float(third)

    @property
    def drift_m_per_s(self) -> float:
        """Drift of focus."""
        return float(self._smooth[6])

    @property
    def step(self) -> tuple[tuple[float, float], tuple[float, float], float] | None:
        """The likeliest edge, if there rather is one than not.

        The direction across, (x, y), how far along it from x = y = 0 the edge lies at least and at
        most, and by how much focus is further away beyond.
        """
        index = self.steps.likeliest
        if index is None:
            return None
        x, y = map(float, self.steps.normals[index])
        middle_m = x * self.origin[0] + y * self.origin[1]
        low, high = float(self.steps.low[index]), float(self.steps.high[index])
        between_m = (middle_m + low * self.reach_m, middle_m + high * self.reach_m)
        return (x, y), between_m, float(self.steps.height_m[index])

    @property
    def _smooth(self) -> Floats:
        """The coefficients beside the steps, (7,)."""
        steps = self.steps
        return self.coefficients - (steps.odds * steps.height_m) @ steps.taken


def nearest(x_m: float, y_m: float, places: Sequence[Focused]) -> int:
    """Index of the nearest place; of several, the last that was focused."""
    away = [math.hypot(place.x_m - x_m, place.y_m - y_m) for place in places]
    return len(away) - 1 - away[::-1].index(min(away))


def fit_surface(places: Sequence[Focused], expected: Expected) -> Surface:
    """Fit a surface to one place or more.

    Raises:
        ValueError: there is none.
    """
    if not places:
        raise ValueError("a surface needs one place at least")
    kept = list(range(len(places)))
    for _ in range(math.floor(_MOST_OUTLIERS * len(places))):
        contradictions = _contradictions([places[index] for index in kept], expected)
        worst = int(contradictions.argmax())
        if contradictions[worst] < _OUTLIER:
            break
        del kept[worst]
    rejected = tuple(sorted(set(range(len(places))) - set(kept)))
    return _fit([places[index] for index in kept], expected, rejected)


def _contradictions(places: Sequence[Focused], expected: Expected) -> Floats:
    """By how many standard deviations each place differs from what the others predict, (N,).

    The sums over the others are those over all without its own part, moved to the middle of the
    others, around which nothing is expected: a fit for each place would take seconds.
    """
    _, rows, weight, wanted = _told(places, expected.reach_m)
    *_, steps = _solve(rows, weight, wanted, expected)
    edge = steps.likeliest
    side = np.zeros(len(rows))
    if edge is not None:
        side = np.round(steps.beyond(rows[:, 1:3])[:, edge])
    if side.sum() in (1, len(places) - 1):  # a place by itself may be dust
        side[:] = 0
    rows = np.column_stack([rows, side])
    parts = weight[:, np.newaxis, np.newaxis] * rows[:, :, np.newaxis] * rows[:, np.newaxis, :]
    pulls = (weight * wanted)[:, np.newaxis] * rows
    squares = weight * wanted**2
    move = _move(*(-rows[:, 1:3].T / (len(places) - 1)))
    move = move * np.append(_prior(expected), expected.step_m)
    back = move.transpose(0, 2, 1)
    seen = back @ (parts.sum(axis=0) - parts) @ move
    pull = back @ (pulls.sum(axis=0) - pulls)[:, :, np.newaxis]
    covariance = np.linalg.inv(seen + np.eye(move.shape[-1]))
    solution = covariance @ pull
    misfit = squares.sum() - squares + _inner(solution, seen @ solution - 2 * pull)
    freedom = len(places) - 1 - np.trace(covariance @ seen, axis1=1, axis2=2)
    excess = np.maximum(1.0, misfit / np.maximum(1.0, freedom))
    here = back @ rows[:, :, np.newaxis]
    variance = _inner(here, covariance @ here) * excess
    off_m = np.abs(wanted - _inner(here, solution))
    return np.asarray(off_m / np.sqrt(variance + 1 / weight))


def _inner(first: Floats, second: Floats) -> Floats:
    """Inner products of columns, (N, K, 1), as (N,)."""
    return np.asarray((first * second).sum(axis=(1, 2)))


def _move(u: Floats, v: Floats) -> Floats:
    """What rows are multiplied by to be as from origins moved by ``u`` and ``v``, (N, 8, 8)."""
    move = np.tile(np.eye(8), (len(u), 1, 1))
    move[:, 0, 1:6] = np.stack([-u, -v, u * u, u * v, v * v], axis=-1)
    move[:, 1, 3:5] = np.stack([-2 * u, -v], axis=-1)
    move[:, 2, 4:6] = np.stack([-u, -2 * v], axis=-1)
    return move


def _fit(places: Sequence[Focused], expected: Expected, rejected: tuple[int, ...]) -> Surface:
    origin, rows, weight, wanted = _told(places, expected.reach_m)
    coefficients, covariance, used, steps = _solve(rows, weight, wanted, expected)
    left = wanted - rows @ coefficients - [steps.at(row)[0] for row in rows]
    # With next to nothing to spare, chance alone makes the misfit large or small.
    freedom = max(1.0, len(places) - used)
    excess = max(1.0, float((weight * left**2).sum()) / freedom)
    return Surface(
        origin=origin,
        reach_m=expected.reach_m,
        coefficients=coefficients,
        covariance=covariance * excess,
        steps=steps,
        rejected=rejected,
        residual_m=math.sqrt(float((left**2).mean())),
        uneven_m2=(excess - 1) / float(weight.mean()),
    )


def _solve(
    rows: Floats, weight: Floats, wanted: Floats, expected: Expected
) -> tuple[Floats, Floats, float, Steps]:
    """Coefficients (7,) and their covariance, how many the places decide, and the steps."""
    prior = _prior(expected)
    # In units of the prior the matrix is well conditioned.
    scaled = rows * prior
    seen = scaled.T @ (scaled * weight[:, np.newaxis])
    covariance = np.linalg.inv(seen + np.eye(prior.size))
    coefficients = prior * (covariance @ (scaled.T @ (weight * wanted)))
    used = float(np.trace(covariance @ seen))
    known = np.asarray(np.outer(prior, prior) * covariance)
    steps = find_steps(rows, weight, wanted - rows @ coefficients, known, expected.step_m)
    return coefficients, known, used + (steps.likeliest is not None), steps


def _prior(expected: Expected) -> Floats:
    """Standard deviations of the coefficients before anything is known, (7,)."""
    tilt_m = expected.slope * expected.reach_m
    return np.array(
        [_ANYWHERE_M, tilt_m, tilt_m, *(3 * [expected.sag_m]), expected.drift_m_per_s or 1e-15]
    )


def _told(places: Sequence[Focused], reach_m: float) -> tuple[Origin, Floats, Floats, Floats]:
    """The origin, and rows (N, 7), weights and working distances from there, (N,)."""
    x_m, y_m, time_s, focus_m, sigma_m = np.array([astuple(place) for place in places]).T
    origin = float(x_m.mean()), float(y_m.mean()), float(time_s.max()), float(focus_m.mean())
    return origin, _rows(origin, reach_m, x_m, y_m, time_s), sigma_m**-2, focus_m - origin[3]


def _rows(origin: Origin, reach_m: float, x_m: Sizes, y_m: Sizes, time_s: Sizes) -> Floats:
    """What the coefficients are multiplied by, (..., 7)."""
    u, v = (x_m - origin[0]) / reach_m, (y_m - origin[1]) / reach_m
    return np.stack([u**0, u, v, u * u, u * v, v * v, time_s - origin[2]], axis=-1)
