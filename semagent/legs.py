"""The way to a target in several commands, where play or limits ask for it, and the way back."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from semagent.errors import CommandRefusedError, GateRefusedError, MicroscopeError, SemagentError

_NO_MOVE = 1e-12


def legs(
    here: float,
    target: float,
    *,
    approach: float = 0.0,
    max_step: float | None = None,
    lowest: float = -math.inf,
) -> tuple[float, ...]:
    """Where to go, one after the other; empty if the target is here.

    Lenses have hysteresis and stages backlash: a target that would be reached from above is
    passed by ``approach``, though not beyond ``lowest``, and reached from below like any other.
    No leg is longer than ``max_step``.
    """
    if abs(target - here) < _NO_MOVE:
        return ()
    turns = [target]
    if target < here and approach:
        turns = [max(lowest, target - approach), target]
    way: list[float] = []
    for turn in turns:
        way += _split(here, turn, max_step)
        here = turn
    return tuple(way)


def pair_legs(
    here: tuple[float, float], target: tuple[float, float], max_step: float | None
) -> tuple[tuple[float, float], ...]:
    """Equal steps of two axes at once, none longer than allowed along either; the target last."""
    ways = (target[0] - here[0], target[1] - here[1])
    count = 1 if max_step is None else max(1, math.ceil(max(map(abs, ways)) / max_step))
    between = [
        (here[0] + ways[0] * step / count, here[1] + ways[1] * step / count)
        for step in range(1, count)
    ]
    return (*between, target)


def put_back(*ways: Callable[[bool], None]) -> None:
    """Go each way back, whatever becomes of the others.

    Args:
        ways: told whether to go straight. They are not at first; one that is refused goes again,
            straight: the gate keeps enough travel for that, not for a way around the play.

    Raises:
        CommandRefusedError: not everything was put back, as all that did not was refused.
        MicroscopeError: not everything was put back.
    """
    problems: list[SemagentError] = []
    for way in ways:
        try:
            try:
                way(False)
            except CommandRefusedError:
                way(True)
        except SemagentError as error:
            problems.append(error)
    if problems:
        kinds = GateRefusedError, CommandRefusedError
        alike = (kind for kind in kinds if all(isinstance(each, kind) for each in problems))
        kind = next(alike, MicroscopeError)
        what = "; ".join(dict.fromkeys(map(str, problems)))
        raise kind(f"not everything could be put back: {what}") from problems[0]


@contextmanager
def and_back(put_back: Callable[[], None], *, check: str) -> Iterator[None]:
    """Do something, and put everything back, whatever happens.

    Args:
        put_back: puts it back, or raises what could not be.
        check: what to look at if that fails after something else did.

    Raises:
        MicroscopeError: something failed, and so did putting back.
    """
    try:
        yield
    except BaseException as error:
        try:
            put_back()
        except SemagentError as second:
            raise MicroscopeError(
                f"{str(error) or 'interrupted'}; and {second}; check {check}"
            ) from error
        raise
    put_back()


def _split(here: float, target: float, max_step: float | None) -> list[float]:
    """Equal steps from here to the target, none longer than allowed."""
    way = target - here
    if abs(way) < _NO_MOVE:
        return []
    count = 1 if max_step is None else max(1, math.ceil(abs(way) / max_step))
    return [here + way * step / count for step in range(1, count)] + [target]
