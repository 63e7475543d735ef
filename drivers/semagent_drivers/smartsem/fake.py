"""A fake SmartSEM behind COM, to rehearse with: the same control, units, codes and habits.

It stands for ``win32com.client`` where the driver's option ``sdk`` says
``semagent_drivers.smartsem.fake``. There is one instrument for each control, as on a real PC.
"""

import math
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import tifffile

from semagent.types import Optics, Scan, StagePosition
from semagent_drivers.fakes import Bench, Fault, Stage, Trip

OK = 0
NO_SUCH_PARAMETER, TOO_LOW, TOO_HIGH, WRONG_TYPE = 1004, 1007, 1008, 1009
NO_SUCH_COMMAND, FAILED, NO_GRAB, NOT_INITIALISED = 1011, 1012, 1016, 1019
RPC_UNAVAILABLE = -2147023174
WRONG_THREAD = -2147417842
NOT_INITIALISED_THREAD = -2147221008

RANGES = {"AP_WD": (0.0, 0.1), "AP_STIG_X": (-100.0, 100.0), "AP_STIG_Y": (-100.0, 100.0)}
STAGE_LIMITS = {
    "X": (0.0, 0.13),
    "Y": (0.0, 0.13),
    "Z": (0.0, 0.05),
    "T": (-4.0, 70.0),
    "R": (0.0, 360.0),
    "M": (0.0, 0.01),
}
VT_R4 = 4


class COMError(Exception):
    """What COM raises: for the transport, never for SmartSEM's own refusals."""

    def __init__(self, hresult: int, text: str) -> None:
        super().__init__(hresult, text, None, None)
        self.hresult = hresult


class VARIANT(NamedTuple):
    """A value with its type."""

    varianttype: int
    value: float


_initialised = threading.local()
pythoncom = SimpleNamespace(
    VT_R4=VT_R4,
    com_error=COMError,
    CoInitialize=lambda: setattr(_initialised, "yes", True),
    CoUninitialize=lambda: setattr(_initialised, "yes", False),
)
"""What the driver takes from pywin32's module of this name."""


