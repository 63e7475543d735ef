"""Both ends of the remote microscope on this machine's loopback, and a cable to pull."""

import contextlib
import json
import os
import selectors
import socket
import threading
import time
from collections import deque

import msgspec
import numpy as np
import psutil
import pytest
import zmq

from semagent.clock import SystemClock
from semagent.errors import AcquisitionStoppedError, MicroscopeError, SemagentError
from semagent.options import parse_options
from semagent.remote.server import MicroscopeServer
from semagent.safety import Envelope
from semagent.types import (
    Capabilities,
    Frame,
    FrameHeader,
    MicroscopeState,
    MoveStage,
    Optics,
    Scan,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
    StagePosition,
)
from semagent_drivers.remote import open_microscope

HEARTBEAT_S = 1.0
PATIENCE_S = 10.0

ENVELOPE = {
    "specimen_holder": "test stub",
    "working_distance_m": {"min": 0.004, "max": 0.006, "max_step": 1e-4, "max_travel": 1e-3},
    "stigmator": {"min": -0.5, "max": 0.5, "max_step": 0.2, "max_travel": 2.0},
    "beam_shift_m": {"min": -5e-6, "max": 5e-6, "max_step": 5e-6, "max_travel": 2e-5},
    "stage_x_m": {"min": -1e-3, "max": 1e-3, "max_step": 1e-4, "max_travel": 1e-3},
    "stage_y_m": None,
    "stage_z_m": None,
    "stage_rotation_rad": None,
    "stage_tilt_rad": None,
    "scan": {"dwell_s": [1e-8, 1e-4], "max_frame_averages": 4, "min_region": 0.1},
    "allow_unblank": True,
    "keep_out": [],
    "travel_window_s": 60.0,
    "max_evidence_age_s": 5.0,
    "operator_hold_s": 1.0,
    "heartbeat_timeout_s": HEARTBEAT_S,
    "readback_tolerance": {
        "working_distance_m": 1e-7,
        "stigmator": 1e-3,
        "beam_shift_m": 1e-9,
        "stage_x_m": 1e-6,
        "stage_y_m": 1e-6,
        "stage_z_m": 1e-6,
        "stage_rotation_rad": 1e-3,
        "stage_tilt_rad": 1e-3,
        "dwell_s": 1e-9,
        "region": 1e-3,
    },
}


class ShiftedClock(SystemClock):
    """The clock of a machine that was started at another time."""

    def __init__(self, shift_s=0.0):
        self.shift_ns = round(shift_s * 1e9)

    def monotonic_ns(self):
        return super().monotonic_ns() + self.shift_ns


class BenchMicroscope:
    """A microscope that does what a test tells it to.

    ``exposure_s`` is how long a frame takes; ``deaf_s`` how long a call takes to begin, during
    which a stop goes unheard, as it does in vendor software; ``errors`` are raised by the next
    calls; ``jam`` keeps a call from ever coming back until it is set.
    """

    def __init__(self, clock):
        self.clock = clock
        self.state = MicroscopeState(
            scan=Scan(width_px=32, height_px=24, bit_depth=8, dwell_s=1e-7),
            optics=Optics(
                working_distance_m=0.005,
                stigmator_x=0.0,
                stigmator_y=0.0,
                beam_shift_x_m=0.0,
                beam_shift_y_m=0.0,
                blanked=False,
            ),
            stage=StagePosition(x_m=0.0),
            settings_rev=4,
        )
        self.pixels = deque()
        self.exposure_s = 0.0
        self.move_s = 0.0
        self.deaf_s = 0.0
        self.errors = deque()
        self.jam = None
        self.ignores_commands = False
        self.applied = []
        self.stops = 0
        self.closed = False
        self.sequence = 0
        self.begun = threading.Event()
        self._stop = threading.Event()

    capabilities = Capabilities(
        driver="bench",
        microscope="Bench SEM",
        verified_on=None,
        stigmator=True,
        stage_axes=("x_m",),
        working_distance_range_m=(0.001, 0.02),
    )

    def read_state(self):
        self._fail()
        return self.state

    def acquire(self, timeout_s):
        self._begin()
        self._fail()
        if self._stop.wait(min(self.exposure_s, timeout_s)):
            raise AcquisitionStoppedError("the exposure was stopped")
        pixels = self.pixels.popleft() if self.pixels else np.zeros((24, 32), np.uint8)
        self.sequence += 1
        header = FrameHeader(
            sequence=self.sequence,
            monotonic_ns=self.clock.monotonic_ns(),
            wall_ns=1_800_000_000_000_000_000 + self.sequence,
            detector="BSE",
            scan=self.state.scan,
            optics=self.state.optics,
            stage=self.state.stage,
            settings_rev=self.state.settings_rev,
        )
        return Frame(header, pixels)

    def apply(self, action):
        self._begin()
        self._fail()
        if self._stop.wait(self.move_s):
            raise MicroscopeError("the move was stopped on its way")
        self.applied.append(action)
        if not self.ignores_commands:
            self.state = self._changed(action)

    def stop(self):
        self.stops += 1
        self._stop.set()

    def close(self):
        self.closed = True

    def _begin(self):
        self.begun.set()
        if self.deaf_s:
            time.sleep(self.deaf_s)
        self._stop.clear()
        if self.jam is not None:
            self.jam.wait(PATIENCE_S)

    def _fail(self):
        if self.errors:
            raise self.errors.popleft()

    def _changed(self, action):
        state, replace = self.state, msgspec.structs.replace
        match action:
            case SetWorkingDistance():
                changes = {"working_distance_m": action.working_distance_m}
            case SetStigmator():
                changes = {"stigmator_x": action.x, "stigmator_y": action.y}
            case SetBeamShift():
                changes = {"beam_shift_x_m": action.x_m, "beam_shift_y_m": action.y_m}
            case SetBlanked():
                changes = {"blanked": action.blanked}
            case MoveStage():
                return replace(state, stage=replace(state.stage, x_m=action.x_m))
            case SetScan():
                return replace(state, scan=replace(state.scan, dwell_s=action.dwell_s))
        return replace(state, optics=replace(state.optics, **changes))


