"""Puts the web application together."""

import asyncio
import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from semagent.clock import Clock
from semagent.console.access import Gatekeeper, Level, Tokens, level_of, why_not
from semagent.console.answers import as_json, in_words
from semagent.console.desk import Desk
from semagent.console.facts import Board
from semagent.console.listener import Listener
from semagent.console.packets import Packer
from semagent.console.shell import body, page
from semagent.console.viewer import Viewer
from semagent.console.wishes import (
    WishNudge,
    WishRefusedError,
    WishStop,
    parse_wish,
    to_command,
    to_request,
)
from semagent.errors import RoleError
from semagent.types import Level as EventLevel

_log = logging.getLogger(__name__)
_HERE = Path(__file__).parent
_MOST_VIEWERS = 16  # of each level: those who look on do not keep an operator out
_LONGEST_WISH = 16384
_ASKED_MS = "semagent-asked-ms"
_LATE_S = 20.0


class Live:
    """The live page and what it talks to."""

    def __init__(self, board: Board, desk: Desk, clock: Clock) -> None:
        self._board = board
        self._desk = desk
        self._clock = clock
        self._packer = Packer()
        self._viewers: set[Viewer] = set()
        self._nudging = asyncio.Lock()  # each starts from where the one before has led
        whole = page("Live", body("live.html"), here="/", scripts=("live.js",))
        self._pages = {
            level: whole.replace('data-level="viewer"', f'data-level="{level}"') for level in Level
        }

    def routes(self) -> list[BaseRoute]:
        """What it serves."""
        return [
            Route("/", self._show),
            Route("/api/facts", self._facts),
            Route("/api/wish", self._wish, methods=["POST"]),
            WebSocketRoute("/live", self._watch),
        ]

    def update(self) -> None:
        """Take in what was said on the bus and let the browsers know."""
        if self._board.update():
            for viewer in self._viewers:
                viewer.wake()

    async def _show(self, request: Request) -> Response:
        return HTMLResponse(self._pages[level_of(request.scope)])

    async def _facts(self, _request: Request) -> Response:
        return as_json(self._board.snapshot())

    async def _watch(self, socket: WebSocket) -> None:
        level = level_of(socket.scope)
        if sum(viewer.level is level for viewer in self._viewers) >= _MOST_VIEWERS:
            await socket.accept()  # a browser is told no reason otherwise
            await socket.close(code=1013, reason=f"{_MOST_VIEWERS} browsers look on already")
            return
        viewer = Viewer(socket, self._board, self._packer, level, self._clock)
        self._viewers.add(viewer)
        try:
            await viewer.run()
        finally:
            self._viewers.discard(viewer)

    async def _wish(self, request: Request) -> Response:
        if (reason := why_not(request)) is not None:
            return _refused(*reason)
        body = await _read(request)
        if body is None:
            return _refused(f"a wish is no longer than {_LONGEST_WISH} bytes", 413)
        try:
            wish = parse_wish(body)
        except WishRefusedError as error:
            return _refused(str(error), 400)
        try:
            asked_ns = self._clock.monotonic_ns()
            if not isinstance(wish, WishStop):
                asked_ns = self._asked_ns(request.headers.get(_ASKED_MS))
            async with self._nudging if isinstance(wish, WishNudge) else nullcontext():
                action = to_command(wish, self._board)
                if action is not None:
                    reply = await self._desk.command(action, asked_ns)
                    self._board.read_back(reply.state, reply.monotonic_ns)
                    said = {"code": reply.code, "reason": reply.reason}
                    return as_json({"outcome": reply.outcome, **said})
            event = await self._desk.request(to_request(wish))
        except WishRefusedError as error:
            self._board.note(EventLevel.WARNING, "console", "refused", str(error))
            return as_json({"outcome": "refused", "code": "console", "reason": str(error)})
        except RoleError as error:
            return as_json({"outcome": "failed", "code": "no_answer", "reason": str(error)})
        if event.kind == "request_refused":
            return as_json({"outcome": "refused", "code": "control", "reason": event.message})
        return as_json({"outcome": "applied", "code": "", "reason": ""})

    def _asked_ns(self, asked_ms: str | None) -> int:
        """When something was asked for: now, where the page cannot say.

        A line that was cut for a while must not arm or move a microscope once it is back.

        Raises:
            WishRefusedError: it was asked for so long ago that it may mean something else by now.
        """
        now_ns = self._clock.monotonic_ns()
        if asked_ms is None:
            return now_ns
        try:
            late_s = now_ns / 1e9 - float(asked_ms) / 1e3
        except ValueError:
            late_s = math.nan
        if math.isnan(late_s):
            raise WishRefusedError(f"{_ASKED_MS}: {asked_ms!r} is no time in ms")
        if late_s > _LATE_S:
            raise WishRefusedError(
                f"this was asked {late_s:.0f} s ago and comes only now, more than {_LATE_S:g} s "
                "later; look again, and ask again"
            )
        return now_ns - round(max(0.0, late_s) * 1e9)


def make_app(routes: Sequence[BaseRoute], tokens: Tokens, listener: Listener) -> ASGIApp:
    """The whole application, behind the gatekeeper."""
    assets = Mount("/static", StaticFiles(directory=_HERE / "static"))
    return Gatekeeper(
        Starlette(routes=[assets, *routes], exception_handlers={Exception: _failed}),
        tokens=tokens,
        hosts=listener.hosts,
        port=listener.port,
        secure=listener.tls is not None,
    )


async def _failed(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return in_words("This page failed; the log says why.", 500)


async def _read(request: Request) -> bytes | None:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST_WISH:
            return None
    return body


def _refused(reason: str, status: int) -> Response:
    return as_json({"outcome": "refused", "code": "console", "reason": reason}, status)
