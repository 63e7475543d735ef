"""One frame as one OME-TIFF: readable by tifffile, Fiji and napari, with the header inside.

Pixels are stored uncompressed, in one strip, little-endian. The OME-XML (schema 2016-06) of the
first image description carries what has a standard place there: pixel size, acquisition date,
detector, stage position and, as Z position, the working distance. The whole header is the text
of the `CommentAnnotation` of the namespace `HEADER_NAMESPACE`, as JSON.
"""

import math
import struct
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import tifffile

from semagent import __version__
from semagent.errors import InputFileError
from semagent.session.jsontext import from_json, to_json
from semagent.session.layout import DerivedRecord, EngineRecord, frame_file
from semagent.types import Frame, FrameAnalysis, FrameHeader, Pixels

_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
HEADER_NAMESPACE = "semagent/frame-header"
DERIVED_NAMESPACE = "semagent/derived"

_UNREADABLE = (OSError, ValueError, LookupError, TypeError, struct.error, tifffile.TiffFileError)
"""What tifffile raises over a file that is torn or no TIFF at all."""


def encode_raw(frame: Frame) -> memoryview:
    """Return the whole file of a raw frame.

    Raises:
        ValueError: the frame has no pixels.
    """
    header = frame.header
    xml = _ome_xml(
        frame.pixels,
        header,
        name=f"frame {header.sequence}",
        description="Raw frame as the microscope delivered it.",
        annotations={HEADER_NAMESPACE: to_json(header)},
    )
    return _encode(frame.pixels, header, xml)


def encode_derived(
    header: FrameHeader,
    pixels: Pixels,
    record: DerivedRecord,
    figures: FrameAnalysis,
    engine: EngineRecord,
) -> memoryview:
    """Return the whole file of a restored frame, marked as derived, from what and by what.

    Raises:
        ValueError: there are no pixels.
    """
    model = f"model SHA-256 {record.engine_sha256}" if record.engine_sha256 else "no model file"
    provenance = {
        "record": record,
        "parameters": engine.parameters,
        "figures": figures,
    }
    xml = _ome_xml(
        pixels,
        header,
        name=f"frame {header.sequence}, restored (derived, not raw)",
        description=(
            f"DERIVED DATA, not a raw micrograph: restored from {frame_file(header.sequence)} "
            f"by {record.engine} ({model}). Do not measure grey values here."
        ),
        annotations={HEADER_NAMESPACE: to_json(header), DERIVED_NAMESPACE: to_json(provenance)},
    )
    return _encode(pixels, header, xml)


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


