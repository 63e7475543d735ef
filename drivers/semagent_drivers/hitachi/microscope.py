"""The microscope port over the lines of the SEM PC and its image folder."""

from contextlib import suppress
from pathlib import Path

from semagent.clock import Clock
from semagent.errors import (
    AcquisitionStoppedError,
    CommandRefusedError,
    ConfigError,
    DisconnectedError,
    MicroscopeError,
    MicroscopeTimeoutError,
    NotReadyError,
)
from semagent.types import Capabilities, Optics, Scan, StagePosition
from semagent_drivers.adapter import (
    Adapter,
    ImageFolder,
    Limits,
    Picture,
    Readings,
    Stamp,
    Wait,
    put_back,
)
from semagent_drivers.adapter.units import (
    DAC_16,
    MILLIMETRES,
    WHOLE_MICROMETRES,
    WHOLE_MILLIDEGREES,
    WHOLE_NANOMETRES,
    WHOLE_TENTHS_OF_DEGREES,
)
from semagent_drivers.hitachi.bmp import grey, whole_file
from semagent_drivers.hitachi.facts import DRIVER
from semagent_drivers.hitachi.options import HitachiOptions
from semagent_drivers.hitachi.wire import HitachiError, HitachiRefusalError, Line, await_call

_RUN, _FREEZE_NOW = "0", "2"
_SINGLE = "0"
_HIGH_MAG = 0
_NORMAL_SCAN = 0
_FULLY_ROTATABLE = 1
_LAST_MDEG = 359_900

# The order of the interface, with its units.
_AXES = {
    "x_m": WHOLE_NANOMETRES,
    "y_m": WHOLE_NANOMETRES,
    "z_m": WHOLE_NANOMETRES,
    "tilt_rad": WHOLE_MILLIDEGREES,
    "rotation_rad": WHOLE_MILLIDEGREES,
}
_STAGE_TOLERANCE = {
    axis: 1e-6 if unit is WHOLE_NANOMETRES else 2e-4 for axis, unit in _AXES.items()
}


