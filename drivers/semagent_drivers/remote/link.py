"""The connection to the microscope PC: one thread owns the sockets, the others ask and wait."""

import contextlib
import itertools
import threading
import time
from concurrent.futures import Future, wait

import zmq
from zmq.utils.monitor import parse_monitor_message

from semagent.clock import Clock
from semagent.errors import (
    DisconnectedError,
    MicroscopeError,
    MicroscopeTimeoutError,
    WireError,
)
from semagent.keys import ClientKeys
from semagent.remote.outbox import Outbox
from semagent.remote.protocol import (
    Answer,
    Bye,
    Done,
    Failure,
    Hello,
    Picture,
    Ping,
    Pong,
    Question,
    State,
    StopNow,
    Welcome,
    Work,
    decode_answer,
    encode_question,
    to_error,
)
from semagent.types import Pixels
from semagent_drivers.remote.farclock import FarClock

Result = Welcome | Pong | State | Picture | Done

_BEATS_PER_TIMEOUT = 5
_TICK_MS = 50
_SLICE_S = 0.1
_LINGER_MS = 200
# Far longer than the link outlives its connection. Switched off altogether, ZeroMQ would throw
# away what has arrived and was not read yet, such as the reason for which the server ends.
_NEVER_MS = 3_600_000

_KEYS_DO_NOT_FIT = (
    "the two sides do not trust each other: one has keys and the other has none, or server_key is "
    "not the key of this server; bring its server.key here and start it with its keys"
)
_WHAT_HAPPENED: dict[int, str] = {
    zmq.Event.CLOSED: "nobody listens there; is `semagent serve` running, is the port right, does "
    "a firewall let it through?",
    zmq.Event.DISCONNECTED: "the connection was closed: the server has ended or the network failed",
    zmq.Event.HANDSHAKE_FAILED_AUTH: "our key is not among those the server lets in; put the "
    "public half of client_key into its folder clients and start the server again",
    # Which of the two comes depends on who hangs up first.
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: _KEYS_DO_NOT_FIT,
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: _KEYS_DO_NOT_FIT,
}


