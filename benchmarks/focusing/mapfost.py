"""MAPFoSt: maximum-a-posteriori focusing and stigmation from two frames.

J. Binding, S. Mikula and W. Denk, "Low-dosage Maximum-A-Posteriori Focusing and Stigmation",
Microscopy and Microanalysis 19 (2013). Two frames of one field are taken with known test
aberrations T1, T2. With F the transform of a frame and M(k; A) the transfer function of the
aberration A = (z, a1, a2), and a flat prior on the specimen, the specimen drops out:

    -log P(A | F1, F2) = sum over k of |F1 M2 - F2 M1|^2 / (s^2 (M1^2 + M2^2)) + prior

where M1 = M(k; A + T1), M2 = M(k; A + T2), and s^2 is the mean square of the noise in F. The result
is applied and the procedure repeated.

As SBEMimage uses it: test aberrations of defocus alone, symmetric; whole-pixel alignment of the
two frames first; the first two rounds with a larger test defocus (here four times) and a narrower
band; at most seven rounds, ended when the estimate is small.

Different here: the minimum is looked for on a grid of defocus first, then by Nelder and Mead,
where the original starts at zero and follows the gradient: it would not come from as far. The
transfer function is that of a disc, which is what the simulated beam makes, not a Gaussian. The
prior is a normal one of 24 half depths of field.
"""

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from focusing.outcome import Outcome
from focusing.scope import Image, Scope
from focusing.trials import Trial
from semagent_drivers.simulated.beam import jinc

TEST, TEST_FAR = 4.0, 16.0
BAND, BAND_FAR = 0.25, 0.1
"""Highest frequency used, in cycles a pixel."""

FAR_ROUNDS, MAX_ROUNDS = 2, 7
SMALL = 0.5
"""Half depths of field: a smaller estimate ends the procedure."""

PRIOR = np.array([24.0, 2.0, 2.0])
SLOPE_PX = 0.5
"""Pixels of blur a half depth of field."""


Array = npt.NDArray[np.float64]


def align(first: Image, second: Image) -> tuple[Image, Image, tuple[float, float]]:
    """Both frames cropped to what they share, and the part of a pixel (x, y) that is left."""
    window = cv2.createHanningWindow(first.shape[::-1], cv2.CV_32F)
    (dx, dy), _ = cv2.phaseCorrelate(_smooth(first), _smooth(second), window)
    if max(abs(dx), abs(dy)) > min(first.shape) / 4:
        dx = dy = 0.0  # no correlation to speak of
    x, y = round(dx), round(dy)
    height, width = first.shape
    x0, x1, y0, y1 = max(0, -x), min(width, width - x), max(0, -y), min(height, height - y)
    return first[y0:y1, x0:x1], second[y0 + y : y1 + y, x0 + x : x1 + x], (dx - x, dy - y)


def _smooth(image: Image) -> Image:
    """The noise between two frames does not correlate and only hides what does."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 2.0), np.float32)


class Posterior:
    """Negative logarithm of the posterior of (z, a1, a2) given two frames at ``z ± test``."""

    def __init__(self, low: Image, high: Image, test: float, band: float) -> None:
        low, high, (dx, dy) = align(low, high)
        window = np.outer(np.hanning(low.shape[0]), np.hanning(low.shape[1]))
        self._kx, self._ky, inside, outside = _band(low.shape, band)
        transforms, noise = [], []
        for image in (low, high):
            grey = image - (image * window).sum() / window.sum()
            full = np.fft.rfft2(grey * window)
            noise.append(float(np.mean(np.abs(full[outside]) ** 2)))
            transforms.append(full[inside])
        self._low = transforms[0]
        self._high = transforms[1] * np.exp(1j * (self._kx * dx + self._ky * dy))
        self._noise = max(float(np.mean(noise)), 1e-12)
        self._test = test
        self._products = (
            np.abs(self._low) ** 2,
            np.abs(self._high) ** 2,
            (self._low * self._high.conj()).real,
        )

    def _transfer(self, z: float, a1: float, a2: float) -> Array:
        along_x = (z + a1) * self._kx + a2 * self._ky
        along_y = a2 * self._kx + (z - a1) * self._ky
        # The radius of a uniform disc is twice its standard deviation.
        q = 2 * SLOPE_PX * np.hypot(along_x, along_y)
        return np.asarray(jinc(q.astype(np.float32)), np.float64)

    def __call__(self, aberration: Array) -> float:
        """The value, smallest at the estimate."""
        z, a1, a2 = aberration
        low = self._transfer(z - self._test, a1, a2)
        high = self._transfer(z + self._test, a1, a2)
        first, second, both = self._products
        # Both vanish far from focus; only their ratio matters.
        share = 1 / (low**2 + high**2 + 1e-30)
        difference = first * high**2 - 2 * both * low * high + second * low**2
        misfit = float((difference * share).sum()) / self._noise
        return float(misfit + 0.5 * np.sum((aberration / PRIOR) ** 2))

    def minimum(self) -> Array:
        """The estimate."""
        grid = np.arange(-48.0, 48.1, 1.0)
        best = grid[int(np.argmin([self(np.array([z, 0.0, 0.0])) for z in grid]))]
        simplex = np.array([[best, 0, 0], [best + 2, 0, 0], [best, 1, 0], [best, 0, 1.0]])
        found = minimize(
            self,
            simplex[0],
            method="Nelder-Mead",
            options={"initial_simplex": simplex, "xatol": 0.02, "fatol": 0.05, "maxfev": 160},
        )
        return np.asarray(found.x)


@cache
def _band(shape: tuple[int, int], band: float) -> tuple[Array, Array, npt.NDArray[np.bool_], ...]:
    """Angular frequencies of the band, and masks of the band and of where only noise is."""
    fx = np.fft.rfftfreq(shape[1])[np.newaxis, :]
    fy = np.fft.fftfreq(shape[0])[:, np.newaxis]
    f = np.hypot(fx, fy)
    inside = (f < band) & (f > 4 / min(shape))
    outside = f > 0.42
    kx = 2 * np.pi * np.broadcast_to(fx, f.shape)[inside]
    ky = 2 * np.pi * np.broadcast_to(fy, f.shape)[inside]
    return kx, ky, inside, outside


def mapfost(trial: Trial) -> Outcome:
    """Run one trial."""
    scope = Scope(trial)
    for number in range(MAX_ROUNDS):
        far = number < FAR_ROUNDS
        test, band = (TEST_FAR, BAND_FAR) if far else (TEST, BAND)
        here = scope.position
        scope.go(here - test)
        low = scope.image()
        scope.go(here + test)
        high = scope.image()
        z, a1, a2 = Posterior(low, high, test, band).minimum().tolist()
        scope.go(here - z)
        scope.stigmate(-a1, -a2)
        if not far and np.hypot(z, np.hypot(a1, a2)) < SMALL:
            break
    return scope.outcome("MAPFoSt")
