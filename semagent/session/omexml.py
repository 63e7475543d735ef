"""OME-XML (schema 2016-06) of recorded frames, in one place for all files that carry it.

What has a standard place stands there: pixel size, acquisition date, detector, exposure time, stage
position and, as Z position, the working distance. Everything else goes into annotations.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

from semagent import __version__
from semagent.types import FrameHeader

SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
HEADER_NAMESPACE = "semagent/frame-header"
DERIVED_NAMESPACE = "semagent/derived"
DOSE_NAMESPACE = "semagent/dose"

_LEAST = 1e-37
"""The schema's numbers are of single precision: what is smaller counts as zero."""


@dataclass(frozen=True, slots=True)
class OmePlane:
    """One frame of an image.

    Attributes:
        page: number of its page in the TIFF file, ``None`` where the pixels are not in a TIFF.
        notes: texts by namespace.
    """

    header: FrameHeader
    page: int | None = 0
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OmeImage:
    """Frames of one size, pixel size and detector, one after the other in time.

    Attributes:
        shape: (height, width).
        pixel_type: ``uint8`` or ``uint16``.
        notes: texts by namespace.
        derived: made by an engine, not by the microscope; goes to whoever writes it, while people
            are told by ``name`` and ``description``.
    """

    name: str
    description: str
    shape: tuple[int, int]
    pixel_type: str
    planes: Sequence[OmePlane]
    notes: Mapping[str, str] = field(default_factory=dict)
    derived: bool = False


def ome_xml(images: Sequence[OmeImage]) -> str:
    """Describe images; what is not known or not finite is left out, as the schema wants.

    The text is pure ASCII, because a TIFF description is.
    """
    root = ElementTree.Element("OME", {"xmlns": SCHEMA, "Creator": f"semagent {__version__}"})
    instrument = _add(root, "Instrument", ID="Instrument:0")
    structured = ElementTree.Element("StructuredAnnotations")
    for index, image in enumerate(images):
        detector = _legal(image.planes[0].header.detector)
        _add(instrument, "Detector", ID=f"Detector:0:{index}", Model=detector, Type="Other")
        _add_image(root, structured, index, image)
    root.append(structured)
    xml: bytes = ElementTree.tostring(root, encoding="us-ascii", xml_declaration=True)
    return xml.decode("ascii")


def read_notes(xml: str) -> dict[str, str]:
    """The texts of an OME-XML by namespace.

    Raises:
        ValueError: it is not XML.
    """
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314 - expat expands no external entities
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from error
    return {
        node.get("Namespace", ""): node.findtext(f"{{{SCHEMA}}}Value", "")
        for node in root.iter(f"{{{SCHEMA}}}CommentAnnotation")
    }


def _legal(text: str) -> str:
    """``text`` with the characters XML cannot hold replaced; the header in JSON keeps them."""
    return "".join(
        c
        if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff"
        else "\ufffd"
        for c in text
    )


def _add_image(
    root: ElementTree.Element, structured: ElementTree.Element, index: int, image: OmeImage
) -> None:
    first = image.planes[0].header
    element = _add(root, "Image", ID=f"Image:{index}", Name=_legal(image.name))
    _add(element, "AcquisitionDate", _iso(first.wall_ns))
    _add(element, "Description", _legal(image.description))
    _add(element, "InstrumentRef", ID="Instrument:0")
    size_nm = _scaled(first.scan.pixel_size_m, 1e9, positive=True)
    unit_nm = "nm" if size_nm is not None else None
    pixels = _add(
        element,
        "Pixels",
        ID=f"Pixels:{index}",
        DimensionOrder="XYCZT",
        Type=image.pixel_type,
        BigEndian="false",
        SizeX=image.shape[1],
        SizeY=image.shape[0],
        SizeC=1,
        SizeZ=1,
        SizeT=len(image.planes),
        PhysicalSizeX=size_nm,
        PhysicalSizeXUnit=unit_nm,
        PhysicalSizeY=size_nm,
        PhysicalSizeYUnit=unit_nm,
    )
    channel = _add(
        pixels, "Channel", ID=f"Channel:{index}:0", Name=_legal(first.detector), SamplesPerPixel=1
    )
    _add(channel, "DetectorSettings", ID=f"Detector:0:{index}")
    for time, plane in enumerate(image.planes):
        if plane.page is not None:
            _add(pixels, "TiffData", FirstT=time, IFD=plane.page, PlaneCount=1)
    if any(plane.page is None for plane in image.planes):
        _add(pixels, "MetadataOnly")
    for time, plane in enumerate(image.planes):
        described = _add(pixels, "Plane", TheC=0, TheZ=0, TheT=time, **_plane(image, plane.header))
        _annotate(described, structured, plane.notes)
    _annotate(element, structured, image.notes)


def _plane(image: OmeImage, header: FrameHeader) -> dict[str, Any]:
    """The attributes of a plane."""
    known: dict[str, Any] = {}
    if len(image.planes) > 1:
        known["DeltaT"] = (header.monotonic_ns - image.planes[0].header.monotonic_ns) / 1e9
    positions_m = (header.stage.x_m, header.stage.y_m, header.optics.working_distance_m)
    for axis, position_m in zip("XYZ", positions_m, strict=True):
        position_mm = _scaled(position_m, 1e3)
        if position_mm is not None:
            known |= {f"Position{axis}": position_mm, f"Position{axis}Unit": "mm"}
    if header.scan.dwell_s is not None:
        scanned = image.shape[0] * image.shape[1] * header.scan.frame_averages
        known["ExposureTime"] = _scaled(header.scan.dwell_s * scanned, 1.0)
    return known


def _annotate(
    element: ElementTree.Element, structured: ElementTree.Element, notes: Mapping[str, str]
) -> None:
    for namespace, text in notes.items():
        note = f"Annotation:{len(structured)}"
        _add(element, "AnnotationRef", ID=note)
        comment = _add(structured, "CommentAnnotation", ID=note, Namespace=namespace)
        _add(comment, "Value", text)


def _add(
    parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: Any
) -> ElementTree.Element:
    known = {key: str(value) for key, value in attributes.items() if value is not None}
    child = ElementTree.SubElement(parent, tag, known)
    child.text = text
    return child


def _scaled(value: float | None, factor: float, *, positive: bool = False) -> float | None:
    """``value * factor``, or ``None`` where that says nothing."""
    if value is None or not math.isfinite(value * factor):
        return None
    return None if positive and value * factor < _LEAST else value * factor


def _iso(wall_ns: int) -> str:
    """Nanoseconds since the Unix epoch as an ISO 8601 date in UTC, to the microsecond."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=wall_ns // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
