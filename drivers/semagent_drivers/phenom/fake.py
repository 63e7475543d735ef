"""A fake PyPhenom, to rehearse with: the same names, units and habits.

It stands for ``PyPhenom`` where the driver's option ``sdk`` says ``semagent_drivers.phenom.fake``.
Instruments are reached by address; any address that nobody has given to one is a new instrument.
"""

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from semagent.types import Optics, Region, Scan, StagePosition
from semagent_drivers.fakes import Bench, Trip, wired

WD_RANGE_M = (3e-3, 12e-3)
STAGE_M = 10e-3
HIGH_TENSION_V = -10e3
STIGMATOR_LIMIT = 0.5


class Error(Exception):
    """What PyPhenom raises, whatever the matter is."""


class OperationalMode:
    """Where the specimen is."""

    Loadpos = "Loadpos"
    LiveNavCam = "LiveNavCam"
    LiveSem = "LiveSem"


class ScanMode:
    """What the beam does."""

    Imaging = "Imaging"
    Spot = "Spot"
    Blank = "Blank"


class DetectorMode:
    """Which segments and detectors."""

    All = "All"
    NorthSouth = "NorthSouth"
    Sed = "Sed"


class NavigationAlgorithm:
    """How the stage approaches."""

    Auto = "Auto"
    BacklashOnly = "BacklashOnly"


@dataclass
class Position:
    """A pair."""

    x: float
    y: float


@dataclass
class Size:
    """In pixels."""

    width: int
    height: int


@dataclass
class Range:
    """From where to where."""

    begin: float
    end: float


@dataclass
class ScanParamsEx:
    """How an image is scanned; ``scale`` is its part of the field's width."""

    size: Size = field(default_factory=lambda: Size(1024, 1024))
    dwellTime: float = 1e-6  # noqa: N815 - PyPhenom's name
    nFrames: int = 1  # noqa: N815
    detector: str = DetectorMode.All
    hdr: bool = False
    scale: float = 1.0
    center: Position = field(default_factory=lambda: Position(0.0, 0.0))


@dataclass
class SemViewingMode:
    """What the live image shows."""

    scanMode: str  # noqa: N815 - PyPhenom's name
    scanParams: ScanParamsEx  # noqa: N815


@dataclass
class StageModeAndPosition:
    """Where the stage is."""

    position: Position


@dataclass
class Acquisition:
    """An image."""

    image: Any


@dataclass
class Instrument:
    """A Phenom. Every call may trip through ``trip``.

    Its habits:

    * Unless ``mode`` is live SEM, it gives an empty working distance range and refuses.
    * The field width follows the focus.
    * ``Unload`` and a change of mode move the specimen.
    * ``deaf``: it accepts focus, stigmators and blanking and does not take them.

    Attributes:
        realtime: an exposure takes its time.
    """

    focus_m: float = 6.02e-3
    mode: str = OperationalMode.LiveSem
    realtime: bool = False
    deaf: bool = False
    trip: Trip = field(default_factory=Trip)

    def __post_init__(self) -> None:
        self.distance_m = 6.0e-3
        self.stigmator = Position(0.01, 0.02)
        self.scan_mode = ScanMode.Imaging
        self.rotation_rad = 0.0
        self.position = Position(1e-3, -2e-3)
        self.unloaded = 0
        self.switched_off = threading.Event()
        self.bench = Bench(
            focus_m=self.focus_m,
            astigmatism_um=(0.4, 0.3),
            home=StagePosition(x_m=self.position.x, y_m=self.position.y, z_m=0.01),
        )

    @property
    def field_width_m(self) -> float:
        """As wide as the focus makes it."""
        return 10.24e-6 * self.distance_m / 6.0e-3

    def optics(self) -> Optics:
        """What it is really set to, in SI units; the full range of a stigmator is 1."""
        return Optics(
            working_distance_m=self.distance_m,
            stigmator_x=self.stigmator.x,
            stigmator_y=self.stigmator.y,
            blanked=self.scan_mode == ScanMode.Blank,
        )

    def expose(self, asked: ScanParamsEx) -> Any:
        """The picture of a scan around the centre of the field."""
        part = asked.scale
        scan = Scan(
            width_px=round(asked.size.width / part),
            height_px=round(asked.size.height / part),
            bit_depth=16 if asked.hdr else 8,
            pixel_size_m=10e-9,
            dwell_s=asked.dwellTime,
            frame_averages=asked.nFrames,
            region=Region(left=0.5 - part / 2, top=0.5 - part / 2, width=part, height=part),
        )
        if self.realtime:
            pixels = asked.size.width * asked.size.height
            self.switched_off.wait(pixels * asked.dwellTime * asked.nFrames)
        stage = StagePosition(x_m=self.position.x, y_m=self.position.y)
        return self.bench.expose(self.optics(), scan, stage)

    def switch_off(self) -> None:
        """Let go of everything that waits."""
        self.switched_off.set()
        self.trip.disarm()


