"""Stands for ``autoscript_sdb_microscope_client.structures``: plain values."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Point:
    """A pair, in the unit of what it is the value of."""

    x: float = 0.0
    y: float = 0.0


@dataclass
class Limits:
    """A range."""

    min: float
    max: float


@dataclass
class Limits2d:
    """The ranges of a pair."""

    limits_x: Limits
    limits_y: Limits


@dataclass
class Rectangle:
    """A part of the field, 0 to 1."""

    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0


@dataclass
class StagePosition:
    """Metres and radians; an axis that is ``None`` does not move."""

    x: float | None = None
    y: float | None = None
    z: float | None = None
    r: float | None = None
    t: float | None = None


@dataclass
class GrabFrameSettings:
    """How to grab; what is ``None`` is as the scan settings say."""

    resolution: str | None = None
    dwell_time: float | None = None
    bit_depth: int | None = None
    reduced_area: Rectangle | None = None
    line_integration: int | None = None
    frame_integration: int | None = None


@dataclass
class Acquisition:
    """Metadata: which beam exposed the image."""

    beam_type: str


@dataclass
class Metadata:
    """What is known of an image."""

    acquisition: Acquisition


@dataclass
class AdornedImage:
    """Pixels with their metadata."""

    data: Any
    metadata: Metadata = field(default_factory=lambda: Metadata(Acquisition("Electron")))
