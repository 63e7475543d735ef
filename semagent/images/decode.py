"""Turning what a decoder returns into grey pixels without changing the grey scale."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile

from semagent.types import Pixels

_MINISWHITE, _PALETTE = 0, 3


class NotAMicrographError(Exception):
    """The content cannot be a micrograph; says why, without the name of the file."""


def grey_tiff_page(page: tifffile.TiffPage) -> tuple[Pixels, tuple[str, ...]]:
    """Decode a page.

    Returns:
        Pixels of shape (height, width), C-contiguous, uint8 or uint16 in the machine's byte
        order, and notes about conversions.

    Raises:
        NotAMicrographError: the page is no flat image of unsigned integers.
    """
    pixels = np.asarray(page.asarray())
    if page.photometric == _PALETTE and page.colormap is not None:
        return _through_palette(pixels, page.colormap)
    if page.axes == "SYX":
        pixels = np.moveaxis(pixels, 0, -1)
    grey, notes = to_grey(pixels, blue_first=False)
    if page.photometric == _MINISWHITE:
        top = (1 << min(page.bitspersample, grey.itemsize * 8)) - 1
        return _pixels(top - grey), (*notes, "0 meant white in the file; grey values turned round")
    return grey, notes


def to_grey(pixels: npt.NDArray[Any], *, blue_first: bool) -> tuple[Pixels, tuple[str, ...]]:
    """Reduce an image to one channel, with luma weights of ITU-R BT.601 if it has colours.

    Args:
        pixels: shape (height, width) or (height, width, channels), with 1 to 4 channels, of
            which the second and the fourth may be opacity.
        blue_first: order of the colours.

    Raises:
        NotAMicrographError: another shape or type.
    """
    bit_depth_of(pixels.dtype)
    if pixels.ndim == 2:
        return _pixels(pixels), ()
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4:
        raise NotAMicrographError(f"is no flat image: its shape is {pixels.shape}")
    first = _pixels(pixels[..., 0])
    if pixels.shape[2] <= 2:
        return first, ()
    if np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2]):
        return first, ()
    code = cv2.COLOR_BGR2GRAY if blue_first else cv2.COLOR_RGB2GRAY
    return _pixels(cv2.cvtColor(_pixels(pixels[..., :3]), code)), ("colours converted to grey",)


def bit_depth_of(dtype: np.dtype[Any] | None) -> int:
    """Bits of a pixel, 8 or 16.

    Raises:
        NotAMicrographError: pixels are of another type.
    """
    if dtype is None or dtype.kind != "u" or dtype.itemsize > 2:
        raise NotAMicrographError(
            f"has pixels of type {dtype}; semagent reads unsigned integers of 8 and 16 bits, so "
            "save the image as one of those, without rescaling if you can"
        )
    return dtype.itemsize * 8


def _pixels(array: npt.NDArray[Any]) -> Pixels:
    """The same numbers C-contiguous and in the machine's byte order."""
    if array.dtype.itemsize == 1:
        return np.ascontiguousarray(array, dtype=np.uint8)
    return np.ascontiguousarray(array, dtype=np.uint16)


def _through_palette(
    indices: npt.NDArray[Any], palette: npt.NDArray[np.uint16]
) -> tuple[Pixels, tuple[str, ...]]:
    """Look grey values up; the usual palette is a ramp, which makes the indices grey values.

    Args:
        indices: shape (height, width), uint8.
        palette: shape (3, 256), red, green and blue of 16 bits.
    """
    if indices.dtype != np.uint8 or palette.shape != (3, 256):
        raise NotAMicrographError("has a palette that does not have 256 colours")
    colours = (palette >> 8).astype(np.uint8)
    if (colours == np.arange(256)).all():
        return _pixels(indices), ()
    return to_grey(colours.T[indices], blue_first=False)
