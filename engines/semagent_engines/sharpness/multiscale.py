"""The engine's own focus measure, and how much structure a frame has to focus on.

The measure is the mean squared gradient of the specimen, as seen after smoothing to several
scales, over the variance of its brightness::

    M = sum_s  s · A_s · r_s² / (1 + r_s²)  /  V,      A_s = <k² exp(-k² s²) (P - N)>

with P the power spectrum, N that of the noise, V the variance of the frame without its noise,
and ``r_s`` the gradient energy ``A_s`` over ten times its uncertainty.

- A brightness offset is not in P; a gain cancels in the ratio; a shift of the image only brings
  other parts of the field into view.
- For a specimen whose spectrum falls with a power of k, each ``A_s`` falls like a power of the
  blur once that exceeds s: there is a slope at any defocus.
- Noise is subtracted, and what is left of a scale fades out where it no longer stands clear of
  the error of that subtraction. A fine scale would otherwise drown the coarse ones far from
  focus.
"""

from dataclasses import dataclass
from functools import cache
from typing import Self

import cv2
import numpy as np

from semagent.spectrum import STREAK_COLUMNS, Array, Grid, Spectrum, grid_of
from semagent.types import Pixels
from semagent_engines.sharpness.reading import FAINTEST, Reading

SCALES_PX = (1.0, 2.0, 4.0, 8.0)

SIGNIFICANCE = 10.0
"""A scale counts half where it is this many standard deviations above nothing."""

NOISE_MODEL_ERROR = 0.02
"""Relative error allowed for the noise power itself: no detector's noise is exactly white."""

STRUCTURE_BANDS_PX = ((16.0, 128.0), (4.0, 16.0))
"""Wavelengths between which structure is looked for, coarse and fine."""


def multiscale_gradient(pixels: Pixels, spectrum: Spectrum) -> Reading:
    """The measure of this module and its scatter from noise."""
    weights = _weights(spectrum.grid.size)
    energies, floor = weights.direct.signal_and_noise(spectrum)
    scatter = spectrum.grid.folded(spectrum.scatter).ravel()
    covariance = np.einsum("ijf,f->ij", weights.scatter, scatter) * (2 / spectrum.pixels)
    error = np.maximum(np.sqrt(np.diag(covariance)), NOISE_MODEL_ERROR * floor)

    certainty = np.square(np.maximum(energies, 0.0) / np.maximum(SIGNIFICANCE * error, FAINTEST))
    scales = np.array(SCALES_PX)
    total = float((scales * energies * certainty / (1 + certainty)).sum())
    slopes = scales * certainty * (3 + certainty) / (1 + certainty) ** 2
    total_std = float(np.sqrt(slopes @ covariance @ slopes))

    variance, variance_std = specimen_variance(pixels, spectrum)
    shared = float(slopes @ np.einsum("sf,f->s", weights.noise_free, scatter)) * 2 / pixels.size
    if total <= total_std:
        # Nothing stands out of the noise: report the least that could have been seen.
        total = total_std = float((scales * error).sum()) + FAINTEST
        shared = 0.0
    parts = (total_std / total) ** 2 + (variance_std / variance) ** 2
    common = 2 * shared / (total * variance)
    return Reading(value=total / variance, relative_std=max(parts - common, parts / 10) ** 0.5)


def specimen_variance(pixels: Pixels, spectrum: Spectrum) -> tuple[float, float]:
    """Variance of the brightness without noise, and its standard deviation from noise."""
    deviation = float(cv2.meanStdDev(pixels)[1].item()) / np.iinfo(pixels.dtype).max
    noise = spectrum.noise_std**2
    variance = max(deviation**2 - noise, 0.0)
    std = float(np.sqrt((4 * variance * noise + 2 * noise**2) / pixels.size))
    return max(variance, std, FAINTEST), max(std, FAINTEST)


def structure_over_noise(spectrum: Spectrum) -> float:
    """Variance of structure over that of noise, in the band where it stands out most.

    Within a band all octaves count the same (weights of 1/k²). Streaks along the scan lines
    are left out: they come from charging or the beam, not from the specimen.
    """
    signal, noise = _structure_bands(spectrum.grid.size).signal_and_noise(spectrum)
    return max(0.0, float((signal / np.maximum(noise, FAINTEST)).max()))


@dataclass(frozen=True, slots=True, eq=False)
class _Means:
    """Weighted means over all frequencies of power and of noise, a weight each row.

    Attributes:
        power: weights of the folded power, shape (weights, bins).
        noise: weights of the noise by frequency along x, shape (weights, columns).
    """

    power: Array
    noise: Array

    @classmethod
    def of(cls, grid: Grid, planes: list[Array]) -> Self:
        """The same weight at +ky and at -ky is asked of every plane, shape as the power's."""
        shared = [grid.share * plane for plane in planes]
        half = grid.size // 2 + 1
        return cls(
            power=np.array([plane[:half].ravel() for plane in shared]),
            noise=np.array([plane.sum(axis=0) for plane in shared]),
        )

    def signal_and_noise(self, spectrum: Spectrum) -> tuple[Array, Array]:
        """Means of the power less the noise, and of the noise."""
        # Not matrix products: their threads wait for each other, far longer than these take.
        noise = np.einsum("wc,c->w", self.noise, spectrum.noise[0])
        power = spectrum.grid.folded(spectrum.power).ravel()
        return np.einsum("wf,f->w", self.power, power) - noise, noise


@dataclass(frozen=True, slots=True, eq=False)
class _Weights:
    """What the scales are sums of.

    Attributes:
        direct: of power less noise, a scale each row.
        noise_free: the same of raw power with the noise taken off it, for folded planes.
        scatter: products of two rows, shape (scales, scales, bins).
    """

    direct: _Means
    noise_free: Array
    scatter: Array


@cache
def _weights(size: int) -> _Weights:
    grid, half = grid_of(size), size // 2 + 1
    planes = [grid.k**2 * np.exp(-(grid.k**2) * scale**2) for scale in SCALES_PX]
    free = np.array([grid.without_noise(plane)[:half].ravel() for plane in planes])
    shared = free * grid.share[:half].ravel()
    return _Weights(
        direct=_Means.of(grid, planes), noise_free=shared, scatter=free[:, None] * shared
    )


@cache
def _structure_bands(size: int) -> _Means:
    grid = grid_of(size)
    bands = [_band(grid, 2 * np.pi / long, 2 * np.pi / short) for short, long in STRUCTURE_BANDS_PX]
    return _Means.of(grid, bands)


def _band(grid: Grid, low: float, high: float) -> Array:
    band = np.where((grid.k >= low) & (grid.k <= high), 1 / np.maximum(grid.k, low) ** 2, 0.0)
    band[:, :STREAK_COLUMNS] = 0.0
    return band