def read_pixels(path: Path) -> tuple[Pixels, dict[str, str]]:
    """Read the pixels, shape (height, width), and the annotations by namespace.

    Raises:
        InputFileError: the file is missing, torn or not a TIFF.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            pixels = np.ascontiguousarray(page.asarray())
            text = page.description
    except _UNREADABLE as error:
        raise InputFileError(f"{path}: cannot be read as OME-TIFF: {error}") from error
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - expat expands no external entities
    except ElementTree.ParseError as error:
        raise InputFileError(f"{path}: its description is not OME-XML: {error}") from error
    annotations = {
        node.get("Namespace", ""): node.findtext(f"{{{_SCHEMA}}}Value", "")
        for node in root.iter(f"{{{_SCHEMA}}}CommentAnnotation")
    }
    return pixels, annotations


def _encode(pixels: Pixels, header: FrameHeader, xml: str) -> memoryview:
    if not pixels.size:
        raise ValueError(f"frame {header.sequence} has no pixels, its shape is {pixels.shape}")
    pixel_size_m = header.scan.pixel_size_m
    resolution = None
    if pixel_size_m is not None and 1e-11 <= pixel_size_m <= 1e-2:
        resolution = (1e-2 / pixel_size_m, 1e-2 / pixel_size_m)
    file = BytesIO()
    tifffile.imwrite(
        file,
        pixels,
        byteorder="<",
        photometric="minisblack",
        description=xml,
        metadata=None,
        software=f"semagent {__version__}",
        resolution=resolution,
        resolutionunit="CENTIMETER" if resolution else None,
    )
    return file.getbuffer()


def _ome_xml(
    pixels: Pixels,
    header: FrameHeader,
    *,
    name: str,
    description: str,
    annotations: dict[str, str],
) -> str:
    """Describe one plane; what is not known or not finite is left out, as the schema wants."""
    scan = header.scan
    detector = _legal(header.detector)
    root = ElementTree.Element("OME", {"xmlns": _SCHEMA, "Creator": f"semagent {__version__}"})
    instrument = _add(root, "Instrument", ID="Instrument:0")
    _add(instrument, "Detector", ID="Detector:0:0", Model=detector, Type="Other")

    image = _add(root, "Image", ID="Image:0", Name=name)
    _add(image, "AcquisitionDate", _iso(header.wall_ns))
    _add(image, "Description", description)
    _add(image, "InstrumentRef", ID="Instrument:0")
    size_nm = _scaled(scan.pixel_size_m, 1e9, positive=True)
    unit_nm = "nm" if size_nm is not None else None
    plane_set = _add(
        image,
        "Pixels",
        ID="Pixels:0",
        DimensionOrder="XYCZT",
        Type=pixels.dtype.name,
        BigEndian="false",
        SizeX=pixels.shape[1],
        SizeY=pixels.shape[0],
        SizeC=1,
        SizeZ=1,
        SizeT=1,
        PhysicalSizeX=size_nm,
        PhysicalSizeXUnit=unit_nm,
        PhysicalSizeY=size_nm,
        PhysicalSizeYUnit=unit_nm,
    )
    channel = _add(plane_set, "Channel", ID="Channel:0:0", Name=detector, SamplesPerPixel=1)
    _add(channel, "DetectorSettings", ID="Detector:0:0")
    _add(plane_set, "TiffData", IFD=0, PlaneCount=1)
    plane: dict[str, Any] = {"TheC": 0, "TheZ": 0, "TheT": 0}
    positions_m = (header.stage.x_m, header.stage.y_m, header.optics.working_distance_m)
    for axis, position_m in zip("XYZ", positions_m, strict=True):
        position_mm = _scaled(position_m, 1e3)
        if position_mm is not None:
            plane |= {f"Position{axis}": position_mm, f"Position{axis}Unit": "mm"}
    if scan.dwell_s is not None:
        frame_s = scan.dwell_s * pixels.size * scan.frame_averages
        plane["ExposureTime"] = _scaled(frame_s, 1.0)
    _add(plane_set, "Plane", **plane)

    structured = ElementTree.Element("StructuredAnnotations")
    for index, (namespace, text) in enumerate(annotations.items()):
        note = f"Annotation:{index}"
        _add(image, "AnnotationRef", ID=note)
        comment = _add(structured, "CommentAnnotation", ID=note, Namespace=namespace)
        _add(comment, "Value", text)
    root.append(structured)
    # Pure ASCII, because a TIFF description is; ElementTree escapes everything else.
    xml: bytes = ElementTree.tostring(root, encoding="us-ascii", xml_declaration=True)
    return xml.decode("ascii")


def _add(
    parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: Any
) -> ElementTree.Element:
    known = {key: str(value) for key, value in attributes.items() if value is not None}
    child = ElementTree.SubElement(parent, tag, known)
    child.text = text
    return child


def _scaled(value: float | None, factor: float, *, positive: bool = False) -> float | None:
    """``value * factor``, or ``None`` where that says nothing."""
    if value is None or not math.isfinite(value * factor) or (positive and value * factor <= 0):
        return None
    return value * factor


def _legal(text: str) -> str:
    """``text`` with the characters XML cannot hold replaced; the header in JSON keeps them."""
    return "".join(
        c
        if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff"
        else "\ufffd"
        for c in text
    )


def _iso(wall_ns: int) -> str:
    """Nanoseconds since the Unix epoch as an ISO 8601 date in UTC, to the microsecond."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=wall_ns // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
