"""A recorded session as its page shows it: a curve, and everything that was decided and said."""

import re
from bisect import bisect_right
from typing import Any, Literal

import msgspec

from semagent.console.words import action_words
from semagent.report import Story
from semagent.report.words import belief_in_words
from semagent.types import (
    Cancel,
    Decline,
    Event,
    FocusBelief,
    FocusResult,
    Intent,
    Issuer,
    Level,
    Note,
    Outcome,
    Reply,
    Request,
    SetMode,
    StartAutofocus,
)

_MARK = re.compile(r"mark at frame (\d+)")
_SAID_OTHERWISE = {"autofocus_done", "proposal_declined"}
"""News that only repeat what stands in the record in another form."""

Kind = Literal["decision", "refused", "note", "operator", "news"]


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was decided, refused, noted or said.

    Attributes:
        t_s: since the first frame.
        sequence: the frame it rests on or came after; ``None`` before the first.
        why: the reason, in words.
    """

    t_s: float
    sequence: int | None
    kind: Kind
    level: Level
    who: str
    text: str
    why: str = ""


def describe(story: Story) -> dict[str, Any]:
    """All but the pixels.

    Moments are seconds since the first frame, ``zero_wall_ms`` is its wall time.
    """
    session, steps = story.session, story.steps
    first = steps[0].header if steps else None
    zero_ns = first.monotonic_ns if first else 0
    manifest = session.manifest
    restored = {record.sequence for record in session.derived_records}
    return {
        "name": session.folder.name,
        "instrument": manifest.configuration.get("instrument", manifest.capabilities.microscope),
        "capabilities": manifest.capabilities,
        "engine": manifest.engine.name,
        "semagent_version": manifest.semagent_version,
        "started_wall_ns": manifest.started_wall_ns,
        "lasted_s": manifest.lasted_s,
        "complete": manifest.complete,
        "problems": session.problems,
        "zero_wall_ms": first.wall_ns / 1e6 if first else None,
        "frames": [
            {
                "sequence": step.header.sequence,
                "t_s": (step.header.monotonic_ns - zero_ns) / 1e9,
                "working_distance_m": step.header.optics.working_distance_m,
                "score": step.analysis.focus_score if step.analysis else None,
                "focus_m": step.belief.focus_m if step.belief else None,
                "sigma_m": step.belief.sigma_m if step.belief else None,
                "faults": step.header.faults,
                "restored": step.header.sequence in restored,
            }
            for step in steps
        ],
        "happenings": _happenings(story, zero_ns),
    }


def _happenings(story: Story, zero_ns: int) -> list[Happening]:
    stamps = [step.header.monotonic_ns for step in story.steps]
    beliefs = {step.header.sequence: step.belief for step in story.steps}
    intent: Intent | None = None
    told = []
    for entry in story.said:
        after = bisect_right(stamps, entry.monotonic_ns) - 1
        sequence = story.steps[after].header.sequence if after >= 0 else None
        match entry.value:
            case Intent() as meant:
                repeated = intent is not None and _aims(intent) == _aims(meant)
                intent = meant
                if repeated:
                    continue
                said = _intent(meant)
            case Reply() as reply:
                if reply.command.basis is not None:
                    sequence = reply.command.basis.sequence
                said = _reply(reply, intent, beliefs.get(sequence) if sequence else None)
            case FocusResult() as result:
                level = Level.INFO if result.verified else Level.WARNING
                said = ("decision", level, "agent", result.status, result.reason)
            case Event() as event:
                if event.kind in _SAID_OTHERWISE:
                    continue
                said = ("news", event.level, event.role, event.message, "")
            case Note(text=text):
                mark = _MARK.match(text)
                sequence = int(mark[1]) if mark else sequence
                said = ("note", Level.INFO, "operator", text, "")
            case asked:
                said = ("operator", Level.INFO, "operator", _request(asked), "")
        kind, level, who, text, why = said
        told.append(
            Happening(
                t_s=(entry.monotonic_ns - zero_ns) / 1e9,
                sequence=sequence,
                kind=kind,
                level=level,
                who=who,
                text=text,
                why=why,
            )
        )
    return told


Said = tuple[Kind, Level, str, str, str]


def _aims(intent: Intent) -> tuple[object, ...]:
    return intent.mode, intent.doing, intent.proposal_m


def _intent(intent: Intent) -> Said:
    text = f"{intent.mode}, {intent.doing}"
    if intent.proposal_m is not None:
        text += f": proposes {intent.proposal_m * 1e3:.4f} mm"
    return "decision", Level.INFO, "agent", text, intent.why


def _reply(reply: Reply, intent: Intent | None, belief: FocusBelief | None) -> Said:
    words = action_words(reply.command.action)
    who = str(reply.command.issuer)
    if reply.outcome is not Outcome.APPLIED:
        level = Level.WARNING if reply.outcome is Outcome.REFUSED else Level.ERROR
        return "refused", level, who, f"{words}: {reply.outcome}", reply.reason
    if reply.command.issuer is Issuer.OPERATOR:
        return "operator", Level.INFO, who, words, ""
    reasons = [intent.why] if intent is not None else []
    if belief is not None and belief.focus_m is not None:
        reasons.append(f"focus believed at {belief_in_words(belief)}")
    why = "; ".join(reasons)
    return "decision", Level.INFO, who, words, why


def _request(request: Request) -> str:
    match request:
        case SetMode(mode=mode):
            return f"mode {mode}"
        case StartAutofocus(stigmation=stigmation):
            return "focus and stigmate" if stigmation else "focus"
        case Cancel(reason=reason):
            return f"put back: {reason}"
        case Decline(working_distance_m=value_m):
            return f"declines focus at {value_m * 1e3:.4f} mm"
        case Note(text=text):
            return text
