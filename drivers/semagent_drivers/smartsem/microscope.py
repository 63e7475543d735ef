"""The microscope port over SmartSEM: metres, but percent for stigmators and degrees for angles."""

import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from semagent.clock import Clock
from semagent.errors import ConfigError, InputFileError, MicroscopeError, NotReadyError
from semagent.requirements import explain
from semagent.types import Capabilities, Optics, Pixels, Scan, StagePosition
from semagent_drivers.adapter import (
    Limits,
    Picture,
    Range,
    Readings,
    SdkAdapter,
    SdkThread,
    Wait,
    load_sdk,
    opening,
    put_back,
)
from semagent_drivers.adapter.units import (
    DEGREES,
    METRES,
    MICROMETRES,
    MILLIMETRES,
    MILLISECONDS,
    PERCENT,
)
from semagent_drivers.smartsem.com import Control, Refused, is_lost, is_not_registered, lost
from semagent_drivers.smartsem.facts import CONTROL, DRIVER, PROG_ID
from semagent_drivers.smartsem.options import SmartSemOptions

T = TypeVar("T")

STAGE = {"x_m": METRES, "y_m": METRES, "z_m": METRES, "tilt_rad": DEGREES, "rotation_rad": DEGREES}
"""Axes in the order of the stage functions; a sixth, M, follows."""

_LETTERS = dict(zip(STAGE, "XYZTR", strict=True))
_STIGMATOR_TOLERANCE = 1e-3
_STAGE_TOLERANCE = {
    axis: 1e-6 if unit is METRES else DEGREES.to_si(0.1) for axis, unit in STAGE.items()
}
_BLANK_STD = 0.5
_LIVE = "Live"
_BLANKER = "DP_BEAM_BLANKING"
_SWITCH = {"on": True, "yes": True, "1": True, "off": False, "no": False, "0": False}
"""How versions of SmartSEM write a switch."""


