"""A browser's WebSocket: who may open it, and that a slow one sees new frames, not old ones."""

import asyncio
import functools
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import uvicorn
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from semagent.bus import LocalBus, LocalHub
from semagent.channels import Role
from semagent.clock import ManualClock, SystemClock
from semagent.console import RunFacts, viewer
from semagent.console.access import Level
from semagent.console.facts import Board
from semagent.console.packets import Packer
from semagent.console.viewer import Viewer
from semagent.testing.engines import figures_of, frame_of
from semagent.types import Event, FocusBelief, GateStatus, Grid
from semagent.types import Level as Severity

from .bench import TOKENS, Run


@contextmanager
def watching(run: Run, token: str = TOKENS.operator, **changes: Any) -> Iterator[ClientConnection]:
    headers = {"Cookie": run.cookie(token), **changes.pop("headers", {})}
    given = {"origin": run.origin, "additional_headers": headers, **changes}
    with connect(f"ws://127.0.0.1:{run.port}/live", **given) as socket:
        yield socket


def receive(socket: ClientConnection, wanted: Callable[[Any], bool]) -> Any:
    """The next message that is wanted; facts are acknowledged on the way."""
    while True:
        message = socket.recv(timeout=10)
        value = unpack(message) if isinstance(message, bytes) else json.loads(message)
        if "facts" in value:
            socket.send('{"ack": "facts"}')
        if wanted(value):
            return value


def unpack(packet: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<I", packet)
    return {**json.loads(packet[4 : 4 + length]), "body": packet[4 + length :]}


def newest(value: Any) -> int | None:
    frame = (value.get("facts") or {}).get("frame")
    return frame and int(frame["sequence"])


def a_frame(value: Any) -> bool:
    return "body" in value


def test_the_greeting_says_what_one_may_do_and_within_which_limits(run: Run):
    for token, level in ((TOKENS.operator, "operator"), (TOKENS.viewer, "viewer")):
        with watching(run, token) as socket:
            hello = json.loads(socket.recv(timeout=10))["hello"]
            assert hello["level"] == level
            assert hello["instrument"] == "Simulated SEM"
            assert hello["restores"] is True
            assert hello["limits"]["working_distance"]["max_step"] == 0.0002
            assert hello["capabilities"]["verified_on"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": "http://evil.example"},
        {"origin": None},
        {"headers": {"Cookie": "semagent-1=no"}},
    ],
)
def test_a_stranger_gets_no_socket(run: Run, changes: dict[str, Any]):
    with pytest.raises(InvalidStatus), watching(run, **changes):
        pass


def test_those_who_look_on_do_not_keep_an_operator_out(run: Run):
    with ExitStack() as held:
        for _ in range(16):
            held.enter_context(watching(run, TOKENS.viewer))
        late = held.enter_context(watching(run, TOKENS.viewer))
        with pytest.raises(ConnectionClosed, match="16 browsers look on already"):
            late.recv(timeout=10)
        operator = held.enter_context(watching(run))
        assert "hello" in json.loads(operator.recv(timeout=10))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lossless_pixels_arrive_as_they_are(run: Run, dtype: Any):
    pixels = np.random.default_rng(2).integers(0, np.iinfo(dtype).max, (30, 41), dtype=dtype)
    run.expose(frame_of(pixels))
    with watching(run) as socket:
        frame = receive(socket, a_frame)
    assert frame["kind"] == "raw"
    assert frame["header"]["sequence"] == 1
    # The browser looks at the pixels in place, so they have to lie where two bytes may begin.
    assert (len(frame["body"]) - pixels.nbytes) == 0
    np.testing.assert_array_equal(
        np.frombuffer(frame["body"], dtype).reshape(frame["height"], frame["width"]), pixels
    )


