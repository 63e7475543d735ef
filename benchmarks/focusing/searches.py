"""One-dimensional searches for the sharpest frame, as the peers do them.

All look over the whole range, 48 half depths of field either side of the start, because nobody
tells them that focus is within 40, and all end where they think focus is, whatever they found.
"""

import contextlib
import math
from collections.abc import Callable

import numpy as np

from focusing.beads import open_scope
from focusing.measures import Score
from focusing.outcome import Outcome
from focusing.trials import Trial

GOLDEN = (math.sqrt(5) - 1) / 2

SWEEP_STEP = 2.0
"""Half depths of field: 49 frames over the range. With half of them most sweeps miss the peak."""

TOLERANCE = 0.5
"""Half depths of field; what counts as success is ± 1."""

MAX_EVALUATIONS = 100

Find = Callable[[Callable[[float], float], float, float], float]
"""Takes a function to maximise and its bounds, and returns a place."""


def vertex(positions: np.ndarray, values: np.ndarray) -> float:
    """Place of the maximum, by the parabola through the best point and its neighbours."""
    best = int(np.argmax(values))
    if best in {0, len(values) - 1}:
        return float(positions[best])
    left, middle, right = values[best - 1 : best + 2]
    bend = left - 2 * middle + right
    offset = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return float(positions[best] + offset * (positions[best + 1] - positions[best]))


class Search:
    """A search that evaluates one score at places of its own choice.

    Args:
        name: how it is called in the tables.
        score: what it maximises.
        find: how it searches.
        from_below: whether it goes to what it found from below, as its frames were taken, so that
            the play of the lens does not count.
    """

    def __init__(self, name: str, score: Score, find: Find, *, from_below: bool = False) -> None:
        self._name, self._score, self._find = name, score, find
        self._from_below = from_below

    def __call__(self, trial: Trial) -> Outcome:
        """Run one trial."""
        with contextlib.closing(open_scope(trial)) as scope:

            def value(position: float) -> float:
                scope.go(position)
                return self._score(scope.image())

            found = self._find(value, -scope.limit, scope.limit)
            if self._from_below:
                scope.go(-scope.limit)
            scope.go(found)
            return scope.outcome(self._name)


def sweep(value: Callable[[float], float], low: float, high: float) -> float:
    """A frame every two half depths of field, upwards, then a parabola."""
    positions = np.arange(low, high + 0.1, SWEEP_STEP)
    scores = np.array([value(float(position)) for position in positions])
    # The logarithm makes the peak more like a parabola.
    return vertex(positions, np.log(np.maximum(scores, 1e-12)))


def golden_section(value: Callable[[float], float], low: float, high: float) -> float:
    """Golden-section search (Kiefer 1953), until the bracket is below twice the tolerance."""
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = value(left), value(right)
    while high - low > 2 * TOLERANCE:
        if at_left > at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = value(right)
    return (low + high) / 2


def brent(value: Callable[[float], float], low: float, high: float) -> float:
    """Brent's search (1973, ch. 5) as OughtaFocus runs it: from the middle, absolute tolerance.

    Micro-Manager calls the optimiser of Apache Commons Math with a relative tolerance of 1e-9
    and the user's absolute one, at most 100 evaluations, and goes to the best place it returns.
    """
    best = second = third = (low + high) / 2
    at_best = at_second = at_third = value(best)
    step = previous = 0.0
    for _ in range(MAX_EVALUATIONS):
        middle = (low + high) / 2
        if abs(best - middle) <= 2 * TOLERANCE - (high - low) / 2:
            break
        parabola = False
        if abs(previous) > TOLERANCE:
            r = (best - second) * (at_third - at_best)
            q = (best - third) * (at_second - at_best)
            p = (best - third) * q - (best - second) * r
            q = 2 * (q - r)
            p, q = (-p, q) if q > 0 else (p, -q)
            if abs(p) < abs(0.5 * q * previous) and q * (low - best) < p < q * (high - best):
                parabola, previous, step = True, step, p / q
                if min(best + step - low, high - best - step) < 2 * TOLERANCE:
                    step = math.copysign(TOLERANCE, middle - best)
        if not parabola:
            previous = (high if best < middle else low) - best
            step = (1 - GOLDEN) * previous
        place = best + (step if abs(step) >= TOLERANCE else math.copysign(TOLERANCE, step))
        at_place = value(place)
        if at_place >= at_best:
            low, high = (best, high) if place >= best else (low, best)
            third, at_third, second, at_second = second, at_second, best, at_best
            best, at_best = place, at_place
        else:
            low, high = (place, high) if place < best else (low, place)
            if at_place >= at_second or second == best:
                third, at_third, second, at_second = second, at_second, place, at_place
            elif at_place >= at_third or third in {best, second}:
                third, at_third = place, at_place
    return best


def coarse_to_fine(value: Callable[[float], float], low: float, high: float) -> float:
    """A sweep in steps of 8, then one in steps of 2 about its best place, then a parabola."""
    coarse = np.arange(low, high + 0.1, 8.0)
    centre = coarse[int(np.argmax([value(float(place)) for place in coarse]))]
    fine = np.clip(centre + np.arange(-8.0, 8.1, 2.0), low, high)
    return vertex(fine, np.array([value(float(place)) for place in fine]))


def binary(value: Callable[[float], float], low: float, high: float) -> float:
    """Odemis's dichotomy, without a known good position.

    From the current place one step right and one left; go to the best of the three; halve the
    step when that is the middle, divide it by 1.5 near the ends of the range, and end when it
    falls below the smallest step. Scores are kept until the maximum has been passed once. Odemis
    begins with 128 smallest steps, and makes those smaller where that exceeds half the range.
    """
    span = (high - low) / 2
    factor = 128.0
    smallest = min(1.0, span / factor)
    known: dict[float, float] = {}
    rough, here, last = True, 0.0, math.nan

    def look(place: float, *, reuse: bool) -> float:
        if not (reuse and place in known):
            known[place] = value(place)
        return known[place]

    for _ in range(MAX_EVALUATIONS):
        if factor < 1:
            break
        at_here = look(here, reuse=rough or last == here)
        right = min(here + factor * smallest, high)
        at_right = look(right, reuse=rough)
        left = max(here - factor * smallest, low)
        at_left = look(left, reuse=rough)
        last = left
        if left == right:
            break
        order = (at_left, at_here, at_right)
        best = (left, here, right)[order.index(max(order))]
        if best == here:
            factor, rough = factor / 2, False
        elif not low <= best - factor * smallest <= best + factor * smallest <= high:
            factor /= 1.5
            rough = rough and factor > 8
        here = best
    return here
