"""The record role: everything that is said, on its way to the disk before anybody acts on it."""

from collections.abc import Mapping
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

    Each sender has a way of its own to the record. On a disk that is slow for a moment what is said
    of a frame overtakes the frame, and waits for it here.

    Args:
        writer: of the session; closed together with this.
        clock: what time it is.
        parameters: the options of the engine that restores, by the channel it speaks on.

    Raises:
        RecordError: from `record`, if a sender's numbering has a hole: something was lost on
            the way.
    """

    def __init__(
        self, writer: SessionWriter, clock: Clock, parameters: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._parameters = parameters
        self._numbers: dict[tuple[str, str], int] = {}
        self._early: list[Message] = []
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
            early, self._early = self._early, []
            for waiting in early:
                self._write(waiting)
        else:
            self._write(message)

    def _write(self, message: Message) -> None:
        if _frame_of(message) > self.frames:
            self._early.append(message)
        else:
            self._write_now(message)

    def _write_now(self, message: Message) -> None:
        value: Any = message.value
        self._writer.write_value(message.topic, value, self._clock.monotonic_ns())
        if message.topic in self._parameters and message.pixels is not None:
            parameters = self._parameters[message.topic]
            self._writer.write_derived(value.header, message.pixels, value, parameters)

    def close(self, failure: str | None = None) -> None:
        """End the session properly; ``failure`` says why it lacks something of the run.

        Raises:
            RecordError: a restored frame came and its raw frame never did, or see `SessionWriter`.
        """
        early, self._early = self._early, []
        try:
            for message in early:
                self._write_now(message)
        finally:
            self._writer.close(failure=failure)


def _frame_of(message: Message) -> int:
    """The number of the frame that something was said of; 0 for everything else."""
    value: Any = message.value
    match message.topic:
        case "analysis" | "restored":
            return int(value.header.sequence)
        case "belief":
            return int(value.sequence)
    return 0


class RecordRole:
    """Takes what the other processes push and hands it to a `SessionRecorder`.

    Attributes:
        failure: why the record is not to count as complete, if it is not.
    """

    def __init__(self, bus: ZmqBus, recorder: SessionRecorder) -> None:
        self._bus = bus
        self._recorder = recorder
        self.failure: str | None = None

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
            self._recorder.close(_LOST if self._bus.record_lost else self.failure)
