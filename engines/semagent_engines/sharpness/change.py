"""How the blur changed between two frames of one field, from both spectra at once.

The model of `semagent_engines.sharpness.ellipse` with one specimen for both frames. Its
deviations from a power law, by far the largest error of a single reading, are the same in both
and cancel (the idea of C. Binding, S. Mikula, W. Denk, Microscopy and Microanalysis 19, 2013): in
each polar bin the errors of the two log powers have the covariance::

    SPECIMEN_SCATTER² u uᵀ + diag(counting + transfer),    u = share of the signal in the power

The beam may be anything between a disc and a normal distribution: the logarithm of the transfer is
taken between those of both, as far as ``softness`` says, which is fitted along.

The fit is a maximum a posteriori one by Gauss-Newton steps from all pairs of starting blurs.
"""

from dataclasses import dataclass

import numpy as np

from semagent.spectrum import Array, Spectrum
from semagent.transfer import log_disc_transfer
from semagent_engines.sharpness.ellipse import (
    LARGEST_E,
    NOISE_SCATTER,
    PRIOR_MEAN,
    PRIOR_STD,
    RING_SMOOTHING,
    Bins,
)
from semagent_engines.sharpness.reading import FAINTEST

SPECIMEN_SCATTER = 2.0
"""Standard deviation of the log of the specimen's spectrum about a power law: as good as free."""

OWN_CONTENT = 0.3
"""Share of the specimen's own scatter that is not the same in both frames: they drifted apart."""

RING_SCATTER = 0.05
"""Error of the log of the transfer for every unit of q, as no beam is a perfect disc ..."""
MOST_SCATTER_AT = 8.0
"""... up to this q."""

INFLATION = 1.3
"""True errors over those of the normal approximation, on noisy and partly soft micrographs."""

SOFTNESS_STD = 1.0
"""Of the softness, from 0 for a disc, the likeliest, to 1 for a normal distribution."""
_SOFT_UP_TO = 30.0  # of q: beyond, there is no signal

STARTS_PX = (0.7, 1.8, 4.0, 8.0, 15.0)
STEPS = 12

_FALL, _BLURS, _SOFTNESS = 2, (slice(3, 6), slice(6, 9)), 9
"""Of the parameters: the levels of both frames, β, ln σ, e1, e2 of each frame, and softness."""
_LEVEL_FALL, _BLUR = [0, 0, 1], [2, 3, 4]
_MEAN = np.append(PRIOR_MEAN[_LEVEL_FALL + 2 * _BLUR], 0.0)
_STD = np.append(PRIOR_STD[_LEVEL_FALL + 2 * _BLUR], SOFTNESS_STD)
_LARGEST_STEP = np.array([3.0, 3.0, 0.5, 0.5, 0.2, 0.2, 0.5, 0.2, 0.2, 0.3])


@dataclass(frozen=True, slots=True, eq=False)
class SpectralChange:
    """Difference of the blur covariances, second frame minus first.

    Attributes:
        difference_px2: (3,), round part (xx + yy) / 2, axial part (xx - yy) / 2, diagonal xy.
        std_px2: (3,), standard deviations.
    """

    difference_px2: Array
    std_px2: Array


def fit_blur_change(first: Spectrum, second: Spectrum) -> SpectralChange:
    """The change that fits best. Both spectra are of tiles of one size."""
    parameters, covariance = _descend((Bins.of(first), Bins.of(second)))
    parts, slopes = [], []
    for blur in _BLURS:
        log_spread, e1, e2 = parameters[blur]
        variance = np.exp(2 * log_spread)
        parts.append(variance * np.array([1.0, e1, e2]))
        slopes.append(variance * np.array([[2.0, 0, 0], [2 * e1, 1.0, 0], [2 * e2, 0, 1.0]]))
    rows = np.concatenate([-slopes[0], slopes[1]], axis=1)
    blurs = slice(_BLURS[0].start, _BLURS[1].stop)
    spread = rows @ covariance[blurs, blurs] @ rows.T
    return SpectralChange(parts[1] - parts[0], INFLATION * np.sqrt(np.diag(spread)))