class SmartSem(SdkAdapter):
    """A ZEISS microscope; see `semagent.ports.Microscope`.

    A frame is the live image, frozen at its end, as a file. So size, scan speed, averaging and
    contrast are the operator's.
    """

    def __init__(self, options: SmartSemOptions, clock: Clock) -> None:
        client = load_sdk(options.sdk, "smartsem", DRIVER)
        # Not imported above: it brings what a microscope PC may lack, and then is to be told.
        self._read_image = load_sdk("semagent.images", "smartsem", DRIVER).read_image
        pythoncom = client.pythoncom
        self.failures = (Refused, pythoncom.com_error)
        self._wishes = options
        self._control: Any = None
        thread = SdkThread("SmartSEM", enter=pythoncom.CoInitialize, leave=pythoncom.CoUninitialize)
        self._saved = 0
        # SmartSEM writes frames, we read them: in a folder of our own.
        self._folder = tempfile.TemporaryDirectory(prefix="semagent-", ignore_cleanup_errors=True)
        try:
            with opening("SmartSEM", thread, failures=self.failures, leave=self._leave):
                stage = thread.call(
                    self._telling(lambda: self._connect(client)),
                    timeout_s=options.call_timeout_s,
                    what="connect",
                )
        except BaseException:
            self._folder.cleanup()
            raise
        distances = MILLIMETRES.range_to_si(options.working_distance_range_mm)
        super().__init__(
            thread,
            Capabilities(
                driver="smartsem",
                microscope="ZEISS SmartSEM",
                verified_on=DRIVER.verified_on,
                stigmator=True,
                stage_axes=tuple(stage),
                blanker=True,
                working_distance_range_m=distances,
            ),
            Limits(working_distance_m=distances, stage=stage),
            options,
            clock,
        )

    def _connect(self, client: Any) -> dict[str, Range]:
        try:
            self._control = Control(client, PROG_ID)
        except client.pythoncom.com_error as error:
            if is_not_registered(error):
                raise ConfigError(explain("driver smartsem", [CONTROL])) from error
            raise
        return self._stage_limits() if self._wishes.stage else {}

    def _stage_limits(self) -> dict[str, Range]:
        limits = {}
        for axis, unit in STAGE.items():
            low, high = (
                unit.to_si(self._control.number(f"AP_STAGE_{end}_{_LETTERS[axis]}"))
                for end in ("LOW", "HIGH")
            )
            if low < high:
                limits[axis] = (low, high)
        return limits

    def _leave(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    def _disconnect(self) -> None:
        super()._disconnect()
        self._folder.cleanup()

    def _telling(self, call: Callable[[], T]) -> Callable[[], T]:
        """A call that tells a control without its server, a lost link, from one that failed."""

        def called() -> T:
            try:
                return call()
            except self.failures as error:
                if is_lost(error):
                    raise lost(error) from error
                raise

        return called

    # -- reading ------------------------------------------------------------------------------

    def _read(self) -> Readings:
        return self.ask(self._look, "tell its settings")

    def _look(self) -> Readings:
        control = self._control
        width, height = _size(control.state("DP_IMAGE_STORE"))
        return Readings(
            Scan(
                width_px=width,
                height_px=height,
                bit_depth=8,
                pixel_size_m=control.number("AP_WIDTH") / width,
            ),
            Optics(
                working_distance_m=control.number("AP_WD"),
                stigmator_x=PERCENT.to_si(control.number("AP_STIG_X")),
                stigmator_y=PERCENT.to_si(control.number("AP_STIG_Y")),
                accelerating_voltage_v=control.number("AP_MANUALKV"),
                beam_current_a=control.number("AP_IPROBE"),
                magnification=control.number("AP_MAG"),
                blanked=self._is_dark(),
            ),
            self._position(),
            self._rotation_rad(),
        )

    def _rotation_rad(self) -> float:
        # The angle stays set while the rotation is off.
        off = _SWITCH.get(self._control.state("DP_SCAN_ROT").strip().lower()) is False
        return 0.0 if off else DEGREES.to_si(self._control.number("AP_SCANROTATION"))

    # -- exposing -----------------------------------------------------------------------------

    def _expose(self, readings: Readings, wait: Wait) -> Picture:
        before, freezes_on, averaging, run_up, detector = self.ask(
            lambda: [
                self._control.state(key)
                for key in (
                    "DP_FROZEN",
                    "DP_FREEZE_ON",
                    "DP_NOISE_REDUCTION",
                    "DP_RUNUPSTATE",
                    "DP_DETECTOR_TYPE",
                )
            ]
        )
        _require_whole_frames(freezes_on, averaging)
        self.require_beam("off" not in run_up.lower(), run_up)
        # It would be cut off by a command to freeze, and ends frozen without.
        integrates = " Int" in averaging
        thaw = before == _LIVE and not integrates
        with put_back("live image", lambda: self._thaw(wait) if thaw else None):
            if before == _LIVE:
                self._end_frame(wait, integrates=integrates)
            picture = self._frozen(readings.scan, detector, wait, integrates=integrates)
            for _ in range(self._wishes.blank_retries):
                if float(picture.pixels.std()) > _BLANK_STD:
                    break
                picture = self._frozen(readings.scan, detector, wait, integrates=integrates)
        return picture

    def _end_frame(self, wait: Wait, *, integrates: bool) -> None:
        """Freeze the live image: its upper part may be of before the last change of focus."""
        if not integrates:
            self.ask(lambda: self._control.execute("CMD_FREEZE_ALL"))
        self._await_frozen(wait)

    def _await_frozen(self, wait: Wait) -> None:
        wait.until(lambda: self.ask(self._frame_state) != _LIVE, "frozen frame")

    def _frozen(self, scan: Scan, detector: str, wait: Wait, *, integrates: bool) -> Picture:
        """Let a whole frame be scanned from its top, freeze it at its end, and read it."""
        wait.sleep(self.ask(lambda: self._begin(integrates=integrates)), "end of the frame")
        self._await_frozen(wait)
        # Another name for each: one that a virus scanner holds could not be written again, and
        # what lies there of an earlier frame must not pass for this one.
        self._saved += 1
        path = Path(self._folder.name) / f"frame{self._saved}.tif"
        self.ask(lambda: self._control.grab(str(path)), "save a frame")
        try:
            image = self._read_image(path)
        except InputFileError as error:
            raise MicroscopeError(f"SmartSEM saved no image that can be read: {error}") from error
        with suppress(OSError):
            path.unlink()
        pixels: Pixels = image.pixels.copy()
        if pixels.shape != (scan.height_px, scan.width_px) or pixels.dtype != np.uint8:
            height, width = pixels.shape
            raise MicroscopeError(
                f"SmartSEM saved {width} x {height} pixels of {pixels.dtype}, but its image store "
                f"is {scan.width_px} x {scan.height_px} of 8 bits"
            )
        return Picture(pixels, detector, image.info_bar_px)

    def _begin(self, *, integrates: bool) -> float:
        """Start a frame, from a frozen image, that ends frozen; say how long a scan takes."""
        self._control.execute("CMD_UNFREEZE_ALL")
        if not integrates:
            self._control.execute("CMD_FREEZE_ALL")
        return MILLISECONDS.to_si(self._control.number("AP_FRAME_TIME"))

    def _frame_state(self) -> str:
        return str(self._control.state("DP_FROZEN"))

    def _thaw(self, wait: Wait) -> None:
        self.restore(lambda: self._control.execute("CMD_UNFREEZE_ALL"), "unfreeze the image", wait)

    # -- setting ------------------------------------------------------------------------------

    def _set_working_distance(self, distance_m: float, wait: Wait) -> None:
        (reads_m,) = self._set_numbers("working distance", {"AP_WD": distance_m}, wait)
        tolerance_m = MICROMETRES.to_si(self._wishes.readback_tolerance_um)
        self.arrived("working distance", distance_m, reads_m, tolerance_m, "m")

    def _set_stigmator(self, x: float, y: float, wait: Wait) -> None:
        asked = {"AP_STIG_X": PERCENT.from_si(x), "AP_STIG_Y": PERCENT.from_si(y)}
        reads = self._set_numbers("stigmators", asked, wait)
        for name, ours, theirs in zip("xy", (x, y), reads, strict=True):
            value = PERCENT.to_si(theirs)
            self.arrived(f"stigmator {name}", ours, value, _STIGMATOR_TOLERANCE, "of full range")

    def _set_numbers(self, name: str, asked: Mapping[str, float], wait: Wait) -> list[float]:
        """Set parameters, let the beam settle and read them back."""

        def change() -> None:
            for key, value in asked.items():
                self._control.set(key, value)

        def read() -> list[float]:
            return [self._control.number(key) for key in asked]

        self.change(name, change, read)
        wait.sleep(self._wishes.focus_settle_s, "settled beam")
        return self.ask(read)

    def _set_blanked(self, blanked: bool, wait: Wait) -> None:
        self.change("blanker", lambda: self._control.set(_BLANKER, float(blanked)), self._is_dark)
        self.obeyed(blanked, self.ask(self._is_dark))

    def _is_dark(self) -> bool:
        state = self._control.state(_BLANKER)
        known = _SWITCH.get(state.strip().lower())
        if known is None:
            raise MicroscopeError(f"SmartSEM gives {state!r} for {_BLANKER}, neither on nor off")
        return known

    def _move_stage(self, moves: dict[str, float], here: StagePosition, wait: Wait) -> None:
        # All six axes are told: one that is not to move, tilt above all, is sent where it is.
        target = list(self.ask(self._control.stage_position))
        for index, (axis, unit) in enumerate(STAGE.items()):
            if axis in moves:
                target[index] = unit.from_si(moves[axis])
        with self.halting(lambda: self._thread.post(self._halt)):
            self.ask(lambda: self._control.move_stage(tuple(target)), "start a stage move")
            self.stage_arrives(
                moves,
                lambda: self.ask(self._position),
                _STAGE_TOLERANCE,
                wait,
                moving=lambda: self.ask(lambda: self._control.state("DP_STAGE_IS")) == "Busy",
                patience_s=self._wishes.stage_settle_s,
            )

    def _halt(self) -> None:
        self._control.execute("CMD_STAGE_ABORT")

    def _position(self) -> StagePosition:
        values = self._control.stage_position()
        named = zip(STAGE.items(), values, strict=False)  # M is nobody's
        return StagePosition(**{axis: unit.to_si(value) for (axis, unit), value in named})


def _require_whole_frames(freezes_on: str, averaging: str) -> None:
    """Refuse settings with which a frame is not one whole frame of now.

    Raises:
        NotReadyError: says what to choose at the microscope.
    """
    if freezes_on != "End Frame":
        raise NotReadyError(
            f"SmartSEM freezes on {freezes_on!r}, so frames would be cut off; set Freeze on to "
            "End Frame at the microscope"
        )
    if averaging.startswith("Continuous"):
        raise NotReadyError(
            f"with the noise reduction {averaging!r} an image keeps some of the pictures before "
            "it, out of focus or not; choose another one at the microscope"
        )


def _size(store: str) -> tuple[int, int]:
    """Columns and rows of an image store such as ``1024 * 768``."""
    found = re.fullmatch(r"\s*(\d+)\s*\*\s*(\d+)\s*", store)
    if found is None:
        raise MicroscopeError(f"SmartSEM gives {store!r} for DP_IMAGE_STORE, not columns * rows")
    return int(found[1]), int(found[2])
