"""The bus between processes: ZeroMQ over loopback, each socket owned by one thread.

The role's own thread publishes, and feeds the record, whose back-pressure has to reach it.
Everything else belongs to the I/O thread, which always drains what comes in, so that a busy role
never makes frames grow old in a queue, and which sends the signs of life while the role is busy.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import psutil
import zmq

from semagent import wire
from semagent.admission import Admission, with_secret
from semagent.bus.base import Delivered, Mailbox, Tray
from semagent.channels import CHANNELS, HEARTBEAT_RATE_HZ, Role
from semagent.clock import SystemClock
from semagent.errors import RecordError, RoleError, WireError
from semagent.types import Event, Heartbeat, Pixels, Reply, Value
from semagent.wire import Message

LOOPBACK = "tcp://127.0.0.1:*"
_USER = b"semagent"
_HIGH_WATER = 64
_RECORD_HIGH_WATER = 8
_RECORD_POLL_S = 0.1
_SUBSCRIBED = b"\x01"
_TAKE_UP_S = 2.0
_RETRY_MS = 5
_AT_ONCE = 64
"""Messages taken from one socket in a turn: who sends on and on must not keep out the others."""


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Where one role can be reached.

    Attributes:
        publisher: what it says.
        pulse: its signs of life.
        services: channels it serves.
        recorder: where the record takes messages, if it is the record role.
    """

    publisher: str
    pulse: str
    services: dict[str, str] = {}
    recorder: str | None = None


