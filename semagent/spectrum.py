"""The power spectrum of a frame, and what of it is noise.

Welch's method (P. D. Welch, IEEE Trans. Audio Electroacoust. 15, 1967): the frame is covered
with overlapping tiles, each is multiplied with a Hann window, and the periodograms are averaged.
Everything the engine says of a frame is read from this one spectrum.

Spatial frequencies are in radians per pixel, along x (fast scan) from 0 to pi and along y (slow
scan) from -pi to pi. Powers are normalised so that white noise of variance v has power v.
"""

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from semagent.errors import FrameTooSmallError
from semagent.types import Pixels

Array = npt.NDArray[np.float64]

TILE_SIZES_PX = (512, 384, 256, 192, 128, 96, 64)
MIN_SIDE_PX = TILE_SIZES_PX[-1]
MAX_TILES = 24
"""Frames that need more are sampled: at most this many tiles, spread evenly over the frame."""

NOISE_ROWS_RAD = 0.75 * np.pi
"""Beyond this frequency along y a focused frame holds next to nothing but noise."""

DC_BINS = 2.5
"""Bins this near to zero frequency hold brightness and shading, not structure."""

STREAK_COLUMNS = 2
"""Behind a Hann window, what is constant along x occupies exactly this many stored columns."""


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The frequencies of the tiles' spectra; all arrays broadcast to (size, size // 2 + 1).

    Attributes:
        size: edge of a tile in pixels.
        kx: frequency along x, shape (1, size // 2 + 1).
        ky: frequency along y, shape (size, 1).
        k: distance from zero frequency.
        share: share of each stored bin in the mean over all frequencies; zero near zero
            frequency, where there is brightness and shading but nothing to focus on.
    """

    size: int
    kx: Array
    ky: Array
    k: Array
    share: Array

    def without_noise(self, weight: Array) -> Array:
        """The weight that, applied to the power, also subtracts the noise read from it.

        Both are of shape (size, size // 2 + 1).

        The mean of ``weight * (power - noise)`` equals that of the result times ``power``, as
        the noise of each column is itself a mean over that column's far rows.
        """
        far = noise_rows(self)[:, None]
        column = (weight * self.share).sum(axis=0, keepdims=True)
        return weight - np.where(far, column / (self.share * far).sum(axis=0, keepdims=True), 0.0)

    def folded(self, plane: Array) -> Array:
        """Sums of the rows at +ky and at -ky, for weights that are alike in both.

        Args:
            plane: shape (size, size // 2 + 1).

        Returns:
            (size // 2 + 1, size // 2 + 1).
        """
        half = self.size // 2
        result = plane[: half + 1].copy()
        result[1:half] += plane[:half:-1]
        return result


def noise_rows(grid: Grid) -> npt.NDArray[np.bool_]:
    """Which rows of a spectrum the noise is read from, shape (size,)."""
    return np.abs(grid.ky[:, 0]) >= NOISE_ROWS_RAD


@cache
def grid_of(size: int) -> Grid:
    """The frequency grid of tiles of ``size`` pixels."""
    kx = 2 * np.pi * np.arange(size // 2 + 1)[None, :] / size
    ky = np.asarray(2 * np.pi * np.fft.fftfreq(size)[:, None], np.float64)
    k = np.hypot(kx, ky)
    share = np.full(k.shape, 2.0 / size**2)
    share[:, [0, -1]] = 1.0 / size**2
    share[k < DC_BINS * 2 * np.pi / size] = 0.0
    return Grid(size=size, kx=kx, ky=ky, k=k, share=share)


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """The averaged power spectrum of a frame.

    Attributes:
        grid: the frequencies.
        power: power in units of the full grey scale squared, shape (size, size // 2 + 1).
        noise: power of the noise, by frequency along x, shape (1, size // 2 + 1).
        pixels: number of independent pixels that would give means of the same scatter.
    """

    grid: Grid
    power: Array
    noise: Array
    pixels: float

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise as a fraction of the full grey scale."""
        return float(np.sqrt(self.noise.mean()))

    @property
    def scatter(self) -> Array:
        """Variance of each bin's power from noise alone, in a single independent mode.

        Shape (size, size // 2 + 1), in units of the full grey scale to the fourth.
        A bin of power P, of which N is noise, scatters by ``N² + 2 (P - N) N = 2 P N - N²``.
        """
        scatter = 2 * self.power
        scatter -= self.noise
        np.maximum(scatter, self.noise, out=scatter)
        scatter *= self.noise
        return scatter

    def variance_of_mean(self, weight: Array, pixels: float) -> float:
        """Variance, from noise alone, of the mean of ``weight * power`` over all frequencies.

        Args:
            weight: for each bin; broadcasts to the shape of the power.
            pixels: number of independent pixels the mean is taken from.
        """
        return float((self.grid.share * weight**2 * self.scatter).sum()) * 2 / pixels


def tile_size(height: int, width: int) -> int:
    """The edge of the tiles for a frame: as large as fits with some overlap.

    Raises:
        FrameTooSmallError: the frame is smaller than the smallest tile.
    """
    side = min(height, width)
    if side < MIN_SIDE_PX:
        raise FrameTooSmallError(
            f"frame of {width}×{height} px is too small to judge focus: both sides must have "
            f"at least {MIN_SIDE_PX} px without the information bar"
        )
    return next((size for size in TILE_SIZES_PX if 1.25 * size <= side), MIN_SIDE_PX)


def tile_origins(height: int, width: int, size: int) -> list[tuple[int, int]]:
    """Top left corners (row, column) of the tiles, half overlapping where they can."""
    rows, columns = (-(-2 * (length - size) // size) + 1 for length in (height, width))
    few, many = sorted((rows, columns))
    if few * many > MAX_TILES:
        few = max(min(few, 2), int(few * (MAX_TILES / (few * many)) ** 0.5))
        many = min(many, MAX_TILES // few)
    rows, columns = (few, many) if rows <= columns else (many, few)
    starts = (
        np.linspace(0, length - size, count).round().astype(int).tolist()
        for length, count in ((height, rows), (width, columns))
    )
    return list(itertools.product(*starts))


def measure_spectrum(pixels: Pixels) -> Spectrum:
    """The spectrum of ``pixels``, shape (height, width), uint8 or uint16.

    Raises:
        FrameTooSmallError: the frame is too small.
    """
    # Here, not above: a microscope PC that only serves imports this module and measures nothing.
    import cv2  # noqa: PLC0415

    height, width = pixels.shape
    size = tile_size(height, width)
    origins = tile_origins(height, width, size)
    window = _window(size) / np.float32(np.iinfo(pixels.dtype).max)
    squares = np.zeros((size, size), np.float32)
    for row, column in origins:
        tile = pixels[row : row + size, column : column + size]
        level = _without_plane(tile)
        level *= window
        cv2.accumulateSquare(cv2.dft(level), squares)
    power = _unpack(squares) / len(origins)
    return Spectrum(
        grid=grid_of(size),
        power=power,
        noise=_noise_by_column(power, grid_of(size)),
        pixels=_independent_pixels(height, width, size),
    )


def _without_plane(tile: Pixels) -> npt.NDArray[np.float32]:
    """``tile`` without its mean and its brightness gradients along x and y."""
    import cv2  # noqa: PLC0415 - see `measure_spectrum`

    along_x = cv2.reduce(tile, 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[0]
    along_y = cv2.reduce(tile, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[:, 0]
    ramp = np.arange(len(along_x), dtype=np.float32) - np.float32((len(along_x) - 1) / 2)
    unit = ramp / (ramp**2).sum()
    rows = along_y.mean() + (along_y @ unit) * ramp
    columns = (along_x @ unit) * ramp
    level = tile.astype(np.float32)
    level -= rows[:, None]
    level -= columns
    return level


@cache
def _window(size: int) -> npt.NDArray[np.float32]:
    """Hann window that leaves the power of white noise of unit variance at one."""
    hann = np.sin(np.pi * np.arange(size) / size) ** 2
    return np.outer(hann, hann).astype(np.float32) / np.float32((hann**2).sum())


def _unpack(squares: npt.NDArray[np.float32]) -> Array:
    """Power, shape (size, size // 2 + 1), from squared elements in OpenCV's packed layout.

    There, real and imaginary parts of columns 1 to size / 2 - 1 alternate along x; the first
    and last column of the packed array hold columns 0 and size / 2, alternating along y.
    """
    size = squares.shape[0]
    half = size // 2
    power = np.empty((size, half + 1))
    power[:, 1:half] = squares[:, 1:-1:2] + squares[:, 2:-1:2]
    for column, packed in ((0, squares[:, 0]), (half, squares[:, -1])):
        power[0, column], power[half, column] = packed[0], packed[-1]
        power[1:half, column] = packed[1:-1:2] + packed[2:-1:2]
        power[half + 1 :, column] = power[half - 1 : 0 : -1, column]
    return power


def _noise_by_column(power: Array, grid: Grid) -> Array:
    """Noise power by frequency along x.

    Scan lines are independent of each other, so noise is white along y, even where a slow
    detector smears it along x; it is read where the specimen has least power.
    """
    import cv2  # noqa: PLC0415 - see `measure_spectrum`

    columns = power[noise_rows(grid)].mean(axis=0, keepdims=True)
    smooth = cv2.GaussianBlur(
        columns[:, STREAK_COLUMNS:], (0, 0), grid.size / 64, borderType=cv2.BORDER_REFLECT
    )
    # Noise of whole lines lives in the first columns alone and must not spread to the others.
    return np.hstack((columns[:, :STREAK_COLUMNS], smooth))


@cache
def _independent_pixels(height: int, width: int, size: int) -> float:
    """Effective number of pixels of the overlapping windows: (sum u)² / sum u², u the weights."""
    squared = np.sin(np.pi * np.arange(size) / size) ** 4
    origins = tile_origins(height, width, size)
    result = 1.0
    for axis, length in enumerate((height, width)):
        weight = np.zeros(length)
        for start in {origin[axis] for origin in origins}:
            weight[start : start + size] += squared
        result *= weight.sum() ** 2 / (weight**2).sum()
    return float(result)
