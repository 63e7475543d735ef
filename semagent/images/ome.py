"""OME-TIFF: where each plane of a focus series was taken.

The format is described at https://docs.openmicroscopy.org/ome-model/ (schema 2016-06).
"""

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import ParseError

import tifffile

from semagent.images.metadata import ImageMetadata
from semagent.images.units import LENGTH, positive, to_si


def read_ome_planes(tif: tifffile.TiffFile) -> dict[int, ImageMetadata]:
    """Read pixel size and working distance of every plane of an OME-TIFF.

    A plane's ``PositionZ``, with its unit, is taken as its working distance. Where no plane has
    one, ``PhysicalSizeZ`` (micrometres by default) is the step between planes, and working
    distances count from 0 at the first plane.

    Returns:
        Page number in the file to what is known of it, in the order of Z.

    Raises:
        ValueError: the file is no OME-TIFF of one focus series; the message says what it is
            instead, without the name of the file.
    """
    pixels = _pixels(tif)
    series = tif.series[0]
    sizes = {axis: pixels.get(f"Size{axis}", 1) for axis in "ZCT"}
    if sizes["C"] not in (1, series.keyframe.samplesperpixel) or sizes["T"] != 1:
        raise ValueError(
            f"has {sizes['C']} channels and {sizes['T']} times; a focus series has one of each"
        )

    pages = [page.index for page in series.pages if page is not None and page.parent is tif]
    if len(pages) != sizes["Z"]:
        raise ValueError(f"holds {len(pages)} of the {sizes['Z']} planes its metadata describe")

    common = ImageMetadata(
        pixel_size_m=_length_m(pixels, "PhysicalSizeX"),
        pixel_height_m=_length_m(pixels, "PhysicalSizeY"),
    )
    positions = _positions_m(pixels, len(pages))
    return {
        page: ImageMetadata(
            pixel_size_m=common.pixel_size_m,
            pixel_height_m=common.pixel_height_m,
            working_distance_m=position_m,
        )
        for page, position_m in zip(pages, positions, strict=True)
    }


def _pixels(tif: tifffile.TiffFile) -> Mapping[str, Any]:
    """The element that describes the only image of the file."""
    try:
        images = tifffile.xml2dict(tif.ome_metadata or "")["OME"]["Image"]
        if isinstance(images, list):
            raise ValueError(f"holds {len(images)} images; a focus series is one image")
        pixels = images["Pixels"]
    except (ParseError, LookupError, TypeError) as error:
        raise ValueError("has no readable OME metadata") from error
    if not isinstance(pixels, Mapping) or not tif.series:
        raise ValueError("has no readable OME metadata")
    return pixels


def _length_m(element: Mapping[str, Any], name: str) -> float | None:
    """An attribute with its unit in another attribute; micrometres by the schema's default."""
    return positive(to_si(f"{element.get(name)} {element.get(f'{name}Unit', 'µm')}", LENGTH))


def _positions_m(pixels: Mapping[str, Any], count: int) -> list[float | None]:
    """The working distance of each plane in the order of Z."""
    planes = pixels.get("Plane", [])
    planes = planes if isinstance(planes, list) else [planes]
    by_z = {plane.get("TheZ"): plane for plane in planes if isinstance(plane, Mapping)}
    if any("PositionZ" in plane for plane in by_z.values()):
        return [_position_m(by_z.get(z, {}), z) for z in range(count)]
    step_m = _length_m(pixels, "PhysicalSizeZ")
    return [None if step_m is None else z * step_m for z in range(count)]


def _position_m(plane: Mapping[str, Any], z: int) -> float:
    # Without a unit, PositionZ counts in an unnamed reference frame, says the schema.
    position_m = to_si(f"{plane.get('PositionZ')} {plane.get('PositionZUnit', '')}", LENGTH)
    if position_m is None:
        raise ValueError(
            f"gives no PositionZ with a PositionZUnit of length for plane {z}, though for others"
        )
    return position_m
