"""One browser that looks on, over one WebSocket.

Three streams share it: facts (JSON text), raw frames and restored frames (binary packets). Of
each at most one message is on its way: the next is sent when the browser has acknowledged the
last, and then it is the newest there is. So a slow browser sees fewer frames, never older ones, and
neither memory nor the loop notices it. What it missed is counted and sent along. A page asks what
time it is every two seconds, however slow its line; one that says nothing for long has left.

A browser on the machine of the microscope takes its time from the loop. So a frame is sent when
the loop is through with it, together with what was read from it; see `Board.patience_s`.
"""

import asyncio
from contextlib import suppress
from typing import Any, Literal

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from semagent.clock import Clock
from semagent.console.access import Level
from semagent.console.desk import longest_wait_s
from semagent.console.facts import Board
from semagent.console.packets import Coding, Kind, Packer, figures_of
from semagent.errors import UNREADABLE
from semagent.types import FrameHeader
from semagent.wire import Message

_FACTS_S = 0.2  # between two messages of facts, if there is a frame for them to go along with:
_ALONE_S = 0.3  # a browser lays its page out once for both
_LEFT_S = 90.0  # without a word; a page that nobody sees may be let speak but once a minute


class _Said(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a browser says.

    Attributes:
        ack: the stream whose last message it has dealt with.
        want: streams it wants from now on.
        coding: how frames are to be sent.
        ping: its own clock, to be sent back with this machine's.
    """

    ack: Literal["facts", "raw", "restored"] | None = None
    want: tuple[Kind, ...] | None = None
    coding: Coding | None = None
    ping: float | None = None


_decoder = msgspec.json.Decoder(_Said)


class Viewer:
    """See the module. Belongs to the web server's thread."""

    def __init__(
        self, socket: WebSocket, board: Board, packer: Packer, level: Level, clock: Clock
    ) -> None:
        self._socket = socket
        self._board = board
        self._packer = packer
        self.level = level
        self._clock = clock
        self._news = asyncio.Event()
        self._on_their_way: set[str] = set()
        self._want: tuple[Kind, ...] = ("raw",)
        self._coding: Coding = "lossless"
        self._sent: dict[Kind, int] = {}
        self._dropped: dict[Kind, int] = {"raw": 0, "restored": 0}
        self._version = -1
        self._history = 0
        self._log = 0
        self._facts_at_s = 0.0

    def wake(self) -> None:
        """There may be something to send."""
        self._news.set()

    async def run(self) -> None:
        """Serve the browser until it leaves."""
        try:
            await self._socket.accept()
            await self._send(self._hello())
        except WebSocketDisconnect:
            return
        reader = asyncio.create_task(self._read())
        writer = asyncio.create_task(self._write())
        done, _ = await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        for task in (reader, writer):
            task.cancel()
        await asyncio.gather(reader, writer, return_exceptions=True)
        errors = [error for task in done if (error := task.exception()) is not None]
        # Once one of them finds that the browser has left, the other cannot send any more either.
        if not any(isinstance(error, WebSocketDisconnect | TimeoutError) for error in errors):
            raise errors[0]

    async def _read(self) -> None:
        while True:
            async with asyncio.timeout(_LEFT_S):
                await self._hear(await self._socket.receive_text())

    async def _hear(self, text: str) -> None:
        try:
            said = _decoder.decode(text)
        except UNREADABLE:
            await self._socket.close(code=1003, reason="not understood")
            raise WebSocketDisconnect(1003) from None
        if said.ack is not None:
            self._on_their_way.discard(said.ack)
        self._want = self._want if said.want is None else said.want
        self._coding = said.coding or self._coding
        if said.ping is not None:
            await self._send({"pong": said.ping, "now_ms": self._clock.monotonic_ns() / 1e6})
        self.wake()

    async def _write(self) -> None:
        while True:
            self._news.clear()
            if patience_s := self._board.patience_s:
                await self._await_news(patience_s)
                continue
            framed = await self._send_frame("raw", self._board.frame)
            framed |= await self._send_frame("restored", self._board.restored)
            apart_s = _FACTS_S if framed else _ALONE_S
            rest_s = self._facts_at_s + apart_s - asyncio.get_running_loop().time()
            if rest_s <= 0:
                await self._send_facts()
            await self._await_news(_ALONE_S if rest_s <= 0 else rest_s)

    async def _await_news(self, timeout_s: float) -> None:
        # Not `wait_for`: when news come just then, its Python 3.11 loses the end of this task,
        # which would outlive the browser and keep its place.
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()

    async def _send_frame(self, kind: Kind, message: Message | None) -> bool:
        if message is None or kind not in self._want or kind in self._on_their_way:
            return False
        header: FrameHeader = message.value if kind == "raw" else message.value.header
        last = self._sent.get(kind)
        if header.sequence == last:
            return False
        if kind == "raw" and last is not None:
            self._dropped[kind] += max(0, header.sequence - last - 1)
        self._sent[kind] = header.sequence
        self._on_their_way.add(kind)
        more = {} if kind == "raw" else figures_of(message.value)
        packet = self._packer.pack(message, kind, self._coding, dropped=self._dropped[kind], **more)
        await self._socket.send_bytes(packet)
        return True

    async def _send_facts(self) -> None:
        board = self._board
        if "facts" in self._on_their_way or board.version == self._version:
            return
        self._facts_at_s = asyncio.get_running_loop().time()
        self._on_their_way.add("facts")
        self._version = board.version
        facts = {
            "facts": board.snapshot(),
            "history": board.history.since(self._history),
            "log": board.log.since(self._log),
            "now_ms": self._clock.monotonic_ns() / 1e6,
        }
        self._history, self._log = board.history.end, board.log.end
        await self._send(facts)

    def _hello(self) -> dict[str, Any]:
        run = self._board.run
        safety = run.config.safety
        return {
            "hello": {
                "level": self.level,
                "instrument": run.config.instrument,
                "capabilities": run.capabilities,
                "engine": run.engine,
                "restores": run.config.restoration is not None or run.config.infer.restore,
                "recording": None if run.session is None else run.session.name,
                "longest_wait_s": longest_wait_s(run.config.acquire.frame_timeout_s),
                "specimen_holder": safety.specimen_holder,
                "limits": {
                    "working_distance": safety.working_distance_m,
                    "stigmator": safety.stigmator,
                },
            },
            "now_ms": self._clock.monotonic_ns() / 1e6,
        }

    async def _send(self, value: Any) -> None:
        await self._socket.send_text(msgspec.json.encode(value).decode())
