"""The microscope port over RemCon and the folder to which a SmartSEM macro saves frames."""

from pathlib import Path
from typing import Any

import numpy as np

from semagent.clock import Clock
from semagent.errors import (
    AcquisitionStoppedError,
    ConfigError,
    InputFileError,
    MicroscopeError,
    MicroscopeTimeoutError,
)
from semagent.types import Capabilities, Optics, Pixels, Scan, StagePosition
from semagent_drivers.adapter import (
    Adapter,
    ImageFolder,
    Limits,
    Picture,
    Range,
    Readings,
    Wait,
    load_sdk,
)
from semagent_drivers.adapter.units import (
    DEGREES,
    KILOVOLTS,
    MICROMETRES,
    MILLIMETRES,
    NANOMETRES,
    PERCENT,
)
from semagent_drivers.zeiss_remcon.facts import DRIVER
from semagent_drivers.zeiss_remcon.options import RemConOptions
from semagent_drivers.zeiss_remcon.wire import Line, RemConError, RemConRefusalError

# The order of the interface, with its units; a sixth, M, follows, and whether the stage moves.
_AXES = {
    "x_m": MILLIMETRES,
    "y_m": MILLIMETRES,
    "z_m": MILLIMETRES,
    "tilt_rad": DEGREES,
    "rotation_rad": DEGREES,
}
_AXES_AND_STATE = len(_AXES) + 2
_SCREEN_COLUMNS = 1024
"""What RemCon calls a pixel is one of a screen of so many columns, whatever the image has."""

_STIGMATOR_TOLERANCE = 2e-3
_STAGE_TOLERANCE = {
    axis: 2e-6 if unit is MILLIMETRES else DEGREES.to_si(0.1) for axis, unit in _AXES.items()
}


