"""The scan of vendors who are told size, region and dwell anew with every frame."""

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np

from semagent.options import Options, Positive
from semagent.types import WHOLE_FIELD, Pixels, Region, Scan, SetScan
from semagent_drivers.adapter.limits import Range
from semagent_drivers.adapter.units import WHOLE_NANOSECONDS

MIN_FRAME_PX = 64
MOST_AVERAGES = 64

Edge = Annotated[int, msgspec.Meta(ge=MIN_FRAME_PX, le=32768)]


class RasterOptions(Options, frozen=True, kw_only=True):
    """How frames are scanned at first.

    Attributes:
        width_px: columns of the whole field.
        height_px: rows of the whole field.
        bit_depth: 8 or 16.
        dwell_us: time the beam spends on a pixel; whole nanoseconds.
        dwell_range_us: shortest and longest dwell the instrument has.
    """

    width_px: Edge = 1024
    height_px: Edge = 768
    bit_depth: Literal[8, 16] = 8
    dwell_us: Positive = 1.0
    dwell_range_us: tuple[float, float] = (0.1, 1000.0)

    def __post_init__(self) -> None:
        low, high = self.dwell_range_us
        if not 0 < low <= self.dwell_us <= high:
            raise ValueError(
                f"dwell_us {self.dwell_us} must lie within dwell_range_us, {low} to {high}"
            )


class Window(NamedTuple):
    """The pixels of the whole field that are scanned; ``right`` and ``bottom`` are the last."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.bottom - self.top + 1, self.right - self.left + 1


class Raster:
    """These settings are the agent's own: the instrument has none that could be read back."""

    def __init__(self, options: RasterOptions) -> None:
        self.options = options
        self.dwell_s = _whole(options.dwell_us / 1e6)
        self.frame_averages = 1
        self._region: Region | None = None

    @property
    def dwell_range_s(self) -> Range:
        """What `Limits` wants to know."""
        low_us, high_us = self.options.dwell_range_us
        return low_us / 1e6, high_us / 1e6

    @property
    def smallest_region(self) -> float:
        """What `Limits` wants to know."""
        return MIN_FRAME_PX / min(self.options.width_px, self.options.height_px)

    @property
    def frame_s(self) -> float:
        """Time the beam spends on one scan of the frame, without the way back of each line."""
        height, width = self.window.shape
        return height * width * self.dwell_s

    @property
    def window(self) -> Window:
        """What is scanned: the region, on the grid of pixels."""
        region = self._region or WHOLE_FIELD
        full_width, full_height = self.options.width_px, self.options.height_px
        left, top = round(region.left * full_width), round(region.top * full_height)
        width = min(round(region.width * full_width), full_width - left)
        height = min(round(region.height * full_height), full_height - top)
        return Window(left, top, left + width - 1, top + height - 1)

    def scan(self, field_width_m: float) -> Scan:
        """The settings, for a whole field that is this wide."""
        height, width = self.window.shape
        return Scan(
            width_px=width,
            height_px=height,
            bit_depth=self.options.bit_depth,
            pixel_size_m=field_width_m / self.options.width_px,
            dwell_s=self.dwell_s,
            frame_averages=self.frame_averages,
            region=self._region,
        )

    def set(self, change: SetScan) -> None:
        """Make a change that is within the limits."""
        if change.dwell_s is not None:
            self.dwell_s = _whole(change.dwell_s)
        if change.frame_averages is not None:
            self.frame_averages = change.frame_averages
        if change.region is not None:
            self._region = change.region

    def averaged(self, expose: Callable[[], Pixels]) -> Pixels:
        """As many scans as are to be averaged, as one frame of the bit depth."""
        if self.frame_averages == 1:
            return expose()
        total = np.zeros(self.window.shape, np.uint32)
        for _ in range(self.frame_averages):
            total += expose()
        mean = (total + self.frame_averages // 2) // self.frame_averages
        return mean.astype(np.uint8) if self.options.bit_depth == 8 else mean.astype(np.uint16)


def _whole(dwell_s: float) -> float:
    return WHOLE_NANOSECONDS.to_si(WHOLE_NANOSECONDS.from_si(dwell_s))
