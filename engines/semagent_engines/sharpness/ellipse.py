"""The blur ellipse of one frame, from the shape of its power spectrum.

The spectrum of a specimen is taken as a power law that bends a little and is stronger in some
directions, so that the model of a frame is::

    P = exp(a - β ln k + w1 cos 2φ + w2 sin 2φ + b ln² (k / k0)) T(q) + N
    q = k² σ² (1 + e1 cos 2φ + e2 sin 2φ)

with N the noise and T the squared transfer of a uniform disc, the blur of a defocused beam, with
covariance ``σ² [[1 + e1, e2], [e2, 1 - e1]]``. Until q is about 1 it equals exp(-q), that of any
blur of this covariance; beyond, the disc's rings are smoothed to their mean.
Directions of a specimen differ at all frequencies alike, those of a blur the more the higher the
frequency is: that tells them apart, as far as one frame does.
The fit to the logarithm of P is a maximum a posteriori one by damped Gauss-Newton steps. The
error of the model, by far the largest, is the scatter of real spectra about a power law.

A single frame cannot tell a soft specimen from a soft image: the error is mostly a bias of the
specimen, common to all frames of one field, and ``log_sigma`` says how large it may be. Nor does it
tell how a beam spreads: beams that are no discs are allowed for in ``log_sigma``, too. A spectrum
that no blur of such a specimen explains, as of text or a lattice, makes it larger, by the factor of
Birge (R. T. Birge, Phys. Rev. 40, 1932).
"""

from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np

from semagent.polar import PolarBins
from semagent.spectrum import STREAK_COLUMNS, Array, Spectrum, grid_of
from semagent.transfer import log_disc_transfer
from semagent.types import BlurEllipse
from semagent_engines.sharpness.reading import FAINTEST

RADII = 32
SECTORS = 16
HIGHEST_RAD = 0.8 * np.pi
"""Beyond, interpolation and detectors shape the spectrum more than focus does."""

RING_SMOOTHING = 0.13
"""Of `log_disc_transfer`, for bins of these widths."""

MODEL_SCATTER = 0.8
"""Standard deviation of the logarithm of a polar bin of real spectra about the model."""

NOISE_SCATTER = 0.03
"""The same for the noise: it is never exactly white."""

SPECIMEN_BIAS = 0.15
"""Standard deviation of the log of the axes that is common to all frames of a field.

Chosen, with the next, so that the 90 % interval holds on the worst source of micrographs, not on
their mean: a user's specimen is a source that nobody has seen.
"""

PROFILE_BIAS = 0.15
"""The same of beams that are no discs; a normal distribution is read a quarter too small."""

SPECIMEN_BLUR_PX2 = 0.8
"""Blur variance by which specimens differ when sharp: swamps the reading near focus."""

PRIOR_MEAN = np.array([0.0, 3.0, np.log(3.0), 0.0, 0.0, 0.0, 0.0, 0.0])
PRIOR_STD = np.array([20.0, 0.8, 1.2, 0.4, 0.4, 0.5, 0.5, 0.2])
"""Of a, β, ln(σ / px), e1, e2, w1, w2 and b; sharp micrographs have w of 0.2 to 0.4."""
PLAIN = 5
"""So many of them make up a plain power law that is alike in all directions."""
BEND_RAD = 0.7
"""Frequency k0 about which it bends."""

STARTS_PX = (0.7, 1.4, 2.8, 5.0, 8.0, 12.0, 18.0)
STEPS, MORE_STEPS = 12, 8
LARGEST_STEP = np.array([3.0, 0.5, 0.5, 0.2, 0.2, 0.5, 0.5, 0.5])
LARGEST_E = 0.9
"""At 1, the minor axis would vanish."""


