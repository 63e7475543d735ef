"""A small vendor and its adapter, as short as one can be: the kit is tested through it."""

import threading

import numpy as np

from semagent.types import (
    Capabilities,
    Optics,
    Scan,
    SetScan,
    StagePosition,
)
from semagent_drivers.adapter import (
    Adapter,
    AdapterOptions,
    Limits,
    Picture,
    Readings,
    SdkThread,
    Wait,
    put_back,
)
from semagent_drivers.adapter.units import MILLIMETRES, PERCENT
from semagent_drivers.fakes import Bench, Trip, wired


class VendorError(Exception):
    """What the vendor raises when something fails."""


class VendorRefusalError(Exception):
    """What it raises when it says no."""


class LinkBrokenError(Exception):
    """What it raises when the link is gone."""


class Instrument:
    """The vendor's object model: millimetres, percent; grabbing leaves the beam blanked."""

    WIRED = True

    def __init__(self):
        self.bench = Bench(focus_m=8.1e-3, astigmatism_um=(1.0, 0.0))
        self.wd_mm = 8.0
        self.stigmator_percent = (0.0, 0.0)
        self.blanked = False
        self.averages = 1
        self.x_mm = 0.0
        self.tilt_deg = 10.0
        self.kilovolts = 5.0
        self.exposure_s = 0.0
        self.detector = "SE"
        self.pixel_m = 10e-9
        self.rotation_rad = 0.0
        self.field_follows = False
        self.while_exposing = {}  # what somebody changes meanwhile
        self.deaf = False
        self.aborted = threading.Event()
        self.bench.expose(self.optics(), SCAN)  # the first one draws the specimen

    def move_to(self, x_mm, tilt_deg):
        self.x_mm, self.tilt_deg = x_mm, tilt_deg
        self.wd_mm += 0.5  # the stage is linked to focus

    def set_wd(self, wd_mm):
        if wd_mm > 50:
            raise VendorRefusalError("E23")
        if not self.deaf:
            self.wd_mm = wd_mm

    def pixel_size_m(self):
        return self.pixel_m * (self.wd_mm / 8.0 if self.field_follows else 1.0)

    def grab(self):
        self.aborted.wait(self.exposure_s)
        pixels = self.bench.expose(self.optics(), SCAN)
        for name, value in self.while_exposing.items():
            setattr(self, name, value)
        self.blanked = True
        return pixels

    def optics(self):
        return Optics(
            working_distance_m=self.wd_mm / 1e3,
            stigmator_x=self.stigmator_percent[0] / 100,
            stigmator_y=self.stigmator_percent[1] / 100,
            blanked=self.blanked,
        )


SCAN = Scan(width_px=128, height_px=96, bit_depth=8, pixel_size_m=10e-9, dwell_s=1e-6)


class VendorMicroscope(Adapter):
    refusals = (VendorRefusalError,)
    failures = (VendorError,)
    losses = (LinkBrokenError,)
    stage_skip = {"x_m": 1e-7}

    def __init__(self, instrument, trip, clock, call_timeout_s=2.0):
        super().__init__(
            Capabilities(
                driver="vendor",
                microscope="Vendor 1",
                verified_on=None,
                stigmator=True,
                blanker=True,
                stage_axes=("x_m",),
                scan_control=True,
                working_distance_range_m=(1e-3, 60e-3),
            ),
            Limits(
                working_distance_m=(1e-3, 60e-3), stage={"x_m": (-1e-3, 1e-3)}, frame_averages=8
            ),
            AdapterOptions(call_timeout_s=call_timeout_s),
            clock,
        )
        self._vendor = wired(instrument, trip, fail=VendorError, drop=LinkBrokenError)
        self._thread = SdkThread("Vendor")

    def _ask(self, call, stopped=None):
        timeout_s = self._options.call_timeout_s
        return self._thread.call(call, timeout_s=timeout_s, what="answer", stopped=stopped)

    def _read(self):
        vendor = self._vendor
        x_percent, y_percent = self._ask(lambda: vendor.stigmator_percent)
        return Readings(
            Scan(
                width_px=SCAN.width_px,
                height_px=SCAN.height_px,
                bit_depth=8,
                pixel_size_m=self._ask(vendor.pixel_size_m),
                frame_averages=self._ask(lambda: vendor.averages),
            ),
            Optics(
                working_distance_m=MILLIMETRES.to_si(self._ask(lambda: vendor.wd_mm)),
                stigmator_x=PERCENT.to_si(x_percent),
                stigmator_y=PERCENT.to_si(y_percent),
                blanked=self._ask(lambda: vendor.blanked),
                accelerating_voltage_v=self._ask(lambda: vendor.kilovolts) * 1e3,
            ),
            StagePosition(x_m=MILLIMETRES.to_si(self._ask(lambda: vendor.x_mm)), tilt_rad=0.1),
            self._ask(lambda: vendor.rotation_rad),
        )

    def _expose(self, readings: Readings, wait: Wait):
        with put_back("blanker", lambda: self._blank(readings.optics.blanked)):
            pixels = self._ask(self._vendor.grab, wait.stopped)
        return Picture(np.ascontiguousarray(pixels), self._ask(lambda: self._vendor.detector))

    def _blank(self, blanked):
        with self.edge("set the blanker"):
            self._ask(lambda: setattr(self._vendor, "blanked", blanked))

    def _set_working_distance(self, distance_m, wait):
        self._ask(lambda: self._vendor.set_wd(MILLIMETRES.from_si(distance_m)))
        reads_m = MILLIMETRES.to_si(self._ask(lambda: self._vendor.wd_mm))
        self.arrived("working distance", distance_m, reads_m, 1e-9, "m")

    def _set_stigmator(self, x, y, wait):
        percent = (PERCENT.from_si(x), PERCENT.from_si(y))
        self._ask(lambda: setattr(self._vendor, "stigmator_percent", percent))

    def _set_blanked(self, blanked, wait):
        self._blank(blanked)

    def _set_scan(self, change: SetScan, wait):
        self._ask(lambda: setattr(self._vendor, "averages", change.frame_averages))

    def _move_stage(self, moves, here, wait):
        tilt_deg = self._ask(lambda: self._vendor.tilt_deg)
        wd_mm = self._ask(lambda: self._vendor.wd_mm)
        with put_back("working distance", lambda: self._refocus(wd_mm)):
            x_mm = MILLIMETRES.from_si(moves["x_m"])
            self._ask(lambda: self._vendor.move_to(x_mm, tilt_deg))

    def _refocus(self, wd_mm):
        with self.edge("put focus back"):
            self._ask(lambda: self._vendor.set_wd(wd_mm))

    def _abort(self):
        pass

    def _disconnect(self):
        self._thread.close()


def open_vendor(instrument, clock, trip=None, **options):
    return VendorMicroscope(instrument, trip or Trip(), clock, **options)
