"""How long does a frame take from the microscope PC to the agent, with and without encryption?

The server is a process of its own, as on a real microscope PC, but on this machine's loopback:
what is measured is semagent, ZeroMQ and CURVE, not a network. The microscope hands out frames
that are in memory already, so that nothing but the way is left::

    python benchmarks/remote.py [--frames N] [--width PX] [--height PX]

Prints one JSON object for each combination of keys and bit depth: milliseconds of a whole
``acquire`` (``frame_ms``), of a ``read_state`` (``state_ms``), from ``stop`` to the end of an
acquisition (``stop_ms``), each as median and 99th percentile, and the bound of the error of the
far clock (``clock_error_ms``).
"""

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from semagent.clock import SystemClock
from semagent.config import find_config, load_config
from semagent.errors import AcquisitionStoppedError
from semagent.keys import CLIENT_FOLDER, SERVER_FOLDER, load_server_keys, make_keys
from semagent.ports import Microscope
from semagent.remote.server import MicroscopeServer
from semagent.types import (
    Capabilities,
    Frame,
    FrameHeader,
    MicroscopeAction,
    MicroscopeState,
    Optics,
    Pixels,
    Scan,
    StagePosition,
)
from semagent_drivers.remote import open_microscope

EXPOSURE_IS_ENDLESS_S = 10.0
"""A longer time-out asks the microscope for an exposure that only a stop ends."""


class InstantMicroscope:
    """Hands out frames at once; implements `semagent.ports.Microscope`."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self._sequence = 0
        self._stop = threading.Event()
        self._clock = SystemClock()
        self.capabilities = Capabilities(driver="benchmark", microscope="memory", verified_on=None)

    def read_state(self) -> MicroscopeState:
        """See the port."""
        height, width = self._pixels.shape
        return MicroscopeState(
            scan=Scan(
                width_px=width,
                height_px=height,
                bit_depth=8 if self._pixels.dtype == np.uint8 else 16,
            ),
            optics=Optics(working_distance_m=0.005, stigmator_x=0.0, stigmator_y=0.0),
            stage=StagePosition(x_m=0.0, y_m=0.0, z_m=0.01, rotation_rad=0.0, tilt_rad=0.0),
            settings_rev=1,
        )

    def acquire(self, timeout_s: float) -> Frame:
        """See the port."""
        self._stop.clear()
        if timeout_s > EXPOSURE_IS_ENDLESS_S and self._stop.wait(timeout_s):
            raise AcquisitionStoppedError("stopped")
        self._sequence += 1
        state = self.read_state()
        header = FrameHeader(
            sequence=self._sequence,
            monotonic_ns=self._clock.monotonic_ns(),
            wall_ns=self._clock.wall_ns(),
            detector="memory",
            scan=state.scan,
            optics=state.optics,
            stage=state.stage,
            settings_rev=1,
        )
        return Frame(header, self._pixels)

    def apply(self, action: MicroscopeAction) -> None:
        """See the port."""

    def stop(self) -> None:
        """See the port."""
        self._stop.set()

    def close(self) -> None:
        """See the port."""


def serve(link: Connection, keys: str | None, shape: tuple[int, int], bit_depth: int) -> None:
    """Run a server until the other end of ``link`` says so; tells its endpoint first."""
    dtype = np.uint8 if bit_depth == 8 else np.uint16
    pixels = np.random.default_rng(0).integers(0, 2**bit_depth, shape, dtype)
    server = MicroscopeServer(
        InstantMicroscope(pixels),
        load_config(find_config("simulated")).safety,
        bind="tcp://127.0.0.1:*",
        keys=load_server_keys(Path(keys) / SERVER_FOLDER) if keys else None,
        clock=SystemClock(),
    )
    link.send(server.endpoint)
    stop = threading.Event()
    threading.Thread(target=set_at_the_end, args=(link, stop), daemon=True).start()
    server.run(stop)


def set_at_the_end(link: Connection, stop: threading.Event) -> None:
    """Wait for the other end's word and pass it on."""
    link.recv()
    stop.set()


def measure(keys: str | None, shape: tuple[int, int], bit_depth: int, frames: int) -> object:
    """All figures of one combination."""
    context = multiprocessing.get_context("spawn")
    link, far_end = context.Pipe()
    process = context.Process(target=serve, args=(far_end, keys, shape, bit_depth))
    process.start()
    options = {"endpoint": link.recv()}
    if keys:
        options["client_key"] = str(Path(keys) / CLIENT_FOLDER / "client.key_secret")
        options["server_key"] = str(Path(keys) / CLIENT_FOLDER / "server.key")
    microscope = open_microscope(options, clock=SystemClock())
    try:
        for _ in range(10):
            microscope.acquire(1.0)
        return {
            "keys": keys is not None,
            "bit_depth": bit_depth,
            "shape": shape,
            "frame_ms": timed(lambda: microscope.acquire(1.0), frames),
            "state_ms": timed(microscope.read_state, frames),
            "stop_ms": timed_stops(microscope, min(frames, 30)),
            "clock_error_ms": round(microscope.clock_error_s * 1e3, 3),
        }
    finally:
        microscope.close()
        link.send("end")
        process.join()


def timed(call: Callable[[], object], times: int) -> dict[str, float]:
    """Milliseconds a call takes."""
    taken_ms = []
    for _ in range(times):
        begun_s = time.perf_counter()
        call()
        taken_ms.append((time.perf_counter() - begun_s) * 1e3)
    return summary(taken_ms)


def timed_stops(microscope: Microscope, times: int) -> dict[str, float]:
    """Milliseconds from a stop to the end of the acquisition it is meant for."""
    taken_ms = []
    stopped_s: list[float] = []
    for _ in range(times):
        timer = threading.Timer(0.05, note_and_stop, (microscope, stopped_s))
        timer.start()
        try:
            microscope.acquire(EXPOSURE_IS_ENDLESS_S + 1)
        except AcquisitionStoppedError:
            taken_ms.append((time.perf_counter() - stopped_s[-1]) * 1e3)
        timer.join()
    return summary(taken_ms)


def note_and_stop(microscope: Microscope, stopped_s: list[float]) -> None:
    """Stop, and write down when."""
    stopped_s.append(time.perf_counter())
    microscope.stop()


def summary(values_ms: list[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    p50, p99 = np.percentile(values_ms, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


def main() -> None:
    """Measure every combination."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--height", type=int, default=768)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_keys(Path(folder))
        for keys in (None, folder):
            for bit_depth in (8, 16):
                shape = (options.height, options.width)
                result = measure(keys, shape, bit_depth, options.frames)
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
