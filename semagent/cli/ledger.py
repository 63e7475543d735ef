"""What a command needs to know of a run, gathered from the bus; the same for all commands."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from semagent.bus import Mailbox
from semagent.cli.output import Output
from semagent.health import HealthMonitor
from semagent.types import (
    Command,
    Event,
    FocusBelief,
    FocusResult,
    FrameAnalysis,
    FrameFault,
    FrameHeader,
    GateStatus,
    Heartbeat,
    Intent,
    Issuer,
    Level,
    MicroscopeState,
    Mode,
    Outcome,
    Reply,
    SetMode,
)
from semagent.wire import Message

_ENDS = {"autofocus_done", "hold_ended"}
_NEWS = 50
_SCORES = 120


class Row(msgspec.Struct, kw_only=True):
    """One frame as the commands report it."""

    header: FrameHeader
    analysis: FrameAnalysis | None = None
    belief: FocusBelief | None = None
    action: dict[str, Any] | None = None

    def record(self) -> dict[str, Any]:
        """The frame's JSON line."""
        return {
            "event": "frame",
            "working_distance_m": self.header.optics.working_distance_m,
            "focus_score": None if self.analysis is None else self.analysis.focus_score,
            "belief": {
                "focus_m": None if self.belief is None else self.belief.focus_m,
                "sigma_m": None if self.belief is None else self.belief.sigma_m,
            },
            "action": self.action,
            "faults": list(self.header.faults),
        }


class Ledger:
    """Follows a run and hands out one `Row` a frame.

    A row is complete when the next frame comes or `flush` is called, since the command that a
    frame leads to is heard a little after the frame itself.

    Args:
        subscribe: how to listen to a channel.
        output: warnings and errors are shown at once.
        on_row: told of every complete row.
        monitor: told of everything that is said, if there is one.

    Attributes:
        refusals: how many commands were refused or failed, by outcome and code; a run may last
            for days, so only of the last one more is kept.
        says_result: the command says itself how a focusing ended, so it is no warning too.
        ended: how the last focusing did, without what was said already; empty before.
        not_put_back: the agent could not put back what it had moved, and nobody has armed since.
        failed: the microscope has failed or not done as it was told, which closes the gate, and
            nobody has armed since.
        sequence: of the newest frame that was analysed or found unusable, 0 before the first.
    """

    def __init__(
        self,
        subscribe: Callable[[str], Mailbox],
        output: Output,
        on_row: Callable[[Row], None],
        monitor: HealthMonitor | None = None,
    ) -> None:
        self._output = output
        self._on_row = on_row
        self.monitor = monitor
        self._analyses = subscribe("analysis")
        self._beliefs = subscribe("belief")
        self._commands = subscribe("command")
        self._replies = subscribe("reply")
        self._intents = subscribe("intent")
        self._results = subscribe("result")
        self._events = subscribe("event")
        self._requests = subscribe("request")
        self._gates = subscribe("gate")
        self._beats = subscribe("heartbeat")
        self._row: Row | None = None
        self._faults: tuple[FrameFault, ...] = ()
        self.sequence = 0
        self.frames = 0
        self.flagged = 0
        self.commands = 0
        self.refusals: Counter[tuple[Outcome, str]] = Counter()
        self.last_refusal: Reply | None = None
        self.belief: FocusBelief | None = None
        self.analysis: FrameAnalysis | None = None
        self.gate: GateStatus | None = None
        self.intent: Intent | None = None
        self.result: FocusResult | None = None
        self.mode = Mode.OBSERVE
        self.says_result = False
        self.ended = ""
        self.not_put_back = False
        self.failed = False
        self.state: MicroscopeState | None = None
        self.scores: deque[float] = deque(maxlen=_SCORES)
        self.news: deque[Event] = deque(maxlen=_NEWS)
        self.beats: dict[str, Heartbeat] = {}
        self._told = ""

    @property
    def analyses(self) -> int:
        """How many were heard of, with those that a newer one has taken the place of."""
        return self.frames - self.flagged + self._analyses.skipped

    def update(self) -> None:
        """Take in what was said since the last call."""
        for message in self._said(self._events):
            self._take_event(message.value)
        for message in self._said(self._analyses):
            self._take_analysis(message.value)
        for message in self._said(self._beliefs):
            self.belief = message.value
            if self._row is not None:
                self._row.belief = message.value
        for message in self._said(self._commands):
            self._take_command(message.value)
        for message in self._said(self._replies):
            self._take_reply(message.value)
        for message in self._said(self._requests):
            if isinstance(message.value, SetMode):
                self.mode = message.value.mode
        for message in self._said(self._gates):
            self.gate = message.value
        for message in self._said(self._intents):
            self.intent = message.value
        for message in self._said(self._results):
            self.result = message.value
        for message in self._said(self._beats):
            self.beats[message.sender] = message.value

    def has_commands(self) -> bool:
        """Whether the agent has given any by now: otherwise it has moved nothing."""
        self.update()
        return self.commands > 0

    def flush(self) -> None:
        """The row at hand is complete."""
        row, self._row = self._row, None
        if row is not None:
            self._on_row(row)

    def _said(self, mailbox: Mailbox) -> Iterator[Message]:
        while (message := mailbox.take()) is not None:
            if self.monitor is not None:
                self.monitor.take(message)
            yield message

    def _take_analysis(self, analysis: FrameAnalysis) -> None:
        self.analysis = analysis
        self.scores.append(analysis.focus_score)
        self._begin(Row(header=analysis.header, analysis=analysis))

    def _take_reply(self, reply: Reply) -> None:
        if reply.state is not None:
            self.state = reply.state
        if reply.outcome is not Outcome.APPLIED:
            self.refusals[reply.outcome, reply.code] += 1
            self.last_refusal = reply
            self.failed |= reply.outcome is Outcome.FAILED
            if reply.command.issuer is not Issuer.AGENT:  # control speaks of its own
                self._output.warn(reply.reason)

    def _begin(self, row: Row) -> None:
        self.state = row.header.settings
        self._faults = row.header.faults
        self.flush()
        self.sequence = max(self.sequence, row.header.sequence)
        self.frames += 1
        self._row = row

    def _take_event(self, event: Event) -> None:
        if (header := event.flagged) is not None:
            self.flagged += 1
            again = self._faults == header.faults
            self._begin(Row(header=header))
            if again:
                return  # a beam that is blanked overnight is news once
        self.news.append(event)
        if event.kind in _ENDS:
            self.not_put_back = event.data.get("put_back") is False
        elif event.kind == "gate_armed":
            self.not_put_back = self.failed = False  # a person has looked
        self.failed |= event.kind == "acquire_failed"
        if event.kind == "autofocus_done":
            self.ended = event.message
        said = self.says_result and event.kind == "autofocus_done"
        # Why the gate closed may be an event of its own, in the same words.
        if event.level is not Level.INFO and not (
            said or self._told.endswith(f": {event.message}")
        ):
            self._output.warn(event.message)
        self._told = event.message

    def _take_command(self, command: Command) -> None:
        if command.issuer is not Issuer.AGENT:
            return
        self.commands += 1
        if self._row is not None:
            self._row.action = msgspec.to_builtins(command.action)
