"""Where focus is over the specimen: a surface fitted to a few places, with its uncertainty.

A Bayesian linear regression of the focal working distance on plane, curvature and a steady drift.
How strongly a specimen is tilted, bent and drifting is limited by what is expected of it, so that
one place gives a prediction already, with an honest uncertainty, and many decide by themselves
whether there is a curvature. A place that contradicts all the others is left out: there was dust,
or a hole.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

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
    """

    slope: float
    sag_m: float
    drift_m_per_s: float
    reach_m: float


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A fitted surface.

    Attributes:
        origin: x, y and working distance in the middle of the places, and the time of the last:
            (x_m, y_m, time_s, working_distance_m).
        reach_m: length by which x and y are divided.
        coefficients: constant, slopes along x and y, curvatures, and drift, shape (7,).
        covariance: of these, shape (7, 7).
        rejected: indices of the places that were left out.
        residual_m: root mean square of what the fit leaves at the others.
    """

    origin: tuple[float, float, float, float]
    reach_m: float
    coefficients: Floats
    covariance: Floats
    rejected: tuple[int, ...]
    residual_m: float

    def at(self, x_m: float, y_m: float, time_s: float) -> tuple[float, float]:
        """Focal working distance and its standard deviation."""
        row = _row(self.origin, self.reach_m, x_m, y_m, time_s)
        return (
            self.origin[3] + float(row @ self.coefficients),
            math.sqrt(float(row @ self.covariance @ row)),
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
        return (
            float(self.coefficients[1]) / self.reach_m,
            float(self.coefficients[2]) / self.reach_m,
        )

    @property
    def sag_m(self) -> tuple[float, float, float]:
        """Curvature along x, twist and curvature along y, over ``reach_m``."""
        first, second, third = self.coefficients[3:6]
        return float(first), float(second), float(third)

    @property
    def drift_m_per_s(self) -> float:
        """Drift of focus."""
        return float(self.coefficients[6])


def nearest(x_m: float, y_m: float, places: Sequence[Focused]) -> int:
    """Index of the nearest place; of several, the last that was focused."""
    away = [math.hypot(place.x_m - x_m, place.y_m - y_m) for place in places]
    return len(away) - 1 - away[::-1].index(min(away))


def fit_surface(places: Sequence[Focused], expected: Expected) -> Surface:
    """Fit a surface to one place or more."""
    if not places:
        raise ValueError("a surface needs one place at least")
    kept = list(range(len(places)))
    most = math.floor(_MOST_OUTLIERS * len(places))
    while len(places) - len(kept) < most:
        worst, contradiction = max(
            ((index, _contradiction(places, kept, index, expected)) for index in kept),
            key=lambda pair: pair[1],
        )
        if contradiction < _OUTLIER:
            break
        kept.remove(worst)
    rejected = tuple(index for index in range(len(places)) if index not in kept)
    return _fit([places[index] for index in kept], expected, rejected)


def _contradiction(
    places: Sequence[Focused], kept: Sequence[int], index: int, expected: Expected
) -> float:
    """By how many standard deviations a place differs from what the others predict."""
    others = [places[other] for other in kept if other != index]
    if not others:
        return 0.0
    place = places[index]
    predicted_m, sigma_m = _fit(others, expected, ()).at(place.x_m, place.y_m, place.time_s)
    return abs(place.working_distance_m - predicted_m) / math.hypot(sigma_m, place.sigma_m)


def _fit(places: Sequence[Focused], expected: Expected, rejected: tuple[int, ...]) -> Surface:
    sizes = np.array([[p.x_m, p.y_m, p.time_s, p.working_distance_m] for p in places])
    mean_x, mean_y, _, mean_m = sizes.mean(axis=0)
    origin = (float(mean_x), float(mean_y), float(sizes[:, 2].max()), float(mean_m))
    reach_m = expected.reach_m
    rows = np.array([_row(origin, reach_m, p.x_m, p.y_m, p.time_s) for p in places])
    tilt_m = expected.slope * reach_m
    prior = np.array(
        [_ANYWHERE_M, tilt_m, tilt_m, *(3 * [expected.sag_m]), expected.drift_m_per_s or 1e-15]
    )
    weight = np.array([p.sigma_m for p in places]) ** -2
    wanted = sizes[:, 3] - origin[3]
    # In units of the prior the matrix is well conditioned.
    scaled = rows * prior
    covariance = np.linalg.inv(scaled.T @ (scaled * weight[:, np.newaxis]) + np.eye(prior.size))
    solution = covariance @ (scaled.T @ (weight * wanted))
    left = wanted - scaled @ solution
    used = float(np.trace(covariance @ (scaled.T @ (scaled * weight[:, np.newaxis]))))
    # With next to nothing to spare, chance alone makes the misfit large or small.
    freedom = max(1.0, len(places) - used)
    excess = max(1.0, float((weight * left**2).sum()) / freedom)
    return Surface(
        origin=origin,
        reach_m=reach_m,
        coefficients=prior * solution,
        covariance=np.outer(prior, prior) * covariance * excess,
        rejected=rejected,
        residual_m=math.sqrt(float((left**2).mean())),
    )


def _row(
    origin: tuple[float, float, float, float], reach_m: float, x_m: float, y_m: float, time_s: float
) -> Floats:
    u, v = (x_m - origin[0]) / reach_m, (y_m - origin[1]) / reach_m
    return np.array([1.0, u, v, u * u, u * v, v * v, time_s - origin[2]])
