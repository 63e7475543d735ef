"""The beam: blur of a defocused, astigmatic probe, and its transfer function.

A beam of convergence half-angle alpha, defocused by dz, lights a disc. With astigmatism
``A = [[a1, a2], [a2, -a1]]`` a ray that leaves the aperture under the angle theta (|theta| <=
alpha) lands at ``(dz I + A) theta``: the disc becomes an ellipse, uniformly filled. Its standard
deviation along an axis is half its semi-axis, so in pixels of size p the blur is

    M = (alpha / 2p)^2 (dz I + A)^2 + sigma0^2 I,

where sigma0 is the focused probe. The Fourier transform of the disc is ``2 J1(q) / q`` (the
"jinc", e.g. Goodman, Introduction to Fourier Optics); the Gaussian of the same covariance is the
usual approximation, and equals it to second order in the frequency.

Axes: x is the fast scan axis, y the slow one, downwards; angles go from +x to +y. Frequencies are
in cycles per pixel. All functions are pure.
"""

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

FloatImage = npt.NDArray[np.float32]

_TABLE_STEP = 0.02
_TABLE_END = 200.0


class Covariance(NamedTuple):
    """A symmetric 2 x 2 covariance, in square pixels."""

    xx: float
    xy: float
    yy: float

    def ellipse(self) -> tuple[float, float, float]:
        """Standard deviations along the longer and shorter axis, and the longer one's direction.

        The angle is in (-pi/2, pi/2]; 0 for a circle.
        """
        mean = (self.xx + self.yy) / 2
        half_difference = (self.xx - self.yy) / 2
        radius = math.hypot(half_difference, self.xy)
        angle = math.atan2(self.xy, half_difference) / 2 if radius else 0.0
        if angle <= -math.pi / 2:  # the same direction as +pi/2, from a negative zero
            angle += math.pi
        return math.sqrt(mean + radius), math.sqrt(max(mean - radius, 0.0)), angle


@dataclass(frozen=True, slots=True)
class Beam:
    """What of the beam does not depend on the focus.

    Attributes:
        slope_px_per_m: alpha / 2p, the blur in pixels per metre of defocus.
        sigma0_px: standard deviation of the focused probe.
        a1_m: astigmatism on the axes.
        a2_m: astigmatism at 45 degrees.
        kernel: shape of the defocused spot.
    """

    slope_px_per_m: float
    sigma0_px: float
    a1_m: float = 0.0
    a2_m: float = 0.0
    kernel: Literal["disc", "gaussian"] = "disc"

    def geometric(self, defocus_m: float) -> Covariance:
        """Covariance of the spot without that of the focused probe."""
        z, a1, a2 = defocus_m, self.a1_m, self.a2_m
        power = self.slope_px_per_m**2
        return Covariance(
            power * ((z + a1) ** 2 + a2**2), power * 2 * z * a2, power * ((z - a1) ** 2 + a2**2)
        )

    def covariance(self, defocus_m: float) -> Covariance:
        """The whole blur, M of this module's description."""
        spot = self.geometric(defocus_m)
        probe = self.sigma0_px**2
        return Covariance(spot.xx + probe, spot.xy, spot.yy + probe)

    def transfer(self, defocus_m: float, shape: tuple[int, int]) -> FloatImage:
        """Transfer function for images of ``shape``, real, in the layout of `numpy.fft.rfft2`.

        Returns:
            Array of shape (height, width // 2 + 1), 1 at frequency 0.
        """
        fx, fy = frequencies(shape)
        if self.kernel == "gaussian":
            return _gaussian(self.covariance(defocus_m), fx, fy)
        spot = jinc(
            np.sqrt(_quadratic(self.geometric(defocus_m), fx, fy)) * np.float32(4 * math.pi)
        )
        spot *= _gaussian(Covariance(self.sigma0_px**2, 0.0, self.sigma0_px**2), fx, fy)
        return spot

    def reach_px(self, defocus_m: float) -> float:
        """Radius within which all but a negligible part of the blurred point lies."""
        spot, _, _ = self.geometric(defocus_m).ellipse()
        edge = 2.0 if self.kernel == "disc" else 4.0
        return edge * spot + 4.0 * self.sigma0_px


