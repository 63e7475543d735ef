"""Reading a micrograph from TIFF, PNG, JPEG or BMP.

What had to be changed to get grey pixels is told in ``notes``, for the caller to show; nothing
is printed or logged here.
"""

import logging
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile

from semagent.errors import InputFileError
from semagent.images.decode import NotAMicrographError, bit_depth_of, grey_tiff_page, to_grey
from semagent.images.fibics import read_fibics
from semagent.images.infobar import find_info_bar
from semagent.images.metadata import ImageMetadata, merge
from semagent.images.ome import read_ome_detectors, read_ome_planes
from semagent.images.sidecars import read_sidecar
from semagent.images.tescan import read_tescan
from semagent.images.thermo import read_thermo
from semagent.images.zeiss import read_zeiss
from semagent.types import Pixels

# What they print of a damaged file says no more than the error that they raise.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ENDS = {b"\x89PNG": b"IEND", b"\xff\xd8\xff\xe0": b"\xff\xd9", b"\xff\xd8\xff\xe1": b"\xff\xd9"}

_SQUARE_WITHIN = 0.01
_MOST_PIXELS, _LONGEST_SIDE = 1 << 30, 1 << 17
"""Beyond any detector: a damaged header must not eat the memory."""

# What tifffile and its codecs raise on damaged files; none of them documents it.
_DAMAGE = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    TypeError,
    MemoryError,
    struct.error,
    cv2.error,
)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What is known of one image before its pixels are needed.

    Attributes:
        path: the file.
        page: number of the page in a TIFF, 0 elsewhere.
        height: rows.
        width: columns.
        bit_depth: 8 or 16.
        metadata: acquisition settings.
        notes: sentences about what was or will be converted.
    """

    path: Path
    page: int
    height: int
    width: int
    bit_depth: int
    metadata: ImageMetadata
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ImageFile:
    """A micrograph that was read.

    Attributes:
        path: the file.
        pixels: shape (height, width), uint8 or uint16, C-contiguous and read-only.
        metadata: acquisition settings.
        info_bar_px: rows at the bottom that are information bar, see `find_info_bar`.
        notes: sentences for people about what was converted, e.g. colour to grey.
    """

    path: Path
    pixels: Pixels
    metadata: ImageMetadata
    info_bar_px: int
    notes: tuple[str, ...] = ()


def in_words(path: Path | str) -> str:
    """A path as text that can be recorded and sent: what is no Unicode in it becomes ``?``."""
    return str(path).encode(errors="replace").decode()


def read_image(path: Path | str, page: int = 0) -> ImageFile:
    """Read one micrograph with its acquisition settings.

    Args:
        path: TIFF, with any compression that imagecodecs knows, PNG, JPEG or BMP, recognised by
            content. Settings come from the tags of ZEISS, FEI/Thermo Fisher, TESCAN and Fibics,
            from OME-XML, or from the text file that JEOL and Hitachi put beside the image.
        page: which page of a TIFF.

    Raises:
        InputFileError: the file is missing, damaged, or not an 8- or 16-bit unsigned image; the
            message names it.
    """
    path = Path(path)
    with _named(path):
        if _is_tiff(path):
            with tifffile.TiffFile(path) as tif:
                return _tiff_image(path, tif, page, _ome(tif, read_ome_planes))
        if page != 0:
            raise NotAMicrographError(f"has one image; there is no page {page}")
        pixels, notes = _decode(path)
        metadata = read_sidecar(path, pixels.shape[0]) or ImageMetadata()
    return _image(path, pixels, metadata, notes)


def read_detectors(path: Path | str) -> tuple[ImageFile, ...]:
    """Read one scan, which several detectors may have recorded at once.

    Returns:
        One image of the same size for each channel of an OME-TIFF, with the channel's name as its
        detector; what `read_image` returns of any other file.

    Raises:
        InputFileError: as `read_image`; also when an OME-TIFF has several channels of more than
            one plane or time.
    """
    path = Path(path)
    with _named(path):
        if _is_tiff(path):
            with tifffile.TiffFile(path) as tif:
                ome = _ome(tif, read_ome_detectors)
                if ome:
                    return tuple(_tiff_image(path, tif, page, ome) for page in ome)
    return (read_image(path),)


def read_headers(path: Path | str) -> tuple[ImageHeader, ...]:
    """Read what is known of the images of a file, without decoding a TIFF's pixels.

    Returns:
        One header a focal plane of an OME-TIFF, in the order of Z, and the first image of any
        other file.

    Raises:
        InputFileError: as `read_image`; also when a TIFF ends before its pixels do.
    """
    path = Path(path)
    with _named(path):
        if _is_tiff(path):
            with tifffile.TiffFile(path) as tif:
                ome = _ome(tif, read_ome_planes)
                return tuple(_tiff_header(path, tif, page, ome) for page in ome or [0])
        pixels, notes = _decode(path)
        metadata = read_sidecar(path, pixels.shape[0]) or ImageMetadata()
        height, width = pixels.shape
        return (ImageHeader(path, 0, height, width, pixels.itemsize * 8, metadata, notes),)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong with a file into an error that names it."""
    try:
        yield
    except NotAMicrographError as error:
        raise InputFileError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise InputFileError(f"{path}: no such file") from error
    except PermissionError as error:
        raise InputFileError(f"{path}: may not be read ({error.strerror})") from error
    except IsADirectoryError as error:
        raise InputFileError(f"{path}: is a folder, not an image") from error
    except _DAMAGE as error:
        raise InputFileError(
            f"{path}: cannot be read as an image, it is damaged or cut short ({error})"
        ) from error


