"""Which part of a micrograph is specimen, and whether it is sharp enough to serve as truth."""

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]

_DARK, _BRIGHT = 12, 243
_BAR_SHARE = 0.25
_BANDS = ((0.06, 0.12), (0.20, 0.30), (0.42, 0.50))
_WINDOW = 64
_STEEPEST = 4.5
_FLATTEST = 0.35


def specimen_rows(image: Grey) -> slice:
    """Rows of ``image`` without an information bar or burnt-in text at either edge.

    A bar is a run of rows at the bottom whose median is black or white and in which most pixels
    have that value. Burnt-in text is a line of at least eight glyph-sized, saturated components
    in the lowest or highest eighth.

    Args:
        image: (height, width), uint8.

    Returns:
        The rows to keep; all of them where nothing is found.
    """
    height = image.shape[0]
    bottom = height - _bar_height(image)
    for top_row, _ in _text_lines(image[:bottom]):
        if top_row > bottom - height // 8:
            bottom = min(bottom, top_row - 2)
    first = 0
    for _, bottom_row in _text_lines(image[:bottom]):
        if bottom_row < height // 8:
            first = max(first, bottom_row + 2)
    return slice(first, max(bottom, first))


def _bar_height(image: Grey) -> int:
    height = image.shape[0]
    median = np.median(image, axis=1)
    alike = (np.abs(image.astype(np.int16) - median[:, None]) <= 8).mean(axis=1)
    is_bar = ((median <= _DARK) | (median >= _BRIGHT)) & (alike > 0.5)
    lowest = height - int(_BAR_SHARE * height)
    bar_rows = np.flatnonzero(is_bar[lowest:])
    if bar_rows.size == 0:
        return 0
    first = lowest + int(bar_rows[0])
    # Rows of dense text inside a bar may fail the test above, so a majority is enough.
    if is_bar[first:].mean() < 0.6:
        return 0
    return int(height - first)


def _text_lines(image: Grey) -> list[tuple[int, int]]:
    """(first, last) row of every line of saturated glyphs."""
    height, width = image.shape
    mask = (image >= 250).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count <= 8:
        return []
    boxes = stats[1:]
    tall = boxes[:, cv2.CC_STAT_HEIGHT]
    wide = boxes[:, cv2.CC_STAT_WIDTH]
    glyph = (tall >= 7) & (tall <= height // 16) & (wide >= 2) & (wide <= width // 20)
    rows = boxes[glyph, cv2.CC_STAT_TOP]
    last = rows + tall[glyph]
    lines = []
    for row in np.unique(rows):
        on_line = np.abs(rows - row) <= 2
        if on_line.sum() >= 8 and np.ptp(last[on_line]) <= 4:
            lines.append((int(rows[on_line].min()), int(last[on_line].max())))
    return lines


def band_powers(image: npt.NDArray[np.float32], window: int = _WINDOW) -> npt.NDArray[np.float64]:
    """Mean spectral power in three bands: coarse, fine, and next to the Nyquist frequency.

    Welch's method with Hann windows; bands 0.06 to 0.12, 0.20 to 0.30 and 0.42 to 0.50 cycles a
    pixel.

    Args:
        image: (height, width), at least ``window`` pixels either way.
        window: edge of the windows, pixels.

    Returns:
        Three powers, in the square of the image's grey values.
    """
    hann = np.hanning(window).astype(np.float32)
    taper = hann[:, None] * hann[None, :]
    views = np.lib.stride_tricks.sliding_window_view(image, (window, window))
    blocks = views[:: window // 2, :: window // 2]
    blocks = blocks - blocks.mean(axis=(-2, -1), keepdims=True)
    power = (np.abs(np.fft.rfft2(blocks * taper)) ** 2).mean(axis=(0, 1))
    radius = np.hypot(np.fft.fftfreq(window)[:, None], np.fft.rfftfreq(window)[None, :])
    return np.array([power[(radius >= low) & (radius < high)].mean() for low, high in _BANDS])


def is_truth(image: npt.NDArray[np.float32]) -> bool:
    """Whether ``image`` is sharp and quiet enough to be the truth of a training pair.

    The spectrum of a sharp micrograph falls as a power law; blur makes it fall faster, noise
    makes it flat towards the Nyquist frequency. Both are refused. An image smaller than one
    window of `band_powers` is refused too: it cannot be judged.
    """
    if min(image.shape) < _WINDOW:
        return False
    coarse, fine, finest = band_powers(image)
    if coarse <= 1e-9:
        return False
    steepness = np.log(coarse / fine) / np.log(0.25 / 0.09)
    flattening = finest / fine
    return bool(steepness < _STEEPEST and flattening < _FLATTEST)