@dataclass
class Instrument:
    """A microscope under SmartSEM. Every call may trip through ``trip``.

    Its habits:

    * Refusals are codes, and no exception: whoever does not look takes them for success.
    * Numbers are 32-bit floats. A working distance given as text counts in millimetres.
    * ``MoveStage`` says success and moves all six axes; a position out of reach is ignored. The
      stage begins late, and is idle until then.
    * Freezing takes effect at the end of the frame; until then the image is live. A live image
      is scanned frame after frame: a focus that is changed meanwhile shows from there downwards.
    * Integration counts ``integrated`` frames from when the image is set live, and freezes by
      itself; one that is frozen before has less. Continuous averaging keeps three quarters of
      the picture before with each frame.
    * The control belongs to the thread that made it.
    * ``blank_frames``: so many of the next frames are saved without anything on them.
    * ``deaf``: it accepts focus, stigmators and blanking and does not take them.
    * ``stuck``: it never gets to the end of a frame.

    Attributes:
        store: columns and rows of the image.
        frame_s: time a frame takes.
        start_s: time until a stage move begins.
        move_s: time it takes.
    """

    focus_m: float = 5.02e-3
    store: tuple[int, int] = (1024, 768)
    frame_s: float = 0.0
    start_s: float = 0.0
    move_s: float = 0.0
    deaf: bool = False
    stuck: bool = False
    blank_frames: int = 0
    trip: Trip = field(default_factory=Trip)

    def __post_init__(self) -> None:
        self.numbers = {"AP_WD": 5.0e-3, "AP_STIG_X": 2.0, "AP_STIG_Y": -1.5}
        self.fixed = {
            "AP_MANUALKV": 5000.0,
            "AP_IPROBE": 1e-10,
            "AP_MAG": 20_000.0,
            "AP_SCANROTATION": 0.0,
        }
        self.blanked = False
        self.freeze_on = "End Frame"
        self.turned = "On"
        self.noise_reduction = "Pixel Avg."
        self.integrated = 4
        self.run_up = "Beam On"
        self.frozen = False
        self.stage = Stage([_single(each) for each in (0.0651, 0.0602, 0.0101, 30.0, 90.0, 0.0)])
        self.calls: list[str] = []
        self.controls = 0
        self.picture: Any = None
        self._frame_ends_s = math.inf
        self._live_since_s = time.perf_counter()
        self._turned: tuple[float, Optics] | None = None
        x_m, y_m, z_m = self.position[:3]
        self.bench = Bench(
            focus_m=self.focus_m,
            astigmatism_um=(0.3, -0.2),
            home=StagePosition(x_m=x_m, y_m=y_m, z_m=z_m),
        )
        self.expose()  # the first one draws the specimen

    @property
    def position(self) -> list[float]:
        """Where the stage is."""
        return self.stage.position

    def optics(self) -> Optics:
        """What it is really set to, in SI units."""
        return Optics(
            working_distance_m=self.numbers["AP_WD"],
            stigmator_x=self.numbers["AP_STIG_X"] / 100,
            stigmator_y=self.numbers["AP_STIG_Y"] / 100,
            blanked=self.blanked,
        )

    def expose(self, optics: Optics | None = None) -> Any:
        """A picture with its settings, or with others of the beam."""
        width, height = self.store
        scan = Scan(width_px=width, height_px=height, bit_depth=8, pixel_size_m=10e-9, dwell_s=1e-6)
        x_m, y_m, z_m = self.position[:3]
        stage = StagePosition(x_m=x_m, y_m=y_m, z_m=z_m)
        return self.bench.expose(optics or self.optics(), scan, stage)

    def execute(self, command: str) -> int:
        """A ``CMD_`` command."""
        match command:
            case "CMD_UNFREEZE_ALL":
                if self.frozen:
                    self._live_since_s = time.perf_counter()
                    self._frame_ends_s = math.inf
                self.frozen = False
                if self._integrates:
                    self._frame_ends_s = self._live_since_s + self.integrated * self.frame_s
            case "CMD_FREEZE_ALL":
                if not self.stuck:
                    self._frame_ends_s = min(self._frame_ends_s, self._next_end_s())
            case "CMD_STAGE_ABORT":
                self.stage.halt()
            case _:
                return NO_SUCH_COMMAND
        return OK

    def told(self, key: str) -> Any:
        """A parameter, or ``None`` if there is none of this name."""
        if key in self.numbers:
            return self.numbers[key]
        if key in self.fixed:
            return self.fixed[key]
        if key.startswith("AP_STAGE_"):
            _, _, end, axis = key.split("_")
            low, high = STAGE_LIMITS[axis]
            return low if end == "LOW" else high
        self._work()
        width, height = self.store
        return {
            "AP_WIDTH": width * 10e-9,
            "AP_FRAME_TIME": self.frame_s * 1e3,
            "DP_IMAGE_STORE": f"{width} * {height}",
            "DP_FROZEN": "Frozen" if self.frozen else "Live",
            "DP_FREEZE_ON": self.freeze_on,
            "DP_SCAN_ROT": self.turned,
            "DP_NOISE_REDUCTION": self.noise_reduction,
            "DP_RUNUPSTATE": self.run_up,
            "DP_DETECTOR_TYPE": "InLens",
            "DP_BEAM_BLANKING": "On" if self.blanked else "Off",
            "DP_STAGE_IS": "Busy" if self.stage.moving else "Idle",
        }.get(key)

    def take(self, key: str, given: object) -> int:
        """Set a parameter."""
        if isinstance(given, str) and key == "AP_WD":
            given = VARIANT(VT_R4, float(given) / 1e3)
        if not isinstance(given, VARIANT):
            return WRONG_TYPE
        value = _single(given.value)
        if key == "DP_BEAM_BLANKING":
            self.blanked = self.blanked if self.deaf else bool(value)
            return OK
        if key not in RANGES:
            return NO_SUCH_PARAMETER
        low, high = RANGES[key]
        if not low <= value <= high:
            return TOO_LOW if value < low else TOO_HIGH
        if not self.deaf:
            self._turned = time.perf_counter(), self.optics()
            self.numbers[key] = value
        return OK

    def move(self, target: list[float]) -> None:
        """Go there, if it can be reached."""
        ends = STAGE_LIMITS.values()
        if all(low <= value <= high for value, (low, high) in zip(target, ends, strict=True)):
            self.stage.move(target, self.start_s, self.move_s)

    def save(self, path: str) -> int:
        """Save what is frozen."""
        self._work()
        if not self.frozen:
            return NO_GRAB
        pixels = self.picture
        if self.blank_frames:
            self.blank_frames -= 1
            pixels = np.zeros_like(pixels)
        tifffile.imwrite(path, pixels)
        return OK

    def _work(self) -> None:
        """What happens by itself: a frame ends."""
        if time.perf_counter() >= self._frame_ends_s:
            before, picture = self.picture, self._scanned(self._frame_ends_s - self.frame_s)
            if self._integrates and self.frame_s:
                frames = (self._frame_ends_s - self._live_since_s) / self.frame_s
                picture = np.rint(picture * (frames / self.integrated)).astype(picture.dtype)
            elif self.noise_reduction == "Continuous Avg." and before is not None:
                picture = (0.75 * before + 0.25 * picture).astype(picture.dtype)
            self.picture = picture
            self.frozen, self._frame_ends_s = True, math.inf

    @property
    def _integrates(self) -> bool:
        return " Int" in self.noise_reduction

    def _next_end_s(self) -> float:
        """When the frame ends that is being scanned."""
        now_s = time.perf_counter()
        if not self.frame_s:
            return now_s
        frames = math.ceil((now_s - self._live_since_s) / self.frame_s)
        return self._live_since_s + frames * self.frame_s

    def _scanned(self, began_s: float) -> Any:
        """The frame that began then: what was scanned before the last turn of a knob is older."""
        picture = self.expose()
        if self._turned is not None and self._turned[0] > began_s and self.frame_s:
            turned_s, optics = self._turned
            rows = math.ceil(len(picture) * (turned_s - began_s) / self.frame_s)
            picture[:rows] = self.expose(optics)[:rows]
        return picture


