"""Values in the words and units of an operator."""

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


def length(value_m: float | None, *, sign: bool = False) -> str:
    """A length with the unit that suits it."""
    if value_m is None:
        return "–"
    plus = "+" if sign else ""
    for factor, unit in ((1e3, "mm"), (1e6, "µm")):
        if abs(value_m) * factor >= 0.9995:
            return f"{value_m * factor:{plus}.3f} {unit}"
    return f"{value_m * 1e9:{plus}.0f} nm"


def distance(value_m: float | None) -> str:
    """A working distance, to a tenth of a micrometre."""
    return "–" if value_m is None else f"{value_m * 1e3:.4f} mm"


def belief_in_words(belief: FocusBelief | None) -> str:
    """Where focus is thought to be."""
    if belief is None or belief.focus_m is None:
        return "nothing known"
    return f"{distance(belief.focus_m)} ± {length(belief.sigma_m)}"


def command_in_words(command: Command) -> str:
    """What was asked for."""
    match command.action:
        case SetWorkingDistance(working_distance_m=target_m):
            return f"focus to {distance(target_m)}"
        case SetStigmator(x=x, y=y):
            return f"stigmators to {x:+.4f}, {y:+.4f}"
        case SetBeamShift(x_m=x_m, y_m=y_m):
            return f"beam shift to {length(x_m, sign=True)}, {length(y_m, sign=True)}"
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