class Link:
    """One connection, from `open` until it is lost or closed. It is never made again.

    A broken TCP connection is not taken up again behind our back: what was asked before the
    break must not reach the microscope after it.

    Args:
        endpoint: ``tcp://host:port``.
        keys: ``None`` only on loopback.
        silence_timeout_s: time without any message after which the link is taken for lost.
    """

    def __init__(
        self, endpoint: str, keys: ClientKeys | None, *, clock: Clock, silence_timeout_s: float
    ) -> None:
        self.far_clock = FarClock()
        self._endpoint = endpoint
        self._clock = clock
        self._silence_ns = round(silence_timeout_s * 1e9)
        self._session = ""
        self._beat_ns: int | None = None
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._asked: dict[int, Future[tuple[Result, Pixels | None]]] = {}
        self._pings: dict[int, int] = {}
        self._lost: str | None = None
        self._outbox = Outbox()
        self._context = zmq.Context()
        self._dealer: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._dealer.linger = _LINGER_MS
        self._dealer.reconnect_ivl = _NEVER_MS
        self._dealer.ipv6 = "[" in endpoint
        if keys is not None:
            self._dealer.curve_serverkey = keys.server
            self._dealer.curve_publickey = keys.public
            self._dealer.curve_secretkey = keys.secret
        self._monitor = self._dealer.get_monitor_socket()
        self._dealer.connect(endpoint)
        self._thread = threading.Thread(target=self._run, name="remote-link", daemon=True)
        self._thread.start()

    def open(self, hello: Hello, timeout_s: float) -> Welcome:
        """Ask for the microscope.

        Raises:
            DisconnectedError: nobody answers, or the keys do not fit.
            MicroscopeError: the microscope is in use.
        """
        try:
            welcome, _ = self.ask(hello, timeout_s)
        except MicroscopeTimeoutError as error:
            raise DisconnectedError(
                f"{self._endpoint}: no connection within {timeout_s:g} s; is the name right, is "
                "the machine on, does a firewall let it through?"
            ) from error
        if not isinstance(welcome, Welcome):
            raise DisconnectedError(f"{self._endpoint}: is no semagent server")
        self._session = welcome.session
        self._beat_ns = round(welcome.heartbeat_timeout_s * 1e9 / _BEATS_PER_TIMEOUT)
        return welcome

    def ask(self, ask: Hello | Ping | Work | Bye, timeout_s: float) -> tuple[Result, Pixels | None]:
        """Ask and wait for the answer.

        Raises:
            DisconnectedError: the link is lost.
            MicroscopeTimeoutError: no answer within ``timeout_s`` over a link that works; what
                was asked is not begun any more, or is stopped.
            MicroscopeError: of the class that was raised on the other side.
        """
        asked: Future[tuple[Result, Pixels | None]] = Future()
        with self._lock:
            if self._lost is not None:
                raise DisconnectedError(self._lost)
            number = next(self._numbers)
            self._asked[number] = asked
        self._outbox.put((number, ask, timeout_s))
        deadline_s = time.perf_counter() + timeout_s
        try:
            # In slices: before Python 3.14, Windows lets no Ctrl-C through while one lasts.
            while not asked.done() and (left_s := deadline_s - time.perf_counter()) > 0:
                wait([asked], min(left_s, _SLICE_S))
            return asked.result(0)
        except TimeoutError as error:
            raise MicroscopeTimeoutError(
                f"{self._endpoint}: no answer to {type(ask).__name__} within {timeout_s:g} s"
            ) from error
        finally:
            with self._lock:
                self._asked.pop(number, None)

    def ping(self, timeout_s: float) -> None:
        """Look at the far clock, and wait until that is done.

        Raises:
            MicroscopeError: see `ask`.
        """
        self.ask(Ping(), timeout_s)

    def stop(self) -> None:
        """Send a stop. Safe from any thread; if the link is lost the server stops by itself."""
        self._outbox.put((next(self._numbers), StopNow(), 0.0))

    def close(self, bye: Bye | None = None, timeout_s: float = 0.0) -> None:
        """Say goodbye, if asked to, and end. May be called twice."""
        if bye is not None:
            # If it does not get there, the server finds out by itself.
            with contextlib.suppress(MicroscopeError):
                self.ask(bye, timeout_s)
        self._lose("this microscope was closed")
        self._outbox.put(None)
        self._thread.join()

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._talk()
        except Exception as error:  # noqa: BLE001 - top of the thread; whoever waits is told
            self._lose(f"the connection thread failed: {error!r}")
        finally:
            self._outbox.close()
            self._dealer.disable_monitor()
            self._monitor.close(linger=0)
            self._dealer.close()
            self._context.term()

    def _talk(self) -> None:
        poller = zmq.Poller()
        for source in (self._dealer, self._monitor, self._outbox):
            poller.register(source, zmq.POLLIN)
        heard_ns = self._clock.monotonic_ns()
        next_beat_ns = 0
        while self._lost is None:
            poller.poll(_TICK_MS)
            heard = self._receive()
            self._watch_connection()
            for item in self._outbox.take():
                if item is not None:
                    self._send(*item)
            now_ns = self._clock.monotonic_ns()
            if heard or not self._session:
                heard_ns = now_ns
            elif now_ns - heard_ns > self._silence_ns:
                self._lose(f"no sign of life for {(now_ns - heard_ns) / 1e9:.3g} s")
            if self._beat_ns is not None and now_ns >= next_beat_ns:
                next_beat_ns = now_ns + self._beat_ns
                self._send(next(self._numbers), Ping(), 0.0)

    def _send(
        self, number: int, ask: Hello | Ping | Work | StopNow | Bye, timeout_s: float
    ) -> None:
        now_ns = self._clock.monotonic_ns()
        expires_ns = None
        if isinstance(ask, Ping):
            self._pings[number] = now_ns
        elif isinstance(ask, Work):
            expires_ns = self.far_clock.to_far(now_ns + round(timeout_s * 1e9))
        question = Question(id=number, ask=ask, session=self._session, expires_ns=expires_ns)
        # Nobody to send to: the handshake has just failed, and the monitor is about to say why.
        with contextlib.suppress(zmq.Again):
            self._dealer.send_multipart(encode_question(question), zmq.NOBLOCK)

    def _receive(self) -> bool:
        """Take what has come; whether there was anything."""
        heard = False
        while True:
            try:
                parts = self._dealer.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return heard
            heard = True
            try:
                answer, pixels = decode_answer([part.buffer for part in parts])
            except WireError as error:
                self._lose(str(error))
                return heard
            self._take(answer, pixels)

    def _take(self, answer: Answer, pixels: Pixels | None) -> None:
        sent_ns = self._pings.pop(answer.id, None)
        match answer.result:
            case Pong(monotonic_ns=far_ns) if sent_ns is not None:
                self.far_clock.learn(sent_ns, far_ns, self._clock.monotonic_ns())
            case Failure(message=message) if sent_ns is not None or answer.id == 0:
                # It no longer knows this session, or does not understand what we say.
                self._lose(message)
        with self._lock:
            asked = self._asked.get(answer.id)
            if asked is None or asked.done():
                return  # nobody waits for it any more
            if isinstance(answer.result, Failure):
                asked.set_exception(to_error(answer.result))
            else:
                asked.set_result((answer.result, pixels))

    def _watch_connection(self) -> None:
        while self._lost is None and self._monitor.poll(0):
            event = parse_monitor_message(self._monitor.recv_multipart())["event"]
            if event in _WHAT_HAPPENED:
                self._receive()
                self._lose(_WHAT_HAPPENED[event])

    def _lose(self, reason: str) -> None:
        """Tell everybody who waits, now and later. The first reason stays."""
        with self._lock:
            if self._lost is not None:
                return
            self._lost = f"{self._endpoint}: {reason}"
            for asked in self._asked.values():
                if not asked.done():
                    asked.set_exception(DisconnectedError(self._lost))
