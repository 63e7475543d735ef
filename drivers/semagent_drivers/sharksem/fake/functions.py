"""SharkSEM's functions, as a fake TESCAN microscope has them."""

import time
from typing import Any

from semagent_drivers.sharksem import wire
from semagent_drivers.sharksem.fake.data import DataServer, Scan
from semagent_drivers.sharksem.fake.instrument import PIXEL_M, Instrument

_WD_MM = (2.0, 120.0)
_CENTERINGS = (
    "cen.0.name=Gun Tilt\ncen.0.unit=%\ncen.1.name=OBJ Centering\ncen.1.unit=%\n"
    "cen.2.name=Stigmator\ncen.2.unit=%\n"
)
_GEOMETRIES = "geom.0.name=Tilt Correction\ngeom.1.name=Scan Rotation\ngeom.1.unit=deg\n"
_DETECTORS = "det.0.name=SE\ndet.1.name=BSE\n"

SILENT = {
    "SetWD",
    "SetCentering",
    "SetImageShift",
    "ScSetBlanker",
    "ScStopScan",
    "GUISetScanning",
    "DtEnable",
    "StgMoveTo",
    "StgStop",
}


class Functions:
    """SharkSEM's functions, by name: arguments in, answer out, ``None`` where there is none."""

    def __init__(self, instrument: Instrument, data: DataServer) -> None:
        self._its = instrument
        self._data = data
        self._data_port = 0
        self._scan = Scan(instrument, lambda message: data.transmit(self._data_port, message))

    def hang_up(self) -> None:
        """The client has gone."""
        self._scan.stop()
        self._data.hang_up(self._data_port)

    def TcpRegDataPort(self, body: wire.Body) -> Any:
        self._data_port = body.integer()
        return (0,)

    def TcpGetVersion(self, body: wire.Body) -> Any:
        return (self._its.version,)

    def TcpGetDevice(self, body: wire.Body) -> Any:
        return ("VEGA fake",)

    def IsBusy(self, body: wire.Body) -> Any:
        optics = body.integer() & 1 << 10 and time.perf_counter() < self._its.busy_until_s
        return (int(bool(optics)),)

    def GetWD(self, body: wire.Body) -> Any:
        return (self._its.read_wd_mm,)

    def SetWD(self, body: wire.Body) -> Any:
        low_mm, high_mm = _WD_MM
        self._its.wd_before_mm = self._its.wd_mm
        self._its.wd_mm = min(max(body.number(), low_mm), high_mm)
        self._settling()

    def GetViewField(self, body: wire.Body) -> Any:
        return (1024 * PIXEL_M * 1e3 * self._its.read_wd_mm / 8.0,)

    def EnumCenterings(self, body: wire.Body) -> Any:
        return (_CENTERINGS,)

    def GetCentering(self, body: wire.Body) -> Any:
        return self._its.centerings[body.integer()]

    def SetCentering(self, body: wire.Body) -> Any:
        index = body.integer()
        self._its.centerings[index] = (_percent(body), _percent(body))
        self._settling()

    def EnumGeometries(self, body: wire.Body) -> Any:
        return (_GEOMETRIES,)

    def GetGeometry(self, body: wire.Body) -> Any:
        return (self._its.rotation_deg, 0.0) if body.integer() == 1 else (0.0, 0.0)

    def GetImageShift(self, body: wire.Body) -> Any:
        return self._its.shift_mm

    def SetImageShift(self, body: wire.Body) -> Any:
        self._its.shift_mm = (body.number(), body.number())
        self._settling()

    def HVGetVoltage(self, body: wire.Body) -> Any:
        return (self._its.volts,)

    def HVGetBeam(self, body: wire.Body) -> Any:
        return (self._its.beam,)

    def GetBeamCurrent(self, body: wire.Body) -> Any:
        return (100.0,)

    def ScGetBlanker(self, body: wire.Body) -> Any:
        return (self._its.blanker_mode,)

    def ScSetBlanker(self, body: wire.Body) -> Any:
        body.integer()
        mode = body.integer()
        if mode not in self._its.blanker_modes:
            return
        self._its.blanker_wish = mode
        self._scan_ended()

    def GUIGetScanning(self, body: wire.Body) -> Any:
        return (self._its.live_scan,)

    def GUISetScanning(self, body: wire.Body) -> Any:
        self._its.live_scan = body.integer()
        self._scan_ended()

    def DtEnumDetectors(self, body: wire.Body) -> Any:
        return (_DETECTORS,)

    def DtGetSelected(self, body: wire.Body) -> Any:
        return (self._its.selected,)

    def DtGetEnabled(self, body: wire.Body) -> Any:
        return tuple(self._its.channel)

    def DtEnable(self, body: wire.Body) -> Any:
        body.integer()
        self._its.channel[0] = body.integer()
        if body.left:
            self._its.channel[1] = body.integer()

    def ScScanXY(self, body: wire.Body) -> Any:
        frame_id, width, height, left, top, right, bottom, _, dwell_ns = (
            body.integer() for _ in range(9)
        )
        # While something else scans, or from a channel that is off, there is no scan.
        if self._its.live_scan or not self._its.channel[0]:
            return (-1,)
        self._its.scans += 1
        pixels = self._its.expose((width, height), (left, top, right, bottom), dwell_ns)
        self._scan.start(frame_id, pixels, dwell_ns)
        return (0,)

    def ScStopScan(self, body: wire.Body) -> Any:
        self._its.stops += 1
        self._scan.stop()
        self._scan_ended()

    def StgGetPosition(self, body: wire.Body) -> Any:
        return tuple(self._its.position[: 6 if self._its.six_axes else 5])

    def StgGetLimits(self, body: wire.Body) -> Any:
        return tuple(self._its.limits)

    def StgIsCalibrated(self, body: wire.Body) -> Any:
        return (self._its.calibrated,)

    def StgIsBusy(self, body: wire.Body) -> Any:
        return (int(time.perf_counter() < self._its.stage_until_s),)

    def StgMoveTo(self, body: wire.Body) -> Any:
        targets = body.numbers()
        limits = zip(self._its.limits[::2], self._its.limits[1::2], strict=True)
        inside = all(low <= to <= high for to, (low, high) in zip(targets, limits, strict=False))
        still = time.perf_counter() >= self._its.stage_until_s
        if self._its.calibrated and still and inside:
            self._its.position[: len(targets)] = targets
            self._its.stage_until_s = time.perf_counter() + self._its.move_s

    def StgStop(self, body: wire.Body) -> Any:
        self._its.stage_until_s = 0.0

    def _settling(self) -> None:
        self._its.busy_until_s = time.perf_counter() + self._its.settle_s

    def _scan_ended(self) -> None:
        """The blanker changes its mode at the end of a scan only."""
        if self._its.blanker_wish is not None and not (self._its.live_scan or self._scan.running):
            self._its.blanker_mode = self._its.blanker_wish
            self._its.blanker_wish = None


def _percent(body: wire.Body) -> float:
    return min(max(body.number(), -100.0), 100.0)
