"""The microscope port over AutoScript's client."""

from contextlib import ExitStack
from typing import Any

import msgspec
import numpy as np

from semagent.clock import Clock
from semagent.errors import MicroscopeError
from semagent.types import (
    WHOLE_FIELD,
    Capabilities,
    Optics,
    Region,
    Scan,
    SetScan,
    StagePosition,
)
from semagent_drivers.adapter import (
    Picture,
    Readings,
    SdkAdapter,
    SdkThread,
    Wait,
    opening,
    put_back,
)
from semagent_drivers.autoscript import sdk
from semagent_drivers.autoscript.facts import DRIVER
from semagent_drivers.autoscript.limits import AXES, Instrument, describe
from semagent_drivers.autoscript.options import AutoScriptOptions

_DISTANCE_TOLERANCE_M = 50e-9
_STIGMATOR_TOLERANCE = 1e-3
_SHIFT_TOLERANCE_M = 5e-9
_STAGE_TOLERANCE = {axis: 1e-3 if axis.endswith("_rad") else 2e-6 for axis in AXES.values()}


class AutoScript(SdkAdapter):
    """The electron beam of a Thermo Fisher microscope; see `semagent.ports.Microscope`.

    AutoScript speaks SI units. Dwell, averages and region of our frames go with each grab and
    leave the operator's own scan settings alone; resolution and field width are the operator's.
    """

    def __init__(self, options: AutoScriptOptions, clock: Clock) -> None:
        self._as = options
        self._sdk = sdk.load(options.sdk)
        self.failures = self._sdk.failures
        self._client: Any = self._sdk.client()
        thread = SdkThread("AutoScript")
        with opening(
            f"AutoScript at {options.host}:{options.port}",
            thread,
            failures=self.failures,
            leave=self._leave,
        ):
            name, limits, self._full, self._keeps_lens = thread.call(
                self._connect, timeout_s=options.call_timeout_s, what="connect"
            )
        super().__init__(
            thread,
            Capabilities(
                driver="autoscript",
                microscope=name,
                verified_on=DRIVER.verified_on,
                stigmator=True,
                beam_shift=True,
                stage_axes=tuple(limits.stage),
                blanker=True,
                scan_control=True,
                working_distance_range_m=limits.working_distance_m,
            ),
            limits,
            options,
            clock,
        )
        self._dwell_s: float | None = None
        self._averages = 1
        self._region: Region | None = None
        self._shapes: dict[Any, tuple[int, int]] = {}

    def _connect(self) -> Instrument:
        self._client.connect(self._as.host, self._as.port)
        return describe(self._client, self._sdk.enumerations.CoordinateSystem.RAW, self._as)

    def _leave(self) -> None:
        self._client.disconnect()

    @property
    def _beam(self) -> Any:
        return self._client.beams.electron_beam

    # -- reading ------------------------------------------------------------------------------

    def _read(self) -> Readings:
        return self.ask(self._look, "tell its settings")

    def _look(self) -> Readings:
        beam = self._beam
        stigmator, shift = beam.stigmator.value, beam.beam_shift.value
        full_x, full_y = self._full
        return Readings(
            self._scan(),
            Optics(
                working_distance_m=beam.working_distance.value,
                stigmator_x=stigmator.x / full_x,
                stigmator_y=stigmator.y / full_y,
                beam_shift_x_m=shift.x,
                beam_shift_y_m=shift.y,
                accelerating_voltage_v=beam.high_voltage.value,
                beam_current_a=beam.beam_current.value,
                blanked=bool(beam.is_blanked),
            ),
            self._position(),
            beam.scanning.rotation.value,
        )

    def _scan(self) -> Scan:
        scanning = self._beam.scanning
        resolution = scanning.resolution.value
        full_width, full_height = (int(edge) for edge in resolution.split("x"))
        region = self._region
        # Systems round a reduced area each in its own way; the first frame tells.
        height, width = self._shapes.get(
            (resolution, region),
            (full_height, full_width)
            if region is None
            else (round(region.height * full_height), round(region.width * full_width)),
        )
        dwell_s = scanning.dwell_time.value if self._dwell_s is None else self._dwell_s
        return Scan(
            width_px=width,
            height_px=height,
            bit_depth=self._as.bit_depth,
            pixel_size_m=self._beam.horizontal_field_width.value / full_width,
            dwell_s=dwell_s,
            frame_averages=self._averages,
            region=region,
        )

    def _position(self) -> StagePosition:
        stage = self._client.specimen.stage
        if not self.limits.stage:
            return StagePosition()
        stage.set_default_coordinate_system(self._sdk.enumerations.CoordinateSystem.RAW)
        position = stage.current_position
        return StagePosition(**{ours: getattr(position, theirs) for theirs, ours in AXES.items()})

    # -- exposing -----------------------------------------------------------------------------

    def _expose(self, readings: Readings, wait: Wait) -> Picture:
        self.require_beam(self.ask(lambda: bool(self._beam.is_on)), "is_on is False")
        scan = readings.scan
        pixels = scan.width_px * scan.height_px * scan.frame_averages
        with put_back("blanker", lambda: self._let_through(scan, wait)):
            image, resolution, detector = self.expose(
                lambda: self._grab(scan), pixels * (scan.dwell_s or 0.0), wait
            )
        self._shapes[resolution, scan.region] = image.shape
        height, width = image.shape
        taken = msgspec.structs.replace(scan, width_px=width, height_px=height)
        return Picture(image, detector, scan=taken)

    def _grab(self, scan: Scan) -> tuple[Any, str, str]:
        """Pixels, resolution and detector; the view is the electron beam's meanwhile.

        A connection has one active view, and grabs and detectors are those of its device. So
        setting it and grabbing are one call here, between which nothing else gets through.
        """
        imaging, electrons = (
            self._client.imaging,
            self._sdk.enumerations.ImagingDevice.ELECTRON_BEAM,
        )
        with ExitStack() as afterwards:
            view = imaging.get_active_view()
            if view != self._as.view:
                imaging.set_active_view(self._as.view)
                afterwards.callback(imaging.set_active_view, view)
            device = imaging.get_active_device()
            if device != electrons:
                imaging.set_active_device(electrons)
                afterwards.callback(imaging.set_active_device, device)
            resolution = self._beam.scanning.resolution.value
            image = imaging.grab_frame(self._wishes(scan, resolution))
            detector = str(self._client.detector.type.value)
        beam = image.metadata.acquisition.beam_type
        if beam != "Electron":
            raise MicroscopeError(f"AutoScript exposed with the wrong beam: {beam}")
        pixels = np.array(image.data, dtype=np.uint8 if scan.bit_depth == 8 else np.uint16)
        if image.data.dtype != pixels.dtype or pixels.ndim != 2:
            raise MicroscopeError(
                f"AutoScript gave {image.data.dtype} of shape {image.data.shape}, "
                f"not grey pixels of {scan.bit_depth} bits"
            )
        return pixels, resolution, detector

    def _wishes(self, scan: Scan, resolution: str) -> Any:
        structures = self._sdk.structures
        given: dict[str, Any] = {
            "resolution": resolution,
            "dwell_time": scan.dwell_s,
            "bit_depth": scan.bit_depth,
        }
        if scan.frame_averages > 1:
            given["frame_integration"] = scan.frame_averages
        if scan.region is not None:
            area = scan.region
            given["reduced_area"] = structures.Rectangle(
                area.left, area.top, area.width, area.height
            )
        return structures.GrabFrameSettings(**given)

    # -- setting ------------------------------------------------------------------------------

    def _set_working_distance(self, distance_m: float, wait: Wait) -> None:
        self.change("working distance", lambda: self._focus(distance_m), self._distance_m)
        self._settle(wait)
        self.arrived(
            "working distance", distance_m, self.ask(self._distance_m), _DISTANCE_TOLERANCE_M, "m"
        )

    def _focus(self, distance_m: float) -> None:
        knob = self._beam.working_distance
        if self._keeps_lens:
            knob.set_value_no_degauss(distance_m)
        else:
            knob.value = distance_m

    def _distance_m(self) -> float:
        return float(self._beam.working_distance.value)

    def _settle(self, wait: Wait) -> None:
        settings = self._as
        wait.sleep(
            settings.focus_settle_s if self._keeps_lens else settings.degauss_settle_s,
            "settled focus",
        )

    def _set_stigmator(self, x: float, y: float, wait: Wait) -> None:
        full_x, full_y = self._full
        self._set_pair("stigmator", self._beam.stigmator, (x * full_x, y * full_y), wait)
        tolerance = _STIGMATOR_TOLERANCE
        reads = self.ask(lambda: _pair(self._beam.stigmator))
        self.arrived("stigmator x", x, reads[0] / full_x, tolerance, "of full range")
        self.arrived("stigmator y", y, reads[1] / full_y, tolerance, "of full range")

    def _set_beam_shift(self, x_m: float, y_m: float, wait: Wait) -> None:
        self._set_pair("beam shift", self._beam.beam_shift, (x_m, y_m), wait)
        reads_x_m, reads_y_m = self.ask(lambda: _pair(self._beam.beam_shift))
        self.arrived("beam shift x", x_m, reads_x_m, _SHIFT_TOLERANCE_M, "m")
        self.arrived("beam shift y", y_m, reads_y_m, _SHIFT_TOLERANCE_M, "m")

    def _set_pair(self, name: str, knob: Any, pair: tuple[float, float], wait: Wait) -> None:
        point = self._sdk.structures.Point(*pair)
        self.change(name, lambda: setattr(knob, "value", point), lambda: _pair(knob))
        wait.sleep(self._as.focus_settle_s, f"settled {name}")

    def _set_blanked(self, blanked: bool, wait: Wait) -> None:
        beam = self._beam
        self.change(
            "blanker", beam.blank if blanked else beam.unblank, lambda: bool(beam.is_blanked)
        )
        self.obeyed(blanked, self.ask(lambda: bool(beam.is_blanked)))

    def _let_through(self, scan: Scan, wait: Wait) -> None:
        """A reduced area leaves some systems blanked; after a whole field a person has blanked."""
        if scan.region is not None:
            self.restore(self._unblank, "unblank the beam", wait)

    def _unblank(self) -> None:
        if self._beam.is_blanked:
            self._beam.unblank()
            if self._beam.is_blanked:
                raise MicroscopeError("the beam stays blanked")

    def _set_scan(self, change: SetScan, wait: Wait) -> None:
        self.ask(self._scan)  # a link that is gone takes no settings
        if change.dwell_s is not None:
            self._dwell_s = change.dwell_s
        if change.frame_averages is not None:
            self._averages = change.frame_averages
        if change.region is not None:
            self._region = change.region if change.region != WHOLE_FIELD else None

    def _move_stage(self, moves: dict[str, float], here: StagePosition, wait: Wait) -> None:
        distance_m = self.ask(self._distance_m)
        target = {theirs: moves[ours] for theirs, ours in AXES.items() if ours in moves}
        with put_back(
            "working distance",
            lambda: self.restore(lambda: self._refocus(distance_m), "put focus back", wait),
        ):
            self.ask(
                lambda: self._move(target),
                "move the stage",
                timeout_s=wait.left_s,
                stopped=wait.stopped,
            )
        self.stage_arrived(moves, self.ask(self._position), _STAGE_TOLERANCE)

    def _move(self, target: dict[str, float]) -> None:
        stage = self._client.specimen.stage
        stage.set_default_coordinate_system(self._sdk.enumerations.CoordinateSystem.RAW)
        # Axes that are not named stay where they are.
        stage.absolute_move(self._sdk.structures.StagePosition(**target))

    def _refocus(self, distance_m: float) -> None:
        """A stage whose z is linked to focus changes focus with every move."""
        if abs(self._distance_m() - distance_m) > _DISTANCE_TOLERANCE_M:
            self._focus(distance_m)


def _pair(knob: Any) -> tuple[float, float]:
    point = knob.value
    return float(point.x), float(point.y)
