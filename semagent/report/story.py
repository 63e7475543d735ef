"""A session told as a story: each focusing, frame by frame, with what was believed and done."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from semagent.channels import CHANNELS
from semagent.session import Entry, SessionReader
from semagent.types import (
    Command,
    FocusBelief,
    FocusResult,
    FrameAnalysis,
    FrameHeader,
    Issuer,
    Outcome,
    Reply,
)

ESTIMATED = "estimated"
"""Kind of the event that says what `semagent estimate` concluded."""
_STARTED = "autofocus_started"
SAID = {"reply", "request", "result", "event", "intent"}
"""Channels of what was decided, done and said."""


@dataclass(slots=True)
class Step:
    """One frame: what was seen, believed and done.

    Attributes:
        header: of the frame; its faults say why it was not used.
        analysis: what the engine said, without the signature; ``None`` if it was not asked.
        belief: what was believed after it.
        commands: what was asked on its ground, each with its answer.
    """

    header: FrameHeader
    analysis: FrameAnalysis | None = None
    belief: FocusBelief | None = None
    commands: list[tuple[Command, Reply | None]] = field(default_factory=list)


@dataclass(slots=True)
class Focusing:
    """One focusing from its first frame to its result.

    Attributes:
        result: how it ended, ``None`` if the record ends before.
    """

    steps: list[Step] = field(default_factory=list)
    result: FocusResult | None = None


@dataclass(slots=True)
class Story:
    """What a report tells of a session.

    Attributes:
        session: the record itself, for its manifest and its pixels.
        steps: every frame, in order.
        focusings: in order; their steps are among ``steps``.
        refused: commands that were refused or failed, with the reason.
        said: replies, requests, results, news and intents, in order.
        estimate: what ``semagent estimate`` concluded from these frames; empty if it was not that.
    """

    session: SessionReader
    steps: list[Step] = field(default_factory=list)
    focusings: list[Focusing] = field(default_factory=list)
    refused: list[Reply] = field(default_factory=list)
    said: list[Entry] = field(default_factory=list)
    estimate: str = ""


def read_story(folder: Path) -> Story:
    """Read a recorded session, complete or not.

    Raises:
        InputFileError: the folder is no session, or is damaged.
    """
    teller = _Teller(Story(SessionReader(folder)))
    for entry in teller.story.session.events({name: c.type for name, c in CHANNELS.items()}):
        teller.take(entry.channel, entry.value)
        if entry.channel in SAID:
            teller.story.said.append(entry)
    teller.end()
    return teller.story


class _Teller:
    """Takes the lines of a record in order and puts the story together."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self._by_sequence: dict[int, Step] = {}
        self._unanswered: dict[str, tuple[Step, int]] = {}
        self._focusing: Focusing | None = None
        self._heard = 0

    def take(self, channel: str, value: Any) -> None:
        """Take one line."""
        match channel:
            case "frame":
                self._take_frame(value.header)
            case "analysis":
                if step := self._by_sequence.get(value.header.sequence):
                    # Spectra are most of a record, and nobody reads them here.
                    step.analysis = msgspec.structs.replace(value, signature=None)
            case "belief":
                if step := self._by_sequence.get(value.sequence):
                    step.belief = value
            case "heard" if value.kind in ("analysis", "flagged"):
                self._heard = value.key
            case "command" if value.issuer is Issuer.AGENT:
                self._take_command(value)
            case "reply":
                self._take_reply(value)
            case "event" if value.kind == _STARTED:
                self.end()
                # It begins with the next frame that control looks at, which may be exposed already.
                steps = [step for step in self.story.steps if step.header.sequence > self._heard]
                self._focusing = Focusing(steps)
            case "event" if value.kind == ESTIMATED:
                self.story.estimate = value.message
            case "result":
                self._take_result(value)

    def end(self) -> None:
        """The record is over; a focusing that is still going on has no result."""
        if self._focusing is not None and self._focusing.steps:
            self.story.focusings.append(self._focusing)

    def _take_frame(self, header: FrameHeader) -> None:
        step = Step(header)
        self._by_sequence[header.sequence] = step
        self.story.steps.append(step)
        if self._focusing is not None:
            self._focusing.steps.append(step)

    def _take_command(self, command: Command) -> None:
        step = self._by_sequence.get(command.basis.sequence) if command.basis else None
        if step is None and self.story.steps:
            step = self.story.steps[-1]
        if step is not None:
            self._unanswered[command.id] = (step, len(step.commands))
            step.commands.append((command, None))

    def _take_reply(self, reply: Reply) -> None:
        if reply.outcome is not Outcome.APPLIED:
            self.story.refused.append(reply)
        asked = self._unanswered.pop(reply.command.id, None)
        if asked is not None:
            step, index = asked
            step.commands[index] = (step.commands[index][0], reply)

    def _take_result(self, result: FocusResult) -> None:
        focusing, self._focusing = self._focusing or Focusing(), None
        focusing.result = result
        # A request that was refused at once has a result and no frames.
        self.story.focusings.append(focusing)
