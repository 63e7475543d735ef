"""The options of the bridge to OpenFIBSEM."""

from typing import Literal

from msgspec import field

from semagent.options import Positive
from semagent_drivers.adapter import AdapterOptions, Range, RasterOptions, Settling


class FibsemOptions(AdapterOptions, frozen=True, kw_only=True):
    """Which microscope OpenFIBSEM is to drive, and what it does not tell.

    Attributes:
        configuration: OpenFIBSEM's own file, ``microscope-configuration.yaml``; ``None`` takes the
            one that OpenFIBSEM has as its default.
        manufacturer: in place of the one in that file; ``Demo`` needs no microscope.
        host: in place of the address in that file.
        model: a class of your own, ``package.module:Class``, that drives a microscope in
            OpenFIBSEM's way; it goes before the manufacturer.
        scan: how frames are scanned; OpenFIBSEM is told with each.
        working_distance_range_mm: where the beam may be focused; OpenFIBSEM does not say.
        stigmator_full_range: value of a stigmator, in the vendor's unit, that counts as the full
            range; ``None`` leaves them alone.
        beam_shift_range_um: of either axis; ``None`` leaves it alone.
        x_range_mm: travel of the stage that may be asked for; ``None`` if it is not to move.
        y_range_mm: the same for y.
        focus_settle_s: time the beam takes to settle after focus, stigmators or beam shift.
    """

    configuration: str | None = None
    manufacturer: Literal["ThermoFisher", "Tescan", "Odemis", "Demo"] | None = None
    host: str | None = None
    model: str | None = None
    scan: RasterOptions = field(default_factory=RasterOptions)
    working_distance_range_mm: Range
    stigmator_full_range: Positive | None = None
    beam_shift_range_um: Range | None = None
    x_range_mm: Range | None = None
    y_range_mm: Range | None = None
    focus_settle_s: Settling = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.working_distance_range_mm[0] > 0:
            raise ValueError("working_distance_range_mm: the lower end must be above 0 mm")
