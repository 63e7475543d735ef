"""The monotonic clock of another machine, told by one's own."""

from typing import NamedTuple

_DRIFT = 600e-6
"""How fast two clocks may run apart: 500 ppm of slewing by a time service, 100 ppm of quartz."""


class _Estimate(NamedTuple):
    offset_ns: int
    error_ns: float
    at_ns: int


class FarClock:
    """Offset between two monotonic clocks, estimated from questions and answers.

    The far clock was read at some moment between question and answer. Half-way is the best
    guess, and half the round trip bounds its error, whatever the way there and back took
    (Cristian, Distributed Computing 3, 146-158, 1989). The error of an old estimate grows by
    the drift of the clocks; a new one takes its place as soon as it is better than that.
    """

    def __init__(self) -> None:
        # Replaced as a whole, so that any thread may read it.
        self._best = _Estimate(0, float("inf"), 0)

    def learn(self, sent_ns: int, far_ns: int, received_ns: int) -> None:
        """Take note of one question and answer.

        Args:
            sent_ns: when the question left, here.
            far_ns: when it was answered, there.
            received_ns: when the answer was here.
        """
        error_ns = (received_ns - sent_ns) / 2
        if error_ns <= self.error_ns(received_ns):
            offset_ns = far_ns - (sent_ns + received_ns) // 2
            self._best = _Estimate(offset_ns, error_ns, received_ns)

    def error_ns(self, now_ns: int) -> float:
        """Bound of the error of a conversion at ``now_ns``; infinite before the first answer."""
        best = self._best
        return best.error_ns + _DRIFT * (now_ns - best.at_ns)

    def to_here(self, far_ns: int, now_ns: int) -> int:
        """A moment on the far clock as one on this, not later than ``now_ns``, when it is known."""
        return min(far_ns - self._best.offset_ns, now_ns)

    def to_far(self, here_ns: int) -> int:
        """A moment on this clock as one on the far clock."""
        return here_ns + self._best.offset_ns
