"""Values in the words and units of an operator."""

from semagent.lengths import show_distance, show_length
from semagent.types import (
    Command,
    FocusBelief,
    MoveStage,
    Outcome,
    Reply,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
)


def belief_in_words(belief: FocusBelief | None) -> str:
    """Where focus is thought to be."""
    if belief is None or belief.focus_m is None:
        return "nothing known"
    return f"{show_distance(belief.focus_m)} ± {show_length(belief.sigma_m)}"


def command_in_words(command: Command) -> str:
    """What was asked for."""
    match command.action:
        case SetWorkingDistance(working_distance_m=target_m):
            return f"focus to {show_distance(target_m)}"
        case SetStigmator(x=x, y=y):
            return f"stigmators to {x:+.4f}, {y:+.4f}"
        case SetBeamShift(x_m=x_m, y_m=y_m):
            return f"beam shift to {show_length(x_m, sign=True)}, {show_length(y_m, sign=True)}"
        case SetScan():
            return "scan settings"
        case SetBlanked(blanked=blanked):
            return "blank the beam" if blanked else "unblank the beam"
        case MoveStage():
            return "move the stage"
        case other:
            return type(other).__name__.lower()


def answer_in_words(reply: Reply | None) -> str:
    """What became of it; nothing if it was simply done."""
    if reply is None:
        return "not answered"
    if reply.outcome is Outcome.APPLIED:
        return ""
    return f"{reply.outcome.upper()}: {reply.reason}"
