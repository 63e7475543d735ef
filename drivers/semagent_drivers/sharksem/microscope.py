"""A TESCAN microscope over SharkSEM: millimetres, degrees, nanoseconds, picoamperes, volts.

Most of its functions do not answer, and quietly do nothing or something else where they cannot
do as told. So everything is read back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType

from semagent.clock import Clock
from semagent.errors import (
    CommandRefusedError,
    MicroscopeError,
    NotReadyError,
)
from semagent.types import FrameFault, Optics, Pixels, SetScan, StagePosition
from semagent_drivers.adapter import (
    Adapter,
    Picture,
    Raster,
    Readings,
    Wait,
    put_back,
)
from semagent_drivers.adapter.units import (
    DEGREES,
    MILLIMETRES,
    PERCENT,
    PICOAMPERES,
    WHOLE_NANOSECONDS,
)
from semagent_drivers.sharksem.describe import STAGE, describe, property_map
from semagent_drivers.sharksem.facts import DRIVER
from semagent_drivers.sharksem.frames import Assembly, receive
from semagent_drivers.sharksem.link import SharkLink
from semagent_drivers.sharksem.options import SharkSemOptions

_OPTICS_BUSY = 1 << 10
_BEAM_ON = 1
_SINGLE = 1
_ALWAYS_ON, _ALWAYS_OFF, _WHILE_SCANNING = 0, 1, 2
_STIGMATOR_TOLERANCE = 5e-4
_SHIFT_TOLERANCE_M = 1e-8
_STAGE_TOLERANCE = {
    "x_m": 1e-6,
    "y_m": 1e-6,
    "z_m": 1e-6,
    "rotation_rad": DEGREES.to_si(0.25),
    "tilt_rad": DEGREES.to_si(0.25),
}


class SharkSem(Adapter):
    """A TESCAN microscope; see `semagent.ports.Microscope`.

    ``stop`` touches neither connection: the thread that waits on them sees it, and ends scan or
    move itself.
    """

    stage_skip = MappingProxyType(
        {
            "x_m": 1e-8,
            "y_m": 1e-8,
            "z_m": 1e-8,
            "rotation_rad": DEGREES.to_si(0.05),
            "tilt_rad": DEGREES.to_si(0.05),
        }
    )

    def __init__(self, options: SharkSemOptions, clock: Clock) -> None:
        self._shark = options
        self._raster = Raster(options.scan)
        self._link = SharkLink(
            options.host, options.port, options.last_port, options.call_timeout_s
        )
        try:
            described = describe(self._link, options, self._raster, DRIVER.verified_on)
        except BaseException:
            self._link.close()
            raise
        super().__init__(described.capabilities, described.limits, options, clock)
        self._stigmator, self._rotation = described.stigmator, described.rotation
        self._beam_current = described.beam_current
        self._frame_id = 0
        self._open_mode = _WHILE_SCANNING

    # -- reading ------------------------------------------------------------------------------

    def _read(self) -> Readings:
        ask = self._link.ask
        stigmator: tuple[float | None, ...] = (None, None)
        if self._stigmator is not None:
            stigmator = tuple(map(PERCENT.to_si, self._pair("GetCentering", self._stigmator)))
        shift_x, shift_y = map(MILLIMETRES.to_si, self._pair("GetImageShift"))
        rotation_rad = None
        if self._rotation is not None:
            rotation_rad = DEGREES.to_si(self._pair("GetGeometry", self._rotation)[0])
        current_a = None
        if self._beam_current:
            current_a = PICOAMPERES.to_si(ask("GetBeamCurrent").number())
        return Readings(
            self._raster.scan(MILLIMETRES.to_si(ask("GetViewField").number())),
            Optics(
                working_distance_m=self._working_distance_m(),
                stigmator_x=stigmator[0],
                stigmator_y=stigmator[1],
                beam_shift_x_m=shift_x,
                beam_shift_y_m=shift_y,
                accelerating_voltage_v=ask("HVGetVoltage").number(),
                beam_current_a=current_a,
                blanked=self._blanked(),
            ),
            self._position(),
            rotation_rad,
        )

    def _working_distance_m(self) -> float:
        return MILLIMETRES.to_si(self._link.ask("GetWD").number())

    def _pair(self, function: str, *arguments: int) -> tuple[float, float]:
        answer = self._link.ask(function, *arguments)
        return answer.number(), answer.number()

    def _position(self) -> StagePosition:
        # Five values or six, with a second tilt, by the kind of stage.
        values = self._link.ask("StgGetPosition").numbers()
        if len(values) < len(STAGE):
            raise MicroscopeError(f"{self._name} gives only {len(values)} stage axes")
        return StagePosition(
            **{
                axis: unit.to_si(value)
                for (axis, unit), value in zip(STAGE.items(), values, strict=False)
            }
        )

    def _blanker_mode(self) -> int:
        return self._link.ask("ScGetBlanker", self._shark.blanker or 0).integer()

    def _blanked(self) -> bool | None:
        return None if self._shark.blanker is None else self._blanker_mode() == _ALWAYS_OFF

    # -- frames -------------------------------------------------------------------------------

    def _expose(self, readings: Readings, wait: Wait) -> Picture:
        beam = self._link.ask("HVGetBeam").integer()
        self.require_beam(beam == _BEAM_ON, f"HVGetBeam says {beam}")
        detector = self._detector()
        holes: list[int] = []
        with self._scanner_free(), self._channel_on():
            pixels = self._raster.averaged(lambda: self._scan(wait, holes))
        return Picture(pixels, detector, faults=(FrameFault.INCOMPLETE,) if any(holes) else ())

    def _detector(self) -> str:
        channel = self._shark.channel
        selected = self._link.ask("DtGetSelected", channel).integer()
        if selected < 0:
            raise NotReadyError(
                f"{self._name}: no detector is selected on channel {channel}; select one at the "
                "microscope"
            )
        known = property_map(self._link.ask("DtEnumDetectors").text())
        return known.get(selected, {}).get("name", f"detector {selected}")

    def _scan(self, wait: Wait, holes: list[int]) -> Pixels:
        raster, options = self._raster, self._shark
        window, size = raster.window, raster.options
        dwell_ns = round(WHOLE_NANOSECONDS.from_si(raster.dwell_s))
        self._frame_id = self._frame_id % 0x7FFFFFFF + 1
        # Even a single scan goes on, as far as the microscope is concerned, until it is stopped.
        with put_back("scanning", lambda: self._link.tell("ScStopScan")):
            code = self._link.ask(
                "ScScanXY",
                self._frame_id,
                size.width_px,
                size.height_px,
                *window,
                _SINGLE,
                dwell_ns,
            ).integer()
            if code < 0:
                raise MicroscopeError(f"{self._name} starts no scan: code {code}")
            # Frames carry the number asked for or, in some versions, the one answered.
            assembly = Assembly(
                window.shape, size.bit_depth, options.channel, {self._frame_id, code}
            )
            receive(
                self._link,
                assembly,
                frame_s=raster.frame_s,
                silence_s=options.call_timeout_s,
                wait=wait,
            )
        holes.append(assembly.missing)
        return assembly.pixels

    @contextmanager
    def _scanner_free(self) -> Iterator[None]:
        """The microscope's own live scan is off meanwhile, and on again if it was."""
        live = self._live_scan()
        if not live:
            self._link.tell("ScStopScan")
            yield
            return
        with put_back("live scan", lambda: self._set_live_scan(True)):
            self._set_live_scan(False)
            self._link.tell("ScStopScan")
            yield

    def _live_scan(self) -> bool:
        return self._link.ask("GUIGetScanning").integer() != 0

    def _set_live_scan(self, on: bool) -> None:
        self._link.tell("GUISetScanning", int(on))
        if self._live_scan() is not on:
            raise MicroscopeError(f"the live scan did not go {'on' if on else 'off'}")

    @contextmanager
    def _channel_on(self) -> Iterator[None]:
        """The input channel sends pixels of the right depth meanwhile."""
        channel, bits = self._shark.channel, self._raster.options.bit_depth
        answer = self._link.ask("DtGetEnabled", channel)
        enabled, bits_before = answer.integer(), answer.integer()
        if (enabled, bits_before) == (1, bits):
            yield
            return
        before = (enabled, bits_before) if bits_before in (8, 16) else (enabled,)
        with put_back("input channel", lambda: self._link.tell("DtEnable", channel, *before)):
            self._link.tell("DtEnable", channel, 1, bits)
            yield

    # -- setting ------------------------------------------------------------------------------

    def _set_working_distance(self, distance_m: float, wait: Wait) -> None:
        self._link.tell("SetWD", MILLIMETRES.from_si(distance_m))
        self._settle(wait)
        tolerance_m = self._shark.readback_tolerance_um / 1e6
        self.arrived("working distance", distance_m, self._working_distance_m(), tolerance_m, "m")

    def _set_stigmator(self, x: float, y: float, wait: Wait) -> None:
        index = self._stigmator or 0
        self._link.tell("SetCentering", index, PERCENT.from_si(x), PERCENT.from_si(y))
        self._settle(wait)
        reads = map(PERCENT.to_si, self._pair("GetCentering", index))
        for name, asked, read in zip("xy", (x, y), reads, strict=True):
            self.arrived(f"stigmator {name}", asked, read, _STIGMATOR_TOLERANCE, "of full range")

    def _set_beam_shift(self, x_m: float, y_m: float, wait: Wait) -> None:
        self._link.tell("SetImageShift", MILLIMETRES.from_si(x_m), MILLIMETRES.from_si(y_m))
        self._settle(wait)
        reads = map(MILLIMETRES.to_si, self._pair("GetImageShift"))
        for name, asked, read in zip("xy", (x_m, y_m), reads, strict=True):
            self.arrived(f"beam shift {name}", asked, read, _SHIFT_TOLERANCE_M, "m")

    def _settle(self, wait: Wait) -> None:
        wait.until(
            lambda: self._link.ask("IsBusy", _OPTICS_BUSY).integer() == 0, "end of its settling"
        )

    def _set_scan(self, change: SetScan, wait: Wait) -> None:
        self._settle(wait)  # nothing to tell it before the next frame, but it has to be there
        self._raster.set(change)

    def _set_blanked(self, blanked: bool, wait: Wait) -> None:
        before = self._blanker_mode()
        if before in (_ALWAYS_ON, _WHILE_SCANNING):
            self._open_mode = before
        mode = _ALWAYS_OFF if blanked else self._open_mode
        # While a scan runs the mode would change only at its end.
        with self._scanner_free():
            self._link.tell("ScSetBlanker", self._shark.blanker or 0, mode)
            reads = self._blanker_mode()
            if reads == mode:
                return
            if reads != before:
                self._link.tell("ScSetBlanker", self._shark.blanker or 0, before)
        raise (CommandRefusedError if reads == before else MicroscopeError)(
            f"{self._name}: the blanker did not take mode {mode} but reads {reads}. A magnetic "
            "gun blanker has no mode that keeps the beam off for good, and without a blanker "
            "nothing happens: switch the beam off at the microscope instead"
        )

    def _move_stage(self, moves: dict[str, float], here: StagePosition, wait: Wait) -> None:
        # Where it could not move it would say nothing.
        if self._link.ask("StgIsCalibrated").integer() != 1:
            raise CommandRefusedError(
                f"{self._name}: the stage is not calibrated and would not move; calibrate it at "
                "the microscope"
            )
        if self._stage_busy():
            raise CommandRefusedError(f"{self._name}: the stage is moving already")
        order = tuple(STAGE)
        named = order[: 1 + max(map(order.index, moves))]
        targets = [STAGE[axis].from_si(moves.get(axis, getattr(here, axis))) for axis in named]
        with self.halting(lambda: self._link.tell("StgStop")):
            self._link.tell("StgMoveTo", *targets)
            self.stage_arrives(
                moves,
                self._position,
                _STAGE_TOLERANCE,
                wait,
                moving=self._stage_busy,
                patience_s=self._shark.stage_update_s,
            )

    def _stage_busy(self) -> bool:
        return self._link.ask("StgIsBusy").integer() != 0

    def _disconnect(self) -> None:
        self._link.close()
