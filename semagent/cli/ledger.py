"""What a command needs to know of a run, gathered from the bus; the same for all commands."""

from collections.abc import Callable
from typing import Any

import msgspec

from semagent.bus import Mailbox
from semagent.cli.output import Output
from semagent.types import (
    Command,
    Event,
    FocusBelief,
    FocusResult,
    FrameAnalysis,
    FrameHeader,
    GateStatus,
    Heartbeat,
    Issuer,
    Level,
    Outcome,
    Reply,
)

_NEWS = 8


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
    """

    def __init__(
        self,
        subscribe: Callable[[str], Mailbox],
        output: Output,
        on_row: Callable[[Row], None],
    ) -> None:
        self._output = output
        self._on_row = on_row
        self._analyses = subscribe("analysis")
        self._beliefs = subscribe("belief")
        self._commands = subscribe("command")
        self._replies = subscribe("reply")
        self._results = subscribe("result")
        self._events = subscribe("event")
        self._gates = subscribe("gate")
        self._beats = subscribe("heartbeat")
        self._row: Row | None = None
        self.frames = 0
        self.flagged = 0
        self.commands = 0
        self.refusals: list[Reply] = []
        self.belief: FocusBelief | None = None
        self.analysis: FrameAnalysis | None = None
        self.gate: GateStatus | None = None
        self.result: FocusResult | None = None
        self.news: list[Event] = []
        self.beats: dict[str, Heartbeat] = {}

    def update(self) -> None:
        """Take in what was said since the last call."""
        while (message := self._events.take()) is not None:
            self._take_event(message.value)
        while (message := self._analyses.take()) is not None:
            self.analysis = message.value
            self._begin(Row(header=message.value.header, analysis=message.value))
        while (message := self._beliefs.take()) is not None:
            self.belief = message.value
            if self._row is not None:
                self._row.belief = message.value
        while (message := self._commands.take()) is not None:
            self._take_command(message.value)
        while (message := self._replies.take()) is not None:
            reply: Reply = message.value
            if reply.outcome is not Outcome.APPLIED:
                self.refusals.append(reply)
                self._output.warn(reply.reason)
        while (message := self._gates.take()) is not None:
            self.gate = message.value
        while (message := self._results.take()) is not None:
            self.result = message.value
        while (message := self._beats.take()) is not None:
            self.beats[message.sender] = message.value

    def flush(self) -> None:
        """The row at hand is complete."""
        row, self._row = self._row, None
        if row is not None:
            self._on_row(row)

    def _begin(self, row: Row) -> None:
        self.flush()
        self.frames += 1
        self._row = row

    def _take_event(self, event: Event) -> None:
        self.news = [*self.news, event][-_NEWS:]
        if event.kind == "frame_flagged":
            self.flagged += 1
            self._begin(Row(header=msgspec.convert(event.data["header"], FrameHeader)))
        if event.level is not Level.INFO:
            self._output.warn(event.message)

    def _take_command(self, command: Command) -> None:
        if command.issuer is not Issuer.AGENT:
            return
        self.commands += 1
        if self._row is not None:
            self._row.action = msgspec.to_builtins(command.action)
