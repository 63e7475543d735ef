"""What may stand under ``driver: options:`` for a TESCAN microscope."""

from typing import Annotated

import msgspec

from semagent.options import Positive, Seconds
from semagent_drivers.adapter import AdapterOptions, Port, RasterOptions

Index = Annotated[int, msgspec.Meta(ge=0, le=63)]


class SharkSemOptions(AdapterOptions, frozen=True, kw_only=True):
    """How to reach the microscope, and what SharkSEM does not tell.

    Attributes:
        host: name or address of the microscope PC.
        port: of the control connection.
        data_port: of the data connection; ``None`` is the one above ``port``.
        channel: input channel that frames are taken from.
        scan: size, dwell and depth of frames.
        working_distance_range_mm: what the column can focus. Beyond it, the microscope would
            silently take the nearest value.
        readback_tolerance_um: how far the working distance may read back from what was set.
        beam_shift_range_um: largest image shift to either side; ``None`` leaves it alone.
        stigmator_centering: index of the stigmators in the list of centerings; ``None`` finds
            it by name.
        blanker: number of the beam blanker, as in ``ScSetBlanker``; ``None`` if there is none.
        stage_update_s: time after a move until the position that is read back has caught up.
    """

    host: str = "127.0.0.1"
    port: Port = 8300
    data_port: Port | None = None
    channel: Index = 0
    scan: RasterOptions = RasterOptions()
    working_distance_range_mm: tuple[Positive, Positive] = (2.0, 100.0)
    readback_tolerance_um: Positive = 0.5
    beam_shift_range_um: Positive | None = None
    stigmator_centering: Index | None = None
    blanker: Index | None = 1
    stage_update_s: Seconds = 1.0

    @property
    def last_port(self) -> int:
        """Port of the data connection."""
        return self.port + 1 if self.data_port is None else self.data_port
