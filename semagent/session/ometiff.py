"""One frame as one OME-TIFF: readable by tifffile, Fiji and napari, with the header inside.

Pixels are stored uncompressed, in one strip, little-endian. The OME-XML (schema 2016-06) of the
first image description carries what has a standard place there: pixel size, acquisition date,
detector, stage position and, as Z position, the working distance. The whole header is the text
of the `CommentAnnotation` of the namespace `HEADER_NAMESPACE`, as JSON.
"""

import struct
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tifffile

from semagent import __version__
from semagent.errors import InputFileError
from semagent.session.jsontext import from_json, to_json
from semagent.session.layout import DerivedRecord
from semagent.session.omexml import (
    DERIVED_NAMESPACE,
    HEADER_NAMESPACE,
    OmeImage,
    OmePlane,
    ome_xml,
    read_notes,
)
from semagent.types import Frame, FrameAnalysis, FrameHeader, Pixels

_UNREADABLE = (OSError, ValueError, LookupError, TypeError, struct.error, tifffile.TiffFileError)
"""What tifffile raises over a file that is torn or no TIFF at all."""


def encode_raw(frame: Frame) -> memoryview:
    """Return the whole file of a raw frame.

    Raises:
        ValueError: the frame has no pixels.
    """
    header = frame.header
    return _encode(
        frame.pixels,
        header,
        name=f"frame {header.sequence}",
        description="Raw frame as the microscope delivered it.",
        notes={HEADER_NAMESPACE: to_json(header)},
    )


def encode_derived(
    header: FrameHeader,
    pixels: Pixels,
    record: DerivedRecord,
    figures: FrameAnalysis,
    parameters: Mapping[str, Any],
) -> memoryview:
    """Return the whole file of a restored frame, marked as derived, from what and by what.

    Raises:
        ValueError: there are no pixels.
    """
    provenance = {"record": record, "parameters": parameters, "figures": figures}
    return _encode(
        pixels,
        header,
        name=f"frame {header.sequence}, restored (derived, not raw)",
        description=(
            f"DERIVED DATA, not a raw micrograph: restored from {record.raw_file} "
            f"by {record.engine}. Do not measure grey values here."
        ),
        notes={HEADER_NAMESPACE: to_json(header), DERIVED_NAMESPACE: to_json(provenance)},
    )


def read_frame_file(path: Path) -> Frame:
    """Read one raw frame with its header from its file alone.

    Raises:
        InputFileError: it is missing, torn, or no raw frame of a session.
    """
    pixels, annotations = read_pixels(path)
    if DERIVED_NAMESPACE in annotations:
        raise InputFileError(f"{path}: this is a restored frame, not a raw one; look in frames/")
    if HEADER_NAMESPACE not in annotations:
        raise InputFileError(f"{path}: no frame of a semagent session, its OME-XML has no header")
    try:
        header = msgspec.convert(from_json(annotations[HEADER_NAMESPACE]), FrameHeader)
        return Frame(header, pixels)
    except ValueError as error:
        raise InputFileError(f"{path}: its header cannot be read: {error}") from error


def read_derived_file(path: Path) -> tuple[Pixels, FrameAnalysis]:
    """Read one restored frame, and what its engine said of it, from its file alone.

    Raises:
        InputFileError: it is missing, torn, or no restored frame of a session.
    """
    pixels, annotations = read_pixels(path)
    try:
        figures = from_json(annotations[DERIVED_NAMESPACE])["figures"]
        return pixels, msgspec.convert(figures, FrameAnalysis)
    except (LookupError, TypeError, ValueError) as error:
        raise InputFileError(f"{path}: no restored frame of a session: {error}") from error


def read_pixels(path: Path) -> tuple[Pixels, dict[str, str]]:
    """Read the pixels, shape (height, width), and the annotations by namespace.

    Raises:
        InputFileError: the file is missing, torn or not a TIFF.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            if page.nbytes > path.stat().st_size:  # they are not compressed
                raise ValueError(f"{page.nbytes} bytes of pixels do not fit into this file")
            pixels = np.ascontiguousarray(page.asarray())
            text = page.description
    except _UNREADABLE as error:
        raise InputFileError(f"{path}: cannot be read as OME-TIFF: {error}") from error
    try:
        return pixels, read_notes(text)
    except ValueError as error:
        raise InputFileError(f"{path}: its description is not OME-XML: {error}") from error


def _encode(
    pixels: Pixels, header: FrameHeader, *, name: str, description: str, notes: dict[str, str]
) -> memoryview:
    if not pixels.size:
        raise ValueError(f"frame {header.sequence} has no pixels, its shape is {pixels.shape}")
    height, width = pixels.shape
    image = OmeImage(
        name=name,
        description=description,
        shape=(height, width),
        pixel_type=pixels.dtype.name,
        planes=(OmePlane(header),),
        notes=notes,
    )
    file = BytesIO()
    with tifffile.TiffWriter(file, byteorder="<") as tiff:
        write_page(tiff, pixels, header, description=ome_xml([image]))
    return file.getbuffer()


def write_page(
    tiff: tifffile.TiffWriter, pixels: Pixels, header: FrameHeader, *, description: str | None
) -> None:
    """Append one frame to a TIFF file: uncompressed, in one strip, with its pixel size."""
    pixel_size_m = header.scan.pixel_size_m
    resolution = None
    if pixel_size_m is not None and 1e-11 <= pixel_size_m <= 1e-2:
        resolution = (1e-2 / pixel_size_m, 1e-2 / pixel_size_m)
    tiff.write(
        pixels,
        photometric="minisblack",
        description=description,
        metadata=None,
        software=f"semagent {__version__}",
        resolution=resolution,
        resolutionunit="CENTIMETER" if resolution else None,
    )