def test_compact_frames_of_two_bytes_say_which_greys_they_span(run: Run):
    ramp = np.tile(np.linspace(1000, 3000, 256).astype(np.uint16), (64, 1))
    with watching(run) as socket:
        socket.send('{"coding": "compact", "ping": 1}')
        receive(socket, lambda value: "pong" in value)  # the wish has been read
        run.expose(frame_of(ramp))
        frame = receive(socket, a_frame)
    low, high = frame["limits"]
    assert low == pytest.approx(1000, abs=20)
    assert high == pytest.approx(3000, abs=60)
    grey = cv2.imdecode(np.frombuffer(frame["body"], np.uint8), cv2.IMREAD_GRAYSCALE)
    again = low + grey.astype(float) / 255 * (high - low)
    assert np.abs(again - ramp).mean() < 20


def test_a_slow_browser_gets_the_newest_frame_and_is_told_what_it_missed(run: Run, pixels: Any):
    run.expose(frame_of(pixels))
    with watching(run) as socket:
        assert receive(socket, a_frame)["header"]["sequence"] == 1
        for sequence in range(2, 8):
            run.expose(frame_of(pixels, sequence=sequence))
        # Not acknowledged yet, so nothing more is on its way: facts overtake the frame.
        seen = receive(socket, lambda value: a_frame(value) or newest(value) == 7)
        assert not a_frame(seen)
        socket.send('{"ack": "raw"}')
        frame = receive(socket, a_frame)
    assert frame["header"]["sequence"] == 7
    assert frame["dropped"] == 5


def test_facts_go_along_with_a_frame_that_comes_in_time(run: Run, pixels: Any):
    """A browser lays its page out once for both; alone, facts wait a little longer."""
    run.expose(frame_of(pixels))
    with watching(run) as socket:
        receive(socket, lambda value: newest(value) == 1)
        socket.send('{"ack": "raw"}')
        time.sleep(0.25)  # facts may go with a frame now, but not alone yet
        run.expose(frame_of(pixels, sequence=2))
        assert receive(socket, a_frame)["header"]["sequence"] == 2
        socket.send('{"ping": 1}')  # answered at once
        following = receive(socket, lambda value: "pong" in value or newest(value) == 2)
    assert newest(following) == 2


def test_a_frame_is_sent_when_the_loop_is_through_with_it(facts: RunFacts, pixels: Any):
    clock = ManualClock()
    hub = LocalHub(clock)
    board = Board(LocalBus(hub, Role.CONSOLE), facts, clock)

    def expose(sequence: int, **changes: Any) -> None:
        header = msgspec.structs.replace(frame_of(pixels, sequence=sequence).header, **changes)
        LocalBus(hub, Role.ACQUIRE).publish("frame", header, pixels)
        board.update()

    def believe(sequence: int) -> None:
        belief = FocusBelief(sequence=sequence, settings_rev=1, frames=1)
        LocalBus(hub, Role.CONTROL).publish("belief", belief)
        board.update()

    assert board.patience_s == 0
    expose(1)
    assert board.patience_s == pytest.approx(0.1)  # nobody waits longer, even for a hung loop
    clock.advance(0.06)
    assert board.patience_s == pytest.approx(0.04)
    believe(1)
    assert board.patience_s == 0
    expose(2)
    believe(1)  # an old belief says nothing of this frame
    assert board.patience_s == pytest.approx(0.8 * 0.06)  # before the next frame is there
    clock.advance(0.05)
    assert board.patience_s == 0
    expose(3, faults=("blank",))
    assert board.patience_s == 0  # the loop does not look at it


def test_restored_frames_come_when_wanted_with_their_maps(run: Run, pixels: Any):
    frame = frame_of(pixels, sequence=3)
    figures = figures_of(
        frame.header,
        consistency=1.25,
        consistency_map=Grid(rows=1, columns=2, values=(0.9, 1.6)),
        expert_weights=(0.3, 0.7),
    )
    with watching(run) as socket:
        run.say("restore", "restored", figures, pixels)
        facts = receive(socket, lambda value: "facts" in value and value["facts"]["restored"])
        assert facts["facts"]["restored"]["consistency_map"] is None  # only beside the pixels
        socket.send('{"want": ["raw", "restored"]}')
        restored = receive(socket, a_frame)
    assert restored["kind"] == "restored"
    assert restored["consistency"] == 1.25
    assert (restored["trustworthy"], restored["empty"]) == (True, False)
    assert restored["consistency_map"]["values"] == [0.9, 1.6]
    assert restored["body"] == pixels.tobytes()


