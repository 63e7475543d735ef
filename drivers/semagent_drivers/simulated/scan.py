"""The raster: what is scanned, how long it takes, and which changes are possible."""

from typing import NamedTuple

from semagent.errors import CommandRefusedError
from semagent.types import WHOLE_FIELD, Region, Scan, SetScan
from semagent_drivers.adapter.limits import require_region, require_within
from semagent_drivers.simulated.options import MIN_FRAME_PX, MOST_AVERAGES, ScanOptions


class Window(NamedTuple):
    """The scanned pixels: centre relative to that of the field (x, y), and (height, width)."""

    offset_px: tuple[int, int]
    shape: tuple[int, int]


class Raster:
    """The scan settings. A region is scanned with pixels of the same size, so with fewer."""

    def __init__(self, options: ScanOptions) -> None:
        self._options = options
        self.pixel_size_m = options.pixel_size_nm / 1e9
        self.dwell_s = options.dwell_us / 1e6
        self.frame_averages = options.frame_averages
        self._region: Region | None = None

    @property
    def scan(self) -> Scan:
        """The settings as they read back."""
        height, width = self.window.shape
        return Scan(
            width_px=width,
            height_px=height,
            bit_depth=self._options.bit_depth,
            pixel_size_m=self.pixel_size_m,
            dwell_s=self.dwell_s,
            frame_averages=self.frame_averages,
            region=self._region,
        )

    @property
    def window(self) -> Window:
        """The pixels that are scanned."""
        return self._window(self._region or WHOLE_FIELD)

    @property
    def info_bar_px(self) -> int:
        """Rows of the information bar, which only frames of the whole field carry."""
        return self._options.info_bar_px if self._region in (None, WHOLE_FIELD) else 0

    @property
    def frame_s(self) -> float:
        """Nominal duration of a frame."""
        height, width = self.window.shape
        line_s = width * self.dwell_s + self._options.line_overhead_us / 1e6
        return self.frame_averages * height * line_s

    def check(self, change: SetScan) -> None:
        """Refuse a change that is out of range.

        Raises:
            CommandRefusedError: names what is wrong and what is allowed.
        """
        if change.dwell_s is not None:
            low, high = (limit / 1e6 for limit in self._options.dwell_range_us)
            require_within("dwell", change.dwell_s, (low, high), "s")
        if change.frame_averages is not None:
            require_within("frame averages", change.frame_averages, (1, MOST_AVERAGES), "scans")
        if change.region is not None:
            self._check_region(change.region)

    def set(self, change: SetScan) -> None:
        """Make a checked change."""
        if change.dwell_s is not None:
            self.dwell_s = change.dwell_s
        if change.frame_averages is not None:
            self.frame_averages = change.frame_averages
        if change.region is not None:
            self._region = change.region

    def _check_region(self, region: Region) -> None:
        require_region(region, 0.0)
        for name, length, edge_px in (
            ("left, width", region.width, self._options.width_px),
            ("top, height", region.height, self._options.height_px),
        ):
            if round(length * edge_px) < MIN_FRAME_PX:
                raise CommandRefusedError(
                    f"region {name}: {length} of {edge_px} pixels is less than {MIN_FRAME_PX}"
                )

    def _window(self, region: Region) -> Window:
        full_width, full_height = self._options.width_px, self._options.height_px
        left, top = round(region.left * full_width), round(region.top * full_height)
        width = min(round(region.width * full_width), full_width - left)
        height = min(round(region.height * full_height), full_height - top)
        offset = (left + width // 2 - full_width // 2, top + height // 2 - full_height // 2)
        return Window(offset, (height, width))
