"""OME-TIFF: where each plane of a focus series was taken, or with which detector.

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
    channels, planes, times = _sizes(tif, pixels)
    if channels != 1 or times != 1:
        raise ValueError(
            f"has {channels} channels and {times} times; a focus series has one of each"
        )
    pages = _pages(tif, planes)
    return {
        page: _metadata(pixels, working_distance_m=position_m)
        for page, position_m in zip(pages, _positions_m(pixels, planes), strict=True)
    }


def read_ome_detectors(tif: tifffile.TiffFile) -> dict[int, ImageMetadata]:
    """Read which detector each page of one scan was recorded with: one channel, one detector.

    Returns:
        Page number in the file to what is known of it, in the order of the channels; empty where
        there is one channel only. A channel without a name is called by its number, from 1.

    Raises:
        ValueError: there are several channels of more than one scan, or as in `read_ome_planes`.
    """
    pixels = _pixels(tif)
    channels, planes, times = _sizes(tif, pixels)
    if channels == 1:
        return {}
    if planes != 1 or times != 1:
        raise ValueError(
            f"has {channels} channels of {planes} planes and {times} times; a scan recorded with "
            "several detectors has one plane and one time"
        )
    # It lies at Z 0 of the focus series of one plane that each of its channels is.
    (position_m,) = _positions_m(pixels, 1)
    return {
        page: _metadata(pixels, working_distance_m=position_m, detector=name)
        for page, name in zip(_pages(tif, channels), _names(pixels, channels), strict=True)
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


def _sizes(tif: tifffile.TiffFile, pixels: Mapping[str, Any]) -> tuple[int, int, int]:
    """Numbers of channels, of which the colours of a pixel are one, of planes and of times."""
    channels, planes, times = (pixels.get(f"Size{axis}", 1) for axis in "CZT")
    colours = tif.series[0].keyframe.samplesperpixel
    return 1 if channels == colours else channels, planes, times


def _pages(tif: tifffile.TiffFile, count: int) -> list[int]:
    """Numbers of the pages in the order of the metadata, all of them in this file."""
    pages = [page.index for page in tif.series[0].pages if page is not None and page.parent is tif]
    if len(pages) != count:
        raise ValueError(f"holds {len(pages)} of the {count} planes its metadata describe")
    return pages


def _metadata(pixels: Mapping[str, Any], **of_page: Any) -> ImageMetadata:
    return ImageMetadata(
        pixel_size_m=_length_m(pixels, "PhysicalSizeX"),
        pixel_height_m=_length_m(pixels, "PhysicalSizeY"),
        **of_page,
    )


def _names(pixels: Mapping[str, Any], count: int) -> list[str]:
    """The name of the detector of each channel."""
    channels = pixels.get("Channel", [])
    names = [channel.get("Name") for channel in channels if isinstance(channel, Mapping)]
    names += [None] * (count - len(names))
    return [
        f"channel {number}" if name is None else str(name)
        for number, name in enumerate(names[:count], start=1)
    ]


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
