"""Focus measures by name.

Besides the engine's own `multiscale_gradient`, the measures of the literature, as defined in
S. Pertuz, D. Puig, M. A. Garcia, Pattern Recognition 46, 2013, and, for electron microscopes,
M. E. Rudnaya, R. M. M. Mattheij, J. M. L. Maubach, Journal of Microscopy 240, 2010. These are
baselines and are left as they are: brightness, contrast and noise move them.

All are positive and grow with sharpness. Grey values are fractions of the full scale. But for
the entropy they are means of squares of a filtered frame, which makes their scatter from noise
a sum over the power spectrum (see `Spectrum.variance_of_mean`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from semagent.spectrum import Array, Grid, Spectrum
from semagent.types import Pixels
from semagent_engines.sharpness.multiscale import multiscale_gradient, specimen_variance
from semagent_engines.sharpness.reading import FAINTEST, Reading

SMOOTHING_PX = 2.0
"""Standard deviation of the smoothing before ``smoothed_tenengrad``."""

DEFAULT_MEASURE = "multiscale_gradient"

CLEAR = 4.0
"""A value counts half in the score where it is this many standard deviations above nothing."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A focus measure.

    Attributes:
        read: its reading of pixels, shape (height, width), with their spectrum.
        half: value at which the focus score is one half: the median over micrographs blurred
            by 6 px (standard deviation).
    """

    read: Callable[[Pixels, Spectrum], Reading]
    half: float

    def score(self, reading: Reading) -> float:
        """Focus score in [0, 1]: grows with the value, one half at ``half``.

        A value that noise alone could give, as of a blank frame, scores next to 0.
        """
        clear = reading.value / (1 + (CLEAR * reading.relative_std) ** 4)
        return 1 / (1 + (self.half / clear) ** 2)


def variance_of_laplacian(pixels: Pixels, spectrum: Spectrum) -> Reading:
    """Variance of the 4-neighbour Laplacian."""
    laplacian = cv2.Laplacian(_grey(pixels), cv2.CV_32F)
    return _quadratic(
        float(cv2.meanStdDev(laplacian)[1].item()) ** 2,
        _laplacian_gain(spectrum.grid),
        pixels,
        spectrum,
    )


def tenengrad(pixels: Pixels, spectrum: Spectrum) -> Reading:
    """Mean squared Sobel gradient."""
    return _quadratic(_sobel_energy(_grey(pixels)), _sobel_gain(spectrum.grid), pixels, spectrum)


def smoothed_tenengrad(pixels: Pixels, spectrum: Spectrum) -> Reading:
    """Mean squared Sobel gradient after Gaussian smoothing."""
    smooth = cv2.GaussianBlur(_grey(pixels), (0, 0), SMOOTHING_PX)
    return _quadratic(_sobel_energy(smooth), _smoothed_sobel_gain(spectrum.grid), pixels, spectrum)


def brenner(pixels: Pixels, spectrum: Spectrum) -> Reading:
    """Mean squared difference of pixels two apart along the scan line."""
    grey = _grey(pixels)
    return _quadratic(
        _mean_square(grey[:, 2:] - grey[:, :-2]), _brenner_gain(spectrum.grid), pixels, spectrum
    )


def normalised_variance(pixels: Pixels, spectrum: Spectrum) -> Reading:
    """Variance over mean."""
    mean, deviation = (float(figure.item()) for figure in cv2.meanStdDev(_grey(pixels)))
    _, std = specimen_variance(pixels, spectrum)
    mean = max(mean, FAINTEST)
    return Reading.of(deviation**2 / mean, std / mean)


def vollath_f4(pixels: Pixels, spectrum: Spectrum) -> Reading:
    """Autocorrelation at one pixel less that at two, along the scan line."""
    grey = _grey(pixels)
    grey = grey - grey.mean()
    near = float((grey[:, :-2] * grey[:, 1:-1]).mean())
    far = float((grey[:, :-2] * grey[:, 2:]).mean())
    return _quadratic(near - far, _vollath_gain(spectrum.grid), pixels, spectrum)


def spectral_entropy(_pixels: Pixels, spectrum: Spectrum) -> Reading:
    """Shannon entropy of the power spectrum, as a fraction of that of white noise.

    Noise is the whitest there is: on noisy frames the measure grows with defocus.
    """
    share = spectrum.grid.share / spectrum.grid.share.sum()
    density = spectrum.power + FAINTEST
    total = float((share * density).sum())
    log_density = np.log(density / total)
    relative = float((share * density * log_density).sum()) / total
    most = float(np.log(np.count_nonzero(share)))
    std = np.sqrt(spectrum.variance_of_mean(relative - log_density, spectrum.pixels)) / total
    return Reading.of(1 - relative / most, float(std) / most)


MEASURES: dict[str, Measure] = {
    DEFAULT_MEASURE: Measure(multiscale_gradient, half=0.05),
    "variance_of_laplacian": Measure(variance_of_laplacian, half=0.084),
    "tenengrad": Measure(tenengrad, half=0.1),
    "smoothed_tenengrad": Measure(smoothed_tenengrad, half=0.0039),
    "brenner": Measure(brenner, half=0.0085),
    "normalised_variance": Measure(normalised_variance, half=0.032),
    "vollath_f4": Measure(vollath_f4, half=3.5e-5),
    "spectral_entropy": Measure(spectral_entropy, half=0.83),
}


def _grey(pixels: Pixels) -> npt.NDArray[np.float32]:
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def _mean_square(values: cv2.typing.MatLike) -> float:
    return float(cv2.norm(values, cv2.NORM_L2SQR)) / values.size


def _sobel_energy(grey: cv2.typing.MatLike) -> float:
    along_x = cv2.Sobel(grey, cv2.CV_32F, 1, 0)
    along_y = cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    return _mean_square(along_x) + _mean_square(along_y)


def _quadratic(value: float, gain: Array, pixels: Pixels, spectrum: Spectrum) -> Reading:
    """A mean of squares over ``pixels`` with power transfer ``gain``, and its scatter."""
    return Reading.of(value, float(np.sqrt(spectrum.variance_of_mean(gain, pixels.size))))


def _laplacian_gain(grid: Grid) -> Array:
    return np.asarray(np.square(2 * np.cos(grid.kx) + 2 * np.cos(grid.ky) - 4))


def _sobel_gain(grid: Grid) -> Array:
    along_x = np.square(2 * np.sin(grid.kx) * (2 + 2 * np.cos(grid.ky)))
    along_y = np.square(2 * np.sin(grid.ky) * (2 + 2 * np.cos(grid.kx)))
    return np.asarray(along_x + along_y)


def _smoothed_sobel_gain(grid: Grid) -> Array:
    return _sobel_gain(grid) * np.exp(-(grid.k**2) * SMOOTHING_PX**2)


def _brenner_gain(grid: Grid) -> Array:
    return np.broadcast_to(2 - 2 * np.cos(2 * grid.kx), grid.k.shape)


def _vollath_gain(grid: Grid) -> Array:
    return np.broadcast_to(np.cos(grid.kx) - np.cos(2 * grid.kx), grid.k.shape)
