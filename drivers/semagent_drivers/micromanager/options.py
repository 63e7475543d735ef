"""Options of the ``micromanager`` driver."""

from typing import Annotated, Literal

from msgspec import Meta

from semagent.options import Positive
from semagent_drivers.adapter import AdapterOptions, Port, Range, Settling


class MicroManagerOptions(AdapterOptions, frozen=True, kw_only=True):
    """Which Micro-Manager, and how its focus drive maps to a working distance.

    The working distance is ``working_distance_mm`` where the focus drive reads 0, and grows with
    it, or shrinks with ``focus_inverted``. On a light microscope only differences mean anything.

    Attributes:
        backend: ``python`` runs the hardware in this process, with Micro-Manager closed; ``java``
            talks to a running Micro-Manager with its ZMQ server switched on.
        adapters: folder of the device adapters (``python``).
        configuration: hardware configuration file, ``.cfg`` (``python``).
        host: machine of the running Micro-Manager (``java``).
        port: of its ZMQ server (``java``).
        focus_range_um: where the focus drive may go; the drive does not say.
        x_range_um: where the XY stage may go; without both ranges it is not moved.
        y_range_um: see ``x_range_um``.
        exposure_range_ms: exposures that may be set; without it the exposure is left alone.
        max_averages: most camera frames averaged into one.
        focus_tolerance_um: how far the focus drive may stop from where it was sent.
        stage_tolerance_um: the same for the XY stage; smaller moves are not made.
        busy_delay_s: how long after a command a drive may still say that it is not busy.
    """

    backend: Literal["python", "java"] = "python"
    adapters: str | None = None
    configuration: str | None = None
    host: str = "127.0.0.1"
    port: Port = 4827
    working_distance_mm: Positive = 5.0
    focus_inverted: bool = False
    focus_range_um: Range
    x_range_um: Range | None = None
    y_range_um: Range | None = None
    exposure_range_ms: Range | None = None
    max_averages: Annotated[int, Meta(ge=1, le=256)] = 16
    focus_tolerance_um: Positive = 0.1
    stage_tolerance_um: Positive = 0.5
    busy_delay_s: Settling = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exposure_range_ms is not None and self.exposure_range_ms[0] <= 0:
            raise ValueError("exposure_range_ms: the lower end must be above 0 ms")
        lowest_mm = min(self.working_distance_mm + um / 1e3 for um in self._focus_ends())
        if lowest_mm <= 0:
            raise ValueError(
                f"working_distance_mm: {self.working_distance_mm} mm leaves {lowest_mm:g} mm at "
                "the end of focus_range_um; it has to stay above 0"
            )
        python = (self.adapters, self.configuration)
        if self.backend == "python" and None in python:
            raise ValueError("backend python needs adapters and configuration")
        if self.backend == "java" and python != (None, None):
            raise ValueError("backend java takes neither adapters nor configuration")

    def _focus_ends(self) -> Range:
        low, high = self.focus_range_um
        return (-high, -low) if self.focus_inverted else (low, high)