INSTRUMENTS: dict[str, Instrument] = {}
"""The instruments there are, by address."""


def Phenom(address: str = "", username: str = "", password: str = "") -> Any:  # noqa: N802
    """Connect to an instrument."""
    if username == "wrong" or password == "wrong":  # noqa: S105 - for the test of a refusal
        raise Error("Invalid credentials")
    if address not in INSTRUMENTS:
        INSTRUMENTS[address] = Instrument()
    instrument = INSTRUMENTS[address]
    return wired(
        _Phenom(instrument),
        instrument.trip,
        fail=lambda name: Error(f"{name} failed"),
        drop=lambda name: ConnectionResetError(f"{name}: connection lost"),
    )


class _Phenom:
    """The methods, by PyPhenom's names."""

    WIRED = True

    def __init__(self, instrument: Instrument) -> None:
        self._its = instrument

    def GetOperationalMode(self) -> str:  # noqa: N802
        return self._its.mode

    def GetSemWDRange(self) -> Range:  # noqa: N802
        live = self._its.mode == OperationalMode.LiveSem
        return Range(*WD_RANGE_M) if live else Range(0.0, 0.0)

    def GetSemWD(self) -> float:  # noqa: N802
        return self._its.distance_m

    def SetSemWD(self, distance_m: float) -> None:  # noqa: N802
        self._require(WD_RANGE_M[0] <= distance_m <= WD_RANGE_M[1], "WD out of range")
        if not self._its.deaf:
            self._its.distance_m = distance_m

    def GetSemStigmate(self) -> Position:  # noqa: N802
        return Position(self._its.stigmator.x, self._its.stigmator.y)

    def SetSemStigmate(self, both: Position) -> None:  # noqa: N802
        self._require(max(abs(both.x), abs(both.y)) <= STIGMATOR_LIMIT, "stigmate out of range")
        if not self._its.deaf:
            self._its.stigmator = both

    def GetHFW(self) -> float:  # noqa: N802
        return self._its.field_width_m

    def GetSemRotation(self) -> float:  # noqa: N802
        return self._its.rotation_rad

    def GetSemHighTension(self) -> float:  # noqa: N802
        return HIGH_TENSION_V

    def GetStageModeAndPosition(self) -> StageModeAndPosition:  # noqa: N802
        return StageModeAndPosition(Position(self._its.position.x, self._its.position.y))

    def MoveTo(self, x_m: float, y_m: float, *, algorithm: str = "Auto") -> None:  # noqa: N802
        self._require(max(abs(x_m), abs(y_m)) <= STAGE_M, "position out of reach")
        # Navigation by image lands somewhere near.
        off_m = 0.0 if algorithm == NavigationAlgorithm.BacklashOnly else 20e-6
        self._its.position = Position(x_m + off_m, y_m)

    def GetSemViewingMode(self) -> SemViewingMode:  # noqa: N802
        return SemViewingMode(self._its.scan_mode, ScanParamsEx())

    def SetSemViewingMode(self, mode: SemViewingMode) -> None:  # noqa: N802
        self._require(True, "")
        if not self._its.deaf:
            self._its.scan_mode = mode.scanMode

    def SemAcquireImageEx(self, asked: ScanParamsEx) -> Acquisition:  # noqa: N802
        self._require(True, "")
        return Acquisition(np.ascontiguousarray(self._its.expose(asked)))

    def Unload(self) -> None:  # noqa: N802
        self._its.mode = OperationalMode.Loadpos
        self._its.unloaded += 1

    def _require(self, fine: bool, otherwise: str) -> None:
        if self._its.mode != OperationalMode.LiveSem:
            raise Error("The instrument is not in live SEM mode")
        if not fine:
            raise Error(otherwise)
