"""A fake TESCAN Automation, to rehearse with: the same names, units and habits.

It stands for ``tescanautomation`` where the driver's option ``sdk`` says
``semagent_drivers.tescan_automation.fake``. A port that nobody has given to an instrument is a
new instrument.
"""

import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from semagent.types import Optics, Region, Scan, StagePosition
from semagent_drivers.fakes import Bench, Trip, wired
from semagent_drivers.tescan_automation.fake.Common import Bpp, Document, Error

FOCUS_MM = 6.02
_WD_MM = (2.0, 120.0)
_SHIFT_MM = 0.05
_PIXEL_M = 10e-9


@dataclass(frozen=True)
class _Detector:
    index: int
    name: str


_DETECTORS = (_Detector(0, "E-T"), _Detector(1, "In-Beam SE"))


@dataclass
class Instrument:
    """A TESCAN microscope. Every call may trip through ``trip``.

    Its habits:

    * ``SetWD`` clamps, settles while busy, and reads back its old value until then.
    * While something else scans it acquires nothing.
    * Only the thread that connected may call it.
    * What is not simulated reads as NaN.
    * ``deaf``: it accepts focus, shift and moves and does not take them.

    Attributes:
        realtime: an exposure takes its time.
        settle_s: time focus takes.
        live: the operator's live scan runs.
    """

    realtime: bool = False
    deaf: bool = False
    settle_s: float = 0.0
    live: bool = True
    beam: str = "BeamOn"
    volts: float = 5000.0
    current_pa: float = float("nan")
    rotation_deg: float = float("nan")
    selected: int | None = 0
    trip: Trip = field(default_factory=Trip)

    def __post_init__(self) -> None:
        self.wd_mm = self.wd_before_mm = 6.0
        self.busy_until_s = 0.0
        self.shift_mm = (0.0, 0.0)
        self.position: list[float] = [1.0, -2.0, 20.0, 45.0, 10.0]
        self.stops = 0
        self.switched_off = threading.Event()
        self.bench = Bench(
            focus_m=FOCUS_MM / 1e3, home=StagePosition(x_m=1e-3, y_m=-2e-3, z_m=20e-3)
        )

    def optics(self) -> Optics:
        """What it is really set to, in SI units."""
        return Optics(
            working_distance_m=self.wd_mm / 1e3,
            beam_shift_x_m=self.shift_mm[0] / 1e3,
            beam_shift_y_m=self.shift_mm[1] / 1e3,
        )

    def expose(self, size: tuple[int, int], window: tuple[int, ...], dwell_ns: int) -> Any:
        """A picture of the part of a field of (width, height)."""
        (width, height), (left, top, right, bottom) = size, window
        columns, rows = right - left + 1, bottom - top + 1
        if self.realtime:
            self.switched_off.wait(columns * rows * dwell_ns / 1e9)
        region = Region(
            left=left / width, top=top / height, width=columns / width, height=rows / height
        )
        scan = Scan(
            width_px=width,
            height_px=height,
            bit_depth=8,
            pixel_size_m=_PIXEL_M,
            dwell_s=dwell_ns / 1e9,
            region=region,
        )
        stage = StagePosition(x_m=self.position[0] / 1e3, y_m=self.position[1] / 1e3)
        return np.ascontiguousarray(self.bench.expose(self.optics(), scan, stage))

    def switch_off(self) -> None:
        """Let go of everything that waits."""
        self.switched_off.set()
        self.trip.disarm()


INSTRUMENTS: dict[int, Instrument] = {}
"""The instruments there are, by port."""


def Automation(host: str, port: int = 8300) -> Any:  # noqa: ARG001 - all are here
    """Connect to an instrument."""
    instrument = INSTRUMENTS.setdefault(port, Instrument())
    return wired(
        _Session(instrument),
        instrument.trip,
        fail=lambda name: Error(f"{name} failed"),
        drop=lambda name: ConnectionResetError(f"{name}: connection lost"),
    )


