"""When a cable is pulled, a process is killed or a stranger comes."""

import contextlib
import subprocess
import sys
import time

import msgspec
import pytest
import zmq

from semagent.errors import CommandRefusedError, ConfigError, DisconnectedError, MicroscopeError
from semagent.remote import protocol
from semagent.remote.protocol import Answer, Apply, Failure, Hello, Ping, Question, encode_question
from semagent.types import MoveStage, SetStigmator

LONG_S = 60.0
HEARTBEAT_S = 1.0
NOTICED_S = 3.0

CLIENT = """
import sys
from semagent.clock import SystemClock
from semagent_drivers.remote import open_microscope
near = open_microscope({"endpoint": sys.argv[1]}, clock=SystemClock())
print("open", flush=True)
near.acquire(60)
"""

SERVER = """
import sys, threading
from semagent.clock import SystemClock
from semagent.options import parse_options
from semagent.remote.server import MicroscopeServer
from semagent.safety import Envelope
from semagent_drivers.simulated import open_microscope
import json
clock = SystemClock()
slow = {"scan": {"width_px": 256, "height_px": 256, "dwell_us": 500.0}}
microscope = open_microscope(slow, clock=clock)
envelope = parse_options(json.loads(sys.argv[1]), Envelope, where="test")
server = MicroscopeServer(
    microscope, envelope, bind="tcp://127.0.0.1:*", keys=None, clock=clock
)
print(server.endpoint, flush=True)
server.run(threading.Event())
"""

FLOOD = """
import sys, zmq
from semagent.remote.protocol import Hello, Question, encode_question
socket = zmq.Context().socket(zmq.DEALER)
socket.connect(sys.argv[1])
parts = encode_question(Question(id=1, ask=Hello(who="flood")))
for _ in range(1000):
    socket.send_multipart(parts)
print("flooding", flush=True)
while True:
    socket.send_multipart(parts)
    while socket.poll(0):
        socket.recv_multipart()
"""


@pytest.fixture
def process():
    """Starts Python programs and reads their first line; kills them after the test."""
    started = []

    def start(program, argument):
        child = subprocess.Popen(
            [sys.executable, "-c", program, argument], stdout=subprocess.PIPE, text=True
        )
        started.append(child)
        return child, child.stdout.readline().strip()

    yield start
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


# -- the server goes ----------------------------------------------------------------------------


def test_the_server_is_killed_in_the_middle_of_a_frame(
    process, connect, in_background, envelope_json
):
    child, endpoint = process(SERVER, envelope_json)
    near = connect(endpoint)
    call = in_background(near.acquire, LONG_S)
    time.sleep(0.2)
    child.kill()
    outcome = call.outcome(NOTICED_S)
    assert isinstance(outcome, DisconnectedError)
    assert "the server has ended or the network failed" in str(outcome)
    with pytest.raises(DisconnectedError):
        near.read_state()
    near.stop()


def test_nobody_listens(connect, serving):
    far = serving()
    far.end()
    begun_s = time.perf_counter()
    with pytest.raises(DisconnectedError, match="nobody listens there"):
        connect(far.endpoint)
    assert time.perf_counter() - begun_s < NOTICED_S


def test_somebody_else_listens(connect, mute_listener):
    with pytest.raises(DisconnectedError, match=r"no connection within 0\.3 s"):
        connect(mute_listener, connect_timeout_s=0.3, silence_timeout_s=0.1)


# -- the cable is pulled ------------------------------------------------------------------------


