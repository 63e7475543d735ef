"""The thread of the server that talks to clients.

It owns the sockets, knows whom the microscope belongs to, and is never held up by the
microscope: signs of life and a stop get through while a frame is being exposed.
"""

import logging
import secrets
import threading
from collections import Counter
from typing import Any

import zmq

from semagent.admission import Admission, seldom, with_known_key
from semagent.clock import Clock
from semagent.errors import ConfigError, DisconnectedError, MicroscopeError, RoleError, WireError
from semagent.keys import ServerKeys, check_endpoint
from semagent.remote.desk import Desk, Job, Session
from semagent.remote.outbox import Outbox
from semagent.remote.protocol import (
    Answer,
    Bye,
    Done,
    Failure,
    Hello,
    Ping,
    Pong,
    Question,
    StopNow,
    Welcome,
    decode_question,
    encode_answer,
    to_failure,
)
from semagent.types import Capabilities

_log = logging.getLogger(__name__)

_TICK_MS = 50
_MAX_QUESTION_BYTES = 65536
_QUESTIONS_AT_ONCE = 64
_LINGER_MS = 500


class Reception:
    """See the module. Construction binds, `start` begins to listen, `close` ends it.

    Args:
        bind: ``tcp://host:port``; ``*`` as the port takes a free one.
        keys: ``None`` only on loopback.
        capabilities: of the microscope, for who says hello.
        desk: where the work goes.
        heartbeat_timeout_s: silence after which a client is taken for lost.

    Raises:
        ConfigError: ``bind`` leaves this machine and there are no keys, or one cannot listen
            there.
    """

    def __init__(
        self,
        bind: str,
        keys: ServerKeys | None,
        *,
        capabilities: Capabilities,
        desk: Desk,
        heartbeat_timeout_s: float,
        clock: Clock,
    ) -> None:
        check_endpoint(bind, has_keys=keys is not None, where="bind")
        self._capabilities = capabilities
        self._desk = desk
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self._clock = clock
        self._owner: Session | None = None
        self._unreadable = 0
        self._kept_waiting: Counter[str] = Counter()
        self._stop = threading.Event()
        self._closing = threading.Event()
        self._outbox = Outbox()
        self._context = zmq.Context()
        self._admission = Admission(self._context, with_known_key(keys.clients)) if keys else None
        self._router: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._router.linger = _LINGER_MS
        self._router.maxmsgsize = _MAX_QUESTION_BYTES
        self._router.router_mandatory = True
        self._router.ipv6 = "[" in bind
        if keys:
            self._router.curve_server = True
            self._router.curve_publickey = keys.public
            self._router.curve_secretkey = keys.secret
        self._thread = threading.Thread(target=self._run, name="remote-reception", daemon=True)
        self._error: Exception | None = None
        try:
            self._router.bind(bind)
        except zmq.ZMQError as error:
            self._release()
            raise ConfigError(f"bind: {bind} cannot be listened on: {error}") from error
        self.endpoint = str(self._router.getsockopt_string(zmq.LAST_ENDPOINT))

    def start(self, stop: threading.Event) -> None:
        """Begin to listen. ``stop`` set means that the server wants to end: so must its work."""
        self._stop = stop
        self._thread.start()

    def answer(self, job: Job, answer: Answer, part: memoryview | None = None) -> None:
        """Send the answer to a job. Safe from any thread."""
        self._outbox.put((job.session.identity, answer, part))

    def check(self) -> None:
        """Look whether all is well.

        Raises:
            RoleError: the thread has died; nothing can be heard any more.
        """
        if self._error is not None:
            raise RoleError(f"the connection thread failed: {self._error!r}") from self._error

    def close(self) -> None:
        """Send what is on its way and let go of the sockets. May be called twice."""
        self._closing.set()
        if self._thread.ident is None:
            self._release()
        else:
            self._outbox.put(None)
            self._thread.join()

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._listen()
        except Exception as error:  # noqa: BLE001 - top of the thread; `check` raises it elsewhere
            self._error = error
            self._desk.cancel(None, "the connection thread failed")
        finally:
            self._release()

    def _listen(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._outbox, zmq.POLLIN)
        if self._admission is not None:
            poller.register(self._admission.socket, zmq.POLLIN)
        ended = False
        while not self._closing.is_set():
            poller.poll(_TICK_MS)
            if self._admission is not None:
                self._admission.answer()
            self._receive()
            self._send_answers()
            now_ns = self._clock.monotonic_ns()
            self._watch_owner(now_ns)
            self._desk.chase(now_ns)
            if self._stop.is_set() and not ended:
                ended = True
                self._desk.cancel(None, "the server is ending")
        self._send_answers()

    def _release(self) -> None:
        self._router.close()
        if self._admission is not None:
            self._admission.socket.close()
        self._outbox.close()
        self._context.term()

    def _receive(self) -> None:
        # Not all there are: who never stops asking must not keep others from their answers.
        for _ in range(_QUESTIONS_AT_ONCE):
            try:
                frames = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            identity, *parts = (frame.bytes for frame in frames)
            try:
                question = decode_question(parts)
            except WireError as error:
                self._unreadable += 1
                if seldom(self._unreadable):
                    _log.warning(
                        "a message was not understood (%d so far): %s", self._unreadable, error
                    )
                self._reply(identity, 0, Failure(code="failed", message=str(error)))
                continue
            self._take(identity, question, _key_name(frames[-1]))

    def _take(self, identity: bytes, question: Question, key_name: str) -> None:
        now_ns = self._clock.monotonic_ns()
        # First: a message that lay in a buffer while the link was down is no sign of life.
        self._watch_owner(now_ns)
        if isinstance(question.ask, Hello):
            self._welcome(identity, question.id, question.ask.who, key_name, now_ns)
            return
        owner = self._owner
        if owner is None or (identity, question.session) != (owner.identity, owner.token):
            gone = DisconnectedError(
                "the microscope PC has let go of this connection, because it heard nothing for "
                f"{self._heartbeat_timeout_s:g} s or was started again; open it again"
            )
            self._reply(identity, question.id, to_failure(gone))
            return
        owner.heard_ns = now_ns
        match question.ask:
            case Ping():
                self._reply(identity, question.id, Pong(monotonic_ns=self._clock.monotonic_ns()))
            case StopNow():
                self._desk.cancel(owner, "it was stopped")
            case Bye():
                self._owner = None
                self._desk.cancel(owner, "the client has left")
                self._reply(identity, question.id, Done())
                _log.info("%s has left", owner.who)
            case work:
                job = Job(owner, question.id, work, question.expires_ns)
                if not self._desk.submit(job):
                    busy = MicroscopeError("the microscope is busy and too many questions wait")
                    self._reply(identity, question.id, to_failure(busy))

    def _welcome(self, identity: bytes, number: int, name: str, key_name: str, now_ns: int) -> None:
        who = f"{name} (key {key_name})" if key_name else name
        if self._owner is not None:
            error = MicroscopeError(
                f"the microscope is in use by {self._owner.who}; close that agent, or wait "
                f"{self._heartbeat_timeout_s:g} s if it has crashed"
            )
            # By key, not by what it calls itself: of keys there is a known number.
            self._kept_waiting[key_name] += 1
            if seldom(count := self._kept_waiting[key_name]):
                _log.warning("%s was refused (%d so far): %s", who, count, error)
            self._reply(identity, number, to_failure(error))
            return
        self._owner = Session(identity, secrets.token_urlsafe(16), who, now_ns)
        self._kept_waiting.clear()
        _log.info("%s has the microscope", who)
        welcome = Welcome(
            session=self._owner.token,
            capabilities=self._capabilities,
            heartbeat_timeout_s=self._heartbeat_timeout_s,
        )
        self._reply(identity, number, welcome)

    def _watch_owner(self, now_ns: int) -> None:
        owner = self._owner
        if owner is None or now_ns - owner.heard_ns <= self._heartbeat_timeout_s * 1e9:
            return
        self._owner = None
        reason = f"no sign of life from {owner.who} for {(now_ns - owner.heard_ns) / 1e9:.1f} s"
        _log.warning("%s: its commands are dropped and the gate is disarmed", reason)
        self._desk.lose(owner, reason)

    # -- answers ------------------------------------------------------------------------------

    def _reply(self, identity: bytes, number: int, result: Any) -> None:
        self._send(identity, Answer(id=number, result=result))

    def _send_answers(self) -> None:
        for item in self._outbox.take():
            if item is not None:
                self._send(*item)

    def _send(self, identity: bytes, answer: Answer, part: memoryview | None = None) -> None:
        parts = [identity, *encode_answer(answer, part)]
        try:
            self._router.send_multipart(parts, zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            # It is gone or does not read. Its time-out tells it, and its silence tells us.
            _log.debug("an answer could not be sent: %s", error)


def _key_name(frame: zmq.Frame) -> str:
    """Name of the key the sender proved to have, as `Admission` found it; else empty."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""
