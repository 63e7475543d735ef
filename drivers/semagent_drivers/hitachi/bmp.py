"""Bitmaps as the SEM PC saves them."""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semagent.errors import MicroscopeError

_HEADER = struct.Struct("<2sIHHIIiiHHI")
"""File header and as much of the image header as matters (Microsoft, BITMAPINFOHEADER)."""


def is_whole(data: bytes) -> bool:
    """Whether a file is as long as its header says, and has all pixels it tells of."""
    if len(data) < _HEADER.size:
        return False
    kind, size, _, _, offset, _, width, height, _, bits, _ = _HEADER.unpack_from(data)
    return bool(
        kind != b"BM" or len(data) >= max(size, offset + _stride(width, bits) * abs(height))
    )


def _stride(width: int, bits: int) -> int:
    """Bytes of a row: rows begin at multiples of four bytes."""
    return (width * bits + 31) // 32 * 4


def whole_file(path: Path) -> bytes | None:
    """What is in a file, once it is whole."""
    data = path.read_bytes()
    return data if is_whole(data) else None


def grey(data: bytes) -> npt.NDArray[np.uint8]:
    """Pixels of shape (height, width) of a whole file.

    Raises:
        MicroscopeError: not an uncompressed bitmap of 8 bits, or of 24 that are grey.
    """
    kind, _, _, _, offset, _, width, height, _, bits, packed = _HEADER.unpack_from(data)
    if kind != b"BM" or bits not in (8, 24) or packed or width < 1 or not height:
        raise MicroscopeError(
            "the SEM PC saved something else than a bitmap of 8 or 24 bits: "
            f"{kind!r}, {width} x {height} pixels of {bits} bits"
        )
    channels, stride = bits // 8, _stride(width, bits)
    rows = np.frombuffer(data, np.uint8, count=stride * abs(height), offset=offset)
    pixels = rows.reshape(abs(height), stride)[:, : width * channels]
    if height > 0:  # then the last row comes first
        pixels = pixels[::-1]
    if channels > 1:
        colours = pixels.reshape(abs(height), width, channels)
        if (colours != colours[:, :, :1]).any():
            raise MicroscopeError("the SEM PC saved a coloured image; switch colour mixing off")
        pixels = colours[:, :, 0]
    return np.array(pixels, order="C")
