"""The options of the driver over TESCAN Automation."""

from typing import Annotated

from msgspec import Meta, field

from semagent.options import Positive, Seconds
from semagent_drivers.adapter import AdapterOptions, Port, Range, RasterOptions


class TescanAutomationOptions(AdapterOptions, frozen=True, kw_only=True):
    """How to reach the microscope, and what the package does not tell.

    Attributes:
        host: name or address of the microscope PC.
        port: of its remote control.
        channel: input channel whose detector frames are taken from.
        detector: name of a detector; ``None`` takes the one that is selected on the channel.
        scan: how frames are scanned; the package is told with each.
        working_distance_range_mm: what the column can focus.
        readback_tolerance_um: how far the working distance may read back from what was set.
        beam_shift_range_um: largest image shift to either side; ``None`` leaves it alone.
        x_range_mm: travel of the stage that may be asked for; ``None`` if it is not to move.
        y_range_mm: the same for y.
        stage_update_s: time after a move until the position that is read back has caught up.
        sdk: Python package; the fake's name rehearses without a microscope.
    """

    host: str = "127.0.0.1"
    port: Port = 8300
    channel: Annotated[int, Meta(ge=0, le=63)] = 0
    detector: str | None = None
    scan: RasterOptions = field(default_factory=RasterOptions)
    working_distance_range_mm: tuple[Positive, Positive] = (2.0, 100.0)
    readback_tolerance_um: Positive = 0.5
    beam_shift_range_um: Positive | None = None
    x_range_mm: Range | None = None
    y_range_mm: Range | None = None
    stage_update_s: Seconds = 1.0
    sdk: str = "tescanautomation"
