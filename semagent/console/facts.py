"""What the console knows of a run: the newest of everything that is said, and a little history."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import msgspec

from semagent.bus import Bus, Mailbox
from semagent.clock import Clock
from semagent.config import RunConfig
from semagent.console.words import action_words
from semagent.health import HealthMonitor
from semagent.types import (
    FRAME_FLAGGED,
    Capabilities,
    Event,
    FocusBelief,
    FocusResult,
    FrameAnalysis,
    FrameHeader,
    GateStatus,
    Heartbeat,
    Intent,
    Issuer,
    Level,
    MicroscopeState,
    Optics,
    Outcome,
    Reply,
)
from semagent.wire import Message

T = TypeVar("T")

_PATIENCE = 0.8  # of the time between two frames: whoever looks on sees one before the next comes
_LONGEST_PATIENCE_S = 0.1
_HISTORY = 3000
_LOG = 500

Alike = Literal["moves", "frames"]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What does not change while a run lasts.

    Attributes:
        session: folder of the record, resolved; ``None`` if nothing is recorded.
    """

    config: RunConfig
    capabilities: Capabilities
    engine: str
    session: Path | None


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One analysed frame in the history.

    Attributes:
        t_s: end of its exposure, on the acquiring machine's monotonic clock.
    """

    sequence: int
    t_s: float
    score: float
    working_distance_m: float
    focus_m: float | None
    sigma_m: float | None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log.

    Attributes:
        kind: the event's word, or what became of a command.
        code: short fixed word for a refusal.
        alike: what entries that share a line in a row have in common, if they do.
        count: how many of them the line stands for; it tells of the last.
    """

    wall_ns: int
    level: Level
    who: str
    kind: str
    text: str
    code: str = ""
    alike: Alike | None = None
    count: int = 1


class Strip(Generic[T]):
    """The last entries of a growing list, each with its number."""

    def __init__(self, length: int) -> None:
        self._entries: deque[tuple[int, T]] = deque(maxlen=length)
        self.end = 0

    @property
    def last(self) -> T | None:
        """The newest."""
        return self._entries[-1][1] if self._entries else None

    def add(self, entry: T) -> None:
        """Append one."""
        self.end += 1
        self._entries.append((self.end, entry))

    def replace(self, entry: T) -> None:
        """Put one in the place of the newest; it is news as if it had been added."""
        self._entries.pop()
        self.add(entry)

    def since(self, number: int) -> list[T]:
        """Those that came after the first ``number``, as far as they are kept."""
        fresh = itertools.takewhile(lambda each: each[0] > number, reversed(self._entries))
        return [entry for _, entry in fresh][::-1]


