"""The microscope port over OpenFIBSEM."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from semagent.clock import Clock
from semagent.errors import ConfigError, MicroscopeError
from semagent.types import Capabilities, Optics, Pixels, SetScan, StagePosition
from semagent_drivers.adapter import (
    Limits,
    Picture,
    Raster,
    Readings,
    SdkAdapter,
    SdkThread,
    Wait,
    opening,
)
from semagent_drivers.adapter.raster import MOST_AVERAGES
from semagent_drivers.adapter.units import MICROMETRES, MILLIMETRES
from semagent_drivers.fibsem.facts import DRIVER
from semagent_drivers.fibsem.options import FibsemOptions
from semagent_drivers.fibsem.package import FibsemError, load, translated

_DISTANCE_TOLERANCE_M = 0.1e-6
_STIGMATOR_TOLERANCE = 2e-3
_SHIFT_TOLERANCE_M = 5e-9
_STAGE_TOLERANCE_M = 2e-6

T = TypeVar("T")


class Fibsem(SdkAdapter):
    """The electron beam of a microscope behind OpenFIBSEM; see `semagent.ports.Microscope`.

    OpenFIBSEM speaks metres, seconds and volts, and the vendor's unit for stigmators. The ion beam
    and everything that mills are left alone.
    """

    failures = (FibsemError,)

    def __init__(self, options: FibsemOptions, clock: Clock) -> None:
        self._wishes = options
        self._fibsem = load(options)
        self._device: Any = self._fibsem.microscope
        self._beam = self._fibsem.electron
        self._raster = Raster(options.scan)
        if options.stigmator_full_range is not None and self._fibsem.manufacturer == "Tescan":
            raise ConfigError(
                "driver fibsem: stigmator_full_range: OpenFIBSEM cannot set the stigmators of a "
                "TESCAN, it only remembers what it was asked for; leave this out"
            )
        thread = SdkThread("OpenFIBSEM")
        with opening(
            f"the microscope at {self._fibsem.host}",
            thread,
            failures=self.failures,
            leave=self._leave,
        ):
            name, self._has_blanker = thread.call(
                lambda: translated(self._connect),
                timeout_s=options.settle_timeout_s,
                what="connect",
            )
        limits = _limits(options, self._raster)
        super().__init__(
            thread,
            Capabilities(
                driver="fibsem",
                microscope=name,
                verified_on=DRIVER.verified_on,
                stigmator=options.stigmator_full_range is not None,
                beam_shift=options.beam_shift_range_um is not None,
                stage_axes=tuple(limits.stage),
                blanker=self._has_blanker,
                scan_control=True,
                working_distance_range_m=limits.working_distance_m,
            ),
            limits,
            options,
            clock,
        )

    def _telling(self, call: Callable[[], T]) -> Callable[[], T]:
        return lambda: translated(call)

    def _connect(self) -> tuple[str, bool]:
        host, port = self._fibsem.host, self._fibsem.port
        # By default it would set the operator's beam shift to zero.
        self._device.connect_to_microscope(host, port=port, reset_beam_shift=False)
        if not self._device.is_working_distance_settable(self._beam):
            raise MicroscopeError("OpenFIBSEM cannot set the working distance of this microscope")
        info = self._device.system.info
        # `None` from those who cannot tell.
        has_blanker = isinstance(self._device.is_blanked(self._beam), bool)
        return f"{info.manufacturer} {info.model} through OpenFIBSEM", has_blanker

    def _leave(self) -> None:
        self._device.disconnect()

    # -- reading ------------------------------------------------------------------------------

    def _read(self) -> Readings:
        return self.ask(self._look, "tell its settings")

    def _look(self) -> Readings:
        device, beam = self._device, self._beam
        shift, (stigmator_x, stigmator_y) = device.get_beam_shift(beam), self._stigmator()
        there = device.get_stage_position()
        full = self._wishes.stigmator_full_range
        return Readings(
            self._raster.scan(device.get_field_of_view(beam)),
            Optics(
                working_distance_m=self._distance_m(),
                stigmator_x=None if full is None else stigmator_x / full,
                stigmator_y=None if full is None else stigmator_y / full,
                beam_shift_x_m=shift.x,
                beam_shift_y_m=shift.y,
                accelerating_voltage_v=device.get_beam_voltage(beam),
                beam_current_a=device.get_beam_current(beam),
                blanked=self._is_blanked() if self._has_blanker else None,
            ),
            StagePosition(
                x_m=there.x, y_m=there.y, z_m=there.z, rotation_rad=there.r, tilt_rad=there.t
            ),
            device.get_scan_rotation(beam),
        )

    def _distance_m(self) -> float:
        return float(self._device.get_working_distance(self._beam))

    def _stigmator(self) -> tuple[float, float]:
        both = self._device.get_stigmation(self._beam)
        return float(both.x), float(both.y)

    def _shift_m(self) -> tuple[float, float]:
        both = self._device.get_beam_shift(self._beam)
        return float(both.x), float(both.y)

    def _is_blanked(self) -> bool:
        return bool(self._device.is_blanked(self._beam))

    # -- exposing -----------------------------------------------------------------------------

    def _expose(self, readings: Readings, wait: Wait) -> Picture:
        on = self.ask(lambda: self._device.is_on(self._beam)) is not False  # `None` is not known
        self.require_beam(on, "is_on is False")
        detector = self.ask(lambda: self._device.get_detector_type(self._beam))
        field_m = self.ask(lambda: float(self._device.get_field_of_view(self._beam)))
        pixels = self._raster.averaged(
            lambda: self.expose(lambda: self._grab(field_m), self._raster.frame_s, wait)
        )
        return Picture(pixels, str(detector))

    def _grab(self, field_m: float) -> Pixels:
        raster, options = self._raster, self._wishes.scan
        asked = self._fibsem.structures.ImageSettings(
            resolution=(options.width_px, options.height_px),
            dwell_time=raster.dwell_s,
            hfw=field_m,
            beam_type=self._beam,
        )
        image = np.asarray(self._device.acquire_image(asked).data)
        wanted = np.uint8 if options.bit_depth == 8 else np.uint16
        if image.shape != raster.window.shape or image.dtype != wanted:
            raise MicroscopeError(
                f"OpenFIBSEM gave {image.dtype} of shape {image.shape}, not {options.height_px} x "
                f"{options.width_px} of {options.bit_depth} bits; set scan to what it can"
            )
        return cast(Pixels, np.array(image))

    # -- setting ------------------------------------------------------------------------------

    def _set_working_distance(self, distance_m: float, wait: Wait) -> None:
        self.change(
            "working distance",
            lambda: self._device.set_working_distance(distance_m, self._beam),
            self._distance_m,
        )
        wait.sleep(self._wishes.focus_settle_s, "settled focus")
        reads_m = self.ask(self._distance_m)
        self.arrived("working distance", distance_m, reads_m, _DISTANCE_TOLERANCE_M, "m")

    def _set_stigmator(self, x: float, y: float, wait: Wait) -> None:
        full = self._wishes.stigmator_full_range or 1.0
        both = self._fibsem.structures.Point(x * full, y * full)
        self.change(
            "stigmator", lambda: self._device.set_stigmation(both, self._beam), self._stigmator
        )
        wait.sleep(self._wishes.focus_settle_s, "settled stigmators")
        reads_x, reads_y = self.ask(self._stigmator)
        self.arrived("stigmator x", x, reads_x / full, _STIGMATOR_TOLERANCE, "of full range")
        self.arrived("stigmator y", y, reads_y / full, _STIGMATOR_TOLERANCE, "of full range")

    def _set_beam_shift(self, x_m: float, y_m: float, wait: Wait) -> None:
        both = self._fibsem.structures.Point(x_m, y_m)
        self.change(
            "beam shift", lambda: self._device.set_beam_shift(both, self._beam), self._shift_m
        )
        wait.sleep(self._wishes.focus_settle_s, "settled beam shift")
        reads_x_m, reads_y_m = self.ask(self._shift_m)
        self.arrived("beam shift x", x_m, reads_x_m, _SHIFT_TOLERANCE_M, "m")
        self.arrived("beam shift y", y_m, reads_y_m, _SHIFT_TOLERANCE_M, "m")

    def _set_blanked(self, blanked: bool, wait: Wait) -> None:
        device = self._device
        switch = device.blank if blanked else device.unblank
        self.change("blanker", lambda: switch(self._beam), self._is_blanked)
        self.obeyed(blanked, self.ask(self._is_blanked))

    def _set_scan(self, change: SetScan, wait: Wait) -> None:
        self._raster.set(change)

    def _move_stage(self, moves: dict[str, float], here: StagePosition, wait: Wait) -> None:
        # Axes that are None stay; a position read back and sent again would move them.
        target = self._fibsem.structures.FibsemStagePosition(
            x=moves.get("x_m"), y=moves.get("y_m"), coordinate_system="RAW"
        )
        self.ask(
            lambda: self._device.move_stage_absolute(target),
            "move the stage",
            timeout_s=wait.left_s,
            stopped=wait.stopped,
        )
        there = self.ask(self._device.get_stage_position)
        tolerance = dict.fromkeys(moves, _STAGE_TOLERANCE_M)
        self.stage_arrived(moves, StagePosition(x_m=there.x, y_m=there.y), tolerance)


def _limits(options: FibsemOptions, raster: Raster) -> Limits:
    shift = options.beam_shift_range_um
    return Limits(
        working_distance_m=MILLIMETRES.range_to_si(options.working_distance_range_mm),
        beam_shift_m=MICROMETRES.range_to_si(shift) if shift is not None else (0.0, 0.0),
        stage={
            axis: MILLIMETRES.range_to_si(limits)
            for axis, limits in (("x_m", options.x_range_mm), ("y_m", options.y_range_mm))
            if limits is not None
        },
        dwell_s=raster.dwell_range_s,
        frame_averages=MOST_AVERAGES,
        # Every vendor behind OpenFIBSEM rounds a region in its own way, so none is offered.
    )
