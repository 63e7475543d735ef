"""The microscope port over Micro-Manager's core."""

import re
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from semagent.clock import Clock
from semagent.errors import (
    CommandRefusedError,
    MicroscopeError,
    NotReadyError,
)
from semagent.types import (
    Capabilities,
    Optics,
    Pixels,
    Region,
    Scan,
    SetScan,
    StagePosition,
)
from semagent_drivers.adapter import Adapter, Limits, Picture, Readings, Wait, put_back
from semagent_drivers.adapter.units import MICROMETRES, MILLIMETRES, MILLISECONDS
from semagent_drivers.micromanager.bridge import BridgeCore
from semagent_drivers.micromanager.core import Argument, Core, CoreError, PythonCore, Rectangle
from semagent_drivers.micromanager.facts import DRIVER
from semagent_drivers.micromanager.options import MicroManagerOptions

_FASTEST_POLL_S = 0.001
_SLOWEST_POLL_S = 0.02
_OUT_OF_RANGE = "out of range"
_BINNING = "Binning"  # the core's own name of it; cameras that cannot bin have no such property

Binning = tuple[int, int]


class MicroManager(Adapter):
    """A camera, a focus drive and perhaps an XY stage; see `semagent.ports.Microscope`.

    Frames come from a sequence acquisition of as many camera images as are averaged: unlike
    ``snapImage`` it does not block, so that it can be stopped, and it opens and closes the
    shutter by itself. The exposure time is every pixel's dwell.
    """

    failures = (CoreError,)

    def __init__(self, options: MicroManagerOptions, clock: Clock) -> None:
        self._mm = options
        self._core = _open_core(options)
        self._exposure_s = 0.0
        self._averages = 1
        self._started = False
        try:
            self._camera, self._focus, self._xy = self._devices()
            self._bins = self._call("hasProperty", self._camera, _BINNING)
            self._field = _unbinned(self._roi(), self._binning())
            version = self._call("getVersionInfo")
        except CoreError as error:
            self._core.close()
            raise MicroscopeError(f"Micro-Manager failed to describe itself: {error}") from error
        except BaseException:
            self._core.close()
            raise
        limits = _limits(options, has_stage=bool(self._xy))
        super().__init__(
            Capabilities(
                driver="micromanager",
                microscope=f"{version}: {self._camera}, {self._focus}",
                verified_on=DRIVER.verified_on,
                stage_axes=tuple(limits.stage),
                scan_control=True,
                working_distance_range_m=limits.working_distance_m,
            ),
            limits,
            options,
            clock,
        )
        self.focus_flicker_m = MICROMETRES.to_si(options.focus_tolerance_um)
        self.stage_skip = dict.fromkeys(limits.stage, MICROMETRES.to_si(options.stage_tolerance_um))

    # -- reading ------------------------------------------------------------------------------

    def _read(self) -> Readings:
        _, _, width, height = roi = self._roi()
        self._exposure_s = MILLISECONDS.to_si(self._call("getExposure"))
        pixel_size_um = self._call("getPixelSizeUm")
        scan = Scan(
            width_px=width,
            height_px=height,
            bit_depth=8 if self._call("getBytesPerPixel") == 1 else 16,
            # 0 stands for: nobody has calibrated it.
            pixel_size_m=MICROMETRES.to_si(pixel_size_um) if pixel_size_um > 0 else None,
            dwell_s=self._exposure_s,
            frame_averages=self._averages,
            region=_region(roi, self._field, self._binning()),
        )
        optics = Optics(working_distance_m=self._distance_m(self._call("getPosition", self._focus)))
        stage = StagePosition()
        if self._xy:
            stage = StagePosition(
                x_m=MICROMETRES.to_si(self._call("getXPosition", self._xy)),
                y_m=MICROMETRES.to_si(self._call("getYPosition", self._xy)),
            )
        return Readings(scan, optics, stage)

    def _devices(self) -> tuple[str, str, str]:
        """Camera, focus drive and XY stage, the last empty where there is none."""
        camera = self._call("getCameraDevice")
        focus = self._call("getFocusDevice")
        if not camera or not focus:
            lacks = "no camera" if not camera else "no focus drive"
            raise MicroscopeError(
                f"Micro-Manager has {lacks}: set it as Default device in the hardware configuration"
            )
        bytes_per_pixel = self._call("getBytesPerPixel")
        if bytes_per_pixel not in (1, 2):
            raise MicroscopeError(
                f"the camera {camera} gives {bytes_per_pixel} bytes per pixel; "
                "set its pixel type to 8 or 16 bits of grey"
            )
        cameras = self._call("getNumberOfCameraChannels")
        if cameras != 1:
            raise MicroscopeError(
                f"{camera} is {cameras} cameras, whose images come in any order; set one of them "
                "as Default device in the hardware configuration"
            )
        return str(camera), str(focus), str(self._call("getXYStageDevice"))

    # -- exposing -----------------------------------------------------------------------------

    def _expose(self, readings: Readings, wait: Wait) -> Picture:
        scan = readings.scan
        shape = (scan.height_px, scan.width_px)
        camera = self._call("getCameraDevice")
        if camera != self._camera:
            raise NotReadyError(
                f"the camera is {camera or 'none'}, but was {self._camera}: choose that again, or "
                "start semagent anew"
            )
        every_s = min(max(self._exposure_s / 8, _FASTEST_POLL_S), _SLOWEST_POLL_S)
        self._started = True
        with put_back("blanker, that is, the shutter", lambda: self._end_sequence(wait)):
            self._start()
            # Not a list of all: at most two images are in memory, however many are averaged.
            total = np.zeros(shape, np.uint32)
            for _ in range(self._averages):
                wait.until(self._has_image, "image of the camera", every_s=every_s)
                image = self._pop(shape)
                total += image
        if self._averages == 1:
            return Picture(image, self._camera)
        mean = np.rint(total / self._averages).astype(image.dtype)
        return Picture(cast(Pixels, mean), self._camera)

    def _start(self) -> None:
        try:
            self._call("startSequenceAcquisition", self._averages, 0.0, True)
        except CoreError as error:
            # Nothing was started, so a sequence that runs is somebody else's and stays.
            self._started = False
            kind = NotReadyError if self._call("isSequenceRunning") else MicroscopeError
            raise kind(
                f"the camera {self._camera} does not start: {error}; end a live view if one runs"
            ) from error

    def _has_image(self) -> bool:
        if self._call("getRemainingImageCount"):
            return True
        if self._call("isSequenceRunning") or self._call("getRemainingImageCount"):
            return False
        raise MicroscopeError(f"the camera {self._camera} stopped before it had exposed an image")

    def _pop(self, shape: tuple[int, int]) -> Pixels:
        image = self._core.pop_image(timeout_s=self._timeout_s)
        if image.size != shape[0] * shape[1] or image.dtype not in (np.uint8, np.uint16):
            raise MicroscopeError(
                f"the camera {self._camera} gave {image.size} pixels of {image.dtype}, "
                f"not {shape[1]} x {shape[0]} of uint8 or uint16"
            )
        # A copy: the core's buffer is its own.
        return cast(Pixels, np.array(image).reshape(shape))

    def _end_sequence(self, wait: Wait) -> None:
        """Also closes the shutter, if the core opened it."""
        if not self._started:
            return
        with self.edge("end the exposure"):
            if wait.stopped.is_set() or not wait.left_s:
                # Many cameras end the exposure they are in first: nobody waits for that now.
                self._core.post("stopSequenceAcquisition")
            else:
                self._call("stopSequenceAcquisition")

    # -- changing -----------------------------------------------------------------------------

    def _set_working_distance(self, distance_m: float, wait: Wait) -> None:
        target_um = self._focus_um(distance_m)
        aims = {"focus": ("getPosition", target_um)}
        call = ("setPosition", self._focus, target_um)
        self._move(call, aims, self._mm.focus_tolerance_um, wait)

    def _move_stage(self, moves: dict[str, float], here: StagePosition, wait: Wait) -> None:
        x_um, y_um = (
            MICROMETRES.from_si(moves.get(axis, getattr(here, axis))) for axis in ("x_m", "y_m")
        )
        aims = {"stage x": ("getXPosition", x_um), "stage y": ("getYPosition", y_um)}
        call = ("setXYPosition", self._xy, x_um, y_um)
        self._move(call, aims, self._mm.stage_tolerance_um, wait)

    def _move(
        self,
        call: tuple[Any, ...],
        aims: Mapping[str, tuple[str, float]],
        tolerance_um: float,
        wait: Wait,
    ) -> None:
        """Move a device and see to it that it arrives.

        Args:
            call: moves the device, which is its second part.
            aims: by its name, the call that reads an axis and where it is to be.
            tolerance_um: how far off it may be.
            wait: the longest time it may take.
        """
        device = call[1]
        try:
            self._call(*call)
        except CoreError as error:
            if _OUT_OF_RANGE in str(error).lower():
                raise CommandRefusedError(f"{device} refused: {error}") from error
            raise

        def off_um(read: str, target_um: float) -> float:
            return abs(float(self._call(read, device)) - target_um)

        with self.halting(lambda: self._core.post("stop", device)):
            self.await_rest(
                lambda: all(off_um(*aim) <= tolerance_um for aim in aims.values()),
                f"standstill of {device}",
                wait,
                moving=lambda: self._call("deviceBusy", device),
                patience_s=self._mm.busy_delay_s,
            )
            for name, (read, target_um) in aims.items():
                self.arrived(name, target_um, self._call(read, device), tolerance_um, "um")

    def _set_scan(self, change: SetScan, wait: Wait) -> None:
        if change.dwell_s is not None:
            self._call("setExposure", MILLISECONDS.from_si(change.dwell_s))
        if change.region is not None:
            self._call("setROI", *_pixels(change.region, self._field, self._binning()))
        if change.frame_averages is not None:
            self._averages = change.frame_averages

    def _disconnect(self) -> None:
        self._core.close()

    # -- helpers ------------------------------------------------------------------------------

    @property
    def _timeout_s(self) -> float:
        """A call may have to wait for the exposure that was going on when somebody said stop."""
        return self._mm.call_timeout_s + self._exposure_s

    def _call(self, name: str, *arguments: Argument) -> Any:
        return self._core.call(name, *arguments, timeout_s=self._timeout_s)

    def _roi(self) -> Rectangle:
        return self._core.roi(timeout_s=self._timeout_s)

    def _binning(self) -> Binning:
        """Pixels of the sensor, along x and y, that make one of an image; people may change it."""
        text = str(self._call("getProperty", self._camera, _BINNING)) if self._bins else "1"
        counts = re.findall(r"[1-9]\d*", text) or ["1"]  # "2", or "2x2"
        return int(counts[0]), int(counts[-1])

    def _distance_m(self, focus_um: float) -> float:
        sign = -1 if self._mm.focus_inverted else 1
        zero_m = MILLIMETRES.to_si(self._mm.working_distance_mm)
        return zero_m + sign * MICROMETRES.to_si(focus_um)

    def _focus_um(self, distance_m: float) -> float:
        sign = -1 if self._mm.focus_inverted else 1
        zero_m = MILLIMETRES.to_si(self._mm.working_distance_mm)
        return sign * MICROMETRES.from_si(distance_m - zero_m)


