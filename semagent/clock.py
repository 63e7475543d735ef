"""The clock everything uses, so that tests and recorded sessions can bring their own."""

import time
from typing import Protocol


class Clock(Protocol):
    """Order and liveness come from ``monotonic_ns``; ``wall_ns`` is for people only."""

    def monotonic_ns(self) -> int:
        """Nanoseconds on a clock that never goes back, common to all processes of a machine."""
        ...

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...

    def sleep(self, duration_s: float) -> None:
        """Let ``duration_s`` seconds pass."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic_ns(self) -> int:
        """See `Clock`."""
        # perf_counter, not monotonic: before Python 3.13 the latter ticks in 16 ms on Windows.
        # Both are common to all processes of a machine.
        return time.perf_counter_ns()

    def wall_ns(self) -> int:
        """See `Clock`."""
        return time.time_ns()

    def sleep(self, duration_s: float) -> None:
        """See `Clock`."""
        time.sleep(max(0.0, duration_s))


class ManualClock:
    """A clock that moves only when told to, or when somebody sleeps on it."""

    def __init__(self, start_ns: int = 1_000_000_000) -> None:
        self._now_ns = start_ns

    def monotonic_ns(self) -> int:
        """See `Clock`."""
        return self._now_ns

    def wall_ns(self) -> int:
        """See `Clock`."""
        return self._now_ns

    def sleep(self, duration_s: float) -> None:
        """Advance at once by ``duration_s``."""
        self.advance(duration_s)

    def advance(self, duration_s: float) -> None:
        """Move the clock forward by ``duration_s``.

        Raises:
            ValueError: ``duration_s`` is negative; the clock never goes back.
        """
        self.move_to(self._now_ns + round(duration_s * 1e9))

    def move_to(self, monotonic_ns: int) -> None:
        """Move the clock forward to ``monotonic_ns``.

        Raises:
            ValueError: that is in the past; the clock never goes back.
        """
        if monotonic_ns < self._now_ns:
            raise ValueError(f"the clock never goes back from {self._now_ns} to {monotonic_ns} ns")
        self._now_ns = monotonic_ns