INSTRUMENTS: dict[str, Instrument] = {}
"""The instruments there are, by the name of their control."""


def Dispatch(prog_id: str) -> "_Control":  # noqa: N802 - pywin32's name
    """Make a control."""
    if not getattr(_initialised, "yes", False):
        raise COMError(NOT_INITIALISED_THREAD, "CoInitialize has not been called")
    if prog_id not in INSTRUMENTS:
        INSTRUMENTS[prog_id] = Instrument()
    return _Control(INSTRUMENTS[prog_id])


class _Control:
    """The methods, by the control's names."""

    def __init__(self, instrument: Instrument) -> None:
        self._its = instrument
        self._thread = threading.get_ident()
        self._initialised = False

    def InitialiseRemoting(self) -> int:  # noqa: N802
        self._initialised = True
        failed = self._called("InitialiseRemoting")
        self._initialised = not failed
        self._its.controls += self._initialised
        return failed

    def Get(self, key: str, _: object) -> tuple[int, Any]:  # noqa: N802
        if failed := self._called(f"Get {key}"):
            return failed, ""
        value = self._its.told(key)
        return (NO_SUCH_PARAMETER, "") if value is None else (OK, value)

    def Set(self, key: str, value: object) -> tuple[int, Any]:  # noqa: N802
        return self._called(f"Set {key}") or self._its.take(key, value), value

    def Execute(self, command: str) -> int:  # noqa: N802
        return self._called(command) or self._its.execute(command)

    def Grab(self, left: int, top: int, width: int, height: int, part: int, path: str) -> int:  # noqa: N802
        whole = (left, top, width, height, part) == (0, 0, 1024, 768, 0)
        return self._called("Grab") or (self._its.save(path) if whole else NO_GRAB)

    def GetStagePosition(self) -> tuple[float, ...]:  # noqa: N802
        failed = self._called("GetStagePosition")
        return (failed, *([0.0] * 6 if failed else self._its.position))

    def MoveStage(self, *target: VARIANT) -> int:  # noqa: N802
        if failed := self._called("MoveStage"):
            return failed
        self._its.move([_single(each.value) for each in target])
        return OK

    def ClosingControl(self) -> int:  # noqa: N802
        if failed := self._called("ClosingControl"):
            return failed
        self._its.controls -= 1
        self._initialised = False
        return OK

    def _called(self, name: str) -> int:
        if threading.get_ident() != self._thread:
            raise COMError(WRONG_THREAD, "an interface marshalled for a different thread")
        self._its.calls.append(name)
        match self._its.trip.step():
            case Fault.FAIL:
                return FAILED
            case Fault.DROP:
                raise COMError(RPC_UNAVAILABLE, "The RPC server is unavailable.")
            case Fault.HANG:
                self._its.trip.hang()
                raise COMError(RPC_UNAVAILABLE, "The RPC server is unavailable.")
        return OK if self._initialised else NOT_INITIALISED


def _single(value: float) -> float:
    """What a 32-bit float keeps of a number."""
    return float(np.float32(value))
