"""Where focus is while a specimen drifts, from frames that are taken anyway.

Near focus a frame tells how blurred it is compared with a reference of its field
(`semagent.control.reading`), a square of the defocus, and not in which direction focus lies. The
direction comes from small known moves between the frames and, with astigmatism, from the shape of
the blur: over the last frames

    change of u²      = u² s + level + creep · time          u = place - focus - rate · time
    change of 2 u a_i = 2 u b_i + level_i + creep_i · time

For a focus and a rate this is linear in all that is not known, which is integrated out exactly.
What remains is a density of two numbers, summed on a grid that follows it. It may have several
peaks, where a Kalman filter would have to pick one.

Focus may also jump: a stage settles, a specimen charges. Frames from before a jump count at the
focus they had. They still tell level, creep and s, and nothing more of where focus is.

Lengths are in half depths of field, times in frames; age 0 is the last frame.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from semagent.control.reading import CHANGES
from semagent.control.situation import Seen, Track
from semagent.spectrum import Array

START_STD = 0.4
"""How well focus is known where an autofocus has left it."""
_SCALE, _SCALE_STD, _SCALE_STD_UNKNOWN = 0.8, 0.3, 0.8
"""Of u² in the spectra, against that of a Gaussian beam; discs blur less where it shows."""
_ASTIGMATISM_STD = 0.5
_WALK, _RATE_WALK = 0.02, 0.002
"""How much focus and its drift change from frame to frame."""
_CREEP = 0.02  # of the noise of a frame: how much all readings creep from frame to frame
_READING_STD = 0.08  # error of a reading without any noise
_FAR_SCATTER = 0.4  # of what a reading exceeds 1 by, after a jump: it tells less far from focus
_TYPICAL = 0.5  # defocus at which a wrong path is weighed
_STEADY_STD, _JUMP_STD = 0.15, 2.0  # off what is expected of focus, without a jump and with one
_JUMP_ODDS = 6.0  # logarithm of the ratio of both densities at which a jump is believed
_FIRST_ODDS = 4.0  # the same of two frames, which hardly tell how much defocus blurs here
_KNOWN = 0.5  # standard deviation of what is expected up to which a jump would be told from it
_ACROSS = np.linspace(-3.5, 3.5, 41)
_ALONG = np.linspace(-3.5, 3.5, 13)
_ROUNDS = 3
_LEAST_STD = np.array([0.03, 0.002])


def wander(age: float) -> float:
    """Variance of focus around a steady drift, ``age`` frames away."""
    return _WALK**2 * age + _RATE_WALK**2 * age**3 / 3


def start(drift: float) -> Track:
    """What is known of focus where it was found just now, and may drift so much a frame."""
    return Track(focus=0.0, rate=0.0, covariance=(START_STD**2, 0.0, drift**2))


def predict(track: Track, frames: float) -> Track:
    """What is known so many frames later, without having seen them."""
    ff, fr, rr = track.covariance
    ahead = ff + 2 * frames * fr + frames**2 * rr + wander(frames)
    return Track(
        focus=track.focus + frames * track.rate,
        rate=track.rate,
        covariance=(ahead, fr + frames * rr, rr + _RATE_WALK**2 * frames),
    )


def stacked(seen: Sequence[Seen]) -> tuple[Array, Array]:
    """Changes of frames, shape (N, CHANGES), and their covariance, (N, CHANGES, CHANGES)."""
    covariances = np.array([each.covariance for each in seen])
    return np.array([each.change for each in seen]), covariances.reshape(-1, CHANGES, CHANGES)


def update(told: "Told", begun: Track, begun_age: float, guess: Track) -> Track:
    """What the last frames say.

    Args:
        told: by the frames.
        begun: what was known when following began, or focus had jumped.
        begun_age: when that was.
        guess: about where focus is now: the prediction from what was known before.
    """
    mean = np.array([guess.focus, guess.rate])
    ff, fr, rr = guess.covariance
    covariance = np.array([[ff, fr], [fr, rr]])
    for _ in range(_ROUNDS):
        corner = np.linalg.cholesky(covariance)
        focus = np.repeat(mean[0] + corner[0, 0] * _ACROSS, len(_ALONG))
        rate = (
            mean[1]
            + corner[1, 0] * np.repeat(_ACROSS, len(_ALONG))
            + corner[1, 1] * np.tile(_ALONG, len(_ACROSS))
        )
        log = _before(focus, rate, begun, begun_age)
        log += told.evidence(focus[:, None] - rate[:, None] * told.ages)
        density = np.exp(log - log.max())
        density /= density.sum()
        points = np.stack([focus, rate])
        mean = points @ density
        away = points - mean[:, None]
        covariance = (density * away) @ away.T + np.diag(_LEAST_STD**2)
    return Track(
        focus=float(mean[0]),
        rate=float(mean[1]),
        covariance=(float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])),
    )


def has_jumped(told: "Told", expected: Track) -> bool:
    """Whether the last frame says that focus has jumped since the one before.

    Args:
        told: by the frames.
        expected: what was known of focus before the last frame was seen.
    """
    if expected.std > _KNOWN:
        return False
    path = earlier(expected, told.ages)
    steady, jumped = (
        told.chance(path, math.hypot(expected.std, off)) for off in (_STEADY_STD, _JUMP_STD)
    )
    return jumped - steady > (_JUMP_ODDS if len(told.ages) > 2 else _FIRST_ODDS)


def earlier(track: Track, frames: Array) -> Array:
    """Where focus was so many frames before, on average, shape as ``frames``."""
    return track.focus - track.rate * frames


def after_jump(expected: Track) -> Track:
    """What is known of focus that has jumped away from what was expected of it."""
    ff, fr, rr = expected.covariance
    return msgspec.structs.replace(expected, covariance=(ff + _JUMP_STD**2, fr, rr))


def _before(focus: Array, rate: Array, begun: Track, age: float) -> Array:
    """Logarithm of the density before any frame was seen."""
    ff, _, rr = begun.covariance
    away = focus - rate * age - begun.focus
    turned = rate - begun.rate
    return np.asarray(
        -0.5 * (away**2 / (ff + wander(age)) + turned**2 / (rr + _RATE_WALK**2 * age))
    )


class Told:
    """What all frames tell: changes that defocus makes, a level of each and its steady creep.

    Args:
        seen: the frames; those from before a jump count at the focus they had.
        ages: of the frames, shape (N,).
        slope_known: blur for each half depth of field is known.
    """

    def __init__(self, seen: Sequence[Seen], ages: Array, *, slope_known: bool = True) -> None:
        self.ages = ages
        self._places = np.array([each.place for each in seen])
        self._then = np.array([math.nan if each.focus is None else each.focus for each in seen])
        self._scale_std = _SCALE_STD if slope_known else _SCALE_STD_UNKNOWN
        changes, covariances = stacked(seen)
        stray = np.array([wander(age) for age in ages.tolist()])
        covariances += _READING_STD**2 * np.eye(CHANGES)
        if not np.isnan(self._then).all():
            far = _FAR_SCATTER * np.maximum(np.linalg.norm(changes, axis=1) - 1, 0)
            covariances += (far**2)[:, None, None] * np.eye(CHANGES)
        covariances[:, 0, 0] += (2 * _SCALE * _TYPICAL) ** 2 * stray
        precision = np.asarray(np.linalg.inv(covariances), np.float64)
        self._precision = precision
        self._pull = (precision @ changes[:, :, None])[:, :, 0]
        # Level and creep of each change, in this order.
        times = np.stack([np.ones_like(ages), ages])
        self._across = np.einsum("nij,tn->nitj", precision, times).reshape(-1, CHANGES, 2 * CHANGES)
        rest = np.einsum("nij,tn,un->tiuj", precision, times, times)
        rest = rest.reshape(2 * CHANGES, 2 * CHANGES)
        sharpest = np.diagonal(precision, axis1=1, axis2=2).max(0)
        rest += np.diag([*np.zeros(CHANGES), *(sharpest / _CREEP**2)])
        self._solve = np.linalg.inv(rest)
        self._rest = (times @ self._pull).ravel()

    def chance(self, path: Array, std: float) -> float:
        """Logarithm of the density of the changes if focus is off a path at the last frame.

        Args:
            path: focus at each frame, shape (N,).
            std: how far off it may be.
        """
        paths = np.repeat(path[None], len(_ACROSS), axis=0)
        paths[:, -1] += std * _ACROSS
        log = self.evidence(paths) - 0.5 * _ACROSS**2
        return float(log.max() + np.log(np.exp(log - log.max()).mean()))

    def evidence(self, paths: Array) -> Array:
        """Logarithm of the density of the changes, with all but focus integrated out.

        Args:
            paths: focus at each frame on each path, in half depths of field, shape (M, N).

        Returns:
            Shape (M,), up to a constant.
        """
        defocus = self._places - np.where(np.isnan(self._then), paths, self._then)
        made = (defocus * defocus, 2 * defocus, 2 * defocus)
        rows = range(CHANGES)
        gram = np.array(
            [[made[i] * made[j] @ self._precision[:, i, j] for j in rows] for i in rows]
        )
        across = np.stack([made[i] @ self._across[:, i] for i in rows], axis=1)
        pull = np.stack([made[i] @ self._pull[:, i] for i in rows], axis=1)
        prior = np.array([self._scale_std, _ASTIGMATISM_STD, _ASTIGMATISM_STD]) ** -2
        solved = across @ self._solve
        gram = gram.transpose(2, 0, 1) - solved @ across.transpose(0, 2, 1) + np.diag(prior)
        pull += prior * (_SCALE, 0.0, 0.0) - solved @ self._rest
        fitted = np.linalg.solve(gram, pull[:, :, None])[:, :, 0]
        return np.asarray(0.5 * ((pull * fitted).sum(1) - np.linalg.slogdet(gram)[1]))
