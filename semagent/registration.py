"""How far one frame of a field is displaced against another, and whether that can be told.

Plain phase correlation gives every frequency the same say, so on noisy or defocused frames it
listens to noise. Here each frequency counts by how much of it is specimen in *both* frames: the
generalised cross-correlation with the maximum-likelihood weight of Knapp and Carter (IEEE Trans.
ASSP 24, 320, 1976), ``coherence² / (1 - coherence²)``, with coherences from radial power spectra
above a noise floor. Brightness and contrast cancel. The same weights give the Cramér-Rao bound
of the shift, from which its standard deviation follows.

It refuses to answer where nothing stands out of the noise, where the peak of the correlation is
no more than chance makes, and where a second peak comes close to the first: on a pattern that
repeats every shift by a period fits as well.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from semagent.types import Pixels

Floats = npt.NDArray[np.float32]
Complex = npt.NDArray[np.complex64]

_WORKING_PX = 512  # longer edge that a frame is binned down to
_MIN_PX = 64  # shortest edge, in binned pixels, on which a spectrum says anything
_NOISE_BAND = (0.40, 0.50)  # cycles per pixel; specimens have the least power here
_MAX_COHERENCE = 0.98  # more is not believed: lines jitter, and the window moves with the frame
_MAX_WEIGHT = _MAX_COHERENCE**2 / (1 - _MAX_COHERENCE**2)
_LOWEST_RING = 3  # cycles per shorter edge: slower ones are the window and the brightness
_SIGNIFICANT = 3.0  # standard deviations by which the power of a ring has to exceed noise
_SHARED = 2.0  # standard deviations by which its coherence has to exceed chance
_MIN_PEAK = 8.0  # standard deviations of the correlation surface that a peak has to stand out
_MAX_RIVAL = 0.7  # height of the next peak, relative to the highest, that makes it ambiguous
_AGREEMENT = 0.8  # least mean coherence of the rings the first guess rests on
_MODEL_ERROR = 1.0  # measured error over the Cramér-Rao bound: benchmarks/registration.py
_INDEPENDENT = 0.26  # share of the frequencies that a Hann window leaves independent
_FLOOR_PX = 0.02  # binned pixels: interpolation, and lines that jitter


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the content of a frame has moved: right and down are positive.

    Attributes:
        x_px: along the fast axis, in pixels of the frame.
        y_px: along the slow axis.
        sigma_px: standard deviation of each.
    """

    x_px: float
    y_px: float
    sigma_px: float


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """What registration keeps of a frame.

    Attributes:
        shape: (height, width) of the frame.
        binning: pixels of the frame along an edge of a binned one.
        spectrum: of the binned, windowed frame, in the layout of `numpy.fft.rfft2`.
        signal: power of the specimen in each ring of frequencies, noise taken off.
        total: power in each ring, noise included.
    """

    shape: tuple[int, int]
    binning: int
    spectrum: Complex
    signal: Floats
    total: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """What depends on the size of the binned frame alone."""

    window: Floats
    fx: Floats
    fy: Floats
    ring: npt.NDArray[np.intp]
    counts: npt.NDArray[np.float64]
    noise_rings: slice
    slow: npt.NDArray[np.bool_]


