"""One OME-Zarr of a whole session: version 0.4 in Zarr 2, which most programs open.

Images lie side by side as bioformats2raw lays them out: ``0``, ``1``, …, and all that is known of
the frames in ``OME/METADATA.ome.xml``, as in the OME-TIFF. One chunk is one frame.

https://ngff.openmicroscopy.org/0.4
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Blosc

from semagent.session.omexml import OmeImage, ome_xml
from semagent.types import FrameHeader, Pixels

_VERSION = "0.4"
_ROOM = 256
"""Frames an array grows by: it is written anew with each change of its shape."""


class ZarrSink:
    """See `semagent.export.gathering.Sink`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._root = zarr.open_group(path, mode="w-", zarr_format=2)
        self._arrays: list[Any] = []
        self._greys: list[tuple[int, int]] = []

    def add(self, image: int, time: int, header: FrameHeader, pixels: Pixels) -> None:
        """See `Sink`."""
        darkest, brightest = int(pixels.min()), int(pixels.max())
        if image == len(self._arrays):
            self._arrays.append(self._create(image, pixels))
            self._greys.append((darkest, brightest))
        array = self._arrays[image]
        if time == array.shape[0]:
            array.resize((time + _ROOM, *array.shape[1:]))
        array[time, 0] = pixels
        low, high = self._greys[image]
        self._greys[image] = (min(low, darkest), max(high, brightest))

    def finish(self, images: Sequence[OmeImage]) -> None:
        """See `Sink`."""
        for index, image in enumerate(images):
            array = self._arrays[index]
            array.resize((len(image.planes), *array.shape[1:]))
            self._root[str(index)].attrs.update(_attributes(image, self._greys[index]))
        self._root.attrs["bioformats2raw.layout"] = 3
        ome = self._root.create_group("OME")
        ome.attrs["series"] = [str(index) for index in range(len(images))]
        file = self._path / "OME" / "METADATA.ome.xml"
        file.write_text(ome_xml(images), encoding="ascii")

    def close(self) -> None:
        """See `Sink`."""

    def _create(self, image: int, pixels: Pixels) -> Any:
        group = self._root.create_group(str(image))
        return group.create_array(
            "0",
            shape=(_ROOM, 1, *pixels.shape),
            chunks=(1, 1, *pixels.shape),
            dtype=pixels.dtype,
            compressors=Blosc("zstd", clevel=3, shuffle=Blosc.SHUFFLE),
            chunk_key_encoding={"name": "v2", "separator": "/"},
            fill_value=0,
        )


def _attributes(image: OmeImage, greys: tuple[int, int]) -> dict[str, Any]:
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
                    {
                        "path": "0",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [interval_s or 1.0, 1.0, scale_nm, scale_nm]}
                        ],
                    }
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


def _interval_s(image: OmeImage) -> float | None:
    """The usual time from frame to frame; each frame's own time stands in the OME-XML."""
    stamps = [plane.header.monotonic_ns for plane in image.planes]
    if len(stamps) < 2:
        return None
    interval_s = float(np.median([(after - before) / 1e9 for before, after in pairwise(stamps)]))
    return interval_s if interval_s > 0 else None
