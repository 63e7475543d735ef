"""A recorded session as its page shows it: a curve, and everything that was decided and said.

Sessions last for hours. So a record is read once and then read on, what is kept of a frame is a few
numbers, and a page asks for what it shows: the whole in outline, a part of it closely.
"""

import contextlib
import math
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from semagent.channels import CHANNELS
from semagent.console.words import action_words
from semagent.errors import InputFileError
from semagent.lengths import show_distance, show_length
from semagent.report.story import SAID
from semagent.session import DerivedRecord, FrameRecord, Problem, read_manifest
from semagent.session.folder import (
    Line,
    Place,
    damaged_line,
    decode_value,
    read_lines,
    strays,
    torn,
    unfinished,
)
from semagent.session.layout import DERIVED_CHANNEL, EVENTS, FRAME_CHANNEL, FRAMES, frame_file
from semagent.session.reader import recorded_frame, recorded_restoration
from semagent.types import (
    Cancel,
    Decline,
    Event,
    FocusBelief,
    FocusResult,
    Frame,
    FrameAnalysis,
    Intent,
    Issuer,
    Level,
    Note,
    Outcome,
    Pixels,
    Reply,
    Request,
    SetMode,
    StartAutofocus,
)

_MARK = re.compile(r"mark at frame (\d+)")
_SAID_OTHERWISE = {"autofocus_done", "proposal_declined"}
"""News that only repeat what stands in the record in another form."""
_STRETCHES = 250
"""A curve is drawn with up to five frames of each: its first, and those where it is extreme."""
_MARKS = 500
_LISTED = 300
_ALL = "all"
_STEPS = 500
_PROBLEMS = 100

Kind = Literal["decision", "refused", "note", "operator", "news"]


class _Numbered(msgspec.Struct):
    sequence: int


