"""Who may connect: the ZeroMQ Authentication Protocol (rfc.zeromq.org/spec/27).

Answered by the thread that owns the other sockets, not by pyzmq's authenticator, whose thread
runs on asyncio and needs more packages on Windows.
"""

import hmac
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import zmq
from zmq.utils import z85

_log = logging.getLogger(__name__)

Judge = Callable[[bytes, Sequence[bytes]], str | None]
"""Name of who shows these credentials under this mechanism; ``None`` turns them away."""


def with_known_key(clients: Mapping[bytes, str]) -> Judge:
    """Let in whoever has proved to own a key on the list: names by public key in Z85."""

    def judge(mechanism: bytes, credentials: Sequence[bytes]) -> str | None:
        if mechanism != b"CURVE" or len(credentials) != 1:
            return None
        return clients.get(z85.encode(credentials[0]))

    return judge


def with_secret(user: bytes, secret: bytes) -> Judge:
    """Let in whoever knows the secret. It crosses the socket in clear: loopback only."""

    def judge(mechanism: bytes, credentials: Sequence[bytes]) -> str | None:
        if mechanism != b"PLAIN" or len(credentials) != 2:
            return None
        name, password = credentials
        known = hmac.compare_digest(name, user) and hmac.compare_digest(password, secret)
        return user.decode() if known else None

    return judge


_AT_ONCE = 64


def seldom(count: int) -> bool:
    """Whether to log what a peer does as often as it likes: the 1st, 10th, 100th … time."""
    return f"{count}".rstrip("0") == "1"


class Admission:
    """Answers for all CURVE or PLAIN servers of a context. Belongs to one thread.

    Args:
        context: the context whose servers ask here.
        judge: who is let in.
    """

    def __init__(self, context: "zmq.Context[Any]", judge: Judge) -> None:
        self._judge = judge
        self._turned_away: Counter[bytes] = Counter()
        self.socket: zmq.Socket[bytes] = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind("inproc://zeromq.zap.01")

    def answer(self) -> None:
        """Answer who has knocked, though not all of a crowd at once. Never waits."""
        for _ in range(_AT_ONCE):
            if not self.socket.poll(0):
                return
            version, request, _domain, address, _identity, mechanism, *credentials = (
                self.socket.recv_multipart()
            )
            name = self._judge(mechanism, credentials)
            if name is None:
                self._turned_away[address] += 1
                if seldom(count := self._turned_away[address]):
                    _log.warning(
                        "turned away a client from %s: it is not among those let in (%d so far)",
                        address.decode("ascii", "replace"),
                        count,
                    )
                verdict = [b"400", b"not let in", b"", b""]
            else:
                verdict = [b"200", b"", name.encode(), b""]
            self.socket.send_multipart([version, request, *verdict])