def test_a_pulled_cable_is_noticed_on_both_sides_and_nothing_moves(
    serving, connect, cable, in_background, eventually
):
    far = serving()
    line = cable(far.endpoint)
    near = connect(line.endpoint, silence_timeout_s=HEARTBEAT_S)
    near.apply(SetStigmator(x=0.05, y=0.0))
    far.microscope.exposure_s = LONG_S
    far.microscope.begun.clear()
    call = in_background(near.acquire, LONG_S)
    assert far.microscope.begun.wait(NOTICED_S)
    line.pull()
    outcome = call.outcome(NOTICED_S)
    assert isinstance(outcome, DisconnectedError)
    assert "no sign of life" in str(outcome)
    # The exposure has been ended over there, too, and the microscope is free again.
    eventually(lambda: far.microscope.stops > 0)
    far.microscope.exposure_s = 0.0
    other = connect(far.endpoint)
    with pytest.raises(CommandRefusedError, match=r"disarmed: no sign of life from"):
        other.apply(SetStigmator(x=0.1, y=0.0))
    assert len(far.microscope.applied) == 1


def test_a_command_stuck_in_the_cable_is_not_carried_out_later(
    serving, connect, cable, in_background, eventually
):
    far = serving()
    line = cable(far.endpoint)
    near = connect(line.endpoint)
    line.pull()
    call = in_background(near.apply, SetStigmator(x=0.1, y=0.0))
    watcher = connect_when_free(connect, far.endpoint, eventually)
    line.plug()
    outcome = call.outcome(NOTICED_S)
    assert isinstance(outcome, DisconnectedError)
    assert "has let go of this connection" in str(outcome)
    assert far.microscope.applied == []
    state = watcher.read_state()
    assert "no sign of life" in state.barred
    assert msgspec.structs.replace(state, barred="") == far.microscope.state


def test_a_command_that_comes_late_over_a_living_link_is_not_begun(serving, connect, cable):
    far = serving()
    line = cable(far.endpoint)
    near = connect(line.endpoint, move_timeout_s=0.1)
    line.pull()
    with pytest.raises(MicroscopeError, match=r"Apply within 0\.1 s"):
        near.apply(SetStigmator(x=0.1, y=0.0))
    line.plug()
    near.read_state()
    assert far.microscope.applied == []


def connect_when_free(connect, endpoint, eventually):
    """A second client, as soon as the first one has been given up."""
    opened = []

    def try_it():
        with contextlib.suppress(MicroscopeError):
            opened.append(connect(endpoint))
        return bool(opened)

    eventually(try_it)
    return opened[0]


# -- the client goes ----------------------------------------------------------------------------


def test_a_killed_client_loses_the_microscope_and_disarms_it(serving, connect, process, eventually):
    far = serving()
    far.microscope.exposure_s = LONG_S
    child, line = process(CLIENT, far.endpoint)
    assert line == "open"
    assert far.microscope.begun.wait(NOTICED_S)
    child.kill()
    eventually(lambda: far.microscope.stops > 0)
    far.microscope.exposure_s = 0.0
    near = connect_when_free(connect, far.endpoint, eventually)
    assert near.acquire(1.0).header.sequence == 1
    with pytest.raises(CommandRefusedError, match="disarmed: no sign of life from"):
        near.apply(MoveStage(x_m=5e-5))
    assert far.microscope.applied == []


def test_a_client_that_says_goodbye_frees_the_microscope_at_once(serving, connect):
    far = serving()
    connect(far.endpoint).close()
    near = connect(far.endpoint)
    near.apply(SetStigmator(x=0.1, y=0.0))


def test_a_second_client_is_refused_with_the_reason(serving, connect):
    far = serving()
    first = connect(far.endpoint)
    with pytest.raises(MicroscopeError, match=r"in use by .*, process \d+; close that agent"):
        connect(far.endpoint)
    first.apply(SetStigmator(x=0.1, y=0.0))
    assert first.acquire(1.0).header.sequence == 1


def test_a_client_that_never_stops_asking_keeps_nobody_from_an_answer(serving, connect, process):
    far = serving()
    near = connect(far.endpoint, answer_timeout_s=NOTICED_S, silence_timeout_s=NOTICED_S)
    process(FLOOD, far.endpoint)
    for x in (0.1, 0.15, 0.1):
        near.apply(SetStigmator(x=x, y=0.0))
        assert near.read_state().optics.stigmator_x == x