class _Scored(msgspec.Struct):
    """What is read of a `FrameAnalysis`: spectra are most of a record."""

    header: _Numbered
    focus_score: float


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was decided, refused, noted or said.

    Attributes:
        monotonic_ns: when.
        sequence: the frame it rests on or came after; ``None`` before the first.
        why: the reason, in words.
    """

    monotonic_ns: int
    sequence: int | None
    kind: Kind
    level: Level
    who: str
    text: str
    why: str = ""


class Chronicle:
    """What a page shows of one session; for one thread that reads on and any that look.

    Moments are seconds since the first frame. An index counts the frames of the record from 0.

    Args:
        folder: the session.
        grows: it is being recorded now, so that it is no fault if its end is missing.
    """

    def __init__(self, folder: Path, *, grows: bool = False) -> None:
        self._folder = folder
        self._grows = grows
        self._place = Place()
        self._state: tuple[int, int, int] | None = None
        self._damaged: list[int] = []
        self._torn: int | None = None
        self._zero: tuple[int, int] | None = None  # monotonic and wall time of the first frame
        self._intent: Intent | None = None
        self._happenings: list[Happening] = []
        # One number a frame; NaN is not known. A slice is a copy, whoever reads on meanwhile.
        self._sequences = array("q")
        self._begins = array("q")  # of its line, in bytes
        self._restored = array("q")  # the same of its restoration; -1 without
        self._seconds = array("d")
        self._distances = array("d")
        self._scores = array("d")
        self._focus = array("d")
        self._sigmas = array("d")

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._sigmas)

    def read_on(self) -> bool:
        """Read what has been recorded since; ``False`` if the file is another one than before.

        Raises:
            InputFileError: the events cannot be read.
        """
        try:
            found = (self._folder / EVENTS).stat()
        except OSError as error:
            raise InputFileError(f"{self._folder}: is no longer there") from error
        state = (found.st_ino, found.st_size, found.st_mtime_ns)
        if self._state is not None and state != self._state:
            file, size, _ = self._state
            grown = found.st_size > size or (self._grows and found.st_size == size)
            if found.st_ino != file or not grown:
                return False
        if state != self._state:
            self._torn = None
            for number, line in read_lines(self._folder, damaged=self._damaged, place=self._place):
                if line is None:
                    self._torn = number
                    continue
                try:
                    self._take(line)
                except (ValueError, OverflowError):
                    if line.channel in (FRAME_CHANNEL, DERIVED_CHANNEL):
                        self._damaged.append(number)
            self._state = state
        return True

    def outline(self, sequence: int | None = None) -> dict[str, Any]:
        """What a page shows first: what the session was, and the whole of it in outline.

        Args:
            sequence: of the frame that is to be shown; without it, or if there is none, the last.

        Raises:
            InputFileError: the manifest cannot be read.
        """
        manifest = read_manifest(self._folder)
        described = manifest.capabilities
        count = len(self)
        last = count - 1
        shown = None if sequence is None else self._index(sequence)
        problems = self._problems()
        return {
            "name": self._folder.name,
            "instrument": manifest.configuration.get("instrument", described.microscope),
            "capabilities": described,
            "engine": manifest.engine.name,
            "semagent_version": manifest.semagent_version,
            "started_wall_ns": manifest.started_wall_ns,
            "lasted_s": manifest.lasted_s,
            "complete": manifest.complete,
            "problems": problems[:_PROBLEMS],
            "more_problems": max(0, len(problems) - _PROBLEMS),
            "zero_wall_ms": self._zero[1] / 1e6 if self._zero else None,
            "frames": count,
            "restored": len(self._restored_indices()),
            "last_s": self._seconds[last] if count else 0.0,
            "shown": last if shown is None else shown,
            "curve": self.curve(),
            "happenings": self.happenings(_ALL),
        }

    def curve(self, begin_s: float = 0.0, end_s: float = math.inf) -> dict[str, Any]:
        """What is drawn of a time: its frames and marks, or as many of them as make a difference.

        What happened before the first frame belongs to the beginning, after the last to the end.
        """
        times = self._seconds[: len(self)]
        first = max(0, bisect_left(times, begin_s) - 1)  # a curve goes on beyond both ends
        last = min(len(times), bisect_right(times, end_s) + 1)
        marks = [(self._since_first(one), one.kind) for one in self._happenings]
        longest_s = times[-1] if times else 0.0
        marks = [mark for mark in marks if begin_s <= min(max(mark[0], 0.0), longest_s) <= end_s]
        if len(marks) > _MARKS:
            apart_s = (marks[-1][0] - marks[0][0]) / _MARKS or 1.0
            marks = list({(t_s // apart_s, kind): (t_s, kind) for t_s, kind in marks}.values())
        return {
            "frames": [self._point(index) for index in self._telling(first, last)],
            "marks": [{"t_s": t_s, "kind": kind} for t_s, kind in marks],
        }

    def steps(self, first: int) -> list[dict[str, Any]]:
        """Some frames from an index on, one by one, each with the next one that was restored."""
        restored = self._restored_indices()
        return [
            {
                **self._point(index),
                "sequence": self._sequences[index],
                "restored": self._restored[index] >= 0,
                "next_restored": restored[bisect_right(restored, index) % len(restored)]
                if restored
                else None,
            }
            for index in range(first, min(len(self), first + _STEPS))
        ]

    def happenings(self, kind: str, before: int | None = None) -> dict[str, Any]:
        """The last of what happened, in order.

        Args:
            kind: one kind only, or ``all``.
            before: what comes before this one of them, counted from 0.
        """
        chosen = [one for one in self._happenings if kind in (_ALL, one.kind)]
        chosen, count = chosen[:before], len(chosen)
        first = max(0, len(chosen) - _LISTED)
        entries = [self._entry(one) for one in chosen[first:]]
        return {"count": count, "first": first, "entries": entries}

    def frame(self, sequence: int) -> Frame:
        """Read one frame.

        Raises:
            InputFileError: there is none, or it cannot be read as it was recorded.
        """
        index = self._index(sequence)
        if index is None:
            raise InputFileError(
                f"{self._folder}: no frame {sequence} among its {len(self)} frames"
            )
        record = self._line_at(self._begins[index], FrameRecord, sequence)
        return recorded_frame(self._folder, record, verify=True)

    def restored(self, sequence: int) -> tuple[Pixels, FrameAnalysis] | None:
        """Read one restored frame; ``None`` if there is none.

        Raises:
            InputFileError: it cannot be read as it was recorded.
        """
        index = self._index(sequence)
        if index is None or self._restored[index] < 0:
            return None
        record = self._line_at(self._restored[index], DerivedRecord, sequence)
        return recorded_restoration(self._folder, record)

    # -- taking in ------------------------------------------------------------------------------

    def _take(self, line: Line) -> None:
        match line.channel:
            case "frame":
                self._take_frame(decode_value(line, FrameRecord))
            case "derived":
                if (index := self._index(decode_value(line, DerivedRecord).sequence)) is not None:
                    self._restored[index] = self._place.offset
            case "analysis":
                scored = decode_value(line, _Scored)
                if (index := self._index(scored.header.sequence)) is not None:
                    self._scores[index] = scored.focus_score
            case "belief":
                belief = decode_value(line, FocusBelief)
                if (index := self._index(belief.sequence)) is not None:
                    self._focus[index] = _or_nan(belief.focus_m)
                    self._sigmas[index] = _or_nan(belief.sigma_m)
            case channel if channel in SAID:
                self._take_said(line.monotonic_ns, decode_value(line, CHANNELS[channel].type))

    def _take_frame(self, record: FrameRecord) -> None:
        header = record.header
        if self._zero is None:
            self._zero = header.monotonic_ns, header.wall_ns
        seconds = self._seconds_at(header.monotonic_ns)
        self._sequences.append(header.sequence)
        self._begins.append(self._place.offset)
        self._restored.append(-1)
        self._seconds.append(seconds)
        self._distances.append(header.optics.working_distance_m)
        for unknown in (self._scores, self._focus, self._sigmas):
            unknown.append(math.nan)

    def _take_said(self, monotonic_ns: int, value: Any) -> None:
        after = bisect_right(self._seconds, self._seconds_at(monotonic_ns)) - 1
        sequence = self._sequences[after] if after >= 0 else None
        match value:
            case Intent() as meant:
                repeated = self._intent is not None and _aims(self._intent) == _aims(meant)
                self._intent = meant
                if repeated:
                    return
                said = _intent(meant)
            case Reply() as reply:
                if reply.command.basis is not None:
                    sequence = reply.command.basis.sequence
                said = self._reply(reply, sequence)
            case FocusResult() as result:
                level = Level.INFO if result.verified else Level.WARNING
                said = ("decision", level, "agent", result.status, result.reason)
            case Event() as event:
                if event.kind in _SAID_OTHERWISE:
                    return
                said = ("news", event.level, event.role, event.message, "")
            case Note(text=text):
                mark = _MARK.match(text)
                sequence = int(mark[1]) if mark else sequence
                said = ("note", Level.INFO, "operator", text, "")
            case asked:
                said = ("operator", Level.INFO, "operator", _request(asked), "")
        kind, level, who, text, why = said
        self._happenings.append(
            Happening(
                monotonic_ns=monotonic_ns,
                sequence=sequence,
                kind=kind,
                level=level,
                who=who,
                text=text,
                why=why,
            )
        )

    def _reply(self, reply: Reply, sequence: int | None) -> "Said":
        words = action_words(reply.command.action)
        who = str(reply.command.issuer)
        if reply.outcome is not Outcome.APPLIED:
            level = Level.WARNING if reply.outcome is Outcome.REFUSED else Level.ERROR
            return "refused", level, who, f"{words}: {reply.outcome}", reply.reason
        if reply.command.issuer is Issuer.OPERATOR:
            return "operator", Level.INFO, who, words, ""
        reasons = [self._intent.why] if self._intent is not None else []
        index = None if sequence is None else self._index(sequence)
        if index is not None and not math.isnan(self._focus[index]):
            belief = f"{show_distance(self._focus[index])} ± {show_length(self._sigmas[index])}"
            reasons.append(f"focus believed at {belief}")
        return "decision", Level.INFO, who, words, "; ".join(reasons)

    # -- telling --------------------------------------------------------------------------------

    def _problems(self) -> list[Problem]:
        damaged = [damaged_line(number) for number in sorted(self._damaged)]
        if self._grows:
            return damaged
        end = [] if self._torn is None else [torn(self._torn)]
        known = {frame_file(sequence) for sequence in self._sequences[: len(self)]}
        whole = unfinished(read_manifest(self._folder))
        return [*whole, *end, *damaged, *strays(self._folder, FRAMES, known)]

    def _telling(self, first: int, last: int) -> Sequence[int]:
        """Indices of the frames between that a curve needs."""
        if last - first <= 5 * _STRETCHES:
            return range(first, last)
        columns = [np.asarray(column[first:last]) for column in (self._scores, self._distances)]
        kept = {last - 1}
        for begin, end in pairwise(np.linspace(0, last - first, _STRETCHES + 1, dtype=int)):
            kept.add(first + int(begin))
            for column in columns:
                part = column[begin:end]
                if not np.isnan(part).all():
                    extremes = np.nanargmin(part), np.nanargmax(part)
                    kept |= {first + int(begin + extreme) for extreme in extremes}
        return sorted(kept)

    def _point(self, index: int) -> dict[str, Any]:
        return {
            "index": index,
            "t_s": round(self._seconds[index], 3),
            "working_distance_m": _rounded(self._distances[index], 10),
            "score": _rounded(self._scores[index], 4),
            "focus_m": _rounded(self._focus[index], 10),
            "sigma_m": _rounded(self._sigmas[index], 10),
        }

    def _restored_indices(self) -> list[int]:
        return [int(index) for index in np.flatnonzero(np.asarray(self._restored[:]) >= 0)]

    def _index(self, sequence: int) -> int | None:
        """Of the frame of this number, if there is one."""
        index = bisect_left(self._sequences, sequence)
        found = index < len(self) and self._sequences[index] == sequence
        return index if found else None

    def _entry(self, one: Happening) -> dict[str, Any]:
        return {
            "t_s": self._since_first(one),
            "sequence": one.sequence,
            "index": None if one.sequence is None else self._index(one.sequence),
            "kind": one.kind,
            "level": one.level,
            "who": one.who,
            "text": one.text,
            "why": one.why,
        }

    def _since_first(self, one: Happening) -> float:
        return round(self._seconds_at(one.monotonic_ns), 3)

    def _seconds_at(self, monotonic_ns: int) -> float:
        return (monotonic_ns - (self._zero[0] if self._zero else 0)) / 1e9

    def _line_at(self, begins: int, kind: Any, sequence: int) -> Any:
        """The value of the line that begins there, which is about that frame."""
        _, line = next(read_lines(self._folder, place=Place(begins)), (0, None))
        with contextlib.suppress(ValueError):
            value = None if line is None else decode_value(line, kind)
            if value is not None and _about(value) == sequence:
                return value
        raise InputFileError(f"{self._folder / EVENTS}: has changed; load this page again")


def _about(value: FrameRecord | DerivedRecord) -> int:
    return value.sequence if isinstance(value, DerivedRecord) else value.header.sequence


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _rounded(value: float, digits: int) -> float | None:
    return None if math.isnan(value) else round(value, digits)


Said = tuple[Kind, Level, str, str, str]


def _aims(intent: Intent) -> tuple[object, ...]:
    return intent.mode, intent.doing, intent.proposal_m


def _intent(intent: Intent) -> Said:
    text = f"{intent.mode}, {intent.doing}"
    if intent.proposal_m is not None:
        text += f": proposes {show_distance(intent.proposal_m)}"
    return "decision", Level.INFO, "agent", text, intent.why


def _request(request: Request) -> str:
    match request:
        case SetMode(mode=mode):
            return f"mode {mode}"
        case StartAutofocus(stigmation=stigmation):
            return "focus and stigmate" if stigmation else "focus"
        case Cancel(reason=reason):
            return f"put back: {reason}"
        case Decline(working_distance_m=value_m):
            return f"declines focus at {show_distance(value_m)}"
        case Note(text=text):
            return text