class Board:
    """Follows a run on the bus. Belongs to the thread that calls `update`.

    Args:
        bus: subscribed to here, before it is connected.
        run: what the run is.
        clock: what time it is.
    """

    def __init__(self, bus: Bus, run: RunFacts, clock: Clock) -> None:
        self.run = run
        self._clock = clock
        self.monitor = HealthMonitor(run.config, run.capabilities, clock)
        self._boxes: list[tuple[Mailbox, Callable[[Message], None]]] = [
            (bus.subscribe(channel), take)
            for channel, take in (
                ("frame", self._on_frame),
                ("analysis", self._on_analysis),
                ("restored", self._on_restored),
                ("belief", self._on_belief),
                ("intent", self._on_intent),
                ("gate", self._on_gate),
                ("reply", self._on_reply),
                ("result", self._on_result),
                ("event", self._on_event),
                ("heartbeat", self._on_heartbeat),
            )
        ]
        self._frames = self._boxes[0][0]
        self._arrived_ns: int | None = None
        self._until_ns = 0
        self._state: MicroscopeState | None = None
        self._state_ns = 0
        self.version = 0
        self.frame: Message | None = None
        self.restored: Message | None = None
        self.analysis: FrameAnalysis | None = None
        self.belief: FocusBelief | None = None
        self.intent: Intent | None = None
        self.gate: GateStatus | None = None
        self.result: FocusResult | None = None
        self.beats: dict[str, Heartbeat] = {}
        self.history: Strip[Point] = Strip(_HISTORY)
        self.log: Strip[Entry] = Strip(_LOG)
        self.flagged = 0
        self.moves = 0
        self.refused = 0

    @property
    def skipped(self) -> int:
        """Frames the console never looked at because newer ones had come."""
        return self._frames.skipped

    @property
    def header(self) -> FrameHeader | None:
        """Header of the newest frame."""
        return None if self.frame is None else self.frame.value

    @property
    def optics(self) -> Optics | None:
        """The column as it was read back last, with a frame or after a command."""
        return None if self._state is None else self._state.optics

    @property
    def half_depth_m(self) -> float | None:
        """Half the depth of field of the newest frame, as control takes it."""
        header = self.header
        return None if header is None else self.run.config.half_depth_of(header)

    @property
    def patience_s(self) -> float:
        """How long whoever looks on should leave the machine to the loop.

        Until control has said what it makes of the newest frame, or the next one is about to come.
        """
        header, belief = self.header, self.belief
        if header is None or header.faults or (belief and belief.sequence >= header.sequence):
            return 0.0
        return max(0, self._until_ns - self._clock.monotonic_ns()) / 1e9

    def pending(self) -> bool:
        """Whether there is anything to take in."""
        return any(mailbox for mailbox, _ in self._boxes)

    def update(self) -> bool:
        """Take in what was said; whether anything was."""
        heard = False
        for mailbox, take in self._boxes:
            for message in _all(mailbox):
                self.monitor.take(message)
                take(message)
                heard = True
        self.version += heard
        return heard

    def snapshot(self) -> dict[str, Any]:
        """Everything but pixels, history and log."""
        health = self.monitor.snapshot()
        return {
            "frame": self.header,
            "optics": self.optics,
            "analysis": _without_maps(self.analysis),
            "empty": self.analysis is not None and self.analysis.empty,
            "restored": None if self.restored is None else _without_maps(self.restored.value),
            "belief": self.belief,
            "intent": self.intent,
            "gate": self.gate,
            "result": self.result,
            "roles": self.beats,
            "half_depth_m": self.half_depth_m,
            "health": health,
            "dose": health.dose,
            "counts": {
                "flagged": self.flagged,
                "moves": self.moves,
                "refused": self.refused,
                "skipped": self.skipped,
            },
        }

    def read_back(self, state: MicroscopeState | None, monotonic_ns: int) -> None:
        """Remember what was read from the microscope, if nothing newer is known.

        Frames may be minutes apart, and commands go through in between.
        """
        if state is not None and monotonic_ns >= self._state_ns:
            self._state, self._state_ns = state, monotonic_ns

    def note(self, level: Level, who: str, kind: str, text: str, code: str = "") -> None:
        """Add a line to the log.

        Moves in a row share one, and frames that are not used: they would push all else away.
        """
        alike = _alike(who, kind)
        before = self.log.last
        again = before is not None and alike is not None and before.alike == alike
        entry = Entry(
            wall_ns=self._clock.wall_ns(),
            level=level,
            who=who,
            kind=kind,
            text=text,
            code=code,
            alike=alike,
            count=before.count + 1 if before is not None and again else 1,
        )
        if again:
            self.log.replace(entry)
        else:
            self.log.add(entry)

    def _on_frame(self, message: Message) -> None:
        self.frame = message
        self.read_back(message.value.settings, message.value.monotonic_ns)
        now_ns, before_ns = self._clock.monotonic_ns(), self._arrived_ns
        self._arrived_ns = now_ns
        patience_ns = round(1e9 * _LONGEST_PATIENCE_S)
        if before_ns is not None:
            patience_ns = min(patience_ns, round(_PATIENCE * (now_ns - before_ns)))
        self._until_ns = now_ns + patience_ns

    def _on_analysis(self, message: Message) -> None:
        self.analysis = message.value
        if message.pixels is not None:
            self.restored = message
        header = message.value.header
        belief = self.belief
        self.history.add(
            Point(
                sequence=header.sequence,
                t_s=header.monotonic_ns / 1e9,
                score=message.value.focus_score,
                working_distance_m=header.optics.working_distance_m,
                focus_m=belief.focus_m if belief else None,
                sigma_m=belief.sigma_m if belief else None,
            )
        )

    def _on_restored(self, message: Message) -> None:
        self.restored = message

    def _on_belief(self, message: Message) -> None:
        self.belief = message.value

    def _on_intent(self, message: Message) -> None:
        self.intent = message.value

    def _on_gate(self, message: Message) -> None:
        self.gate = message.value

    def _on_heartbeat(self, message: Message) -> None:
        self.beats[message.sender] = message.value

    def _on_reply(self, message: Message) -> None:
        reply: Reply = message.value
        self.read_back(reply.state, reply.monotonic_ns)
        words = action_words(reply.command.action)
        who = str(reply.command.issuer)
        if reply.outcome is Outcome.APPLIED:
            self.moves += reply.command.issuer is Issuer.AGENT
            self.note(Level.INFO, who, "applied", words)
            return
        self.refused += 1
        level = Level.WARNING if reply.outcome is Outcome.REFUSED else Level.ERROR
        text = f"{words}: {reply.reason}"
        self.note(level, who, str(reply.outcome), text, reply.code)

    def _on_result(self, message: Message) -> None:
        self.result = message.value  # an event says it in words

    def _on_event(self, message: Message) -> None:
        event: Event = message.value
        self.flagged += event.kind == FRAME_FLAGGED
        self.note(event.level, event.role, event.kind, event.message)


def _alike(who: str, kind: str) -> Alike | None:
    if who == Issuer.AGENT and kind == Outcome.APPLIED:
        return "moves"
    return "frames" if kind == FRAME_FLAGGED else None


def _without_maps(figures: FrameAnalysis | None) -> FrameAnalysis | None:
    """Maps go along with the pixels they belong to, and nobody looks at a spectrum."""
    if figures is None:
        return None
    return msgspec.structs.replace(figures, consistency_map=None, expert_map=None, signature=None)


def _all(mailbox: Mailbox) -> Iterator[Message]:
    while (message := mailbox.take()) is not None:
        yield message
