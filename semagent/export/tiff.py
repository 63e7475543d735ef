"""One OME-TIFF of a whole session: a page a frame, in the order in which they were taken."""

from collections.abc import Sequence
from pathlib import Path

import tifffile

from semagent.session import FrameRecord
from semagent.session.ometiff import write_page
from semagent.session.omexml import OmeImage, ome_xml
from semagent.types import FrameHeader, Pixels

_CLASSIC_BYTES = 3_000_000_000
"""TIFF counts bytes in 32 bits; beyond this, with room for headers, it has to be a BigTIFF."""


class TiffSink:
    """See `semagent.export.gathering.Sink`.

    The description stands in the first page but is known last, so it is put in at the end.

    Args:
        path: the file.
        records: what is to come, for its size.
    """

    def __init__(self, path: Path, records: Sequence[FrameRecord]) -> None:
        scans = [record.header.scan for record in records]
        size = sum(scan.width_px * scan.height_px * scan.bit_depth // 8 for scan in scans)
        self._path = path
        # Twice, for restored frames may come along.
        self._tiff = tifffile.TiffWriter(path, byteorder="<", bigtiff=2 * size > _CLASSIC_BYTES)
        self._pages = 0

    def add(self, image: int, time: int, header: FrameHeader, pixels: Pixels) -> int:
        """See `Sink`."""
        write_page(self._tiff, pixels, header, description=None if self._pages else "OME-XML")
        self._pages += 1
        return self._pages - 1

    def finish(self, images: Sequence[OmeImage]) -> None:
        """See `Sink`."""
        self.close()
        tifffile.tiffcomment(self._path, ome_xml(images).encode("ascii"))

    def close(self) -> None:
        """See `Sink`."""
        self._tiff.close()
