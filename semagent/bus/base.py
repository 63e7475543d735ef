"""The interface of the bus and the mailboxes both kinds of bus deliver into."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from semagent.channels import CHANNELS, Delivery, Role
from semagent.types import Pixels, Value
from semagent.wire import Message


class Mailbox:
    """Where messages of one channel wait for the role that reads them.

    On a latest-wins channel it holds one message: a newer one takes its place, and ``skipped``
    counts the one that was never looked at. On a lossless channel it holds them all.
    ``missing`` counts messages that were sent and never came. Safe between threads.
    """

    def __init__(self, channel: str, on_arrival: Callable[[], None] = lambda: None) -> None:
        self.channel = channel
        self.skipped = 0
        self.missing = 0
        latest = CHANNELS[channel].delivery is Delivery.LATEST
        # Where roles share a latest-wins channel (heartbeats), each has a slot of its own.
        self._slots: dict[str, Message] | None = {} if latest else None
        self._queue: deque[Message] = deque()
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()
        self._on_arrival = on_arrival

    def put(self, message: Message) -> None:
        """Deliver a message."""
        with self._lock:
            expected = self._numbers.get(message.sender, message.number - 1) + 1
            # A smaller number is a role that was started again, not a loss.
            self.missing += max(0, message.number - expected)
            self._numbers[message.sender] = message.number
            if self._slots is None:
                self._queue.append(message)
            else:
                self.skipped += message.sender in self._slots
                self._slots[message.sender] = message
        self._on_arrival()

    def take(self) -> Message | None:
        """The next message, or ``None`` if there is none. Never waits."""
        with self._lock:
            if self._slots is None:
                return self._queue.popleft() if self._queue else None
            for sender in self._slots:
                return self._slots.pop(sender)
            return None

    def __bool__(self) -> bool:
        return bool(self._queue if self._slots is None else self._slots)


T = TypeVar("T")


class Tray(Generic[T]):
    """Where values wait for the role, which takes all there are. Safe between threads."""

    def __init__(self, on_arrival: Callable[[], None]) -> None:
        self._values: list[T] = []
        self._lock = threading.Lock()
        self._on_arrival = on_arrival

    def put(self, value: T) -> None:
        """Lay a value down."""
        with self._lock:
            self._values.append(value)
        self._on_arrival()

    def take(self) -> list[T]:
        """What was laid down since the last call. Never waits."""
        with self._lock:
            values, self._values = self._values, []
        return values


@dataclass(frozen=True, slots=True)
class Delivered:
    """A value that was sent to a service, and the way back to whoever sent it."""

    value: Any
    answer: Callable[[Value], None]


class Recorder(Protocol):
    """Takes every message of a recorded channel, before anybody else sees it."""

    def record(self, message: Message) -> None:
        """Take one message.

        Raises:
            RecordError: it cannot be kept; the run must end.
        """
        ...


class Bus(Protocol):
    """One role's end of the bus. All methods belong to the thread that made it."""

    @property
    def role(self) -> Role:
        """Whose end this is."""
        ...

    def publish(self, channel: str, value: Any, pixels: Pixels | None = None) -> None:
        """Say something: to the record first if the channel is recorded, then to listeners.

        Raises:
            RecordError: the record does not take it in time.
        """
        ...

    def subscribe(self, channel: str) -> Mailbox:
        """Listen to a channel."""
        ...

    def serve(self, channel: str, on_urgent: Callable[[Any], None] | None = None) -> None:
        """Take what others ``send`` on ``channel``; `deliveries` hands it out.

        Args:
            channel: ``command`` or ``request``.
            on_urgent: called at once with every value, possibly from another thread, so that
                a stop does not wait for a frame to end.
        """
        ...

    def deliveries(self) -> list[Delivered]:
        """What came in for the served channel since the last call. Never waits."""
        ...

    def send(self, channel: str, value: Any) -> None:
        """Send to the role that serves ``channel``. Answers come on `answers`.

        Raises:
            RoleError: there is none, or the bus has failed.
        """
        ...

    def answers(self) -> list[Any]:
        """Answers to what was sent, since the last call. Never waits."""
        ...

    def wait(self, timeout_s: float) -> None:
        """Return when something has arrived since the last call, or after ``timeout_s``.

        Raises:
            RoleError: the bus has failed.
        """
        ...

    def beat(self, *, busy: bool, processed: int, skipped: int) -> None:
        """Say what this role is doing; the bus sends it along with its signs of life."""
        ...

    def close(self) -> None:
        """Leave the bus. May be called twice."""
        ...