class Hitachi(Adapter):
    """A Hitachi microscope in its high-magnification mode; see `semagent.ports.Microscope`.

    Only whole micrometres of working distance can be asked for. Frames are captures with the
    operator's capture settings; the interface has no blanker, no beam shift that could be read
    back, and no dwell.
    """

    refusals = (HitachiRefusalError,)
    failures = (HitachiError,)
    stage_skip = {"x_m": 25e-9, "y_m": 25e-9, "z_m": 400e-9, "tilt_rad": 2.1e-5}  # noqa: RUF012

    def __init__(self, options: HitachiOptions, clock: Clock) -> None:
        self._hitachi = options
        folder = Path(options.folder)
        if not folder.is_dir():
            raise ConfigError(f"driver hitachi: folder: there is no folder {folder}")
        self._folder = ImageFolder(folder, options.images)
        stream = await_call(options.bind, options.port, options.peer, options.connect_timeout_s)
        self._line = Line(stream, options.call_timeout_s)
        try:
            name = self._line.get("InstructName", "ALL").data
            stage = self._stage_limits()
            self._turns = self._tells_rotation()
        except BaseException as error:
            self._line.close()
            if isinstance(error, HitachiError):
                raise MicroscopeError(f"the SEM PC failed to describe itself: {error}") from error
            if isinstance(error, EOFError):
                raise DisconnectedError(f"the SEM PC speaks another language: {error}") from error
            raise
        range_m = MILLIMETRES.range_to_si(options.working_distance_range_mm)
        super().__init__(
            Capabilities(
                driver="hitachi",
                microscope=f"Hitachi {name}",
                verified_on=DRIVER.verified_on,
                stigmator=True,
                stage_axes=tuple(stage),
                working_distance_range_m=range_m,
            ),
            Limits(working_distance_m=range_m, stage=stage),
            options,
            clock,
        )

    def _disconnect(self) -> None:
        self._line.close()

    # -- reading ------------------------------------------------------------------------------

    def _read(self) -> Readings:
        line, options = self._line, self._hitachi
        _, magnification = line.get("MAGNIFICATION", "NOW").numbers(2)
        if magnification <= 0:
            raise HitachiError(f"a magnification of {magnification}")
        voltage_v, deceleration_v = line.get("HVCONTROL", "VACC").numbers(2)
        stigmator_x, stigmator_y = line.get("STIGMAXY", "NOW").numbers(2)
        return Readings(
            Scan(
                width_px=options.width_px,
                height_px=options.height_px,
                bit_depth=8,
                pixel_size_m=MILLIMETRES.to_si(options.field_mm) / magnification / options.width_px,
            ),
            Optics(
                working_distance_m=self._distance_m(),
                stigmator_x=DAC_16.to_si(stigmator_x),
                stigmator_y=DAC_16.to_si(stigmator_y),
                accelerating_voltage_v=float(voltage_v - deceleration_v),
                magnification=float(magnification),
            ),
            self._position(),
            self._rotation_rad() if self._turns else None,
        )

    def _tells_rotation(self) -> bool:
        """Frames can be taken without: a SEM PC that does not know the question will do."""
        try:
            self._rotation_rad()
        except HitachiError:
            return False
        return True

    def _rotation_rad(self) -> float:
        on, angle = self._line.get("RROTATION", "NOW").numbers(2)
        # The angle stays set while the rotation is off.
        return WHOLE_TENTHS_OF_DEGREES.to_si(angle) if on else 0.0

    def _distance_m(self) -> float:
        (micrometres,) = self._line.get("WD", "NOW").numbers(1)
        return WHOLE_MICROMETRES.to_si(micrometres)

    def _position(self) -> StagePosition:
        # Without the 2 it may be a micrometre behind.
        values = self._line.get("STAGEUNIT", "MOVEXYZTR2").numbers(len(_AXES))
        named = zip(_AXES.items(), values, strict=True)
        return StagePosition(**{axis: unit.to_si(value) for (axis, unit), value in named})

    def _stage_limits(self) -> dict[str, tuple[float, float]]:
        *ends, rotatable = self._line.get("STAGESETTING", "LIMIT2").numbers(9)
        pairs = zip(ends[::2], ends[1::2], strict=True)
        limits = {
            axis: unit.range_to_si(pair)
            for (axis, unit), pair in zip(list(_AXES.items())[:4], pairs, strict=True)
        }
        if rotatable == _FULLY_ROTATABLE:
            limits["rotation_rad"] = (0.0, WHOLE_MILLIDEGREES.to_si(_LAST_MDEG))
        return limits

    # -- exposing -----------------------------------------------------------------------------

    def _expose(self, readings: Readings, wait: Wait) -> Picture:
        self._require_running()
        self._folder.await_abandoned(whole_file, wait)
        before = self._folder.stamps(wait)
        # A capture leaves the image frozen, and then focus cannot be set.
        with put_back("the running scan", self._run):
            try:
                self._line.set("CAPTURESAVE", "EXECUTE", _SINGLE)
                self._until_idle(wait, "captured frame")
                data = self._saved(before, wait)
            except AcquisitionStoppedError:
                with suppress(HitachiRefusalError):
                    self._line.set("SCAN", "EXECUTE", _FREEZE_NOW)
                raise
        pixels = grey(data)
        scan, bar_px = readings.scan, self._hitachi.info_bar_px
        if pixels.shape != (scan.height_px, scan.width_px):
            height, width = pixels.shape
            raise MicroscopeError(
                f"the capture has {width} x {height} pixels, not {scan.width_px} x "
                f"{scan.height_px}: choose that size at the microscope, or change width_px and "
                "height_px"
            )
        return Picture(pixels, self._line.get("DETECTOR", "SIGNAL").data.split(",")[0], bar_px)

    def _saved(self, before: dict[Path, Stamp], wait: Wait) -> bytes:
        """The image once it lies in the folder: the share may be behind the SEM PC."""
        try:
            while (data := self._folder.newer(before, whole_file)) is None:
                wait.sleep(0.02, "image in the shared folder")
        except (AcquisitionStoppedError, MicroscopeTimeoutError):
            latest = Wait(self._clock, self._options.settle_timeout_s, wait.stopped)
            self._folder.abandon(before, latest)
            raise
        return data

    def _run(self) -> None:
        with self.edge("run the scan again"):
            self._line.set("SCAN", "EXECUTE", _RUN)

    def _is_busy(self) -> bool:
        return self._line.get("InstructName", "ALL").busy

    def _until_idle(self, wait: Wait, what: str) -> None:
        wait.until(lambda: not self._is_busy(), what)

    # -- setting ------------------------------------------------------------------------------

    def _set_working_distance(self, distance_m: float, wait: Wait) -> None:
        self._require_high_mag("the working distance")
        self._line.set("WD", "HM", _whole(WHOLE_MICROMETRES.from_si(distance_m)))
        self._until_idle(wait, "settled focus")
        step_m = WHOLE_MICROMETRES.step_si
        self.arrived("working distance", distance_m, self._distance_m(), step_m, "m")

    def _set_stigmator(self, x: float, y: float, wait: Wait) -> None:
        self._require_high_mag("the stigmators")
        values = [_whole(DAC_16.from_si(value)) for value in (x, y)]
        self._line.set("STIGMAXY", "EXECUTE", ",".join(values))
        self._until_idle(wait, "settled stigmators")
        reads_x, reads_y = self._line.get("STIGMAXY", "NOW").numbers(2)
        step = DAC_16.step_si
        self.arrived("stigmator x", x, DAC_16.to_si(reads_x), step, "of full range")
        self.arrived("stigmator y", y, DAC_16.to_si(reads_y), step, "of full range")

    def _move_stage(self, moves: dict[str, float], here: StagePosition, wait: Wait) -> None:
        self._require_running()
        # The call takes all axes; those that are not to move get where they are.
        values = [
            _whole(unit.from_si(moves.get(axis, getattr(here, axis))))
            for axis, unit in _AXES.items()
        ]
        with self.halting(lambda: self._line.set("STAGE", "STOP", "*")):
            self._line.set("STAGEUNIT", "MOVEXYZTR", ",".join(values))
            self.stage_arrives(
                moves,
                self._position,
                _STAGE_TOLERANCE,
                wait,
                moving=self._is_busy,
                patience_s=self._hitachi.stage_settle_s,
            )

    def _require_running(self) -> None:
        """What the SEM PC would answer with a bare NG, in words."""
        scan = self._line.get("SCAN", "NOW").data
        if scan != "RUN":
            raise NotReadyError(
                f"{self._name}: the image is frozen ({scan}); press Run at the microscope"
            )
        (mode,) = self._line.get("SCAN", "SCANMODE").numbers(1)
        if mode != _NORMAL_SCAN:
            raise NotReadyError(
                f"{self._name}: a spot or an area is analysed (scan mode {mode}); go back to the "
                "normal scan"
            )

    def _require_high_mag(self, setting: str) -> None:
        self._require_running()
        mode, _ = self._line.get("MAGNIFICATION", "NOW").numbers(2)
        if mode != _HIGH_MAG:
            raise CommandRefusedError(
                f"{self._name}: {setting} cannot be set in the low-magnification mode"
            )


def _whole(value: float) -> str:
    return str(round(value))