def _open_core(options: MicroManagerOptions) -> Core:
    if options.adapters is None or options.configuration is None:
        return BridgeCore(options.host, options.port, options.call_timeout_s)
    try:
        return PythonCore(options.adapters, options.configuration, options.move_timeout_s)
    except CoreError as error:
        raise MicroscopeError(f"Micro-Manager could not load its hardware: {error}") from error


def _limits(options: MicroManagerOptions, *, has_stage: bool) -> Limits:
    zero_m = MILLIMETRES.to_si(options.working_distance_mm)
    low_m, high_m = MICROMETRES.range_to_si(options.focus_range_um)
    stage = {}
    if has_stage and options.x_range_um is not None and options.y_range_um is not None:
        for axis, limits in (("x_m", options.x_range_um), ("y_m", options.y_range_um)):
            stage[axis] = MICROMETRES.range_to_si(limits)
    exposures_ms = options.exposure_range_ms
    return Limits(
        working_distance_m=(
            (zero_m - high_m, zero_m - low_m)
            if options.focus_inverted
            else (zero_m + low_m, zero_m + high_m)
        ),
        stage=stage,
        dwell_s=exposures_ms and MILLISECONDS.range_to_si(exposures_ms),
        frame_averages=options.max_averages,
        smallest_region=0.05,
    )


def _unbinned(roi: Rectangle, binning: Binning) -> Rectangle:
    """In pixels of the sensor."""
    (x, y, width, height), (along_x, along_y) = roi, binning
    return x * along_x, y * along_y, width * along_x, height * along_y


def _region(roi: Rectangle, field: Rectangle, binning: Binning) -> Region | None:
    """The part of the field at opening, in pixels of the sensor, that is read out now."""
    read = _unbinned(roi, binning)
    # A pixel that does not fit on the sensor any more is not read out.
    if all(abs(a - b) < max(binning) for a, b in zip(read, field, strict=True)):
        return None
    (x, y, width, height), (left, top, full_width, full_height) = read, field
    return Region(
        left=(x - left) / full_width,
        top=(y - top) / full_height,
        width=width / full_width,
        height=height / full_height,
    )


def _pixels(region: Region, field: Rectangle, binning: Binning) -> Rectangle:
    (left, top, width, height), (along_x, along_y) = field, binning
    return (
        (left + round(region.left * width)) // along_x,
        (top + round(region.top * height)) // along_y,
        round(region.width * width) // along_x,
        round(region.height * height) // along_y,
    )
