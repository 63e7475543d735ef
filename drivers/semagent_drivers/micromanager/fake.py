"""A fake Micro-Manager with its ZMQ server on, to rehearse with: camera, focus drive, XY stage.

::

    python -m semagent_drivers.micromanager.fake

It answers as Micro-Manager 2.0 does over PyJavaZ 5, pycro-manager's own client included. Built in:
a focus drive that is busy for a while, though perhaps not at once, refuses what is out of range and
is off by a step of its encoder; a camera that finishes its exposure before a stopped sequence ends;
a shutter that follows the camera; errors with a Java stack trace behind them.
"""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import zmq

from semagent.types import Optics, Scan, StagePosition
from semagent_drivers.fakes import Bench, Fault, Stage, Trip, rehearse

PORT = 4827
VERSION = "5.1.0"

_STRING, _DOUBLE, _INT, _BOOLEAN = "java.lang.String", "double", "int", "boolean"
_ENCODER_UM = 0.01
_FOCUS_RANGE_UM = (-300.0, 300.0)
_WORKING_DISTANCE_M = 5e-3

Json = dict[str, Any]


class CoreFailure(Exception):  # noqa: N818 - stands for a Java exception
    """The core throws."""


class FakeCore:
    """``mmcorej.CMMCore`` with one camera "Camera", one focus drive "Z" and one stage "XY".

    Args:
        bits: 8 or 16 bits of grey.
        size_px: width and height of the camera.
        bench: what the camera sees.
        busy_s: how long a move takes.
        start_s: how long a drive that was told to move is not busy yet.
    """

    SIGNATURES: ClassVar[dict[str, list[list[str]]]] = {
        "getVersionInfo": [[]],
        "getCameraDevice": [[]],
        "getNumberOfCameraChannels": [[]],
        "getFocusDevice": [[]],
        "getXYStageDevice": [[]],
        "getBytesPerPixel": [[]],
        "getPixelSizeUm": [[], [_BOOLEAN]],
        "hasProperty": [[_STRING, _STRING]],
        "getProperty": [[_STRING, _STRING]],
        "setProperty": [[_STRING, _STRING, _STRING]],
        "getExposure": [[], [_STRING]],
        "setExposure": [[_DOUBLE], [_STRING, _DOUBLE]],
        "getROI": [[], [_STRING]],
        "setROI": [[_INT, _INT, _INT, _INT]],
        "getPosition": [[], [_STRING]],
        "setPosition": [[_DOUBLE], [_STRING, _DOUBLE]],
        "getXPosition": [[], [_STRING]],
        "getYPosition": [[], [_STRING]],
        "setXYPosition": [[_DOUBLE, _DOUBLE], [_STRING, _DOUBLE, _DOUBLE]],
        "deviceBusy": [[_STRING]],
        "stop": [[_STRING]],
        "startSequenceAcquisition": [[_INT, _DOUBLE, _BOOLEAN]],
        "stopSequenceAcquisition": [[]],
        "isSequenceRunning": [[], [_STRING]],
        "getRemainingImageCount": [[]],
        "popNextImage": [[]],
        "getShutterOpen": [[]],
    }

    def __init__(
        self,
        *,
        bits: int = 8,
        size_px: tuple[int, int] = (256, 192),
        bench: Bench | None = None,
        busy_s: float = 0.0,
        start_s: float = 0.0,
    ) -> None:
        self._bench = bench or Bench(focus_m=_WORKING_DISTANCE_M + 12e-6)
        self._bits = bits
        self._takes_s = start_s, busy_s
        self._size_px = size_px
        self._roi = (0, 0, *size_px)
        self._binning = 1
        self._wanted = 0
        self._started_s = 0.0
        self.exposure_ms = 1.0
        self.z = Stage([0.0])
        self.xy = Stage([0.0, 0.0])
        self.shutter_open = False
        self.stuck = False
        self.camera = "Camera"
        self.channels = 1
        self._picture()  # the first one draws the specimen

    def optics(self) -> Optics:
        """What the focus drive and the shutter really are at."""
        return Optics(
            working_distance_m=_WORKING_DISTANCE_M + self.z.position[0] / 1e6,
            blanked=not self.shutter_open,
        )

    def end_sequence(self) -> None:
        """End the live view, as a person would."""
        self._wanted = 0
        self.shutter_open = False

    def call(self, name: str, arguments: list[Any]) -> Any:
        """Call a method by its Java name.

        Raises:
            CoreFailure: as the core would throw.
        """
        if not hasattr(self, f"_{name}"):
            raise CoreFailure(f"java.lang.NoSuchMethodException: {name}")
        return getattr(self, f"_{name}")(*arguments)

    def _getVersionInfo(self) -> str:  # noqa: N802 - the core's own names from here on
        return "MMCore version 11.6.0"

    def _getCameraDevice(self) -> str:  # noqa: N802
        return self.camera

    def _getNumberOfCameraChannels(self) -> int:  # noqa: N802
        return self.channels

    def _getFocusDevice(self) -> str:  # noqa: N802
        return "Z"

    def _getXYStageDevice(self) -> str:  # noqa: N802
        return "XY"

    def _getBytesPerPixel(self) -> int:  # noqa: N802
        return self._bits // 8

    def _getPixelSizeUm(self) -> float:  # noqa: N802
        return 0.01 * self._binning

    def _hasProperty(self, device: str, name: str) -> bool:  # noqa: N802
        self._require(device, "Camera")
        return name == "Binning"

    def _getProperty(self, device: str, name: str) -> str:  # noqa: N802
        if not self._hasProperty(device, name):
            raise CoreFailure(f'No property "{name}"')
        return str(self._binning)

    def _setProperty(self, device: str, name: str, value: str) -> None:  # noqa: N802
        self._getProperty(device, name)
        self._binning = int(value)
        width, height = self._size_px
        self._roi = (0, 0, width // self._binning, height // self._binning)

    def _getExposure(self) -> float:  # noqa: N802
        return self.exposure_ms

    def _setExposure(self, exposure_ms: float) -> None:  # noqa: N802
        self.exposure_ms = exposure_ms

    def _getROI(self) -> Json:  # noqa: N802
        return dict(zip(("x", "y", "width", "height"), self._roi, strict=True))

    def _setROI(self, x: int, y: int, width: int, height: int) -> None:  # noqa: N802
        self._roi = (x, y, width, height)

    def _getPosition(self, device: str = "Z") -> float:  # noqa: N802
        self._require(device, "Z")
        return self.z.position[0]

    def _setPosition(self, device: str, position_um: float) -> None:  # noqa: N802
        self._require(device, "Z")
        if not _FOCUS_RANGE_UM[0] <= position_um <= _FOCUS_RANGE_UM[1]:
            raise CoreFailure(f'Error in device "{device}": Position out of range (103)')
        steps = round(position_um / _ENCODER_UM)
        here_um = self.z.position[0]
        self.z.move([here_um if self.stuck else steps * _ENCODER_UM], *self._takes_s)

    def _getXPosition(self, device: str = "XY") -> float:  # noqa: N802
        self._require(device, "XY")
        return self.xy.position[0]

    def _getYPosition(self, device: str = "XY") -> float:  # noqa: N802
        self._require(device, "XY")
        return self.xy.position[1]

    def _setXYPosition(self, device: str, x_um: float, y_um: float) -> None:  # noqa: N802
        self._require(device, "XY")
        self.xy.move([x_um, y_um], *self._takes_s)

    def _deviceBusy(self, device: str) -> bool:  # noqa: N802
        return self._drive(device).moving

    def _stop(self, device: str) -> None:
        self._drive(device).halt()

    def _drive(self, device: str) -> Stage:
        self._require(device, "Z", "XY")
        return self.z if device == "Z" else self.xy

    def _startSequenceAcquisition(self, count: int, _interval_ms: float, _stop: bool) -> None:  # noqa: N802
        if self._wanted:
            raise CoreFailure("Camera sequence acquisition is already running")
        self._wanted, self._started_s, self._popped = count, time.perf_counter(), 0
        self.shutter_open = True

    def _stopSequenceAcquisition(self) -> None:  # noqa: N802
        if self._isSequenceRunning():
            # The camera finishes what it is exposing.
            time.sleep(min((self._started_s - time.perf_counter()) % self._frame_s, 0.5))
        self.end_sequence()

    def _isSequenceRunning(self) -> bool:  # noqa: N802
        return self._exposed < self._wanted

    def _getRemainingImageCount(self) -> int:  # noqa: N802
        return min(self._exposed, self._wanted) - self._popped if self._wanted else 0

    def _popNextImage(self) -> npt.NDArray[Any]:  # noqa: N802
        if not self._getRemainingImageCount():
            raise CoreFailure("Circular buffer is empty.")
        self._popped += 1
        return self._picture().ravel()

    def _getShutterOpen(self) -> bool:  # noqa: N802
        return self.shutter_open

    @property
    def _frame_s(self) -> float:
        return max(self.exposure_ms, 1e-3) / 1e3

    @property
    def _exposed(self) -> int:
        return int((time.perf_counter() - self._started_s) / self._frame_s)

    def _picture(self) -> npt.NDArray[Any]:
        scan = Scan(
            width_px=self._size_px[0],
            height_px=self._size_px[1],
            bit_depth=16 if self._bits == 16 else 8,
            pixel_size_m=10e-9,
            dwell_s=1e-6,
        )
        x_um, y_um = self.xy.position
        stage = StagePosition(x_m=x_um / 1e6, y_m=y_um / 1e6)
        optics = Optics(working_distance_m=_WORKING_DISTANCE_M + self.z.position[0] / 1e6)
        x, y, width, height = self._roi
        step = self._binning
        pixels = self._bench.expose(optics, scan, stage)[::step, ::step]
        return np.ascontiguousarray(pixels[y : y + height, x : x + width])

    def _require(self, device: str, *known: str) -> None:
        if device not in known:
            raise CoreFailure(f'No device with label "{device}"')


class FakeMicroManager:
    """The ZMQ server of Micro-Manager over a `FakeCore`.

    Args:
        port: to listen on; 0 takes any free one.
        core: what it serves.
        version: of the bridge it says it speaks.
    """

    def __init__(
        self, port: int = 0, *, core: FakeCore | None = None, version: str = VERSION
    ) -> None:
        self.trip = Trip()
        self.core = core or FakeCore()
        self.requests: list[Json] = []
        self._version = version
        self.objects: dict[str, Any] = {}
        self._closing = threading.Event()
        self._context = zmq.Context()
        # Not a REP socket, which would have to answer every question.
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(f"tcp://127.0.0.1:{port or '*'}")
        self.port = int(self._socket.get_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
        self._thread = threading.Thread(target=self._serve, name="fake Micro-Manager")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        self._socket.close()
        self._context.term()

    def _serve(self) -> None:
        while not self._closing.is_set():
            if not self._socket.poll(20):
                continue
            *route, body = self._socket.recv_multipart()
            request: Json = json.loads(body.decode("iso-8859-1"))
            self.requests.append(request)
            fault = self.trip.step()
            if fault is Fault.HANG or (fault is Fault.DROP and self.trip.dropped_before):
                continue
            parts: list[bytes] = []
            try:
                if fault is Fault.FAIL:
                    raise CoreFailure("java.lang.Exception: Error in device: injected (1)")
                reply = self._reply(request, parts)
            except CoreFailure as failure:
                reply = {"type": "exception", "value": f"{failure}\n\tat mmcorej.CMMCore.call"}
            if fault is Fault.DROP:
                continue  # it was done, and the answer lost
            with contextlib.suppress(zmq.ZMQError):
                self._socket.send_multipart([*route, json.dumps(reply).encode(), *parts])

    def _reply(self, request: Json, parts: list[bytes]) -> Json:
        match request["command"]:
            case "connect":
                return {"type": "none", "version": self._version}
            case "get-constructors":
                return {"type": "none", "api": [{"name": request["classpath"], "arguments": []}]}
            case "constructor":
                return self._reference(self.core, "mmcorej.CMMCore", FakeCore.SIGNATURES, ())
            case "run-method":
                return self._run(request, parts)
            case "get-field":
                return _serialised(self._object(request)[request["name"]], parts)
            case "destructor":
                self.objects.pop(request["hash-code"], None)
                return {"type": "none"}
            case other:
                raise CoreFailure(f"java.lang.RuntimeException: unknown command {other}")

    def _run(self, request: Json, parts: list[bytes]) -> Json:
        core, name = self._object(request), request["name"]
        if request["argument-types"] not in FakeCore.SIGNATURES.get(name, []):
            raise CoreFailure("java.lang.RuntimeException: No Matching method found")
        result = core.call(name, request["arguments"])
        if isinstance(result, dict):
            return self._reference(result, "java.awt.Rectangle", {}, tuple(result))
        return _serialised(result, parts)

    def _object(self, request: Json) -> Any:
        try:
            return self.objects[request["hash-code"]]
        except KeyError:
            raise CoreFailure("java.lang.NullPointerException") from None

    def _reference(
        self,
        value: Any,
        java_class: str,
        signatures: dict[str, list[list[str]]],
        fields: tuple[str, ...],
    ) -> Json:
        reference = uuid.uuid4().hex
        self.objects[reference] = value
        return {
            "type": "unserialized-object",
            "class": java_class,
            "hash-code": reference,
            "port": self.port,
            "interfaces": [java_class],
            "fields": list(fields),
            "api": [
                {"name": name, "return-type": "java.lang.Object", "arguments": arguments}
                for name, overloads in signatures.items()
                for arguments in overloads
            ],
        }


def _serialised(value: Any, parts: list[bytes]) -> Json:
    if value is None:
        return {"type": "null"}
    if isinstance(value, str):
        return {"type": "string", "value": value}
    if not isinstance(value, np.ndarray):
        return {"type": "primitive", "value": value}
    identity = 0x2A
    parts += [identity.to_bytes(4, "little"), value.tobytes()]
    kind = "byte-array" if value.itemsize == 1 else "short-array"
    return {"type": kind, "value": f"@{identity:x}"}


if __name__ == "__main__":
    make: Callable[[int], FakeMicroManager] = FakeMicroManager
    rehearse(make, vendor="Micro-Manager", port=PORT)
