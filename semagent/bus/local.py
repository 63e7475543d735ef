"""The bus within one process: the same roles, one after the other or each in a thread."""

import threading
from collections.abc import Callable
from typing import Any

from semagent.bus.base import Delivered, Mailbox, Recorder, Tray
from semagent.channels import CHANNELS, Role
from semagent.clock import Clock
from semagent.errors import RecordError, RoleError
from semagent.types import Heartbeat, Pixels
from semagent.wire import Message


class LocalHub:
    """What the ends of a local bus share."""

    def __init__(self, clock: Clock, recorder: Recorder | None = None) -> None:
        self.clock = clock
        self.recorder = recorder
        self._lock = threading.Lock()
        self._mailboxes: dict[str, list[Mailbox]] = {}
        self._services: dict[str, LocalBus] = {}
        self._record_lost: RecordError | None = None

    def add_mailbox(self, mailbox: Mailbox) -> None:
        """Deliver what is published on the mailbox's channel."""
        with self._lock:
            self._mailboxes.setdefault(mailbox.channel, []).append(mailbox)

    def add_service(self, channel: str, bus: "LocalBus") -> None:
        """Deliver what is sent on ``channel`` to ``bus``.

        Raises:
            RoleError: another role serves it.
        """
        with self._lock:
            if channel in self._services:
                raise RoleError(f"two roles serve {channel!r}")
            self._services[channel] = bus

    def publish(self, message: Message) -> None:
        """Record, then deliver.

        Once the record is lost, what has no pixels is delivered all the same: focus and stage can
        still be put back.

        Raises:
            RecordError: a frame is not kept, and therefore not shown.
        """
        if self.recorder is not None and CHANNELS[message.topic].recorded:
            self._record(self.recorder, message)
            if message.pixels is not None:
                self.require_record()
        for mailbox in self._mailboxes.get(message.topic, ()):
            mailbox.put(message)

    def require_record(self) -> None:
        """Find out whether the next frame could be kept.

        Raises:
            RecordError: the record is lost.
        """
        if self._record_lost is not None:
            raise self._record_lost

    def _record(self, recorder: Recorder, message: Message) -> None:
        if self._record_lost is None:
            try:
                recorder.record(message)
            except RecordError as error:
                self._record_lost = error

    def service(self, channel: str) -> "LocalBus":
        """The end that serves ``channel``.

        Raises:
            RoleError: there is none.
        """
        try:
            return self._services[channel]
        except KeyError:
            raise RoleError(f"no role serves {channel!r}") from None


class LocalBus:
    """One role's end of a `LocalHub`; see `semagent.bus.base.Bus`."""

    def __init__(self, hub: LocalHub, role: Role) -> None:
        self._hub = hub
        self._role = role
        self._numbers: dict[str, int] = {}
        self._mailboxes: list[Mailbox] = []
        self._arrived = threading.Event()
        self._delivered: Tray[Delivered] = Tray(self._arrived.set)
        self._answers: Tray[Any] = Tray(self._arrived.set)
        self._on_urgent: Callable[[Any], None] | None = None

    @property
    def role(self) -> Role:
        """See `Bus`."""
        return self._role

    def publish(self, channel: str, value: Any, pixels: Pixels | None = None) -> None:
        """See `Bus`."""
        number = self._numbers[channel] = self._numbers.get(channel, 0) + 1
        self._hub.publish(
            Message(topic=channel, sender=self._role, number=number, value=value, pixels=pixels)
        )

    def subscribe(self, channel: str) -> Mailbox:
        """See `Bus`."""
        mailbox = Mailbox(channel, self._arrived.set)
        self._mailboxes.append(mailbox)
        self._hub.add_mailbox(mailbox)
        return mailbox

    def serve(self, channel: str, on_urgent: Callable[[Any], None] | None = None) -> None:
        """See `Bus`."""
        self._on_urgent = on_urgent
        self._hub.add_service(channel, self)

    def deliveries(self) -> list[Delivered]:
        """See `Bus`."""
        return self._delivered.take()

    def send(self, channel: str, value: Any) -> None:
        """See `Bus`."""
        self._hub.service(channel)._deliver(Delivered(value, self._answers.put))

    def answers(self) -> list[Any]:
        """See `Bus`."""
        return self._answers.take()

    def wait(self, timeout_s: float) -> None:
        """See `Bus`."""
        self._arrived.wait(timeout_s)
        self._arrived.clear()

    def beat(self, *, busy: bool, processed: int, skipped: int) -> None:
        """See `Bus`."""
        now_ns = self._hub.clock.monotonic_ns()
        self.publish(
            "heartbeat",
            Heartbeat(
                role=self._role,
                monotonic_ns=now_ns,
                busy_since_ns=now_ns if busy else None,
                processed=processed,
                skipped=skipped,
                missing=sum(mailbox.missing for mailbox in self._mailboxes),
            ),
        )

    def close(self) -> None:
        """See `Bus`."""

    def _deliver(self, delivered: Delivered) -> None:
        if self._on_urgent is not None:
            self._on_urgent(delivered.value)
        self._delivered.put(delivered)
