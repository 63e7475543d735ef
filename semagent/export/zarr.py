"""One OME-Zarr of a whole session: version 0.4 in Zarr 2, which most programs open.

Images lie side by side as bioformats2raw lays them out: ``0``, ``1``, …, and all that is known of
the frames in ``OME/METADATA.ome.xml``, as in the OME-TIFF. One chunk is one frame. Beside large
frames lie smaller ones, each of half the size of the last, for programs that show a whole frame.

https://ngff.openmicroscopy.org/0.4
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zarr
from numcodecs import Blosc

from semagent.session.omexml import OmeImage, ome_xml
from semagent.types import FrameHeader, Pixels

_VERSION = "0.4"
_SMALL_PX = 512
"""Sides of a frame up to this are not halved any more."""
_ROOM = 256
"""Frames an array grows by: it is written anew with each change of its shape."""


class ZarrSink:
    """See `semagent.export.gathering.Sink`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._root = zarr.open_group(path, mode="w-", zarr_format=2)
        self._arrays: list[list[Any]] = []
        self._greys: list[tuple[int, int]] = []

    def add(self, image: int, time: int, header: FrameHeader, pixels: Pixels) -> None:
        """See `Sink`."""
        darkest, brightest = int(pixels.min()), int(pixels.max())
        levels = pyramid(pixels)
        if image == len(self._arrays):
            group = self._root.create_group(str(image))
            self._arrays.append([_create(group, str(k), each) for k, each in enumerate(levels)])
            self._greys.append((darkest, brightest))
        for array, each in zip(self._arrays[image], levels, strict=True):
            if time == array.shape[0]:
                array.resize((time + _ROOM, *array.shape[1:]))
            array[time, 0] = each
        low, high = self._greys[image]
        self._greys[image] = (min(low, darkest), max(high, brightest))

    def finish(self, images: Sequence[OmeImage]) -> None:
        """See `Sink`."""
        for index, image in enumerate(images):
            arrays = self._arrays[index]
            for array in arrays:
                array.resize((len(image.planes), *array.shape[1:]))
            attributes = _attributes(image, self._greys[index], len(arrays))
            self._root[str(index)].attrs.update(attributes)
        self._root.attrs["bioformats2raw.layout"] = 3
        ome = self._root.create_group("OME")
        ome.attrs["series"] = [str(index) for index in range(len(images))]
        file = self._path / "OME" / "METADATA.ome.xml"
        file.write_text(ome_xml(images), encoding="ascii")

    def close(self) -> None:
        """See `Sink`."""


def pyramid(pixels: Pixels) -> list[Pixels]:
    """A frame, and it again at half the size, at a quarter, and so on.

    Each pixel is the rounded mean of four; an odd last row or column is left out.
    """
    levels = [pixels]
    while max(pixels.shape) > _SMALL_PX and min(pixels.shape) > 1:
        height, width = (side // 2 for side in pixels.shape)
        even = pixels[: 2 * height, : 2 * width]
        smaller: Any = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
        pixels = smaller  # of the same type
        levels.append(pixels)
    return levels


def _create(group: Any, name: str, pixels: Pixels) -> Any:
    return group.create_array(
        name,
        shape=(_ROOM, 1, *pixels.shape),
        chunks=(1, 1, *pixels.shape),
        dtype=pixels.dtype,
        compressors=Blosc("zstd", clevel=3, shuffle=Blosc.SHUFFLE),
        chunk_key_encoding={"name": "v2", "separator": "/"},
        fill_value=0,
    )


def _attributes(image: OmeImage, greys: tuple[int, int], levels: int) -> dict[str, Any]:
    """What OME-Zarr 0.4 says of an image."""
    first = image.planes[0].header
    size_m = first.scan.pixel_size_m
    known = size_m is not None and math.isfinite(size_m) and size_m > 0
    length = {"type": "space", **({"unit": "nanometer"} if known else {})}
    scale_nm = size_m * 1e9 if size_m is not None and known else 1.0
    interval_s = _interval_s(image)
    time = {"type": "time", **({"unit": "second"} if interval_s is not None else {})}
    return {
        "multiscales": [
            {
                "version": _VERSION,
                "name": image.name,
                "axes": [
                    {"name": "t", **time},
                    {"name": "c", "type": "channel"},
                    {"name": "y", **length},
                    {"name": "x", **length},
                ],
                "datasets": [
                    _dataset(level, interval_s or 1.0, scale_nm) for level in range(levels)
                ],
                "metadata": {"description": image.description},
            }
        ],
        "omero": {
            "version": _VERSION,
            "name": image.name,
            "channels": [
                {
                    "label": first.detector,
                    "color": "FFFFFF",
                    "active": True,
                    "window": {
                        "min": 0,
                        "max": int(np.iinfo(image.pixel_type).max),
                        "start": greys[0],
                        "end": max(greys[1], greys[0] + 1),
                    },
                }
            ],
            "rdefs": {"model": "greyscale", "defaultT": 0, "defaultZ": 0},
        },
    }


def _dataset(level: int, interval_s: float, scale_nm: float) -> dict[str, Any]:
    """One size of an image; the centre of its first pixel lies among those it is the mean of."""
    size_nm, middle_nm = scale_nm * 2**level, scale_nm * (2**level - 1) / 2
    scale = {"type": "scale", "scale": [interval_s, 1.0, size_nm, size_nm]}
    moved = {"type": "translation", "translation": [0.0, 0.0, middle_nm, middle_nm]}
    transformations = [scale, moved] if level else [scale]
    return {"path": str(level), "coordinateTransformations": transformations}


def _interval_s(image: OmeImage) -> float | None:
    """The usual time from frame to frame; each frame's own time stands in the OME-XML."""
    stamps = [plane.header.monotonic_ns for plane in image.planes]
    if len(stamps) < 2:
        return None
    interval_s = float(np.median([(after - before) / 1e9 for before, after in pairwise(stamps)]))
    return interval_s if interval_s > 0 else None
