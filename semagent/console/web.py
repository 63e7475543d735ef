"""The web server of the console, on a thread of its own."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from semagent.console.listener import Listener
from semagent.errors import RoleError

_START_S = 10.0
_END_S = 5.0
_LONGEST_MESSAGE = 65536
_IDLE_S = 5.0  # that a connection may take until it asks for something
_MOST_CONNECTIONS = 256
_BACKLOG = 64  # as many are accepted at once, before any of them can be closed


class _Connection(H11Protocol):
    """One that asks for nothing is closed: a process can have but so many, and STOP needs one."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        waits_s = _IDLE_S if len(self.connections) <= _MOST_CONNECTIONS else 0.0
        self._idle = asyncio.get_running_loop().call_later(waits_s, transport.close)

    def data_received(self, data: bytes) -> None:
        self._idle.cancel()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._idle.cancel()
        super().connection_lost(exc)


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
        certificate, key = listener.certificate or (None, None)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=_Connection,
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
                ssl_certfile=certificate,
                ssl_keyfile=key,
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
        asyncio.run(self._serve())

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