def test_history_and_log_are_sent_once_and_then_what_is_new(run: Run):
    def told(text: str) -> None:
        event = Event(kind="news", role="control", message=text, monotonic_ns=1, wall_ns=1)
        run.say("control", "event", event)

    told("first")
    with watching(run) as socket:
        first = receive(socket, lambda value: value.get("log"))
        assert [entry["text"] for entry in first["log"]] == ["first"]
        told("second")
        second = receive(socket, lambda value: value.get("log"))
        assert [entry["text"] for entry in second["log"]] == ["second"]


def test_a_night_of_frames_that_are_not_used_pushes_nothing_out_of_the_log(facts: RunFacts):
    clock = ManualClock()
    board = Board(LocalBus(LocalHub(clock), Role.CONSOLE), facts, clock)
    board.note(Severity.WARNING, "acquire", "gate_disarmed", "the beam is blanked")
    for number in range(1, 2001):
        seen = board.log.end
        board.note(Severity.WARNING, "acquire", "frame_flagged", f"frame {number} is not used")
        (news,) = board.log.since(seen)
        assert (news.text, news.count) == (f"frame {number} is not used", number)
    board.note(Severity.INFO, "agent", "applied", "a move")
    board.note(Severity.INFO, "operator", "applied", "a move")
    board.note(Severity.INFO, "operator", "applied", "a move")
    lines = [(entry.text, entry.alike, entry.count) for entry in board.log.since(0)]
    assert lines == [
        ("the beam is blanked", None, 1),
        ("frame 2000 is not used", "frames", 2000),
        ("a move", "moves", 1),
        ("a move", None, 1),
        ("a move", None, 1),
    ]


def test_refusals_are_in_the_log_with_their_code(run: Run):
    run.refuse = "too far"
    run.wish({"type": "arm"})
    with watching(run) as socket:
        (entry,) = receive(socket, lambda value: value.get("log"))["log"]
    assert entry["code"] == "range"
    assert entry["level"] == "warning"
    assert entry["text"] == "arm: too far"


def test_the_gate_is_shown_as_it_says_it_is(run: Run):
    with watching(run) as socket:
        run.say("acquire", "gate", GateStatus(armed=True, reason="armed", monotonic_ns=1))
        facts = receive(socket, lambda value: (value.get("facts") or {}).get("gate"))["facts"]
    assert facts["gate"]["armed"] is True


def test_the_clock_is_told_to_whoever_asks(run: Run):
    with watching(run) as socket:
        socket.send('{"ping": 12.5}')
        pong = receive(socket, lambda value: "pong" in value)
    assert pong["pong"] == 12.5
    assert pong["now_ms"] > 0


@pytest.mark.parametrize("text", ["{}x", '{"obey": true}', '{"ack": "everything"}'])
def test_nonsense_ends_the_connection(run: Run, text: str):
    with watching(run) as socket:
        socket.send(text)
        with pytest.raises(ConnectionClosed):
            receive(socket, lambda value: False)