def test_an_idle_client_keeps_the_microscope(serving, connect):
    far = serving(heartbeat_timeout_s=0.5)
    near = connect(far.endpoint)
    time.sleep(1.5)
    near.apply(SetStigmator(x=0.1, y=0.0))


# -- strangers ----------------------------------------------------------------------------------


class Stranger:
    """Says whatever it likes to a server."""

    def __init__(self, endpoint):
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(endpoint)

    def say(self, *parts):
        self._socket.send_multipart(parts)

    def hears(self, within_s):
        return bool(self._socket.poll(round(within_s * 1000)))

    def hear(self):
        assert self.hears(NOTICED_S)
        return self._socket.recv_multipart()

    def close(self):
        self._socket.close()
        self._context.term()


@pytest.fixture
def stranger(serving):
    far = serving()
    caller = Stranger(far.endpoint)
    caller.far = far
    yield caller
    caller.close()


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"semr1"],
        [b"semr1", b"\xc1"],
        [b"semr1", msgspec.msgpack.encode({"id": 1})],
        [b"semr1", msgspec.msgpack.encode({"id": 1, "ask": {"type": "format_disk"}})],
        [b"semr1", b"", b"", b""],
        [b"\x80\x04\x95" * 40, b"cos\nsystem\n(S'true'\ntR."],
    ],
)
def test_nonsense_is_answered_and_does_no_harm(stranger, connect, parts):
    stranger.say(*parts)
    answer, _ = protocol.decode_answer(stranger.hear())
    assert isinstance(answer.result, Failure)
    assert connect(stranger.far.endpoint).read_state() == stranger.far.microscope.state


def test_another_version_is_told_so(stranger):
    stranger.say(b"semr9", b"")
    answer, _ = protocol.decode_answer(stranger.hear())
    assert "install the same release" in answer.result.message


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ([b"semr9", b""], "install the same release"),
        ([b"HTTP/1.1 400 Bad Request"], "install the same release"),
        ([b"semr1", b"\xc1"], "cannot be read"),
    ],
)
def test_a_server_that_is_not_understood(connect, in_background, parts, complaint):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        port = router.bind_to_random_port("tcp://127.0.0.1")
        call = in_background(connect, f"tcp://127.0.0.1:{port}")
        assert router.poll(5000)
        router.send_multipart([router.recv_multipart()[0], *parts])
        outcome = call.outcome(NOTICED_S)
        assert isinstance(outcome, DisconnectedError)
        assert complaint in str(outcome)


def test_without_a_session_nothing_is_done(stranger):
    for session in ("", "guessed"):
        ask = Apply(action=SetStigmator(x=0.1, y=0.0))
        stranger.say(*encode_question(Question(id=1, ask=ask, session=session)))
        answer, _ = protocol.decode_answer(stranger.hear())
        assert answer.result.code == "disconnected"
    assert stranger.far.microscope.applied == []


def test_a_session_overheard_is_of_no_use_to_another_connection(stranger):
    other = Stranger(stranger.far.endpoint)
    try:
        other.say(*encode_question(Question(id=1, ask=Hello(who="somebody"))))
        welcome, _ = protocol.decode_answer(other.hear())
        asked = Question(id=2, ask=Ping(), session=welcome.result.session)
        stranger.say(*encode_question(asked))
        answer, _ = protocol.decode_answer(stranger.hear())
        assert answer == Answer(id=2, result=answer.result)
        assert isinstance(answer.result, Failure)
    finally:
        other.close()


def test_a_huge_question_is_cut_off(stranger, connect):
    stranger.say(b"semr1", bytes(1 << 20))
    assert not stranger.hears(0.3)
    assert connect(stranger.far.endpoint).read_state() == stranger.far.microscope.state


def test_a_port_that_is_taken(serving):
    far = serving()
    with pytest.raises(ConfigError, match=r"bind: tcp://127\.0\.0\.1:\d+ cannot be listened on"):
        serving(bind=far.endpoint)
