"""How threads hand things to a thread that waits for sockets."""

import socket
from collections import deque
from typing import Any


class Outbox:
    """A queue whose reader can wait for it in a `zmq.Poller`, beside its sockets.

    ``put`` is safe from any thread, at any time; everything else belongs to the reader. So a
    ZeroMQ socket never has to be touched by another thread than its owner.
    """

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._reading, self._waking = socket.socketpair()
        for end in (self._reading, self._waking):
            end.setblocking(False)

    def put(self, item: Any) -> None:
        """Hand over one thing; after `close` it is dropped."""
        self._items.append(item)
        try:
            self._waking.send(b"\0")
        except BlockingIOError:
            return  # it is full of wake-ups already
        except OSError:
            return  # the reader has gone, and knows why

    def take(self) -> list[Any]:
        """Everything handed over since the last call, in order. Never waits."""
        try:
            while self._reading.recv(4096):
                pass
        except BlockingIOError:
            pass
        items: list[Any] = []
        while self._items:
            items.append(self._items.popleft())
        return items

    def fileno(self) -> int:
        """For the poller."""
        return self._reading.fileno()

    def close(self) -> None:
        """Stop reading. May be called twice."""
        self._reading.close()
        self._waking.close()