@pytest.fixture
def impatient_server(monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = functools.partial(uvicorn.Config, ws_ping_interval=0.02, ws_ping_timeout=0.02)
    monkeypatch.setattr(uvicorn, "Config", hasty)


@pytest.mark.usefixtures("impatient_server")
def test_a_line_is_not_cut_while_the_page_speaks(run: Run):
    """On a slow one, what the server itself would ask waits behind a large frame."""
    with socket.create_connection(("127.0.0.1", run.port), timeout=10) as link:

        def say(text: str, lead: int = 0x81) -> None:
            link.sendall(bytes([lead, 0x80 | len(text), 0, 0, 0, 0]) + text.encode())

        link.sendall(
            f"GET /live HTTP/1.1\r\nHost: 127.0.0.1:{run.port}\r\nOrigin: {run.origin}\r\n"
            f"Cookie: {run.cookie(TOKENS.operator)}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        for _ in range(20):
            say('{"ping": 1}')
            time.sleep(0.01)
        say('{"ping": 7}')
        heard = b""
        while b'{"pong":7.0' not in heard:
            more = link.recv(65536)
            assert more
            heard += more


class VanishedSocket:
    """A browser that is gone after its first words, while much is on its way to it."""

    def __init__(self) -> None:
        self.words = ['{"ping": 1}']
        self.room = 1

    async def accept(self) -> None: ...

    async def send_text(self, text: str) -> None:
        self.room -= 1
        if self.room < 0:
            await asyncio.Event().wait()

    async def receive_text(self) -> str:
        if not self.words:
            await asyncio.Event().wait()
        return self.words.pop()


@pytest.mark.parametrize("room", [1, 100])
def test_a_browser_that_has_vanished_does_not_keep_its_place(
    facts: RunFacts, room: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(viewer, "_LEFT_S", 0.05)
    clock = SystemClock()
    board = Board(LocalBus(LocalHub(clock), Role.CONSOLE), facts, clock)
    vanished: Any = VanishedSocket()
    vanished.room = room

    async def visit() -> None:
        async with asyncio.timeout(5):
            await Viewer(vanished, board, Packer(), Level.VIEWER, clock).run()

    asyncio.run(visit())


class LeavingSocket:
    """A browser that goes away when it is told to, just as there are news for it."""

    def __init__(self) -> None:
        self.viewer: Viewer | None = None
        self.leaving = asyncio.Event()

    async def serve(self, board: Board) -> "asyncio.Task[None]":
        """Begin to serve it, until it waits for news."""
        this: Any = self
        self.viewer = Viewer(this, board, Packer(), Level.VIEWER, SystemClock())
        served = asyncio.create_task(self.viewer.run())
        for _ in range(20):
            await asyncio.sleep(0)
        return served

    async def accept(self) -> None: ...

    async def send_text(self, text: str) -> None: ...

    async def receive_text(self) -> str:
        assert self.viewer is not None
        await self.leaving.wait()
        self.viewer.wake()
        raise WebSocketDisconnect(1001)


def test_a_browser_that_leaves_just_as_news_come_is_not_served_for_ever(facts: RunFacts):
    clock = SystemClock()
    board = Board(LocalBus(LocalHub(clock), Role.CONSOLE), facts, clock)

    async def visit() -> None:
        socket = LeavingSocket()
        served = await socket.serve(board)
        socket.leaving.set()
        done, _ = await asyncio.wait([served], timeout=5)
        assert done == {served}
        served.result()

    asyncio.run(visit())


class ClosedSocket(LeavingSocket):
    """A browser that turns out to have gone when it is answered; nothing can be sent after that."""

    gone = False

    async def send_text(self, text: str) -> None:
        if self.gone:
            raise RuntimeError('Cannot call "send" once a close message has been sent.')
        if "pong" in text:
            assert self.viewer is not None
            self.viewer.wake()
            self.gone = True
            raise WebSocketDisconnect(1006)

    async def receive_text(self) -> str:
        await self.leaving.wait()
        return '{"ack": "facts", "ping": 1.0}'


def test_a_browser_that_has_left_is_no_fault_of_the_console(
    facts: RunFacts, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(viewer, "_ALONE_S", 0.0)
    clock = SystemClock()
    board = Board(LocalBus(LocalHub(clock), Role.CONSOLE), facts, clock)

    async def visit() -> None:
        socket = ClosedSocket()
        served = await socket.serve(board)
        board.version += 1
        socket.leaving.set()
        await asyncio.wait_for(served, 5)

    asyncio.run(visit())


def test_a_browser_may_leave_before_it_is_greeted(facts: RunFacts):
    clock = SystemClock()
    board = Board(LocalBus(LocalHub(clock), Role.CONSOLE), facts, clock)

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            raise OSError("it has left")

    socket = WebSocket({"type": "websocket"}, receive, send)
    asyncio.run(Viewer(socket, board, Packer(), Level.VIEWER, clock).run())
