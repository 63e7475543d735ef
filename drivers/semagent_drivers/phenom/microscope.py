"""The microscope port over PyPhenom."""

from typing import Any

import numpy as np

from semagent.clock import Clock
from semagent.errors import CommandRefusedError, ConfigError, MicroscopeError, NotReadyError
from semagent.types import Capabilities, Optics, Region, SetScan, StagePosition
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
)
from semagent_drivers.adapter.raster import MOST_AVERAGES
from semagent_drivers.adapter.units import MILLIMETRES
from semagent_drivers.phenom.facts import DRIVER
from semagent_drivers.phenom.options import PhenomOptions

_DISTANCE_TOLERANCE_M = 0.5e-6
_STIGMATOR_TOLERANCE = 2e-3
_STAGE_TOLERANCE_M = 5e-6
_CENTRE_TOLERANCE = 1e-6


class Phenom(SdkAdapter):
    """A Phenom in its live SEM mode; see `semagent.ports.Microscope`.

    The interface speaks metres and is told size, dwell, averages and region with every frame.
    The instrument is never loaded, unloaded or moved to another mode from here: that moves the
    specimen, and no envelope guards it.
    """

    def __init__(self, options: PhenomOptions, clock: Clock) -> None:
        login = options.login()
        self._ppi = load_sdk(options.sdk, "phenom", DRIVER)
        self.failures = (self._ppi.Error, RuntimeError)
        self._phenom: Any = None
        self._wishes = options
        self._raster = Raster(options.scan)
        self._detector = getattr(self._ppi.DetectorMode, options.detector, None)
        if self._detector is None:
            raise ConfigError(
                f"driver phenom: detector: {options.detector!r} is no DetectorMode of {options.sdk}"
            )
        thread = SdkThread("PyPhenom")
        with opening(
            f"the Phenom {options.address or 'of the licence'}",
            thread,
            failures=self.failures,
            leave=self._leave,
        ):
            range_m = thread.call(
                lambda: self._connect(login), timeout_s=options.call_timeout_s, what="connect"
            )
        stage = {
            axis: MILLIMETRES.range_to_si(limits)
            for axis, limits in (("x_m", options.x_range_mm), ("y_m", options.y_range_mm))
            if limits is not None
        }
        # Only this scan mode says of the blanker what it does and can be read back.
        self._dark = getattr(self._ppi.ScanMode, "Blank", None)
        super().__init__(
            thread,
            Capabilities(
                driver="phenom",
                microscope=f"Phenom {login[0] if login else ''}".strip(),
                verified_on=DRIVER.verified_on,
                stigmator=True,
                stage_axes=tuple(stage),
                blanker=self._dark is not None,
                scan_control=True,
                working_distance_range_m=range_m,
            ),
            Limits(
                working_distance_m=range_m,
                stage=stage,
                dwell_s=self._raster.dwell_range_s,
                frame_averages=MOST_AVERAGES,
                smallest_region=self._raster.smallest_region,
            ),
            options,
            clock,
        )

    def _connect(self, login: tuple[str, ...]) -> tuple[float, float]:
        self._phenom = self._ppi.Phenom(*login)
        self._require_live()
        limits = self._phenom.GetSemWDRange()
        if not 0 < limits.begin < limits.end:
            raise MicroscopeError(
                f"the Phenom gives a working distance range of {limits.begin:g} to "
                f"{limits.end:g} m; wait until it shows a live SEM image"
            )
        return float(limits.begin), float(limits.end)

    def _require_live(self) -> None:
        """Outside the live SEM mode the interface gives wrong ranges and refuses at random."""
        mode = self._phenom.GetOperationalMode()
        if mode != self._ppi.OperationalMode.LiveSem:
            raise NotReadyError(
                f"the Phenom is in mode {mode}, not live SEM; bring the specimen under the beam "
                "at the Phenom itself"
            )

    def _leave(self) -> None:
        # Not Unload, which would move the specimen out.
        self._phenom = None

    # -- reading ------------------------------------------------------------------------------

    def _read(self) -> Readings:
        return self.ask(self._look, "tell its settings")

    def _look(self) -> Readings:
        phenom = self._phenom
        self._require_live()
        stigmator = phenom.GetSemStigmate()
        position = phenom.GetStageModeAndPosition().position
        full = self._wishes.stigmator_full_range
        return Readings(
            self._raster.scan(phenom.GetHFW()),
            Optics(
                working_distance_m=phenom.GetSemWD(),
                stigmator_x=stigmator.x / full,
                stigmator_y=stigmator.y / full,
                # The interface counts the high tension of the cathode, which is negative.
                accelerating_voltage_v=-phenom.GetSemHighTension(),
                blanked=None if self._dark is None else self._is_dark(),
            ),
            StagePosition(x_m=position.x, y_m=position.y),
            phenom.GetSemRotation(),
        )

    def _is_dark(self) -> bool:
        return bool(self._phenom.GetSemViewingMode().scanMode == self._dark)

    # -- exposing -----------------------------------------------------------------------------

    def _expose(self, readings: Readings, wait: Wait) -> Picture:
        raster = self._raster
        pixels = self.expose(self._grab, raster.frame_s * raster.frame_averages, wait)
        return Picture(pixels, self._wishes.detector)

    def _grab(self) -> Any:
        ppi, raster, bits = self._ppi, self._raster, self._wishes.scan.bit_depth
        height, width = raster.window.shape
        asked = ppi.ScanParamsEx()
        asked.size = ppi.Size(width, height)
        asked.dwellTime = raster.dwell_s
        asked.nFrames = raster.frame_averages
        asked.detector = self._detector
        asked.hdr = bits == 16
        asked.scale = width / self._wishes.scan.width_px
        asked.center = ppi.Position(0.0, 0.0)
        image = np.asarray(self._phenom.SemAcquireImageEx(asked).image)
        if image.shape != (height, width) or image.dtype != (np.uint8 if bits == 8 else np.uint16):
            raise MicroscopeError(
                f"the Phenom gave {image.dtype} of shape {image.shape}, not {height} x {width} of "
                f"{bits} bits"
            )
        return np.array(image)

    # -- setting ------------------------------------------------------------------------------

    def _set_working_distance(self, distance_m: float, wait: Wait) -> None:
        self.ask(self._require_live)
        self.change("working distance", lambda: self._phenom.SetSemWD(distance_m), self._distance_m)
        wait.sleep(self._wishes.focus_settle_s, "settled focus")
        reads_m = self.ask(self._distance_m)
        self.arrived("working distance", distance_m, reads_m, _DISTANCE_TOLERANCE_M, "m")

    def _distance_m(self) -> float:
        return float(self._phenom.GetSemWD())

    def _set_stigmator(self, x: float, y: float, wait: Wait) -> None:
        self.ask(self._require_live)
        full = self._wishes.stigmator_full_range
        both = self._ppi.Position(x * full, y * full)
        self.change("stigmator", lambda: self._phenom.SetSemStigmate(both), self._stigmator)
        wait.sleep(self._wishes.focus_settle_s, "settled stigmators")
        reads_x, reads_y = self.ask(self._stigmator)
        self.arrived("stigmator x", x, reads_x / full, _STIGMATOR_TOLERANCE, "of full range")
        self.arrived("stigmator y", y, reads_y / full, _STIGMATOR_TOLERANCE, "of full range")

    def _stigmator(self) -> tuple[float, float]:
        stigmator = self._phenom.GetSemStigmate()
        return float(stigmator.x), float(stigmator.y)

    def _set_blanked(self, blanked: bool, wait: Wait) -> None:
        self.change("blanker", lambda: self._darken(blanked), self._is_dark)
        self.obeyed(blanked, self.ask(self._is_dark))

    def _darken(self, blanked: bool) -> None:
        self._require_live()
        mode = self._phenom.GetSemViewingMode()
        mode.scanMode = self._dark if blanked else self._ppi.ScanMode.Imaging
        self._phenom.SetSemViewingMode(mode)

    def _set_scan(self, change: SetScan, wait: Wait) -> None:
        if change.region is not None and not _is_central(change.region):
            raise CommandRefusedError(
                f"{change.region}: the Phenom scans parts around the centre of its field only"
            )
        self.ask(self._require_live)
        self._raster.set(change)

    def _move_stage(self, moves: dict[str, float], here: StagePosition, wait: Wait) -> None:
        x_m, y_m = moves.get("x_m", here.x_m), moves.get("y_m", here.y_m)
        self.ask(
            lambda: self._phenom.MoveTo(
                x_m, y_m, algorithm=self._ppi.NavigationAlgorithm.BacklashOnly
            ),
            "move the stage",
            timeout_s=wait.left_s,
            stopped=wait.stopped,
        )
        there = self.ask(lambda: self._phenom.GetStageModeAndPosition().position)
        tolerance = dict.fromkeys(moves, _STAGE_TOLERANCE_M)
        self.stage_arrived(moves, StagePosition(x_m=there.x, y_m=there.y), tolerance)


def _is_central(region: Region) -> bool:
    off = (region.left + region.width / 2 - 0.5, region.top + region.height / 2 - 0.5)
    return all(abs(each) <= _CENTRE_TOLERANCE for each in off)
