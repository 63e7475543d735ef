"""The web server of the console, on a thread of its own."""

import asyncio
import functools
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from semagent.console.listener import Listener
from semagent.errors import RoleError

_START_S = 10.0
_END_S = 5.0
_LONGEST_MESSAGE = 65536
_IDLE_S = 5.0  # that a connection may take to ask for something
_MOST_IDLE = 256
_BACKLOG = 64  # as many are accepted at once, before any of them can be closed


class _Connection(H11Protocol):
    """Has a while to ask for something, and gives way where too many have not done so.

    A process can have but so many connections, and STOP needs one. TLS begins here, not where
    connections are accepted, so that those count that never get further.

    Args:
        tls: ``None`` for plain HTTP.
        idle: connections that nothing is answered to just now, the longest first; one for all.
    """

    def __init__(
        self,
        *arguments: Any,
        tls: ssl.SSLContext | None,
        idle: dict["_Connection", asyncio.TimerHandle],
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._tls = tls
        self._idle = idle
        self._early = b""

    def connection_made(self, transport: Any) -> None:
        self._raw = self.transport = transport
        if self._tls is None:
            super().connection_made(transport)
        else:
            transport.pause_reading()
            self._securing = asyncio.create_task(self._secure(self._tls))
        self._count()

    async def _secure(self, tls: ssl.SSLContext) -> None:
        secured = None
        with suppress(OSError):
            secured = await asyncio.get_running_loop().start_tls(
                self._raw, self, tls, server_side=True, ssl_shutdown_timeout=_IDLE_S
            )
        if secured is None or self._raw.is_closing():
            self._forget()
            return
        super().connection_made(secured)
        if self._early:
            self.data_received(self._early)

    def data_received(self, data: bytes) -> None:
        if self.scheme is None:  # TLS has just come about, and `_secure` does not know of it yet
            self._early += data
            return
        super().data_received(data)
        unread, _ = self.conn.trailing_data
        if len(unread) > _LONGEST_MESSAGE:  # asks and asks, and waits for no answer
            self.transport.abort()
            return
        self._count()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._count()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _count(self) -> None:
        if self._is_served and not self.transport.is_closing():
            self._forget()
        elif self not in self._idle:
            later = asyncio.get_running_loop().call_later(_IDLE_S, self.transport.close)
            self._idle[self] = later
            if len(self._idle) > _MOST_IDLE:
                longest = next(iter(self._idle))
                longest._forget()
                longest._raw.abort()

    @property
    def _is_served(self) -> bool:
        """Whether it has asked for something, to the end, or has become a WebSocket."""
        asks = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        return self.scheme is not None and not (asks and self in self.connections)

    def _forget(self) -> None:
        if (later := self._idle.pop(self, None)) is not None:
            later.cancel()


class WebServer:
    """uvicorn in a thread with an event loop of its own; serves once the constructor returns.

    Args:
        app: what it serves.
        listener: a bound socket; closed together with the server.
        update: is called on the server's thread after each `wake`.

    Raises:
        RoleError: it does not start.
    """

    def __init__(
        self, app: ASGIApp, listener: Listener, update: Callable[[], None] = lambda: None
    ) -> None:
        self._listener = listener
        self._update = update
        connection = functools.partial(_Connection, tls=listener.tls, idle={})
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=cast("type[asyncio.Protocol]", connection),
                backlog=_BACKLOG,
                ws="websockets-sansio",
                ws_max_size=_LONGEST_MESSAGE,
                ws_per_message_deflate=False,  # pixels hardly get smaller, and it takes time
                ws_ping_interval=None,  # would wait behind a large frame; see `Viewer`
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="console-web", daemon=True)
        self._thread.start()
        until_s = time.perf_counter() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.perf_counter() > until_s:
                raise RoleError(f"the console's web server did not start within {_START_S:g} s")
            time.sleep(0.005)

    def check(self) -> None:
        """Raise `RoleError` if the server has ended."""
        if not self._thread.is_alive():
            raise RoleError("the console's web server has ended")

    def wake(self) -> None:
        """There is news: have `update` called."""
        if self._loop is not None and self._news is not None:
            self._loop.call_soon_threadsafe(self._news.set)

    def close(self) -> None:
        """End the server. May be called twice."""
        self._server.should_exit = True
        self._thread.join(_END_S)
        self._listener.close()

    def _run(self) -> None:
        # The loop that is usual on Windows closes the listener once a client is gone before it
        # was accepted, and nobody could reach STOP any more.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
        watching = asyncio.create_task(self._watch(self._news))
        try:
            await self._server.serve(sockets=[self._listener.socket])
        finally:
            watching.cancel()

    async def _watch(self, news: asyncio.Event) -> None:
        while True:
            await news.wait()
            news.clear()
            self._update()