class ZmqBus:
    """One role's end of the bus between processes; see `semagent.bus.base.Bus`.

    Construction binds; `connect` makes the other roles known and starts the traffic, after the
    role has said with `subscribe` and `serve` what it wants to hear.

    Args:
        role: whose end this is.
        token: secret of this run; a peer without it is turned away.
        serves: channel this role serves, if any.
        collects: bind the record's socket; only the record role does.
        rebind: the endpoints of an earlier process of this role, to take its place.
        record_timeout_s: how long `publish` waits for a record that does not keep up.
    """

    def __init__(
        self,
        role: Role,
        token: str,
        *,
        serves: str | None = None,
        collects: bool = False,
        rebind: Endpoints | None = None,
        record_timeout_s: float = 10.0,
    ) -> None:
        self._role = role
        self._token = token
        self._record_timeout_s = record_timeout_s
        self._context = zmq.Context()
        self._admission = Admission(self._context, with_secret(_USER, token.encode()))

        # XPUB is a PUB that can be asked who listens; verbose, so that everyone is counted.
        self._publisher = self._bound(zmq.XPUB, rebind.publisher if rebind else LOOPBACK)
        self._publisher.xpub_verbose = True
        self._pulse = self._bound(zmq.PUB, rebind.pulse if rebind else LOOPBACK)
        self._router: zmq.Socket[bytes] | None = None
        self._serves = serves
        services: dict[str, str] = {}
        if serves is not None:
            address = rebind.services[serves] if rebind else LOOPBACK
            self._router = self._bound(zmq.ROUTER, address)
            services[serves] = _endpoint(self._router)
        self._collector: zmq.Socket[bytes] | None = None
        if collects:
            address = (rebind.recorder if rebind else None) or LOOPBACK
            self._collector = self._bound(zmq.PULL, address, high_water=_RECORD_HIGH_WATER)
        self.endpoints = Endpoints(
            publisher=_endpoint(self._publisher),
            pulse=_endpoint(self._pulse),
            services=services,
            recorder=_endpoint(self._collector) if self._collector else None,
        )

        self._outbox: zmq.Socket[bytes] = self._context.socket(zmq.PAIR)
        self._outbox_end: zmq.Socket[bytes] = self._context.socket(zmq.PAIR)
        self._outbox.set_hwm(_HIGH_WATER)
        self._outbox_end.bind("inproc://outbox")
        self._outbox.connect("inproc://outbox")
        self._record: zmq.Socket[bytes] | None = None
        self._dealers: dict[str, zmq.Socket[bytes]] = {}
        self._mailboxes: list[Mailbox] = []
        self._subscribers: list[tuple[zmq.Socket[bytes], Mailbox]] = []

        self._record_stopped = threading.Event()
        self._unsent: list[tuple[float, zmq.Socket[bytes], list[Any]]] = []
        self._numbers: dict[str, int] = {}
        self._arrived = threading.Event()
        self._delivered: Tray[Delivered] = Tray(self._arrived.set)
        self._answers: Tray[Any] = Tray(self._arrived.set)
        self._on_urgent: Callable[[Any], None] | None = None
        self._refused = 0
        self._beat: tuple[int | None, int, int] = (None, 0, 0)
        self._beats = 0
        self._clock = SystemClock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._closed = False

    @property
    def role(self) -> Role:
        """See `Bus`."""
        return self._role

    def connect(self, roles: dict[Role, Endpoints]) -> None:
        """Make the other roles known and start the traffic."""
        for role, endpoints in roles.items():
            if endpoints.recorder is not None and role is not self._role:
                self._record = self._connected(
                    zmq.PUSH, endpoints.recorder, high_water=_RECORD_HIGH_WATER
                )
                self._record.sndtimeo = round(min(self._record_timeout_s, _RECORD_POLL_S) * 1000)
            for channel, address in endpoints.services.items():
                if role is not self._role:
                    self._dealers[channel] = self._connected(zmq.DEALER, address)
        for mailbox in self._mailboxes:
            subscriber = self._socket(zmq.SUB)
            subscriber.subscribe(mailbox.channel)
            for role in CHANNELS[mailbox.channel].publishers:
                if role in roles and role is not self._role:
                    there = roles[role]
                    beats = mailbox.channel == "heartbeat"
                    subscriber.connect(there.pulse if beats else there.publisher)
            self._subscribers.append((subscriber, mailbox))
        self._thread = threading.Thread(target=self._run, name=f"bus-{self._role}", daemon=True)
        self._thread.start()

    def publish(self, channel: str, value: Any, pixels: Pixels | None = None) -> None:
        """See `Bus`."""
        number = self._numbers[channel] = self._numbers.get(channel, 0) + 1
        parts = wire.encode(
            Message(topic=channel, sender=self._role, number=number, value=value, pixels=pixels)
        )
        if self._record is not None and CHANNELS[channel].recorded:
            self._hand_to_record(self._record, channel, parts)
            if self.record_lost and pixels is not None:
                raise RecordError(f"the record is lost: a {channel} that is not kept is not shown")
        self._publisher.send_multipart(parts, copy=False)

    @property
    def record_lost(self) -> bool:
        """Whether `stop_recording` was called."""
        return self._record_stopped.is_set()

    def stop_recording(self) -> None:
        """The record is lost: publish what has no pixels all the same. Safe in any thread."""
        self._record_stopped.set()

    @property
    def listens(self) -> tuple[str, ...]:
        """The channels subscribed to, one entry for every subscription."""
        return tuple(mailbox.channel for mailbox in self._mailboxes)

    def await_listeners(self, listeners: Mapping[Role, Sequence[str]], timeout_s: float) -> None:
        """Return when everybody listens; what is published from now on is missed by nobody.

        Args:
            listeners: the channels each role listens to, as its `listens` says.
            timeout_s: how long to wait.

        Raises:
            RoleError: somebody does not listen by then.
        """
        missing = Counter(
            channel
            for role, channels in listeners.items()
            for channel in channels
            if role is not self._role
            and channel != "heartbeat"  # comes again and again
            and self._role in CHANNELS[channel].publishers
        )
        until_s = time.perf_counter() + timeout_s
        while missing:
            remaining_s = until_s - time.perf_counter()
            if remaining_s <= 0 or not self._publisher.poll(round(remaining_s * 1000)):
                raise RoleError(
                    f"within {timeout_s:g} s not everybody listened to the {self._role} role: "
                    f"{missing.total()} subscriptions are missing ({', '.join(sorted(missing))})"
                )
            news = self._publisher.recv()
            if news.startswith(_SUBSCRIBED):
                missing -= Counter([news[1:].decode()])

    def _hand_to_record(self, record: "zmq.Socket[bytes]", channel: str, parts: list[Any]) -> None:
        until_s = time.perf_counter() + self._record_timeout_s
        while not self.record_lost:
            try:
                record.send_multipart(parts, copy=False)
            except zmq.Again as error:
                if time.perf_counter() >= until_s:
                    raise RecordError(
                        f"the record did not take a message of channel {channel!r} within "
                        f"{self._record_timeout_s:g} s: the disk is too slow or the record role "
                        "died"
                    ) from error
            else:
                return

    def subscribe(self, channel: str) -> Mailbox:
        """See `Bus`; before `connect`."""
        mailbox = Mailbox(channel, self._arrived.set)
        self._mailboxes.append(mailbox)
        return mailbox

    def serve(self, channel: str, on_urgent: Callable[[Any], None] | None = None) -> None:
        """See `Bus`; before `connect`, and the channel is the one named at construction."""
        if channel != self._serves:
            raise RoleError(f"the {self._role} role was not set up to serve {channel!r}")
        self._on_urgent = on_urgent

    def deliveries(self) -> list[Delivered]:
        """See `Bus`."""
        return self._delivered.take()

    def send(self, channel: str, value: Any) -> None:
        """See `Bus`."""
        if channel not in self._dealers:
            raise RoleError(f"no role serves {channel!r}")
        self._hand_over(b"S", channel.encode(), *self._encode(channel, value))

    def answers(self) -> list[Any]:
        """See `Bus`."""
        return self._answers.take()

    def wait(self, timeout_s: float) -> None:
        """See `Bus`."""
        self._arrived.wait(timeout_s)
        self._arrived.clear()
        if self._failure is not None:
            raise RoleError(f"the bus of the {self._role} role failed: {self._failure}")

    def beat(self, *, busy: bool, processed: int, skipped: int) -> None:
        """See `Bus`."""
        since_ns = self._clock.monotonic_ns() if busy else None
        self._beat = (since_ns, processed, skipped)

    def collect(self, timeout_s: float) -> Message | None:
        """The next message for the record, or ``None`` after ``timeout_s``.

        Raises:
            RoleError: this is not the record role's end.
            WireError: the message cannot be read.
        """
        collector = self._collector
        if collector is None:
            raise RoleError(f"the {self._role} role does not collect the record")
        if not collector.poll(round(timeout_s * 1000)):
            return None
        return wire.decode([part.buffer for part in collector.recv_multipart(copy=False)])

    def close(self) -> None:
        """See `Bus`. Messages for the record are given two seconds to leave."""
        if self._closed:
            return
        self._closed = True
        self._stopping.set()
        if self._thread is not None:
            with suppress(zmq.Again):  # it is on its way out already
                self._outbox.send_multipart([b"Q", b""], zmq.NOBLOCK)
            self._thread.join()
        # A subscription that waits for a peer which is gone has nothing to say any more.
        subscribers = (subscriber for subscriber, _ in self._subscribers)
        for socket in (self._outbox, self._collector, *subscribers):
            if socket is not None:
                socket.close(linger=0)
        if self._record is not None:
            self._record.close(linger=0 if self.record_lost else 2000)
        for other in (
            self._publisher,
            self._pulse,
            self._router,
            self._outbox_end,
            self._admission.socket,
            *self._dealers.values(),
        ):
            if other is not None:
                other.close(linger=200)
        self._context.term()

    # -- the I/O thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._serve_sockets()
        except Exception as error:  # noqa: BLE001 - the top of this thread: told to the role
            self._failure = error
            self._arrived.set()

    def _serve_sockets(self) -> None:
        poller = zmq.Poller()
        readers: dict[Any, Callable[[list[Any]], None]] = {self._outbox_end: self._forward}
        for dealer in self._dealers.values():
            readers[dealer] = self._take_answer
        if self._router is not None:
            readers[self._router] = self._take_delivery
        for subscriber, mailbox in self._subscribers:
            readers[subscriber] = partial(_put, mailbox)
        for socket in (*readers, self._admission.socket):
            poller.register(socket, zmq.POLLIN)
        period_s = 1.0 / HEARTBEAT_RATE_HZ
        next_beat_s = 0.0
        while not self._stopping.is_set():
            now_s = time.perf_counter()
            if now_s >= next_beat_s:
                self._send_heartbeat()
                next_beat_s = now_s + period_s
            self._send_waiting()
            timeout_ms = _RETRY_MS if self._unsent else round((next_beat_s - now_s) * 1000)
            for socket, _ in poller.poll(max(0, timeout_ms)):
                if socket is self._admission.socket:
                    self._admission.answer()
                else:
                    self._drain(socket, readers[socket])
        # What the role has said last still has to leave.
        while self._drain(self._outbox_end, self._forward):
            pass

    def _drain(self, socket: Any, read: Callable[[list[Any]], None]) -> bool:
        """Read what is there; ``False`` if that was all."""
        for _ in range(_AT_ONCE):
            try:
                parts = socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            try:
                read([part.buffer for part in parts])
            except WireError:
                self._refused += 1
        return True

    def _forward(self, parts: list[Any]) -> None:
        kind, address, *rest = parts
        match bytes(kind):
            case b"S":
                until_s = time.perf_counter() + _TAKE_UP_S
                self._unsent.append((until_s, self._dealers[bytes(address).decode()], rest))
                self._send_waiting()
            case b"A" if self._router is not None:
                self._router.send_multipart([address, *rest])

    def _send_waiting(self) -> None:
        """Send what can be sent; drop what nobody has been there to take for too long.

        The sender's deadline for the answer tells it of a loss; an old command must not come
        through later.
        """
        waiting, self._unsent = self._unsent, []
        for until_s, dealer, parts in waiting:
            try:
                dealer.send_multipart(parts, zmq.NOBLOCK)
            except zmq.Again:
                if time.perf_counter() < until_s:
                    self._unsent.append((until_s, dealer, parts))
                else:
                    self._refused += 1

    def _take_delivery(self, parts: list[Any]) -> None:
        identity, *rest = parts
        message = wire.decode(rest)
        if message.topic != self._serves:
            raise WireError(f"{message.topic} is not served here")
        value = message.value
        if self._on_urgent is not None:
            self._on_urgent(value)
        sender = bytes(identity)

        def answer(reply: Value) -> None:
            self._hand_over(b"A", sender, *self._encode(_answer_topic(reply), reply))

        self._delivered.put(Delivered(value, answer))

    def _take_answer(self, parts: list[Any]) -> None:
        self._answers.put(wire.decode(parts).value)

    def _send_heartbeat(self) -> None:
        busy_since_ns, processed, skipped = self._beat
        heartbeat = Heartbeat(
            role=self._role,
            monotonic_ns=self._clock.monotonic_ns(),
            busy_since_ns=busy_since_ns,
            processed=processed,
            skipped=skipped,
            missing=sum(mailbox.missing for mailbox in self._mailboxes),
            refused=self._refused,
            rss_bytes=_resident_memory(),
        )
        self._beats += 1
        message = Message(topic="heartbeat", sender=self._role, number=self._beats, value=heartbeat)
        self._pulse.send_multipart(wire.encode(message))

    # -- sockets ------------------------------------------------------------------------------

    def _hand_over(self, kind: bytes, address: bytes, *parts: Any) -> None:
        if self._failure is not None:
            raise RoleError(f"the bus of the {self._role} role failed: {self._failure}")
        self._outbox.send_multipart([kind, address, *parts], copy=False)

    def _encode(self, topic: str, value: Value) -> list[Any]:
        return wire.encode(Message(topic=topic, sender=self._role, number=0, value=value))

    def _socket(self, kind: int, high_water: int = _HIGH_WATER) -> "zmq.Socket[bytes]":
        socket = self._context.socket(kind)
        socket.set_hwm(high_water)
        socket.plain_username = _USER
        socket.plain_password = self._token.encode()
        return socket

    def _connected(
        self, kind: int, address: str, high_water: int = _HIGH_WATER
    ) -> "zmq.Socket[bytes]":
        socket = self._socket(kind, high_water)
        # A command must not wait in a queue for a process that is not there.
        socket.immediate = kind == zmq.DEALER
        socket.connect(address)
        return socket

    def _bound(self, kind: int, address: str, high_water: int = _HIGH_WATER) -> "zmq.Socket[bytes]":
        socket = self._context.socket(kind)
        socket.set_hwm(high_water)
        socket.plain_server = True
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            # Nobody gets to close a bus whose construction failed.
            self._context.destroy(linger=0)
            raise RoleError(f"the {self._role} role cannot listen on {address}: {error}") from error
        return socket


def _put(mailbox: Mailbox, parts: list[Any]) -> None:
    mailbox.put(wire.decode(parts))


def _endpoint(socket: "zmq.Socket[bytes]") -> str:
    return str(socket.getsockopt_string(zmq.LAST_ENDPOINT))


def _answer_topic(value: Value) -> str:
    match value:
        case Reply():
            return "reply"
        case Event():
            return "event"
    raise RoleError(f"{type(value).__name__} is no answer")


_process = psutil.Process()


def _resident_memory() -> int:
    return int(_process.memory_info().rss)