class Served:
    """A server with its microscope, in a thread as `semagent serve` has it in a process."""

    def __init__(self, *, shift_s=0.0, armed=True, bind="tcp://127.0.0.1:*", keys=None, **limits):
        clock = ShiftedClock(shift_s)
        self.microscope = BenchMicroscope(clock)
        envelope = parse_options({**ENVELOPE, **limits}, Envelope, where="test")
        self.server = MicroscopeServer(self.microscope, envelope, bind=bind, keys=keys, clock=clock)
        self.endpoint = self.server.endpoint
        self.stop = threading.Event()
        self.arm_again = threading.Event()
        self.error = None
        if armed:
            self.server.arm()
        self._thread = threading.Thread(target=self._run, name="test-server")
        self._thread.start()

    def _run(self):
        try:
            self.server.run(self.stop, self.arm_again)
        except SemagentError as error:
            self.error = error

    def end(self):
        self.stop.set()
        if self.microscope.jam is not None:
            self.microscope.jam.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


class Cable:
    """A TCP relay to ``endpoint`` whose plug can be pulled: bytes then wait, as in a real one."""

    def __init__(self, endpoint):
        self._far = ("127.0.0.1", int(endpoint.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._plugged = threading.Event()
        self._plugged.set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="test-cable")
        self._thread.start()

    def pull(self):
        self._plugged.clear()

    def plug(self):
        self._plugged.set()

    def end(self):
        self._ended.set()
        self._plugged.set()
        self._thread.join(PATIENCE_S)

    def _run(self):
        pairs = {}
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
            selector.register(stack.enter_context(self._listener), selectors.EVENT_READ)
            while not self._ended.is_set():
                for key, _ in selector.select(0.01):
                    self._plugged.wait()
                    if key.fileobj is self._listener:
                        near = stack.enter_context(self._listener.accept()[0])
                        far = stack.enter_context(socket.create_connection(self._far))
                        pairs.update({near: far, far: near})
                        for end in (near, far):
                            selector.register(end, selectors.EVENT_READ)
                    elif not self._relay(key.fileobj, pairs[key.fileobj]):
                        selector.unregister(key.fileobj)

    @staticmethod
    def _relay(source, sink):
        try:
            data = source.recv(65536)
            sink.sendall(data)
        except OSError:
            data = b""
        if not data:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
        return bool(data)


def eventually(condition):
    """Wait until ``condition()`` holds, or fail."""
    deadline_s = time.perf_counter() + PATIENCE_S
    while not condition():
        assert time.perf_counter() < deadline_s, "it did not come about"
        time.sleep(0.005)


def _open_files():
    process = psutil.Process()
    return process.num_fds() if os.name == "posix" else len(process.net_connections())


@pytest.fixture(scope="session", autouse=True)
def zero_copy_thread():
    """pyzmq keeps one thread for all zero-copy messages of a process, from the first one on."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as two:
        one.bind("inproc://warm-up")
        two.connect("inproc://warm-up")
        two.send(bytes(zmq.COPY_THRESHOLD + 1), copy=False)
        one.recv()


@pytest.fixture(autouse=True)
def nothing_left(zero_copy_thread):
    """Threads and sockets have to be gone after every test."""
    threads, files = set(threading.enumerate()), _open_files()
    yield
    eventually(lambda: set(threading.enumerate()) <= threads)
    eventually(lambda: _open_files() <= files)


@pytest.fixture
def serving():
    """Makes servers; ends them after the test."""
    servers = []

    def serve(**options):
        servers.append(Served(**options))
        return servers[-1]

    yield serve
    for server in servers:
        server.end()


@pytest.fixture
def connect():
    """Opens clients; closes them after the test."""
    clients = []

    def client(endpoint, **options):
        clients.append(open_microscope({"endpoint": endpoint, **options}, clock=SystemClock()))
        return clients[-1]

    yield client
    for opened in clients:
        opened.close()


@pytest.fixture
def cable():
    """Lays cables; rolls them up after the test."""
    cables = []

    def lay(endpoint):
        cables.append(Cable(endpoint))
        return cables[-1]

    yield lay
    for laid in cables:
        laid.end()


@pytest.fixture
def in_background():
    """Runs a call in a thread; its outcome, a value or an exception, is asked for later."""
    threads = []

    class Call:
        def __init__(self, function, *arguments):
            self._result = []
            self._thread = threading.Thread(target=self._run, args=(function, *arguments))
            self._thread.start()
            threads.append(self._thread)

        def _run(self, function, *arguments):
            try:
                self._result.append(function(*arguments))
            except MicroscopeError as error:
                self._result.append(error)

        def outcome(self, within_s=PATIENCE_S):
            self._thread.join(within_s)
            assert self._result, f"still going on after {within_s} s"
            return self._result[0]

    yield Call
    for thread in threads:
        thread.join(PATIENCE_S)


@pytest.fixture(name="eventually")
def eventually_fixture():
    return eventually


@pytest.fixture
def envelope_json():
    """The envelope, for a server in a process of its own."""
    return json.dumps(ENVELOPE)


@pytest.fixture
def mute_listener():
    """Something that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
