"""Which part of a micrograph is specimen, and whether it is sharp enough to serve as truth."""

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]

_DARK, _BRIGHT = 12, 243
_BAR_SHARE = 0.25
_TEXT = 250
_FEWEST_GLYPHS = 5
_GLYPH_GAP = 4  # heights of a glyph between it and the next
_STEP = 20  # grey levels at the edge of a scale bar
_LABEL = 12  # of the height, on either side of a scale bar
_SHORTEST = 20  # of the width: a scale bar
_BANDS = ((0.06, 0.12), (0.20, 0.30), (0.42, 0.50))
_WINDOW = 64
_STEEPEST = 4.5
_FLATTEST = 0.35


def specimen_rows(image: Grey) -> slice:
    """The longest run of rows of ``image`` without information bar, burnt-in text and scale bar.

    An information bar is a run of rows at the bottom whose median is black or white and in which
    most pixels have that value; `semagent.images.find_info_bar` finds those of other greys.
    Burnt-in text is a line of at least five black or white components of equal height, each
    beside the next; the ticks of a scale are such a line too. A scale bar is a black or white
    rectangle with sharp edges, long and flat; its label is beside it.

    Args:
        image: (height, width), uint8.

    Returns:
        The rows to keep; all of them where nothing is found.
    """
    image = image[: image.shape[0] - _bar_height(image)]
    height = image.shape[0]
    free = np.zeros(height + 2, np.int8)
    free[1:-1] = 1
    for shade in (image, 255 - image):
        for first, last in (*_text_lines(shade), *_scale_bars(shade)):
            free[1 + max(0, first - 2) : 1 + min(height, last + 2)] = 0
    edges = np.flatnonzero(np.diff(free))
    if not edges.size:
        return slice(0, 0)
    starts, stops = edges[::2], edges[1::2]
    longest = int(np.argmax(stops - starts))
    return slice(int(starts[longest]), int(stops[longest]))


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
    """(first, last) row of every line of white glyphs."""
    height, width = image.shape
    mask = (image >= _TEXT).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    tall, wide = stats[:, cv2.CC_STAT_HEIGHT], stats[:, cv2.CC_STAT_WIDTH]
    glyph = (tall >= 7) & (tall <= height // 16) & (wide >= 2) & (wide <= width // 20)
    boxes = stats[glyph]
    boxes = boxes[np.argsort(boxes[:, cv2.CC_STAT_LEFT])]
    left, top = boxes[:, cv2.CC_STAT_LEFT], boxes[:, cv2.CC_STAT_TOP]
    right, bottom = left + boxes[:, cv2.CC_STAT_WIDTH], top + boxes[:, cv2.CC_STAT_HEIGHT]
    lines = []
    for row, end in np.unique(np.stack([top, bottom], axis=1), axis=0):
        on_line = (np.abs(top - row) <= 2) & (np.abs(bottom - end) <= 2)
        beside = left[on_line][1:] - right[on_line][:-1] <= _GLYPH_GAP * (end - row)
        # A run of n gaps joins n + 1 glyphs.
        breaks = np.flatnonzero(~np.concatenate([[False], beside, [False]]))
        if np.diff(breaks).max(initial=0) >= _FEWEST_GLYPHS:
            lines.append((int(top[on_line].min()), int(bottom[on_line].max())))
    return lines


def _scale_bars(image: Grey) -> list[tuple[int, int]]:
    """(first, last) row of every white scale bar with its label."""
    height, width = image.shape
    mask = (image >= _BRIGHT).astype(np.uint8)
    shortest = max(32, width // _SHORTEST)
    flat = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((1, shortest), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(flat, connectivity=8)
    bars = []
    for left, top, wide, tall, area in stats[1:].tolist():
        if not 3 <= tall <= min(height // 40, wide // 5) or area < 0.97 * wide * tall:
            continue
        if top < 2 or top + tall + 2 > height or left == 0 or left + wide == width:
            continue
        inside = image[top, left : left + wide].astype(np.int16)
        around = image[[top - 2, top + tall + 1], left : left + wide]
        if (np.abs(around - inside) >= _STEP).mean() >= 0.9:
            bars.append((top - height // _LABEL, top + tall + height // _LABEL))
    return bars


def band_powers(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Mean spectral power in three bands: coarse, fine, and next to the Nyquist frequency.

    Welch's method with Hann windows; bands 0.06 to 0.12, 0.20 to 0.30 and 0.42 to 0.50 cycles a
    pixel.

    Args:
        image: (height, width), at least 64 pixels either way.

    Returns:
        Three powers, in the square of the image's grey values.
    """
    hann = np.hanning(_WINDOW).astype(np.float32)
    taper = hann[:, None] * hann[None, :]
    views = np.lib.stride_tricks.sliding_window_view(image, (_WINDOW, _WINDOW))
    blocks = views[:: _WINDOW // 2, :: _WINDOW // 2]
    blocks = blocks - blocks.mean(axis=(-2, -1), keepdims=True)
    power = (np.abs(np.fft.rfft2(blocks * taper)) ** 2).mean(axis=(0, 1))
    radius = np.hypot(np.fft.fftfreq(_WINDOW)[:, None], np.fft.rfftfreq(_WINDOW)[None, :])
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
