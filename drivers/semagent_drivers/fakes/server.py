"""A fake microscope that listens on TCP."""

import argparse
import contextlib
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, Self

from semagent_drivers.fakes.trip import Trip

_SLICE_S = 0.05
_SEND_S = 10.0


class FakeServer(ABC):
    """Serves one connection after the other, each on a thread, until closed.

    Args:
        port: to listen on; 0 takes any free one.
    """

    def __init__(self, port: int = 0) -> None:
        self.trip = Trip()
        self.closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(_SLICE_S)
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name=f"{type(self).__name__}")

    @property
    def port(self) -> int:
        """Where it listens, on the loopback interface."""
        return int(self._listener.getsockname()[1])

    @abstractmethod
    def serve(self, connection: socket.socket) -> None:
        """Answer one client. Ends when it returns; an `OSError` or `EOFError` ends it too."""

    def receive(self, connection: socket.socket, size: int) -> bytes:
        """Exactly ``size`` bytes from a client.

        Raises:
            EOFError: the client has gone, or the server is closing.
        """
        data = bytearray()
        while len(data) < size:
            if self.closing.is_set():
                raise EOFError("closing")
            try:
                more = connection.recv(size - len(data))
            except TimeoutError:
                continue
            if not more:
                raise EOFError("the client has gone")
            data += more
        return bytes(data)

    def send(self, connection: socket.socket, data: bytes) -> None:
        """All of ``data`` to a client."""
        connection.settimeout(_SEND_S)
        connection.sendall(data)
        connection.settimeout(_SLICE_S)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.trip.disarm()
        self._acceptor.join()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(_SLICE_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._one_client, args=(connection,))
            self._connections.append(connection)
            self._threads.append(thread)
            thread.start()

    def _one_client(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, EOFError):
            self.serve(connection)


class _Listening(Protocol):
    @property
    def port(self) -> int: ...


def rehearse(
    make: Callable[[int], AbstractContextManager[_Listening]],
    *,
    vendor: str,
    port: int,
    arguments: Sequence[str] | None = None,
) -> None:
    """``python -m semagent_drivers.NAME.fake``: serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=f"A fake {vendor} to rehearse with.")
    parser.add_argument("--port", type=int, default=port, help="where to listen (%(default)s)")
    given = parser.parse_args(arguments)
    with make(given.port) as server:
        print(f"fake {vendor} on 127.0.0.1:{server.port}; Ctrl-C ends", flush=True)
        until_ctrl_c()


def until_ctrl_c() -> None:
    """Let the threads work until somebody presses Ctrl-C.

    Asleep: before Python 3.14, Windows does not interrupt the wait for an event.
    """
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(_SLICE_S)
