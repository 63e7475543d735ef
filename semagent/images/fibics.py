"""Fibics NPVE and ZEISS Atlas: XML in TIFF tag 51023."""

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import ParseError

import tifffile

from semagent.images.metadata import ImageMetadata, bar_below
from semagent.images.units import (
    ANGLE,
    CURRENT,
    FRACTION,
    LENGTH,
    TIME,
    VOLTAGE,
    positive,
    text,
    to_si,
)
from semagent.types import StagePosition

_WORKING_DISTANCE_NAMES = ("WD", "Working Distance", "WorkingDistance")


def read_fibics(xml: str, image_width: int, image_height: int) -> ImageMetadata | None:
    """Read the XML of tag 51023; ``None`` if it is not of Fibics.

    The working distance is an item of ``BeamInfo``, or else ``Scan/Focus``, and counts only
    with its unit: a bare number has meant different things. The scale of the stigmators is not
    written down anywhere, so they are left out.
    """
    try:
        root = tifffile.xml2dict(xml.strip("\0 \r\n\t")).get("Fibics")
    except ParseError:
        return None
    if not isinstance(root, Mapping):
        return None

    image, scan, stage = _section(root, "Image"), _section(root, "Scan"), _section(root, "Stage")
    beam = _items(_section(root, "BeamInfo"))
    width_px = to_si(_value(image, "Width"), FRACTION) or image_width
    height_px = to_si(_value(image, "Height"), FRACTION)
    field_m = to_si(_with_unit(scan, "FOV_X"), LENGTH, "um")
    averages = to_si(_value(scan, "LineAvg"), FRACTION)
    working_distance_m = to_si(_with_unit(scan, "Focus"), LENGTH)
    for name in _WORKING_DISTANCE_NAMES:
        working_distance_m = to_si(beam.get(name), LENGTH) or working_distance_m
    return ImageMetadata(
        vendor="Fibics",
        instrument=text(_value(image, "Machine")),
        working_distance_m=positive(working_distance_m),
        pixel_size_m=None if field_m is None else positive(field_m / width_px),
        dwell_s=positive(to_si(_with_unit(scan, "Dwell"), TIME, "ns")),
        frame_averages=None if averages is None else max(1, int(averages)),
        accelerating_voltage_v=positive(to_si(beam.get("AccV"), VOLTAGE, "v")),
        beam_current_a=positive(to_si(beam.get("BeamI"), CURRENT, "pa")),
        stage=StagePosition(
            x_m=to_si(_with_unit(stage, "X"), LENGTH, "um"),
            y_m=to_si(_with_unit(stage, "Y"), LENGTH, "um"),
            z_m=to_si(_with_unit(stage, "Z"), LENGTH, "um"),
            rotation_rad=to_si(_with_unit(stage, "Rot"), ANGLE, "deg"),
            tilt_rad=to_si(_with_unit(stage, "Tilt"), ANGLE, "deg"),
        ),
        detector=text(_value(image, "Detector")),
        info_bar_px=bar_below(image_height, None if height_px is None else int(height_px)),
    )


def _section(root: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = root.get(name)
    return section if isinstance(section, Mapping) else {}


def _value(section: Mapping[str, Any], name: str) -> Any:
    """The text of an element, with or without attributes."""
    element = section.get(name)
    return element.get("value") if isinstance(element, Mapping) else element


def _with_unit(section: Mapping[str, Any], name: str) -> Any:
    """The text of an element followed by its attribute ``units``."""
    element = section.get(name)
    if isinstance(element, Mapping):
        return f"{element.get('value')} {element.get('units', '')}"
    return element


def _items(section: Mapping[str, Any]) -> dict[str, Any]:
    """The ``<item name="…">`` elements of a section by name; one item comes without a list."""
    items = section.get("item", ())
    return {
        str(item.get("name")): item.get("value")
        for item in (items if isinstance(items, list | tuple) else [items])
        if isinstance(item, Mapping)
    }