def _descend(bins: tuple[Bins, Bins]) -> tuple[Array, Array]:
    """Parameters of the best fit and their covariance; first axis of all arrays: the start."""
    layout = bins[0].layout
    log_power = np.array([each.log_power for each in bins])
    noise = np.array([each.noise for each in bins])
    clean = np.clip(1 - noise / np.exp(log_power), 0.0, 1.0)
    counting = np.array([each.scatter - NOISE_SCATTER**2 for each in bins])
    scatter = counting * (1 - (1 - OWN_CONTENT) * clean**2) + NOISE_SCATTER**2
    parameters = _starts(bins)
    count = len(parameters)
    slopes = np.zeros((count, parameters.shape[1], *log_power.shape))
    residual, share, own = (np.empty((count, *log_power.shape)) for _ in range(3))
    precision = np.diag(1 / _STD**2)
    for _ in range(STEPS):
        for frame, blur in enumerate(_BLURS):
            log_spread, e = parameters[:, blur.start], parameters[:, blur.start + 1 : blur.stop]
            shape = np.exp(2 * log_spread)[:, None, None] * layout.quadratic
            q = np.maximum(shape[:, 0] + (e[:, :, None] * shape[:, 1:]).sum(axis=1), FAINTEST)
            transfer, slope = log_disc_transfer(q, RING_SMOOTHING)
            softness = parameters[:, _SOFTNESS, None]
            softer = -np.minimum(q, _SOFT_UP_TO) - transfer
            slope = slope + softness * (np.where(q < _SOFT_UP_TO, -q, 0.0) - slope)
            transfer = transfer + softness * softer
            level, fall = parameters[:, frame, None], parameters[:, _FALL, None]
            signal = np.exp(level - fall * layout.log_k + transfer)
            model = signal + noise[frame]
            visible = signal / model
            slopes[:, frame, frame] = visible
            slopes[:, _FALL, frame] = -layout.log_k * visible
            slopes[:, blur.start, frame] = 2 * slope * visible
            slopes[:, blur.start + 1 : blur.stop, frame] = (slope / q * visible)[:, None] * shape[
                :, 1:
            ]
            residual[:, frame] = log_power[frame] - np.log(model)
            slopes[:, _SOFTNESS, frame] = softer * visible
            share[:, frame] = visible
            error = RING_SCATTER * np.minimum(q, MOST_SCATTER_AT) * visible
            own[:, frame] = scatter[frame] + error**2
        # The inverse of diag(own) + u uᵀ, bin by bin (Sherman and Morrison).
        common = SPECIMEN_SCATTER * share / own
        norm = 1 + (SPECIMEN_SCATTER * share * common).sum(axis=1)
        along = (slopes * common[:, None]).sum(axis=2) / norm[:, None]
        weighted = slopes / own[:, None] - along[:, :, None] * common[:, None]
        weighted = weighted.reshape(count, len(_MEAN), -1)
        off = parameters - _MEAN
        hessian = weighted @ slopes.reshape(count, len(_MEAN), -1).transpose(0, 2, 1) + precision
        gradient = (weighted @ residual.reshape(count, -1, 1))[:, :, 0] - off @ precision
        cost = (residual**2 / own + np.log(own)).sum(axis=(1, 2))
        cost += (np.log(norm) - (residual * common).sum(axis=1) ** 2 / norm).sum(axis=1)
        cost += (off @ precision * off).sum(axis=1)
        best = int(cost.argmin())
        result = parameters[best].copy(), np.linalg.inv(hessian[best])
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        parameters += np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
        parameters[:, _SOFTNESS] = np.clip(parameters[:, _SOFTNESS], 0.0, 1.0)
        for blur in _BLURS:
            e = parameters[:, blur.start + 1 : blur.stop]
            e /= np.maximum(np.hypot(e[:, :1], e[:, 1:]) / LARGEST_E, 1.0)
    return result


def _starts(bins: tuple[Bins, Bins]) -> Array:
    """All pairs of starting blurs, with levels that pass through the strongest bins."""
    blurs = np.array([(one, other) for one in STARTS_PX for other in STARTS_PX])
    parameters = np.tile(_MEAN, (len(blurs), 1))
    for frame, blur in enumerate(_BLURS):
        parameters[:, blur.start] = np.log(blurs[:, frame])
        parameters[:, frame] = bins[frame].level(blurs[:, frame])
    return parameters
