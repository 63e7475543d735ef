"""The options of the driver over RemCon."""

from typing import Annotated

from msgspec import Meta

from semagent.options import Positive, Seconds
from semagent_drivers.adapter import AdapterOptions, Range, Settling

Pixels = Annotated[int, Meta(ge=64, le=16384)]


class RemConOptions(AdapterOptions, frozen=True, kw_only=True):
    """The line, where frames come from, and what RemCon does not tell.

    Attributes:
        port: serial port, such as ``COM3`` or ``/dev/ttyUSB0``, or a URL of pyserial, such as
            ``socket://127.0.0.1:4001``.
        baud_rate: as set at RemCon.
        folder: where the macro saves its image, as this machine sees it.
        images: names of the images in it, with ``*`` for what varies.
        macro: number of the SmartSEM macro that saves a frame: 1 is the macro ``REMCON1``.
        macro_timeout_s: longest time RemCon may take to answer the macro, and a macro that was
            stopped to save its image.
        width_px: columns of a frame, as chosen at the microscope.
        height_px: its rows.
        working_distance_range_mm: what may be asked of the focus; RemCon takes any number.
        readback_tolerance_um: how far the working distance may read back from what was set.
        focus_settle_s: time the beam takes to settle after focus or stigmators.
        x_range_mm: travel of the stage that may be asked for; ``None`` if it is not to move.
        y_range_mm: the same for y.
        z_range_mm: the same for z.
        tilt_range_deg: the same for the tilt.
        rotation_range_deg: the same for the rotation.
        stage_settle_s: how long after a command the stage may still say that it does not move.
    """

    port: str
    folder: str
    baud_rate: Annotated[int, Meta(ge=300, le=921600)] = 9600
    images: str = "*.tif"
    macro: Annotated[int, Meta(ge=1, le=99)] = 1
    macro_timeout_s: Seconds = 60.0
    width_px: Pixels = 1024
    height_px: Pixels = 768
    working_distance_range_mm: tuple[Positive, Positive] = (1.0, 50.0)
    readback_tolerance_um: Positive = 0.5
    focus_settle_s: Settling = 0.5
    x_range_mm: Range | None = None
    y_range_mm: Range | None = None
    z_range_mm: Range | None = None
    tilt_range_deg: Range | None = None
    rotation_range_deg: Range | None = None
    stage_settle_s: Settling = 1.0
