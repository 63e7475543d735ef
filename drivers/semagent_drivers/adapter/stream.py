"""A TCP connection to a microscope: no delay, a deadline on every read, dead after a time-out."""

import socket
import threading
import time
from collections.abc import Callable
from typing import Self

from semagent.errors import AcquisitionStoppedError, DisconnectedError, MicroscopeTimeoutError

_SLICE_S = 0.05
_CHUNK = 1 << 16


class TcpStream:
    """Bytes to and from a peer.

    After a time-out the answer may still come and would be taken for that of the next question;
    so the connection is closed then, and all later calls say that the link is gone.
    """

    def __init__(self, connection: socket.socket, peer: str) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._socket.settimeout(_SLICE_S)
        self._peer = peer
        self._gone: str | None = None
        self._waiting = bytearray()

    @classmethod
    def connect(cls, host: str, port: int, timeout_s: float) -> Self:
        """Connect to a peer that listens.

        Raises:
            DisconnectedError: nobody answers there.
        """
        peer = f"{host}:{port}"
        try:
            connection = socket.create_connection((host, port), timeout=timeout_s)
        except OSError as error:
            raise DisconnectedError(f"{peer} cannot be reached: {error}") from error
        return cls(connection, peer)

    def send(self, data: bytes, timeout_s: float) -> None:
        """Send all of ``data``.

        Raises:
            MicroscopeTimeoutError: the peer does not take it.
            DisconnectedError: the link is gone.
        """
        self._check()
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(data)
        except TimeoutError as error:
            self._lose(f"{self._peer} took no data for {timeout_s:g} s")
            raise MicroscopeTimeoutError(str(self._gone)) from error
        except OSError as error:
            raise self._lose(f"the link to {self._peer} broke: {error}") from error

    def receive(self, size: int, timeout_s: float, stopped: threading.Event | None = None) -> bytes:
        """Exactly ``size`` bytes.

        Raises:
            AcquisitionStoppedError: ``stopped`` was set; what had come is kept for the next call.
            MicroscopeTimeoutError: they did not come in time.
            DisconnectedError: the link is gone.
        """
        self._need(lambda: len(self._waiting) >= size, timeout_s, stopped)
        return self._take(size)

    def peek(self, size: int, timeout_s: float) -> bytes:
        """The next ``size`` bytes, which stay there for the next call. Raises as `receive` does."""
        self._need(lambda: len(self._waiting) >= size, timeout_s)
        return bytes(self._waiting[:size])

    def comes(self, size: int, timeout_s: float, stopped: threading.Event | None = None) -> bool:
        """Whether ``size`` bytes come in time; for peers that may rightly keep silent.

        Raises:
            AcquisitionStoppedError: ``stopped`` was set.
            DisconnectedError: the link is gone.
        """
        return self._fill(lambda: len(self._waiting) >= size, timeout_s, stopped)

    def receive_line(self, end: bytes, timeout_s: float) -> bytes:
        """Everything up to ``end``, without it. Raises as `receive` does."""
        self._need(lambda: end in self._waiting, timeout_s)
        line = self._take(self._waiting.index(end))
        self._take(len(end))
        return line

    def close(self) -> None:
        """Close the connection. May be called twice."""
        self._gone = self._gone or f"the link to {self._peer} is closed"
        self._socket.close()

    def _need(
        self,
        enough: Callable[[], bool],
        timeout_s: float,
        stopped: threading.Event | None = None,
    ) -> None:
        if not self._fill(enough, timeout_s, stopped):
            self._lose(f"{self._peer} did not answer within {timeout_s:g} s")
            raise MicroscopeTimeoutError(str(self._gone))

    def _fill(
        self, enough: Callable[[], bool], timeout_s: float, stopped: threading.Event | None
    ) -> bool:
        self._check()
        deadline_s = time.perf_counter() + timeout_s
        while not enough():
            if stopped is not None and stopped.is_set():
                raise AcquisitionStoppedError(f"stopped while waiting for {self._peer}")
            left_s = deadline_s - time.perf_counter()
            if left_s <= 0:
                return False
            try:
                self._socket.settimeout(min(left_s, _SLICE_S))
                data = self._socket.recv(_CHUNK)
            except TimeoutError:
                continue
            except OSError as error:
                raise self._lose(f"the link to {self._peer} broke: {error}") from error
            if not data:
                raise self._lose(f"{self._peer} closed the link")
            self._waiting += data
        return True

    def _take(self, size: int) -> bytes:
        data = bytes(self._waiting[:size])
        del self._waiting[:size]
        return data

    def _check(self) -> None:
        if self._gone is not None:
            raise DisconnectedError(f"{self._gone}; open the microscope again")

    def _lose(self, reason: str) -> DisconnectedError:
        self.close()
        self._gone = reason
        return DisconnectedError(reason)
