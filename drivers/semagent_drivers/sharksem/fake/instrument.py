"""The state of a fake TESCAN microscope, in the vendor's units."""

import time

from semagent.types import Optics, Pixels, Region, Scan, StagePosition
from semagent_drivers.fakes import Bench

FOCUS_MM = 8.02
PIXEL_M = 10e-9
STIGMATOR = 2


class Instrument:
    """What the server controls, in the vendor's units. Attributes may be changed at any time.

    Attributes:
        settle_s: time focus takes, during which the optics are busy.
        move_s: time a stage move takes.
        six_axes: the stage has a second tilt.
        blanker_modes: those the blanker takes; a magnetic gun blanker has 0 and 2.
        lose: numbers of the packets of each frame, from 0, that never arrive.
        calibrated: whether the stage is.
        deaf: functions that do nothing.
        talkative: functions without an answer say 0.
        version: of the protocol.
    """

    def __init__(self) -> None:
        self.settle_s = 0.0
        self.move_s = 0.0
        self.six_axes = False
        self.blanker_modes = {0, 1, 2}
        self.lose: set[int] = set()
        self.calibrated = 1
        self.deaf: set[str] = set()
        self.talkative = False
        self.version = "3.2.20"
        self.wd_mm = self.wd_before_mm = 8.0
        self.centerings = {0: (1.0, 2.0), 1: (3.0, 4.0), STIGMATOR: (1.5, -0.5)}
        self.shift_mm = (0.0, 0.0)
        self.rotation_deg = 0.0
        self.volts = 5000.0
        self.beam = 1
        self.blanker_mode = 2
        self.blanker_wish: int | None = None
        self.live_scan = 1
        self.scans = self.stops = 0
        self.selected = 0
        self.channel = [0, 0]
        self.position = [0.5, -0.25, 10.0, 30.0, 5.0, 0.0]
        self.limits = [-40.0, 40.0, -40.0, 40.0, 0.0, 50.0, -360.0, 360.0, 0.0, 0.0]
        self.busy_until_s = self.stage_until_s = 0.0
        self.bench = Bench(
            focus_m=FOCUS_MM / 1e3,
            astigmatism_um=(0.4, -0.3),
            home=StagePosition(x_m=0.5e-3, y_m=-0.25e-3, z_m=10e-3),
        )

    @property
    def read_wd_mm(self) -> float:
        """Until focus has settled, the old one."""
        return self.wd_before_mm if time.perf_counter() < self.busy_until_s else self.wd_mm

    def optics(self) -> Optics:
        """What it is really set to, in SI units."""
        x_percent, y_percent = self.centerings[STIGMATOR]
        return Optics(
            working_distance_m=self.wd_mm / 1e3,
            stigmator_x=x_percent / 100,
            stigmator_y=y_percent / 100,
            beam_shift_x_m=self.shift_mm[0] / 1e3,
            beam_shift_y_m=self.shift_mm[1] / 1e3,
            blanked=self.blanker_mode == 1,
        )

    def expose(self, size: tuple[int, int], window: tuple[int, ...], dwell_ns: int) -> Pixels:
        """A picture of the part of a field of (width, height) that a scan asks for."""
        (width, height), (left, top, right, bottom) = size, window
        region = Region(
            left=left / width,
            top=top / height,
            width=(right - left + 1) / width,
            height=(bottom - top + 1) / height,
        )
        scan = Scan(
            width_px=width,
            height_px=height,
            bit_depth=16 if self.channel[1] == 16 else 8,
            pixel_size_m=PIXEL_M,
            dwell_s=dwell_ns / 1e9,
            region=region,
        )
        x_mm, y_mm, z_mm = self.position[:3]
        stage = StagePosition(x_m=x_mm / 1e3, y_m=y_mm / 1e3, z_m=z_mm / 1e3)
        return self.bench.expose(self.optics(), scan, stage)
