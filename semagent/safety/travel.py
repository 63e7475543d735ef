"""Where an axis was sent, and how far lately."""

from collections import deque
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Plan:
    """What a move would cost, exactly.

    Attributes:
        past: way of the moves that still count.
        way: way of the move itself.
        back: way from its target to where the axis stood before the moves that still count.
    """

    past: Fraction
    way: Fraction
    back: Fraction

    @property
    def total(self) -> Fraction:
        """All of it; a move may pass if this is at most the limit."""
        return self.past + self.way + self.back


class Track:
    """Where one axis should be, and the ways it was sent within a sliding window of time.

    A plan counts the way back too. So whatever has passed, there is travel left to return to
    where the axis stood when the window began, and the limit needs no exception for it. (Moves
    that leave the window keep this true, by the triangle inequality.) Where it stood in between
    may be too far: the way there is not counted.

    The sums are exact fractions. The way back, made in other portions than the way out, then
    cannot miss the limit by a rounding error, and the running sum never drifts.

    Attributes:
        position: last position commanded, or found if none was.
    """

    def __init__(self, position: float, window_ns: int) -> None:
        self.position = position
        self._window_ns = window_ns
        self._moves: deque[tuple[int, float, Fraction]] = deque()
        self._past = Fraction(0)

    def plan(self, target: float, now_ns: int) -> Plan:
        """What a move to ``target`` would cost at ``now_ns``; positions have to be finite."""
        self._forget(now_ns)
        origin = self._moves[0][1] if self._moves else self.position
        return Plan(past=self._past, way=_way(self.position, target), back=_way(target, origin))

    def book(self, target: float, now_ns: int) -> None:
        """Count a move that was commanded."""
        way = _way(self.position, target)
        self._moves.append((now_ns, self.position, way))
        self._past += way
        self.position = target

    def _forget(self, now_ns: int) -> None:
        while self._moves and now_ns - self._moves[0][0] > self._window_ns:
            _, _, way = self._moves.popleft()
            self._past -= way


def _way(start: float, target: float) -> Fraction:
    return abs(Fraction(target) - Fraction(start))