def _is_tiff(path: Path) -> bool:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise NotAMicrographError("is a pipe or a device, not a file; it is read more than once")
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise NotAMicrographError("is empty")
    return start in _TIFF_STARTS


def _decode(path: Path) -> tuple[Pixels, tuple[str, ...]]:
    """Decode PNG, JPEG or BMP."""
    data = path.read_bytes()
    end = _ENDS.get(data[:4])
    if end is not None and end not in data:
        raise NotAMicrographError("is cut short: the mark of its end is missing")
    # Not cv2.imread, which cannot open every path on Windows.
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise NotAMicrographError(
            "is no TIFF, PNG, JPEG or BMP image, or it is damaged or cut short"
        )
    return to_grey(np.asarray(pixels), blue_first=True)


def _page(tif: tifffile.TiffFile, number: int) -> tifffile.TiffPage:
    if not tif.pages:
        raise NotAMicrographError("is damaged or cut short: it holds no image")
    if not 0 <= number < len(tif.pages):
        raise NotAMicrographError(f"has {len(tif.pages)} pages; there is no page {number}")
    page = tif.pages[number]
    return page if isinstance(page, tifffile.TiffPage) else page.aspage()


def _ome(
    tif: tifffile.TiffFile, read: Callable[[tifffile.TiffFile], dict[int, ImageMetadata]]
) -> dict[int, ImageMetadata]:
    """The pages of an OME-TIFF; empty for other TIFFs."""
    if not tif.is_ome:
        return {}
    try:
        return read(tif)
    except ValueError as error:
        raise NotAMicrographError(str(error)) from error


def _tiff_image(
    path: Path, tif: tifffile.TiffFile, number: int, ome: dict[int, ImageMetadata]
) -> ImageFile:
    header = _tiff_header(path, tif, number, ome)
    pixels, notes = grey_tiff_page(_page(tif, number))
    return _image(path, pixels, header.metadata, (*header.notes, *notes))


def _image(
    path: Path, pixels: Pixels, metadata: ImageMetadata, notes: tuple[str, ...]
) -> ImageFile:
    pixels.flags.writeable = False
    return ImageFile(path, pixels, metadata, find_info_bar(pixels, metadata), notes)


def _tiff_header(
    path: Path, tif: tifffile.TiffFile, number: int, ome: dict[int, ImageMetadata]
) -> ImageHeader:
    page = _page(tif, number)
    _check_complete(page, tif.filehandle.size)
    height, width = page.imagelength, page.imagewidth
    if height * width > _MOST_PIXELS or max(height, width) > _LONGEST_SIDE:
        raise NotAMicrographError(f"claims {width} x {height} pixels; it is damaged")
    bit_depth = bit_depth_of(page.dtype)
    sources = [*_vendor_tags(page, width, height)]
    if number in ome:
        sources.append(ome[number])
    sidecar = read_sidecar(path, height)
    if sidecar is not None:
        sources.append(sidecar)
    metadata = merge(*sources)
    notes = _notes(metadata, number, 1 if ome else len(tif.pages))
    return ImageHeader(path, number, height, width, bit_depth, metadata, notes)


def _notes(metadata: ImageMetadata, number: int, pages: int) -> tuple[str, ...]:
    """What a user should know of a TIFF before its pixels are decoded."""
    notes = []
    if pages > 1:
        notes.append(f"holds {pages} pages, of which number {number} is read")
    pixel_width_m, pixel_height_m = metadata.pixel_size_m, metadata.pixel_height_m
    if pixel_width_m and pixel_height_m:
        aspect = pixel_height_m / pixel_width_m
        if abs(aspect - 1) > _SQUARE_WITHIN:
            notes.append(f"pixels are not square: height is {aspect:.3f} times width")
    return tuple(notes)


def _check_complete(page: tifffile.TiffPage, file_size: int) -> None:
    """Find out from the strip table alone that a file ends too early."""
    segments = zip(page.dataoffsets, page.databytecounts, strict=False)
    end = max((offset + count for offset, count in segments), default=0)
    if end == 0:
        raise NotAMicrographError("holds no pixels")
    if end > file_size:
        raise NotAMicrographError(
            f"is cut short: its pixels end at byte {end}, the file at byte {file_size}"
        )


def _vendor_tags(page: tifffile.TiffPage, width: int, height: int) -> Iterator[ImageMetadata]:
    """Settings from every vendor's tag that the page has, the microscope's own first."""
    zeiss = page.tags.valueof(34118)
    if isinstance(zeiss, dict):
        yield read_zeiss(zeiss, width)
    for code in (34682, 34680):
        thermo = page.tags.valueof(code)
        if isinstance(thermo, dict):
            yield read_thermo(thermo, width, height)
    tescan = page.tags.valueof(50431)
    if isinstance(tescan, bytes | str):
        data = tescan.encode("latin-1", "replace") if isinstance(tescan, str) else tescan
        settings = read_tescan(data, height)
        if settings is not None:
            yield settings
    fibics = page.tags.valueof(51023)
    if isinstance(fibics, bytes | str):
        xml = fibics.decode("utf-8", "replace") if isinstance(fibics, bytes) else fibics
        settings = read_fibics(xml, width, height)
        if settings is not None:
            yield settings