class _Part:
    """A part of the session; every method of it is for one thread only."""

    WIRED = True

    def __init__(self, instrument: Instrument, thread: int) -> None:
        self._its = instrument
        self._thread = thread

    def _here(self) -> Instrument:
        if threading.get_ident() != self._thread:
            raise Error("called from another thread")
        return self._its


class _Session:
    WIRED = True

    def __init__(self, instrument: Instrument) -> None:
        thread = threading.get_ident()
        self.SEM = _Sem(instrument, thread)
        self.Stage = _Stage(instrument, thread)


class _Sem(_Part):
    def __init__(self, instrument: Instrument, thread: int) -> None:
        super().__init__(instrument, thread)
        self.Optics = _Optics(instrument, thread)
        self.Beam = _Beam(instrument, thread)
        self.Detector = _Detectors(instrument, thread)
        self.Scan = _Scan(instrument, thread)

    def IsBusy(self) -> bool:
        return time.perf_counter() < self._here().busy_until_s


class _Optics(_Part):
    def GetWD(self) -> float:
        its = self._here()
        return its.wd_before_mm if time.perf_counter() < its.busy_until_s else its.wd_mm

    def SetWD(self, wd_mm: float) -> None:
        its = self._here()
        if not its.deaf:
            its.wd_before_mm, its.wd_mm = its.wd_mm, min(max(wd_mm, _WD_MM[0]), _WD_MM[1])
            its.busy_until_s = time.perf_counter() + its.settle_s

    def GetViewfield(self) -> float:
        return 1024 * _PIXEL_M * 1e3 * self._here().wd_mm / 6.0

    def GetImageRotation(self) -> float:
        return self._here().rotation_deg

    def GetImageShift(self) -> tuple[float, float]:
        return self._here().shift_mm

    def SetImageShift(self, x_mm: float, y_mm: float) -> None:
        if max(abs(x_mm), abs(y_mm)) > _SHIFT_MM:
            raise Error("image shift out of range")
        if not self._here().deaf:
            self._its.shift_mm = (x_mm, y_mm)


class _Beam(_Part):
    Status = SimpleNamespace(BeamOn="BeamOn", BeamOff="BeamOff")

    def GetStatus(self) -> str:
        return self._here().beam

    def GetVoltage(self) -> float:
        return self._here().volts

    def GetCurrent(self) -> float:
        return self._here().current_pa


class _Detectors(_Part):
    def Enum(self) -> list[_Detector]:
        self._here()
        return list(_DETECTORS)

    def Get(self, Channel: int) -> _Detector | None:
        selected = self._here().selected
        return None if selected is None else _DETECTORS[selected]


class _Scan(_Part):
    def Stop(self) -> None:
        its = self._here()
        its.live = False
        its.stops += 1

    def AcquireImage(
        self, Detector: _Detector, Bpp: object, Width: int, Height: int, DwellTime: int
    ) -> Document | None:
        return self._acquire((Width, Height), (0, 0, Width - 1, Height - 1), DwellTime, Bpp)

    def AcquireROI(
        self,
        Detector: _Detector,
        Width: int,
        Height: int,
        Left: int,
        Top: int,
        Right: int,
        Bottom: int,
        DwellTime: int,
    ) -> Document | None:
        window = (Left, Top, Right, Bottom)
        return self._acquire((Width, Height), window, DwellTime, Bpp.Grayscale_8_bit)

    def _acquire(
        self, size: tuple[int, int], window: tuple[int, ...], dwell_ns: int, bpp: object
    ) -> Document | None:
        its = self._here()
        if its.live:
            return None
        pixels = its.expose(size, window, dwell_ns)
        if bpp is Bpp.Grayscale_16_bit:
            pixels = pixels.astype(np.uint16) * 257
        return Document(pixels, {"SEM": {"StigmatorX": "0.0", "StigmatorY": "0.0"}})


class _Stage(_Part):
    def GetPosition(self) -> tuple[float, ...]:
        return tuple(self._here().position)

    def MoveTo(self, x: float, y: float, z: float, rot: float, tiltx: float) -> None:
        if not self._here().deaf:
            self._its.position = [x, y, z, rot, tiltx]