def fit_blur_ellipse(spectrum: Spectrum) -> BlurEllipse:
    """The ellipse that fits best. The frame must have structure above its noise."""
    bins = Bins.of(spectrum)
    parameters, covariance, misfit = _descend(bins)
    log_spread, e1, e2 = parameters[2:5]
    ellipticity = float(np.hypot(e1, e2))
    spread = float(np.exp(log_spread))
    major, minor = spread * (1 + ellipticity) ** 0.5, spread * (1 - ellipticity) ** 0.5
    variances = np.diag(covariance)
    of_axes = variances[2] + variances[3:5].mean() / (4 * (1 - ellipticity**2))
    of_specimen = SPECIMEN_BIAS**2 + (SPECIMEN_BLUR_PX2 / (major * minor)) ** 2
    of_beam = PROFILE_BIAS**2
    angle = float(np.arctan2(e2, e1)) / 2
    return BlurEllipse(
        major_px=major,
        minor_px=minor,
        angle_rad=angle if angle > -np.pi / 2 else np.pi / 2,
        log_sigma=float((of_axes + of_specimen + of_beam) * max(1.0, misfit)) ** 0.5,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """The polar bins and where they are.

    Attributes:
        bins: which frequencies belong to each.
        log_k: of the bins.
        quadratic: k², k² cos 2φ and k² sin 2φ of the bins.
        shapes: what w1, w2 and b multiply.
    """

    bins: PolarBins
    log_k: Array
    quadratic: Array
    shapes: Array


@cache
def _layout(size: int) -> _Layout:
    grid = grid_of(size)
    usable = (grid.share > 0) & (grid.k <= HIGHEST_RAD)
    usable[:, :STREAK_COLUMNS] = False
    used = np.flatnonzero(usable)
    k = grid.k.ravel()[used]
    angle = np.arctan2(*np.broadcast_arrays(grid.ky, grid.kx)).ravel()[used]
    ring = np.log(k / k.min()) / np.log(HIGHEST_RAD / k.min()) * RADII
    sector = np.mod(angle / np.pi, 1.0) * SECTORS
    polar = np.minimum(ring.astype(int), RADII - 1) * SECTORS + sector.astype(int)
    _, index = np.unique(polar, return_inverse=True)
    bins = PolarBins.of(grid, used, index, int(index.max()) + 1)
    planes = (grid.k**2, grid.kx**2 - grid.ky**2, 2 * grid.kx * grid.ky)
    log_k = bins.mean(np.log(np.maximum(grid.k, FAINTEST)))
    quadratic = np.array([bins.mean(plane) for plane in planes])
    shapes = [*(quadratic[1:] / quadratic[0]), (log_k - np.log(BEND_RAD)) ** 2]
    return _Layout(bins=bins, log_k=log_k, quadratic=quadratic, shapes=np.array(shapes))


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """What was measured in each polar bin."""

    layout: _Layout
    log_power: Array
    noise: Array
    scatter: Array

    @classmethod
    def of(cls, spectrum: Spectrum) -> Self:
        """Those of one frame."""
        layout = _layout(spectrum.grid.size)
        power = layout.bins.mean(spectrum.power)
        modes = layout.bins.share * spectrum.pixels / 2
        return cls(
            layout=layout,
            log_power=np.log(np.maximum(power, FAINTEST**2)),
            noise=layout.bins.mean_of_columns(spectrum.noise),
            scatter=1 / modes + NOISE_SCATTER**2,
        )

    def level(self, sigma_px: Array) -> Array:
        """Levels ``a`` at which spectra with round blurs pass through the strongest bins.

        Args:
            sigma_px: the blurs, shape (N,), as the levels are.
        """
        shape = np.square(sigma_px)[:, None] * self.layout.quadratic[0]
        transfer, _ = log_disc_transfer(shape, RING_SMOOTHING)
        strong = self.log_power >= np.quantile(self.log_power, 0.7)
        above = self.log_power + PRIOR_MEAN[1] * self.layout.log_k - transfer
        return np.asarray(np.median(above[:, strong], axis=1))


def _descend(bins: Bins) -> tuple[Array, Array, float]:
    """Parameters of the best fit, their covariance, and its reduced chi-square.

    From several starting blurs at once, as the rings make for several minima; at first with a plain
    power law, since all eight parameters together converge slowly.
    """
    starts = np.tile(PRIOR_MEAN[:PLAIN], (len(STARTS_PX), 1))
    starts[:, 2] = np.log(STARTS_PX)
    starts[:, 0] = bins.level(np.array(STARTS_PX))
    plain, _, _ = _improve(bins, starts, STEPS)
    return _improve(bins, np.concatenate([plain, PRIOR_MEAN[PLAIN:]])[None], MORE_STEPS)


def _improve(bins: Bins, parameters: Array, steps: int) -> tuple[Array, Array, float]:
    """The best of the starts after Gauss-Newton steps, its covariance and its misfit.

    Steps are limited to what the linearised model bears.

    Args:
        bins: what was measured.
        parameters: all or the first `PLAIN`, to start from; one start a row.
        steps: how many to take.
    """
    largest = LARGEST_STEP[: parameters.shape[1]]
    for _ in range(steps):
        _, hessian, gradient, _ = _linearised(bins, parameters)
        move = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        parameters = parameters + np.clip(move, -largest, largest)
        excess = np.hypot(parameters[:, 3], parameters[:, 4]) / LARGEST_E
        parameters[:, 3:5] /= np.maximum(excess, 1.0)[:, None]
    cost, hessian, _, misfit = _linearised(bins, parameters)
    best = int(cost.argmin())
    return parameters[best], np.linalg.inv(hessian[best]), float(misfit[best])


def _linearised(bins: Bins, parameters: Array) -> tuple[Array, Array, Array, Array]:
    """Cost, half its Hessian, half its gradient downhill, and misfit, for each row of parameters.

    The misfit is the mean squared residual in units of its variance, where the specimen is seen
    above the noise.
    """
    layout, count = bins.layout, parameters.shape[1]
    shapes, mean, std = layout.shapes[: count - PLAIN], PRIOR_MEAN[:count], PRIOR_STD[:count]
    variance_px2 = np.exp(2 * parameters[:, 2])[:, None]
    q = variance_px2 * (layout.quadratic[0] + parameters[:, 3:5] @ layout.quadratic[1:])
    transfer, slope = log_disc_transfer(q, RING_SMOOTHING)
    fall = slope / np.maximum(q, FAINTEST)
    power_law = parameters[:, :1] - parameters[:, 1:2] * layout.log_k
    blurred = np.exp(power_law + parameters[:, PLAIN:] @ shapes + transfer)
    model = blurred + bins.noise
    visible = blurred / model
    slopes = np.empty((*parameters.shape, len(bins.log_power)))
    slopes[:, 0] = 1.0
    slopes[:, 1] = -layout.log_k
    slopes[:, 2] = 2 * q * fall
    slopes[:, 3:5] = (fall * variance_px2)[:, None] * layout.quadratic[1:]
    slopes[:, PLAIN:] = shapes
    slopes *= visible[:, None]
    variance = bins.scatter + (MODEL_SCATTER * visible) ** 2
    residual = bins.log_power - np.log(model)
    off = parameters - mean
    weighted = slopes / variance[:, None]
    hessian = weighted @ slopes.transpose(0, 2, 1) + np.diag(std**-2)
    gradient = (weighted @ residual[:, :, None])[:, :, 0] - off / std**2
    deviation = residual**2 / variance
    cost = (deviation + np.log(variance)).sum(axis=1)
    cost += np.square(off / std).sum(axis=1)
    seen = visible**2
    misfit = (seen * deviation).sum(axis=1) / np.maximum(seen.sum(axis=1), FAINTEST)
    return cost, hessian, gradient, misfit