class RemCon(Adapter):
    """A ZEISS microscope over its serial line; see `semagent.ports.Microscope`.

    The line carries no images: a frame is one that a macro of SmartSEM saves to a shared folder,
    with the operator's size, speed and averaging.
    """

    refusals = (RemConRefusalError,)
    failures = (RemConError,)

    def __init__(self, options: RemConOptions, clock: Clock) -> None:
        serial = load_sdk("serial", "zeiss-remcon", DRIVER)
        # Not imported above: it brings what a microscope PC may lack, and then is to be told.
        self._read_image = load_sdk("semagent.images", "zeiss-remcon", DRIVER).read_image
        self._wishes = options
        folder = Path(options.folder)
        if not folder.is_dir():
            raise ConfigError(f"driver zeiss-remcon: folder: there is no folder {folder}")
        self._folder = ImageFolder(folder, options.images)
        self._line = Line.opened(
            serial.serial_for_url, options.port, options.baud_rate, options.call_timeout_s
        )
        try:
            version = self._line.ask("VER?")
            stigmator, self._turns = self._knows("STI?"), self._knows("SRO?")
        except BaseException as error:
            self._line.close()
            if isinstance(error, self.failures + self.refusals + self.losses):
                raise MicroscopeError(f"RemCon failed to describe itself: {error}") from error
            raise
        range_m = MILLIMETRES.range_to_si(options.working_distance_range_mm)
        stage = _stage_limits(options)
        super().__init__(
            Capabilities(
                driver="zeiss-remcon",
                microscope=f"ZEISS {version}".strip(),
                verified_on=DRIVER.verified_on,
                stigmator=stigmator,
                stage_axes=tuple(stage),
                blanker=True,
                working_distance_range_m=range_m,
            ),
            Limits(working_distance_m=range_m, stage=stage),
            options,
            clock,
        )

    def _knows(self, question: str) -> bool:
        """Not every version of RemCon knows all questions."""
        try:
            self._line.ask(question)
        except RemConRefusalError:
            return False
        return True

    def _disconnect(self) -> None:
        self._line.close()

    # -- reading ------------------------------------------------------------------------------

    def _read(self) -> Readings:
        options = self._wishes
        x, y = self._stigmator() if self._capabilities.stigmator else (None, None)
        (magnification,) = self._line.numbers("MAG?", 1)
        (pixel_nm,) = self._line.numbers("PIX?", 1)
        (voltage_kv,) = self._line.numbers("EHT?", 1)
        field_m = NANOMETRES.to_si(pixel_nm) * _SCREEN_COLUMNS
        return Readings(
            Scan(
                width_px=options.width_px,
                height_px=options.height_px,
                bit_depth=8,
                pixel_size_m=field_m / options.width_px,
            ),
            Optics(
                working_distance_m=self._distance_m(),
                stigmator_x=x,
                stigmator_y=y,
                accelerating_voltage_v=KILOVOLTS.to_si(voltage_kv),
                magnification=magnification,
                blanked=self._is_dark(),
            ),
            self._position(),
            self._rotation_rad() if self._turns else None,
        )

    def _rotation_rad(self) -> float:
        (angle_deg,) = self._line.numbers("SRO?", 1)
        return DEGREES.to_si(angle_deg)

    def _distance_m(self) -> float:
        (distance_mm,) = self._line.numbers("FOC?", 1)
        return MILLIMETRES.to_si(distance_mm)

    def _stigmator(self) -> tuple[float, float]:
        x, y = self._line.numbers("STI?", 2)
        return PERCENT.to_si(x), PERCENT.to_si(y)

    def _is_dark(self) -> bool:
        (state,) = self._line.numbers("BBL?", 1)
        return state != 0

    def _stage(self) -> tuple[list[float], bool]:
        """The six axes in the interface's units, and whether the stage moves."""
        *axes, moves = self._line.numbers("C95?", _AXES_AND_STATE)
        return axes, moves != 0

    def _position(self) -> StagePosition:
        axes, _ = self._stage()
        named = zip(_AXES.items(), axes, strict=False)  # M is nobody's
        return StagePosition(**{axis: unit.to_si(value) for (axis, unit), value in named})

    # -- exposing -----------------------------------------------------------------------------

    def _expose(self, readings: Readings, wait: Wait) -> Picture:
        self._folder.await_abandoned(self._whole, wait)
        before = self._folder.stamps(wait)
        ends = Wait(self._clock, self._wishes.macro_timeout_s, wait.stopped)
        try:
            self._line.ask(
                f"MAC {self._wishes.macro}",
                timeout_s=min(wait.left_s, ends.left_s),
                stopped=wait.stopped,
            )
            while (image := self._folder.newer(before, self._whole)) is None:
                wait.sleep(0.02, f"whole image in {self._wishes.folder}")
        except (AcquisitionStoppedError, MicroscopeTimeoutError):
            self._folder.abandon(before, ends)
            raise
        pixels: Pixels = image.pixels.copy()
        scan = readings.scan
        if pixels.shape != (scan.height_px, scan.width_px) or pixels.dtype != np.uint8:
            height, width = pixels.shape
            raise MicroscopeError(
                f"the macro saved {width} x {height} pixels of {pixels.dtype}, not "
                f"{scan.width_px} x {scan.height_px} of uint8: choose that size at the "
                "microscope, or change width_px and height_px"
            )
        return Picture(pixels, self._line.ask("DET?"), image.info_bar_px)

    def _whole(self, path: Path) -> Any:
        try:
            return self._read_image(path)
        except InputFileError:  # it is still being written
            return None

    # -- setting ------------------------------------------------------------------------------

    def _set_working_distance(self, distance_m: float, wait: Wait) -> None:
        self._line.ask(f"FOCS {MILLIMETRES.from_si(distance_m):.6f}")
        wait.sleep(self._wishes.focus_settle_s, "settled focus")
        tolerance_m = MICROMETRES.to_si(self._wishes.readback_tolerance_um)
        self.arrived("working distance", distance_m, self._distance_m(), tolerance_m, "m")

    def _set_stigmator(self, x: float, y: float, wait: Wait) -> None:
        self._line.ask(f"STIM {PERCENT.from_si(x):.4f} {PERCENT.from_si(y):.4f}")
        wait.sleep(self._wishes.focus_settle_s, "settled stigmators")
        reads_x, reads_y = self._stigmator()
        self.arrived("stigmator x", x, reads_x, _STIGMATOR_TOLERANCE, "of full range")
        self.arrived("stigmator y", y, reads_y, _STIGMATOR_TOLERANCE, "of full range")

    def _set_blanked(self, blanked: bool, wait: Wait) -> None:
        self._line.ask(f"BBLK {int(blanked)}")
        self.obeyed(blanked, self._is_dark())

    def _move_stage(self, moves: dict[str, float], here: StagePosition, wait: Wait) -> None:
        # All six axes are told: one that is not to move, tilt above all, is sent where it is.
        target, _ = self._stage()
        for index, (axis, unit) in enumerate(_AXES.items()):
            if axis in moves:
                target[index] = unit.from_si(moves[axis])
        with self.halting(lambda: self._line.ask("ABO")):
            self._line.ask("C95 " + " ".join(f"{value:.6f}" for value in target))
            self.stage_arrives(
                moves,
                self._position,
                _STAGE_TOLERANCE,
                wait,
                moving=lambda: self._stage()[1],
                patience_s=self._wishes.stage_settle_s,
            )


def _stage_limits(options: RemConOptions) -> dict[str, Range]:
    """The axes that may move, with their ranges in SI units."""
    given = {
        "x_m": options.x_range_mm,
        "y_m": options.y_range_mm,
        "z_m": options.z_range_mm,
        "tilt_rad": options.tilt_range_deg,
        "rotation_rad": options.rotation_range_deg,
    }
    return {
        axis: _AXES[axis].range_to_si(limits)
        for axis, limits in given.items()
        if limits is not None
    }
