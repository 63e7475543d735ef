"""The record role: everything that is said, on disk before anybody acts on it."""

from typing import Any

from semagent.bus.zeromq import ZmqBus
from semagent.clock import Clock
from semagent.errors import RecordError
from semagent.session import SessionWriter
from semagent.types import Frame
from semagent.wire import Message

_LOST = "the record fell silent or did not keep up, and what the run still did then is not in it"


class SessionRecorder:
    """Writes bus messages into a session; see `semagent.bus.base.Recorder`.

    Raises:
        RecordError: from `record`, if a sender's numbering has a hole: something was lost on
            the way.
    """

    def __init__(self, writer: SessionWriter, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        self._numbers: dict[tuple[str, str], int] = {}
        self.frames = 0

    def record(self, message: Message) -> None:
        """Write one message; when this returns it survives a crash of this process."""
        stream = (message.sender, message.topic)
        expected = self._numbers.get(stream, message.number - 1) + 1
        # A role that was started again counts from 1; that is no loss.
        if message.number not in (expected, 1):
            raise RecordError(
                f"{message.number - expected} messages of channel {message.topic!r} from "
                f"{message.sender} were lost on the way to the record"
            )
        self._numbers[stream] = message.number
        value: Any = message.value
        if message.topic == "frame":
            self._writer.write_frame(Frame(value, message.pixels))
            self.frames += 1
            return
        self._writer.write_value(message.topic, value, self._clock.monotonic_ns())
        if message.topic in ("analysis", "restored") and message.pixels is not None:
            self._writer.write_derived(value.header, message.pixels, value)

    def close(self, failure: str | None = None) -> None:
        """End the session properly; ``failure`` says why it lacks something of the run."""
        self._writer.close(failure=failure)


class RecordRole:
    """Takes what the other processes push and hands it to a `SessionRecorder`."""

    def __init__(self, bus: ZmqBus, recorder: SessionRecorder) -> None:
        self._bus = bus
        self._recorder = recorder

    def step(self) -> bool:
        """See `RoleLoop`; waits a moment for a message.

        Raises:
            RecordError: the record would have a gap.
        """
        message = self._bus.collect(timeout_s=0.1)
        if message is None:
            return False
        self._recorder.record(message)
        self._bus.beat(busy=False, processed=self._recorder.frames, skipped=0)
        return True

    def close(self) -> None:
        """Take what is still on its way, then end the session.

        Raises:
            RecordError: the record has a gap, or could not be ended properly.
        """
        try:
            while self.step():
                pass
        finally:
            self._recorder.close(_LOST if self._bus.record_lost else None)
