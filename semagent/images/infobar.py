"""Finding the information bar that microscopes print across the bottom of an image."""

import numpy as np
import numpy.typing as npt

from semagent.images.metadata import ImageMetadata
from semagent.types import Pixels

_Grey = npt.NDArray[np.uint8]

_LARGEST_BAR = 0.3  # fractions of the image height
_SMALLEST_BAR = 0.015
_LARGEST_MARGIN_BELOW = 0.05
_TOLERANCE = 4  # grey levels of 256: what JPEG leaves of a constant background
_BACKGROUND_SHARE = 0.4  # of a row of text; a logo and a frame take the rest
_EMPTY_ROW_SHARE = 0.7  # of a row without text, in a bar that leaves margins at the sides
_LONGEST_GAP = 4  # rows of a ruled line, which have no background
_TEXT_SHARE = (0.003, 0.4)
_TEXT_CONTRAST = 80  # grey levels of 256
_BORDER_DROP = 0.35


def find_info_bar(pixels: Pixels, metadata: ImageMetadata | None = None) -> int:
    """Count the rows at the bottom of an image that are information bar, not specimen.

    What the file says comes first. Otherwise a bar is a band of rows across most of the image
    that have one constant grey value, with text of high contrast on it, that begins with a
    sharp horizontal border. A bar that floats a little above the bottom counts with the rows
    below it. A bar of the same grey as a saturated specimen above it cannot be told from it.

    Args:
        pixels: the image, shape (height, width), uint8 or uint16.
        metadata: of its file.

    Returns:
        Rows, 0 if there is no bar, at most 30 % of the height unless the file says more.
    """
    if metadata is not None and metadata.info_bar_px is not None:
        return metadata.info_bar_px
    height, width = int(pixels.shape[0]), int(pixels.shape[1])
    rows = round(height * _LARGEST_BAR)
    if rows < 8 or width < 64:
        return 0
    window = _as_grey(pixels[height - rows :])
    background = _background(window)
    if background is None:
        return 0

    share = np.mean(np.abs(window.astype(np.int16) - background) <= _TOLERANCE, axis=1)
    top, bottom = _longest_band(share >= _BACKGROUND_SHARE)
    if (
        top == 0
        or rows - bottom > height * _LARGEST_MARGIN_BELOW
        or bottom - top < max(8, height * _SMALLEST_BAR)
        or not _has_text(window[top:bottom], background, share[top:bottom])
    ):
        return 0
    inside = share[top : top + _LONGEST_GAP].max()
    top = _include_frame(window, top)
    above = share[max(0, top - _LONGEST_GAP) : top]
    # The border is sharp: within a few rows, background goes from little to most of the row.
    if above.size == 0 or inside - above.max() < _BORDER_DROP:
        return 0
    return rows - top


def _as_grey(pixels: Pixels) -> _Grey:
    """The pixels in 256 levels of the range they use."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    top = max(1, int(pixels.max()))
    return (pixels.astype(np.uint32) * 255 // top).astype(np.uint8)


def _background(window: _Grey) -> int | None:
    """The grey value that fills most of most rows near the bottom, if one does."""
    histograms = np.stack([np.bincount(row, minlength=256) for row in window])
    modes = histograms.argmax(axis=1)
    # JPEG spreads a constant over a few grey levels, so the most frequent has only part of it.
    constant = modes[histograms.max(axis=1) >= _BACKGROUND_SHARE * window.shape[1] / 2]
    return int(np.bincount(constant).argmax()) if constant.size else None


def _longest_band(inside: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """First row and row after the last of the longest run, gaps of a few rows included."""
    best = (0, 0)
    start = end = None
    for row in np.flatnonzero(inside):
        if start is None or end is None or row - end > _LONGEST_GAP:
            start = int(row)
        end = int(row) + 1
        if end - start > best[1] - best[0]:
            best = (start, end)
    return best


def _has_text(band: _Grey, background: int, share: npt.NDArray[np.float64]) -> bool:
    """Whether there is text: a little of strong contrast, in some rows and not in others."""
    ink = np.abs(band.astype(np.int16) - background) >= _TEXT_CONTRAST
    low, high = _TEXT_SHARE
    strokes = np.count_nonzero(np.diff(ink.astype(np.int8), axis=1), axis=1)
    return bool(
        low <= ink.mean() <= high
        and np.count_nonzero(strokes >= 12) >= 4
        and np.count_nonzero(share >= _EMPTY_ROW_SHARE) >= 3
    )


def _include_frame(window: _Grey, top: int) -> int:
    """Move the top up over a ruled line, which is constant at another grey value."""
    for _ in range(_LONGEST_GAP):
        row = window[top - 1]
        if top <= 1 or np.mean(np.abs(row.astype(np.int16) - int(np.median(row))) <= 12) < 0.9:
            break
        top -= 1
    return top
