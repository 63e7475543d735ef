"""The web server of the console, on a thread of its own."""

import asyncio
import threading
import time
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from semagent.console.listener import Listener
from semagent.errors import RoleError

_START_S = 10.0
_END_S = 5.0
_LONGEST_MESSAGE = 65536


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
                http="h11",
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