def fingerprint(pixels: Pixels) -> Fingerprint | None:
    """Prepare a frame of shape (height, width); ``None`` if it is too small to be registered."""
    height, width = pixels.shape
    binning = max(1, -(-max(height, width) // _WORKING_PX))
    # Even edges, so that forward and backward transforms agree on the size.
    rows, columns = height // binning // 2 * 2, width // binning // 2 * 2
    if min(rows, columns) < _MIN_PX:
        return None
    used = pixels[: rows * binning, : columns * binning]
    binned = cv2.resize(used, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
    grid = _grid((rows, columns))
    mean, deviation = cv2.meanStdDev(binned)
    binned -= np.float32(mean.item())
    binned *= grid.window
    binned *= np.float32(1 / max(deviation.item(), 1e-6))
    spectrum = np.asarray(np.fft.rfft2(binned), np.complex64)
    # Offsets of whole lines and columns belong to the scan, not to the specimen.
    spectrum[:, 0] = 0
    spectrum[0, :] = 0
    power = (spectrum.real**2 + spectrum.imag**2).ravel()
    total = np.bincount(grid.ring, power, grid.counts.size) / grid.counts
    noise = float(np.median(total[grid.noise_rings]))
    least = noise * (1 + _SIGNIFICANT / np.sqrt(grid.counts))
    return Fingerprint(
        shape=(height, width),
        binning=binning,
        spectrum=spectrum,
        signal=np.where(grid.slow, 0, np.maximum(total - least, 0)).astype(np.float32),
        total=np.maximum(total, 1e-12).astype(np.float32),
    )


def shift_between(before: Fingerprint, after: Fingerprint) -> Shift | None:
    """How far the content of ``after`` has moved against ``before``.

    Returns:
        ``None`` where it cannot be told, or the frames differ in size.
    """
    if before.shape != after.shape:
        return None
    rows, half = before.spectrum.shape
    columns = 2 * (half - 1)
    grid = _grid((rows, columns))
    white = (1 / np.sqrt(before.total * after.total)).astype(np.float32)
    cross = np.conj(before.spectrum) * after.spectrum
    expected = _expected_weight(before, after)
    if not expected.any():
        return None
    spectrum = _weighted(cross, grid, white * expected)
    surface = np.asarray(np.fft.irfft2(spectrum, s=(rows, columns)), np.float32)
    row, column = np.unravel_index(int(surface.argmax()), surface.shape)
    x, y = float(_signed(int(column), columns)), float(_signed(int(row), rows))
    peak = float(surface[row, column])
    rest = _beside(surface, (int(row), int(column)), _lobe_px(grid, expected))
    if peak < _MIN_PEAK * float(rest.std()) or float(rest.max()) > _MAX_RIVAL * peak:
        return None
    for step_px in (_lobe_px(grid, expected) / 16, 0.5, 0.25):
        coherence = _coherence(cross, grid, white, x, y)
        if not coherence.any():
            return None
        weight = coherence / (1 - coherence**2)
        x, y = _refine(_weighted(cross, grid, white * weight), grid, x, y, step_px)
    if float(expected @ coherence) < _AGREEMENT * float(expected.sum()):
        return None
    sigma = math.hypot(_MODEL_ERROR * _bound_px(grid, coherence), _FLOOR_PX)
    return Shift(x_px=x * before.binning, y_px=y * before.binning, sigma_px=sigma * before.binning)


@lru_cache(maxsize=4)
def _grid(shape: tuple[int, int]) -> _Grid:
    rows, columns = shape
    fy = np.fft.fftfreq(rows).astype(np.float32)[:, np.newaxis]
    fx = np.fft.rfftfreq(columns).astype(np.float32)[np.newaxis, :]
    rings = min(shape) // 2
    ring = np.minimum(np.rint(np.hypot(fy, fx) * 2 * rings), rings).astype(np.intp).ravel()
    used = np.ones((rows, columns // 2 + 1))
    used[:, 0] = used[0, :] = 0
    counts = np.maximum(np.bincount(ring, used.ravel(), rings + 1), 1)
    low, high = (round(edge * 2 * rings) for edge in _NOISE_BAND)
    slow = np.arange(rings + 1) < _LOWEST_RING
    window = cv2.createHanningWindow((columns, rows), cv2.CV_32F)
    return _Grid(np.asarray(window, np.float32), fx, fy, ring, counts, slice(low, high), slow)


def _expected_weight(before: Fingerprint, after: Fingerprint) -> Floats:
    """Weight of each ring before the shift is known.

    A defocused spot passes some frequencies with the sign reversed, but only weakly: where one
    frame has lost much more than the other, the ring counts less.
    """
    coherence2 = before.signal * after.signal / (before.total * after.total)
    if not coherence2.any():
        return coherence2
    ratio = (after.signal / after.signal.sum()) / np.maximum(
        before.signal / before.signal.sum(), np.float32(1e-12)
    )
    lost = np.minimum(ratio, 1 / np.maximum(ratio, np.float32(1e-12)))
    weight = np.minimum(coherence2 / np.maximum(1 - coherence2, 1e-6), _MAX_WEIGHT)
    return np.asarray(weight * lost, np.float32)


def _weighted(cross: Complex, grid: _Grid, weight: Floats) -> Complex:
    return cross * weight[grid.ring].reshape(cross.shape)


def _coherence(cross: Complex, grid: _Grid, white: Floats, x: float, y: float) -> Floats:
    """Coherence of each ring once the shift is taken out; negative where a sign is reversed.

    Zero where it is no more than chance.
    """
    turned = cross * np.exp(2j * np.pi * y * grid.fy).astype(np.complex64)
    turned *= np.exp(2j * np.pi * x * grid.fx).astype(np.complex64)
    aligned = turned.real.ravel()
    coherence = np.bincount(grid.ring, aligned, grid.counts.size) / grid.counts * white
    chance = np.where(grid.slow, np.inf, _SHARED / np.sqrt(2 * _INDEPENDENT * grid.counts))
    limited = np.clip(coherence, -_MAX_COHERENCE, _MAX_COHERENCE)
    return np.asarray(np.where(np.abs(coherence) > chance, limited, 0), np.float32)


def _lobe_px(grid: _Grid, weight: Floats) -> int:
    """Distance at which the peak has fallen to the level of the rest."""
    frequency = np.arange(weight.size) / (2 * (weight.size - 1))
    share = grid.counts * weight
    return 2 + math.ceil(1 / math.sqrt(float(np.sum(share * frequency**2) / np.sum(share))))


def _bound_px(grid: _Grid, coherence: Floats) -> float:
    """The Cramér-Rao bound on the standard deviation of the shift along one axis."""
    frequency = np.arange(coherence.size) / (2 * (coherence.size - 1))
    known = coherence**2 / (1 - coherence**2)
    # f² is shared by two axes; half of the spectrum is stored and counts twice.
    information = float(np.sum(grid.counts * known * (2 * np.pi * frequency) ** 2))
    return 1 / math.sqrt(_INDEPENDENT * information)


def _beside(surface: Floats, peak: tuple[int, int], reach: int) -> Floats:
    """The correlation surface with the surroundings of its peak set to zero."""
    centred = np.roll(surface, (reach - peak[0], reach - peak[1]), axis=(0, 1))
    centred[: 2 * reach + 1, : 2 * reach + 1] = 0
    return centred


def _refine(cross: Complex, grid: _Grid, x: float, y: float, step_px: float) -> tuple[float, float]:
    """The highest point of the correlation around ``(x, y)``, to a fraction of ``step_px``.

    Its values there are computed from the spectrum by two matrix products, as in Guizar-Sicairos,
    Thurman and Fienup (Optics Letters 33, 156, 2008).
    """
    offsets = step_px * np.arange(-4, 5)
    along_x = np.exp(2j * np.pi * grid.fx.T * (x + offsets)).astype(np.complex64)
    along_y = np.exp(2j * np.pi * (y + offsets)[:, np.newaxis] * grid.fy.T).astype(np.complex64)
    values = (along_y @ (cross @ along_x)).real
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    return (
        x + float(offsets[column]) + step_px * _vertex(values[row, :], int(column)),
        y + float(offsets[row]) + step_px * _vertex(values[:, column], int(row)),
    )


def _vertex(values: Floats, index: int) -> float:
    """Vertex of the parabola through a maximum and its neighbours, in steps from the maximum."""
    if not 0 < index < values.size - 1:
        return 0.0
    left, middle, right = (float(values[index + step]) for step in (-1, 0, 1))
    bend = 2 * middle - left - right
    return 0.0 if bend <= 0 else (right - left) / (2 * bend)


def _signed(index: int, size: int) -> int:
    return index if index <= size // 2 else index - size
