"""Images as the SEM PC saves them, read only once they are whole."""

import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from semagent.errors import MicroscopeError

_HEADER = struct.Struct("<2sIHHIIiiHHI")
"""File header and as much of the image header as matters (Microsoft, BITMAPINFOHEADER)."""


class Stamp(NamedTuple):
    """By what a file that was written again is told from the one before."""

    modified_ns: int
    size: int


class ImageFolder:
    """A folder in which each image overwrites the last one of its name."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder, self._pattern = folder, pattern

    def stamps(self) -> dict[Path, Stamp]:
        """The images there are.

        Raises:
            OSError: the folder cannot be read.
        """
        stamps = {}
        for path in sorted(self._folder.glob(self._pattern)):
            with suppress(FileNotFoundError):  # it is being replaced
                facts = path.stat()
                stamps[path] = Stamp(facts.st_mtime_ns, facts.st_size)
        return stamps

    def newer(self, before: dict[Path, Stamp]) -> bytes | None:
        """The image that has been written since, if one has and it is whole.

        Raises:
            OSError: the folder cannot be read.
        """
        for path, stamp in self.stamps().items():
            if before.get(path) != stamp:
                try:
                    data = path.read_bytes()
                except (FileNotFoundError, PermissionError):  # Windows, while it is written
                    return None
                return data if is_whole(data) else None
        return None


def is_whole(data: bytes) -> bool:
    """Whether a file is as long as its header says."""
    if len(data) < _HEADER.size:
        return False
    kind, size, *_ = _HEADER.unpack_from(data)
    return bool(kind != b"BM" or len(data) >= size)


def grey(data: bytes) -> npt.NDArray[np.uint8]:
    """Pixels of shape (height, width).

    Raises:
        MicroscopeError: not an uncompressed bitmap of 8 bits, or of 24 that are grey.
    """
    kind, _, _, _, offset, _, width, height, _, bits, packed = _HEADER.unpack_from(data)
    if kind != b"BM" or bits not in (8, 24) or packed:
        raise MicroscopeError(
            f"the SEM PC saved something else than a bitmap of 8 or 24 bits: {kind!r}, {bits} bits"
        )
    channels = bits // 8
    stride = (width * channels + 3) // 4 * 4  # rows begin at multiples of four bytes
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