@lru_cache(maxsize=8)
def frequencies(shape: tuple[int, int]) -> tuple[FloatImage, FloatImage]:
    """Frequencies of `numpy.fft.rfft2` for images of ``shape``: a row fx and a column fy."""
    height, width = shape
    fx = np.fft.rfftfreq(width).astype(np.float32)[np.newaxis, :]
    fy = np.fft.fftfreq(height).astype(np.float32)[:, np.newaxis]
    fx.flags.writeable = fy.flags.writeable = False
    return fx, fy


def shift_transfer(dx_px: float, dy_px: float, shape: tuple[int, int]) -> npt.NDArray[np.complex64]:
    """Transfer function that moves the content of an image by (dx, dy), exactly."""
    fx, fy = frequencies(shape)
    along_x = np.exp(-2j * np.pi * dx_px * fx.astype(np.float64)).astype(np.complex64)
    along_y = np.exp(-2j * np.pi * dy_px * fy.astype(np.float64)).astype(np.complex64)
    return np.asarray(along_x * along_y, np.complex64)


def jinc(q: FloatImage) -> FloatImage:
    """``2 J1(q) / q`` for q >= 0, within 2e-5; beyond q = 200, where it is below 6e-4, zero."""
    table = _jinc_table()
    position = np.minimum(q, np.float32(_TABLE_END)) * np.float32(1 / _TABLE_STEP)
    index = position.astype(np.int32)
    position -= index
    low = table.take(index)
    return np.asarray(low + position * (table.take(index + 1) - low), np.float32)


@cache
def _jinc_table() -> FloatImage:
    q = np.arange(0.0, _TABLE_END + 1.5 * _TABLE_STEP, _TABLE_STEP)
    # Bessel's integral, J1(q) = mean over t of cos(t - q sin t); the trapezoid rule is exact to
    # rounding once it has more points than q.
    angles = np.linspace(0.0, 2 * np.pi, 256, endpoint=False)
    bessel = np.cos(angles - q[:, np.newaxis] * np.sin(angles)).mean(axis=1)
    bessel[1:] *= 2 / q[1:]
    bessel[0] = 1.0
    bessel[q >= _TABLE_END] = 0.0
    return np.asarray(bessel, np.float32)


def _quadratic(covariance: Covariance, fx: FloatImage, fy: FloatImage) -> FloatImage:
    """``f^T M f``, never below zero by rounding."""
    xx, xy, yy = (np.float32(element) for element in covariance)
    form = fy * (yy * fy + (2 * xy) * fx)
    form += xx * fx * fx
    return np.maximum(form, 0, out=form)


def _gaussian(covariance: Covariance, fx: FloatImage, fy: FloatImage) -> FloatImage:
    form = _quadratic(covariance, fx, fy)
    form *= np.float32(-2 * math.pi**2)
    return np.exp(form, out=form)


def fast_size(size: int) -> int:
    """The smallest even size, at least ``size``, that is quick to transform."""
    return 2 * cv2.getOptimalDFTSize((size + 1) // 2)


def blur(
    image: FloatImage, beam: Beam, defocus_m: float, *, shift_px: tuple[float, float] = (0.0, 0.0)
) -> FloatImage:
    """Image a specimen with a defocused beam; outside the image it goes on mirrored.

    Args:
        image: brightness of the specimen, shape (height, width).
        beam: the beam.
        defocus_m: working distance minus that of the specimen.
        shift_px: displacement of the content along x and y.

    Returns:
        The blurred image, of the same shape.
    """
    height, width = image.shape
    reach = math.ceil(beam.reach_px(defocus_m) + max(abs(shift_px[0]), abs(shift_px[1]))) + 1
    bottom = fast_size(height + 2 * reach) - height - reach
    right = fast_size(width + 2 * reach) - width - reach
    # numpy's "symmetric" may be wider than the image itself, unlike a mirrored border of OpenCV.
    padded = np.pad(image, ((reach, bottom), (reach, right)), mode="symmetric")
    spectrum = np.fft.rfft2(padded)
    spectrum *= beam.transfer(defocus_m, padded.shape)
    if shift_px != (0.0, 0.0):
        spectrum *= shift_transfer(*shift_px, padded.shape)
    blurred = np.fft.irfft2(spectrum, s=padded.shape)
    return np.ascontiguousarray(blurred[reach : reach + height, reach : reach + width], np.float32)
