"""The fake microscope itself: its state in AutoScript's units, and its bad habits."""

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from semagent.types import Optics, Region, Scan, StagePosition
from semagent_drivers.autoscript.fake.common import ApplicationServerException
from semagent_drivers.autoscript.fake.structures import (
    Acquisition,
    AdornedImage,
    GrabFrameSettings,
    Metadata,
    Point,
    Rectangle,
)
from semagent_drivers.fakes import Bench, Trip

STIGMATOR_LIMIT = 0.8
SHIFT_LIMIT_M = 20e-6
DISTANCE_LIMITS_M = (1e-3, 40e-3)
DWELL_LIMITS_S = (25e-9, 25e-3)
STAGE_LIMITS = {
    "x": (-55e-3, 55e-3),
    "y": (-55e-3, 55e-3),
    "z": (0.0, 40e-3),
    "t": (-0.17, 1.05),
}

_HOME = {"x": 2e-3, "y": -1e-3, "z": 10e-3, "r": 0.3, "t": 0.05}
_RAW_OFFSET_M = 1e-3
"""Between the two coordinate systems, along x and y."""

_LINK_SHIFT_M = 30e-6
_DEGAUSS_SHIFT_M = 0.4e-6


@dataclass
class Instrument:
    """A microscope with an electron and an ion beam.

    Every call may trip through ``trip``. Its habits:

    * A working distance set through ``.value`` degausses the lens: that takes ``degauss_s`` and
      shifts the image. ``has_no_degauss`` is whether there is a way around it.
    * While ``linked``, a stage move changes the working distance.
    * A grab with a reduced area leaves the beam blanked, and rounds the size in its own way.
    * A grab is of the active view's device, which may be the ion beam, and black without beam.
    * Stage positions are in the default coordinate system, at first not the raw one.
    * ``deaf``: it accepts a working distance and does not take it.

    Attributes:
        realtime: an exposure takes its time.
    """

    focus_m: float = 5.02e-3
    has_no_degauss: bool = True
    linked: bool = True
    realtime: bool = False
    degauss_s: float = 0.0
    deaf: bool = False
    resolution: str = "768x512"
    dwell_s: float = 1e-6
    field_width_m: float = 7.68e-6
    trip: Trip = field(default_factory=Trip)

    def __post_init__(self) -> None:
        self.distance_m = 5.0e-3
        self.stigmator = Point(0.02, -0.01)
        self.shift = Point()
        self.voltage_v = 5e3
        self.current_a = 100e-12
        self.on = True
        self.rotation_rad = 0.0
        self.blanked = False
        self.degaussed = 0
        self.position = dict(_HOME)
        self.views = {1: 1, 2: 2, 3: 3, 4: 3}
        self.active_view = 2
        self.switched_off = threading.Event()
        self._degauss_shift_m = 0.0
        self.bench = Bench(
            focus_m=self.focus_m,
            astigmatism_um=(0.6, -0.4),
            home=StagePosition(x_m=_HOME["x"], y_m=_HOME["y"], z_m=_HOME["z"]),
        )
        self._picture(self._rectangle_scan(GrabFrameSettings()))  # the first one draws it

    # -- what the model of AutoScript asks for --------------------------------------------------

    def focus(self, distance_m: float, *, degauss: bool) -> None:
        """Set the working distance."""
        require("working distance", distance_m, DISTANCE_LIMITS_M)
        if degauss:
            self.switched_off.wait(self.degauss_s)
            self.degaussed += 1
            self._degauss_shift_m += _DEGAUSS_SHIFT_M
        if not self.deaf:
            self.distance_m = distance_m

    def move(self, target: dict[str, float], *, raw: bool) -> None:
        """Move the axes that are named."""
        offset_m = 0.0 if raw else _RAW_OFFSET_M
        moved = {
            axis: value + (offset_m if axis in "xy" else 0.0) for axis, value in target.items()
        }
        for axis, value in moved.items():
            require(f"stage {axis}", value, STAGE_LIMITS.get(axis, (-7.0, 7.0)))
        self.position |= moved
        if self.linked:
            self.distance_m += _LINK_SHIFT_M

    def seen(self, *, raw: bool) -> dict[str, float]:
        """The stage position in the coordinate system that is the default."""
        offset_m = 0.0 if raw else _RAW_OFFSET_M
        return {
            axis: value - (offset_m if axis in "xy" else 0.0)
            for axis, value in self.position.items()
        }

    def grab(self, settings: GrabFrameSettings) -> AdornedImage:
        """Expose with the device of the active view."""
        device = self.views[self.active_view]
        scan = self._rectangle_scan(settings)
        if self.realtime:
            pixels = scan.width_px * scan.height_px
            self.switched_off.wait(pixels * (scan.dwell_s or 0.0) * scan.frame_averages)
        image = self._picture(scan) * self.on
        if scan.region is not None:
            self.blanked = True
            image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        beam = {1: "Electron", 2: "Ion"}.get(device, "Unknown")
        if beam != "Electron":
            image = np.full_like(image, 7)
        return AdornedImage(np.ascontiguousarray(image), Metadata(Acquisition(beam)))

    # -- for tests ------------------------------------------------------------------------------

    def optics(self) -> Optics:
        """What it is really set to, in our units."""
        return Optics(
            working_distance_m=self.distance_m,
            stigmator_x=self.stigmator.x / STIGMATOR_LIMIT,
            stigmator_y=self.stigmator.y / STIGMATOR_LIMIT,
            beam_shift_x_m=self.shift.x,
            beam_shift_y_m=self.shift.y,
            blanked=self.blanked,
        )

    def switch_off(self) -> None:
        """Let go of everything that waits."""
        self.switched_off.set()
        self.trip.disarm()

    # -- within ---------------------------------------------------------------------------------

    def _rectangle_scan(self, settings: GrabFrameSettings) -> Scan:
        width, height = (int(edge) for edge in (settings.resolution or self.resolution).split("x"))
        dwell_s = self.dwell_s if settings.dwell_time is None else settings.dwell_time
        require("dwell time", dwell_s, DWELL_LIMITS_S)
        area = settings.reduced_area
        return Scan(
            width_px=width,
            height_px=height,
            bit_depth=16 if settings.bit_depth == 16 else 8,
            pixel_size_m=self.field_width_m / width,
            dwell_s=dwell_s,
            frame_averages=settings.frame_integration or 1,
            region=None if area is None else _region(area),
        )

    def _picture(self, scan: Scan) -> Any:
        optics = self.optics()
        drawn = Optics(
            working_distance_m=optics.working_distance_m,
            stigmator_x=optics.stigmator_x,
            stigmator_y=optics.stigmator_y,
            beam_shift_x_m=self.shift.x + self._degauss_shift_m,
            beam_shift_y_m=self.shift.y,
            blanked=self.blanked,
        )
        stage = StagePosition(
            x_m=self.position["x"], y_m=self.position["y"], z_m=self.position["z"]
        )
        return self.bench.expose(drawn, scan, stage)


def require(name: str, value: float, limits: tuple[float, float]) -> None:
    """Refuse as the server does."""
    if not limits[0] <= value <= limits[1]:
        raise ApplicationServerException(f"The {name} {value:g} is out of limits.")


def _region(area: Rectangle) -> Region:
    return Region(left=area.left, top=area.top, width=area.width, height=area.height)
