"""The simulated microscope itself: settings, time, exposures and faults."""

import threading

import numpy as np

from semagent.clock import Clock
from semagent.errors import (
    AcquisitionStoppedError,
    CommandRefusedError,
    DisconnectedError,
    MicroscopeError,
    MicroscopeTimeoutError,
)
from semagent.requirements import DriverFacts
from semagent.types import (
    Capabilities,
    Frame,
    FrameHeader,
    MicroscopeAction,
    MicroscopeState,
    MoveStage,
    Pixels,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
)
from semagent_drivers.simulated.beam import FloatImage
from semagent_drivers.simulated.column import Column
from semagent_drivers.simulated.detector import Detector, quantise
from semagent_drivers.simulated.faults import CommandFault, ExposureFault, FaultPlan
from semagent_drivers.simulated.info_bar import burn_in
from semagent_drivers.simulated.motion import AXES, Drift, SignalDrift, Stage
from semagent_drivers.simulated.options import SimulatedOptions
from semagent_drivers.simulated.render import Motion, Renderer, View, frame_axes
from semagent_drivers.simulated.scan import Raster
from semagent_drivers.simulated.specimen import make_specimen
from semagent_drivers.simulated.truth import SimulationTruth

DRIVER = DriverFacts(verified_on="simulation")

_SLICE_S = 0.02
"""Longest time asleep between two looks at the stop flag."""

_EXPOSURE_STREAM = 1


