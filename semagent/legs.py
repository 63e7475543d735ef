"""The way to a target in several commands, where play or limits ask for it."""

import math

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


def _split(here: float, target: float, max_step: float | None) -> list[float]:
    """Equal steps from here to the target, none longer than allowed."""
    way = target - here
    if abs(way) < _NO_MOVE:
        return []
    count = 1 if max_step is None else max(1, math.ceil(abs(way) / max_step))
    return [here + way * step / count for step in range(1, count)] + [target]
