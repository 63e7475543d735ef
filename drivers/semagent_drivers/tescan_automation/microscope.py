"""The microscope port over TESCAN Automation: millimetres, degrees, nanoseconds, picoamperes."""

import math
from typing import Any

import numpy as np

from semagent.clock import Clock
from semagent.errors import ConfigError, MicroscopeError, NotReadyError
from semagent.types import Capabilities, Optics, Pixels, SetScan, StagePosition
from semagent_drivers.adapter import (
    Limits,
    Picture,
    Raster,
    Readings,
    SdkAdapter,
    SdkThread,
    Wait,
    load_sdk,
    opening,
    put_back,
)
from semagent_drivers.adapter.raster import MOST_AVERAGES
from semagent_drivers.adapter.units import (
    DEGREES,
    MICROMETRES,
    MILLIMETRES,
    PICOAMPERES,
    WHOLE_NANOSECONDS,
)
from semagent_drivers.tescan_automation.facts import DRIVER
from semagent_drivers.tescan_automation.options import TescanAutomationOptions

_SHIFT_TOLERANCE_M = 1e-8
_STAGE_TOLERANCE_M = 1e-6

# Which exceptions the package raises is not public. These may come from within it; those it
# defines itself are added.
_BUILT_IN = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class TescanAutomation(SdkAdapter):
    """The electron beam of a TESCAN microscope; see `semagent.ports.Microscope`.

    The package is not thread-safe, so all its calls are on one thread. It cannot set stigmators
    and has no blanker, so this driver has neither.
    """

    def __init__(self, options: TescanAutomationOptions, clock: Clock) -> None:
        package = load_sdk(options.sdk, "tescan-automation", DRIVER)
        common = load_sdk(f"{options.sdk}.Common", "tescan-automation", DRIVER)
        self.failures = _BUILT_IN + _exceptions(package) + _exceptions(common)
        self._wishes = options
        self._raster = Raster(options.scan)
        bits = options.scan.bit_depth
        self._bpp = getattr(common.Bpp, f"Grayscale_{bits}_bit")
        self._session: Any = None
        self._chosen: Any = None
        thread = SdkThread("TESCAN Automation")
        with opening(
            f"TESCAN Automation at {options.host}:{options.port}",
            thread,
            failures=self.failures,
            leave=self._leave,
        ):
            thread.call(
                lambda: self._connect(package),
                timeout_s=options.call_timeout_s,
                what="connect",
            )
        distances = MILLIMETRES.range_to_si(options.working_distance_range_mm)
        shift_m = MICROMETRES.to_si(options.beam_shift_range_um or 0.0)
        stage = {
            axis: MILLIMETRES.range_to_si(limits)
            for axis, limits in (("x_m", options.x_range_mm), ("y_m", options.y_range_mm))
            if limits is not None
        }
        super().__init__(
            thread,
            Capabilities(
                driver="tescan-automation",
                microscope=f"TESCAN at {options.host}",
                verified_on=DRIVER.verified_on,
                beam_shift=options.beam_shift_range_um is not None,
                stage_axes=tuple(stage),
                scan_control=True,
                working_distance_range_m=distances,
            ),
            Limits(
                working_distance_m=distances,
                beam_shift_m=(-shift_m, shift_m),
                stage=stage,
                dwell_s=self._raster.dwell_range_s,
                frame_averages=MOST_AVERAGES,
                # The function for regions cannot be told a bit depth.
                smallest_region=self._raster.smallest_region if bits == 8 else None,
            ),
            options,
            clock,
        )

    def _connect(self, package: Any) -> None:
        self._session = package.Automation(self._wishes.host, self._wishes.port)
        name = self._wishes.detector
        if name is not None:
            known = {each.name: each for each in self._sem.Detector.Enum()}
            if name not in known:
                raise ConfigError(
                    f"driver tescan-automation: detector {name!r} is not one of the "
                    f"microscope's: {', '.join(sorted(known))}"
                )
            self._chosen = known[name]

    def _leave(self) -> None:
        self._session = None

    @property
    def _sem(self) -> Any:
        return self._session.SEM

    # -- reading ------------------------------------------------------------------------------

    def _read(self) -> Readings:
        return self.ask(self._look, "tell its settings")

    def _look(self) -> Readings:
        optics, beam = self._sem.Optics, self._sem.Beam
        shift_x_m, shift_y_m = (_known(MILLIMETRES.to_si(each)) for each in optics.GetImageShift())
        field_m = MILLIMETRES.to_si(_required("field width", optics.GetViewfield()))
        return Readings(
            self._raster.scan(field_m),
            Optics(
                working_distance_m=self._distance_m(),
                beam_shift_x_m=shift_x_m,
                beam_shift_y_m=shift_y_m,
                accelerating_voltage_v=_known(beam.GetVoltage()),
                beam_current_a=_known(PICOAMPERES.to_si(beam.GetCurrent())),
            ),
            self._position(),
            _known(DEGREES.to_si(optics.GetImageRotation())),
        )

    def _distance_m(self) -> float:
        return MILLIMETRES.to_si(_required("working distance", self._sem.Optics.GetWD()))

    def _position(self) -> StagePosition:
        x, y, z, rotation, tilt, *_ = self._session.Stage.GetPosition()
        return StagePosition(
            x_m=_known(MILLIMETRES.to_si(x)),
            y_m=_known(MILLIMETRES.to_si(y)),
            z_m=_known(MILLIMETRES.to_si(z)),
            rotation_rad=_known(DEGREES.to_si(rotation)),
            tilt_rad=_known(DEGREES.to_si(tilt)),
        )

    # -- exposing -----------------------------------------------------------------------------

    def _expose(self, readings: Readings, wait: Wait) -> Picture:
        detector = self.ask(self._ready)
        with put_back("scanning", lambda: self.restore(self._sem.Scan.Stop, "stop the scan", wait)):
            pixels = self._raster.averaged(
                lambda: self.expose(lambda: self._grab(detector), self._raster.frame_s, wait)
            )
        return Picture(pixels, str(detector.name))

    def _ready(self) -> Any:
        """Stop what else scans, as the package wants it before anything, and see what is there."""
        sem = self._sem
        status = sem.Beam.GetStatus()
        self.require_beam(status == sem.Beam.Status.BeamOn, str(status))
        sem.Scan.Stop()
        detector = self._chosen or sem.Detector.Get(Channel=self._wishes.channel)
        if detector is None:
            raise NotReadyError(
                f"no detector is selected on channel {self._wishes.channel}; select one at the "
                "microscope, or name one in the option detector"
            )
        return detector

    def _grab(self, detector: Any) -> Pixels:
        raster, scan = self._raster, self._sem.Scan
        asked: dict[str, Any] = {
            "Detector": detector,
            "Width": raster.options.width_px,
            "Height": raster.options.height_px,
            "DwellTime": round(WHOLE_NANOSECONDS.from_si(raster.dwell_s)),
        }
        window = raster.window
        if window.shape == (raster.options.height_px, raster.options.width_px):
            document = scan.AcquireImage(**asked, Bpp=self._bpp)
        else:
            left, top, right, bottom = window  # right and bottom belong to it
            document = scan.AcquireROI(**asked, Left=left, Top=top, Right=right, Bottom=bottom)
        if document is None:
            raise MicroscopeError("TESCAN Automation gave no image")
        pixels = np.array(document.Image)
        dtype = np.uint8 if raster.options.bit_depth == 8 else np.uint16
        if pixels.shape != window.shape or pixels.dtype != dtype:
            raise MicroscopeError(
                f"TESCAN Automation gave {pixels.dtype} of shape {pixels.shape}, not "
                f"{window.shape} of {raster.options.bit_depth} bits"
            )
        return pixels

    # -- setting ------------------------------------------------------------------------------

    def _set_working_distance(self, distance_m: float, wait: Wait) -> None:
        self.change(
            "working distance",
            lambda: self._sem.Optics.SetWD(MILLIMETRES.from_si(distance_m)),
            self._distance_m,
        )
        self._settle(wait)
        tolerance_m = MICROMETRES.to_si(self._wishes.readback_tolerance_um)
        reads_m = self.ask(self._distance_m)
        self.arrived("working distance", distance_m, reads_m, tolerance_m, "m")

    def _set_beam_shift(self, x_m: float, y_m: float, wait: Wait) -> None:
        optics = self._sem.Optics
        self.change(
            "beam shift",
            lambda: optics.SetImageShift(MILLIMETRES.from_si(x_m), MILLIMETRES.from_si(y_m)),
            lambda: tuple(optics.GetImageShift()),
        )
        self._settle(wait)
        reads = self.ask(lambda: tuple(optics.GetImageShift()))
        for name, asked, read in zip("xy", (x_m, y_m), reads, strict=True):
            self.arrived(
                f"beam shift {name}", asked, MILLIMETRES.to_si(read), _SHIFT_TOLERANCE_M, "m"
            )

    def _settle(self, wait: Wait) -> None:
        wait.until(lambda: not self.ask(self._sem.IsBusy), "end of its settling")

    def _set_scan(self, change: SetScan, wait: Wait) -> None:
        self._settle(wait)  # nothing to tell it before the next frame, but it has to be there
        self._raster.set(change)

    def _move_stage(self, moves: dict[str, float], here: StagePosition, wait: Wait) -> None:
        # The function takes all five: an axis that is not to move goes where it is.
        now = self.ask(lambda: tuple(self._session.Stage.GetPosition()))
        x, y, z, rotation, tilt = (_required("stage position", each) for each in now[:5])
        x = MILLIMETRES.from_si(moves["x_m"]) if "x_m" in moves else x
        y = MILLIMETRES.from_si(moves["y_m"]) if "y_m" in moves else y
        self.ask(
            lambda: self._session.Stage.MoveTo(x=x, y=y, z=z, rot=rotation, tiltx=tilt),
            "move the stage",
            timeout_s=wait.left_s,
            stopped=wait.stopped,
        )
        self.stage_arrives(
            moves,
            lambda: self.ask(self._position),
            dict.fromkeys(moves, _STAGE_TOLERANCE_M),
            wait,
            moving=lambda: False,  # it has come back
            patience_s=self._wishes.stage_update_s,
        )


def _known(value: float) -> float | None:
    """The simulator of TESCAN gives NaN for what it does not simulate."""
    return float(value) if math.isfinite(value) else None


def _required(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise MicroscopeError(f"TESCAN Automation gives {value} for the {name}")
    return float(value)


def _exceptions(module: Any) -> tuple[type[Exception], ...]:
    return tuple(
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Exception)
    )