class SimulatedMicroscope:
    """A microscope in memory; implements `semagent.ports.Microscope`."""

    def __init__(self, options: SimulatedOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._raster = Raster(options.scan)
        pixel_size_m = self._raster.pixel_size_m
        self._column = Column(options.column, pixel_size_m, options.scan.width_px)
        self._stage = Stage(options.stage)
        self._start_m = {axis: self._stage.true_m(axis) for axis in ("x_m", "y_m", "z_m")}
        self._drift = Drift(options.drift, options.seed)
        specimen = make_specimen(options.specimen, pixel_size_m, options.seed)
        self._renderer = Renderer(specimen, pixel_size_m, options.charging)
        self._detector = Detector(options.detector)
        seeds = np.random.SeedSequence(options.seed, spawn_key=(3,))
        self._signal = SignalDrift(options.detector, np.random.Generator(np.random.SFC64(seeds)))
        self._faults = FaultPlan(options.faults, options.seed)
        self._stop = threading.Event()
        self._closed = False
        self._link_lost = False
        self._settings_rev = 1
        self._sequence = 0
        self._exposures = 0
        self._commands = 0
        self._stamp_ns = 0
        self._last_pixels: Pixels | None = None
        self._elapsed_s = 0.0
        self._total_dose_e = 0.0

    # -- the port ---------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """See `semagent.ports.Microscope`."""
        return Capabilities(
            driver="simulated",
            microscope="semagent simulated SEM",
            verified_on=DRIVER.verified_on,
            simulated=True,
            stigmator=True,
            beam_shift=True,
            stage_axes=AXES,
            blanker=True,
            scan_control=True,
            working_distance_range_m=self._column.working_distance_range_m,
        )

    def read_state(self) -> MicroscopeState:
        """See `semagent.ports.Microscope`."""
        self._require_link()
        return self._state()

    def acquire(self, timeout_s: float) -> Frame:
        """See `semagent.ports.Microscope`."""
        self._require_link()
        self._stop.clear()
        self._exposures += 1
        faults = self._faults.exposure(self._exposures)
        if ExposureFault.DISCONNECT in faults:
            self._link_lost = True
            self._require_link()
        start_ns = self._clock.monotonic_ns()
        state, bar = self._state(), self._raster.info_bar_px
        pixels = self._expose(faults)
        self._wait_for_exposure(start_ns, timeout_s)
        # Two frames within one tick of the clock still have an order.
        self._stamp_ns = max(self._clock.monotonic_ns(), self._stamp_ns + 1)
        wall_ns = self._clock.wall_ns()
        if ExposureFault.LATE in faults:
            due_ns = self._stamp_ns + round(self._options.faults.late.delay_s * 1e9)
            self._wait_until(due_ns, start_ns, timeout_s)
        self._sequence += 1
        self._last_pixels = pixels
        header = FrameHeader(
            sequence=self._sequence,
            monotonic_ns=self._stamp_ns,
            wall_ns=wall_ns,
            detector=self._detector.name,
            scan=state.scan,
            optics=state.optics,
            stage=state.stage,
            settings_rev=state.settings_rev,
            info_bar_px=bar,
        )
        return Frame(header, pixels)

    def apply(self, action: MicroscopeAction) -> None:
        """See `semagent.ports.Microscope`."""
        self._require_link()
        self._stop.clear()
        self._commands += 1
        fault = self._faults.command(self._commands)
        if fault is CommandFault.REFUSED:
            raise CommandRefusedError(
                f"{type(action).__name__} refused: injected fault of command {self._commands}"
            )
        ignored = fault is CommandFault.IGNORED
        column, settle = self._options.column, 0.0
        match action:
            case SetWorkingDistance(working_distance_m=working_distance_m):
                self._column.check_working_distance(working_distance_m)
                settle = column.lens_settle_ms
                if not ignored:
                    self._column.set_working_distance(working_distance_m)
            case SetStigmator(x=x, y=y):
                self._column.check_stigmator(x, y)
                settle = column.stigmator_settle_ms
                if not ignored:
                    self._column.set_stigmator(x, y)
            case SetBeamShift(x_m=x_m, y_m=y_m):
                self._column.check_beam_shift(x_m, y_m)
                settle = column.beam_settle_ms
                if not ignored:
                    self._column.set_beam_shift(x_m, y_m)
            case SetBlanked(blanked=blanked):
                settle = column.beam_settle_ms
                if not ignored:
                    self._column.blanked = blanked
            case MoveStage():
                targets = self._stage.targets(action)
                settle = self._options.stage.settle_ms
                if not ignored:
                    self._move_stage(targets)
            case SetScan():
                self._raster.check(action)
                if not ignored:
                    self._set_scan(action)
        self._settle(settle * 1e-3)

    def stop(self) -> None:
        """See `semagent.ports.Microscope`."""
        self._stop.set()

    def close(self) -> None:
        """See `semagent.ports.Microscope`."""
        self._closed = True
        self._stop.set()

    # -- for benchmarks and tests -----------------------------------------------------------

    def truth(self) -> SimulationTruth:
        """What really is; the agent never asks."""
        column, beam, view = self._column, self._column.beam(), self._view()
        defocus_m = self._axis_defocus_m()
        ends = (defocus_m, defocus_m)
        local = self._renderer.defocus_map(view, defocus_m)
        if local is not None:
            ends = (float(local.min()), float(local.max()))
            defocus_m = float(local.mean(dtype=np.float64))
        x_px, y_px = view.centre_px
        pixel_size_m = self._raster.pixel_size_m
        return SimulationTruth(
            focal_working_distance_m=column.focus_m - defocus_m,
            focus_m=column.focus_m,
            lens_lag_m=column.focus_m - column.optics.working_distance_m,
            defocus_m=defocus_m,
            defocus_range_m=ends,
            a1_m=beam.a1_m,
            a2_m=beam.a2_m,
            stigmator_solution=column.stigmator_solution(),
            slope_px_per_m=beam.slope_px_per_m,
            sigma0_px=beam.sigma0_px,
            blur=beam.covariance(defocus_m),
            half_depth_m=0.5 / beam.slope_px_per_m,
            view_m=(x_px * pixel_size_m, y_px * pixel_size_m),
            dose_per_pixel_e=self._dose_per_pixel_e(),
            total_dose_e=self._total_dose_e,
            elapsed_s=self._elapsed_s,
        )

    # -- one exposure -----------------------------------------------------------------------

    def _expose(self, faults: frozenset[ExposureFault]) -> Pixels:
        """The pixels of one exposure; simulated time advances by its nominal duration."""
        raster, column = self._raster, self._column
        before = self._view()
        self._advance(raster.frame_s / 2)
        middle, defocus_m = self._view(), self._axis_defocus_m()
        self._advance(raster.frame_s / 2)
        after = self._view()
        last = self._last_pixels
        if ExposureFault.FROZEN in faults and last is not None and last.shape == middle.shape:
            return last.copy()
        moved = np.subtract(after.centre_px, before.centre_px) / raster.frame_averages
        step_x, step_y = np.linalg.solve(middle.axes(), moved)
        motion = Motion(
            step_px=(float(step_x), float(step_y)),
            averages=raster.frame_averages,
            jitter_px=self._options.detector.line_jitter_px,
        )
        sequence = np.random.SeedSequence(
            self._options.seed, spawn_key=(_EXPOSURE_STREAM, self._exposures)
        )
        rng = np.random.Generator(np.random.SFC64(sequence))
        grey = self._detector.detect(
            self._renderer.render(middle, column.beam(), defocus_m, motion, rng),
            rng,
            primaries=self._dose_per_pixel_e(),
            dwell_s=raster.dwell_s,
            averages=raster.frame_averages,
            collection=column.collection() * self._signal.gain,
            offset=column.offset() + self._signal.offset,
        )
        self._signal.advance()
        if ExposureFault.SATURATED in faults:
            grey += 1
        return self._digitise(grey, faults)

    def _digitise(self, grey: FloatImage, faults: frozenset[ExposureFault]) -> Pixels:
        """Grey values to pixels, with the information bar and what transmission does to them."""
        pixels = quantise(grey, self._options.scan.bit_depth)
        if bar := self._raster.info_bar_px:
            burn_in(
                pixels,
                bar,
                pixel_size_m=self._raster.pixel_size_m,
                working_distance_m=self._column.optics.working_distance_m,
                accelerating_voltage_v=self._options.column.accelerating_voltage_kv * 1e3,
            )
        if ExposureFault.BLANK in faults:
            pixels[:] = 0
        if ExposureFault.INCOMPLETE in faults:
            pixels[round(len(pixels) * self._options.faults.incomplete.fraction) :] = 0
        if ExposureFault.WRONG_SIZE in faults:
            return pixels[: len(pixels) // 2].copy()
        return pixels

    def _view(self) -> View:
        """What is scanned now: where stage, drift and all image shifts have taken it."""
        stage, window = self._stage.position, self._raster.window
        rotation_rad, tilt_rad = stage.rotation_rad or 0.0, stage.tilt_rad or 0.0
        # The stage travels along the specimen; shift and drift are seen along the scan axes.
        seen_m = np.add(self._column.image_shift_m(), self._drift.position_m[:2])
        centre_m = frame_axes(rotation_rad, tilt_rad) @ seen_m
        for index, axis in enumerate(("x_m", "y_m")):
            centre_m[index] += self._stage.true_m(axis) - self._start_m[axis]
        x_px, y_px = (centre_m / self._raster.pixel_size_m).tolist()
        return View((x_px, y_px), window.offset_px, window.shape, rotation_rad, tilt_rad)

    def _axis_defocus_m(self) -> float:
        """Defocus of the mean specimen plane at its start position, on the beam's axis."""
        raised_m = self._stage.true_m("z_m") - self._start_m["z_m"] + self._drift.position_m[2]
        return self._column.focus_m - (self._options.specimen.working_distance_mm / 1e3 - raised_m)

    def _dose_per_pixel_e(self) -> float:
        raster = self._raster
        return self._column.primaries(raster.dwell_s) * raster.frame_averages

    # -- commands ---------------------------------------------------------------------------

    def _set_scan(self, change: SetScan) -> None:
        before = self._raster.scan
        self._raster.set(change)
        if self._raster.scan != before:
            self._settings_rev += 1

    def _move_stage(self, targets: dict[str, float]) -> None:
        travel_s = self._stage.travel_time_s(targets)
        start_ns = self._clock.monotonic_ns()
        wall_ns = self._wall_ns(travel_s)
        arrived = self._sleep_until(start_ns + wall_ns)
        done = 1.0 if arrived else min((self._clock.monotonic_ns() - start_ns) / wall_ns, 1.0)
        self._advance(travel_s * done)
        self._stage.go(targets, done)
        if not arrived:
            raise MicroscopeError("the stage was stopped on its way; read back where it is")

    def _state(self) -> MicroscopeState:
        return MicroscopeState(
            scan=self._raster.scan,
            optics=self._column.optics,
            stage=self._stage.position,
            settings_rev=self._settings_rev,
        )

    def _require_link(self) -> None:
        if self._closed:
            raise DisconnectedError("the simulated microscope was closed; open it again")
        if self._link_lost:
            raise DisconnectedError("the link is gone (injected fault); open the driver again")

    # -- time -------------------------------------------------------------------------------

    def _advance(self, duration_s: float) -> None:
        """Let simulated time pass."""
        self._elapsed_s += duration_s
        self._drift.advance(duration_s)
        self._stage.advance(duration_s)

    def _settle(self, duration_s: float) -> None:
        self._advance(duration_s)
        self._sleep_until(self._clock.monotonic_ns() + self._wall_ns(duration_s))

    def _wall_ns(self, duration_s: float) -> int:
        """Time on the clock for what takes ``duration_s`` of simulated time."""
        speed = self._options.speed
        return round(duration_s / speed * 1e9) if speed else 0

    def _wait_for_exposure(self, start_ns: int, timeout_s: float) -> None:
        """Let the exposure take its time; a stopped one has cost the dose of its part."""
        wall_ns = self._wall_ns(self._raster.frame_s)
        try:
            self._wait_until(start_ns + wall_ns, start_ns, timeout_s)
        finally:
            spent_ns = self._clock.monotonic_ns() - start_ns
            done = min(spent_ns / wall_ns, 1.0) if wall_ns else 1.0
            height, width = self._raster.window.shape
            self._total_dose_e += self._dose_per_pixel_e() * height * width * done

    def _wait_until(self, due_ns: int, start_ns: int, timeout_s: float) -> None:
        """Sleep until ``due_ns``, unless stopped or out of time.

        Raises:
            AcquisitionStoppedError: ``stop`` was called.
            MicroscopeTimeoutError: ``timeout_s`` after ``start_ns`` came first.
        """
        # Not a sum of integers: the time-out may be infinite.
        in_time = (due_ns - start_ns) * 1e-9 <= timeout_s
        end_ns = due_ns if in_time else start_ns + round(max(timeout_s, 0.0) * 1e9)
        if not self._sleep_until(end_ns):
            raise AcquisitionStoppedError("the exposure was stopped")
        if not (in_time and (self._clock.monotonic_ns() - start_ns) * 1e-9 <= timeout_s):
            raise MicroscopeTimeoutError(
                f"no frame within {timeout_s} s; the exposure takes {self._raster.frame_s:.3g} s "
                f"at speed {self._options.speed:g}"
            )

    def _sleep_until(self, end_ns: int) -> bool:
        """Sleep in slices; False if ``stop`` cut it short."""
        while not self._stop.is_set():
            left_ns = end_ns - self._clock.monotonic_ns()
            if left_ns <= 0:
                return True
            self._clock.sleep(min(left_ns * 1e-9, _SLICE_S))
        return False
