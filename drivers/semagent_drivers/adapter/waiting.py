"""Waiting for a microscope: with a deadline, and until somebody says stop."""

import threading
from collections.abc import Callable

from semagent.clock import Clock
from semagent.errors import AcquisitionStoppedError, MicroscopeTimeoutError


class Wait:
    """The time one operation may take, shared by all the waits it is made of.

    Args:
        clock: what time is measured and slept on.
        timeout_s: from now.
        stopped: set when the operation is to end early.
    """

    def __init__(self, clock: Clock, timeout_s: float, stopped: threading.Event) -> None:
        self._clock = clock
        self._start_ns = clock.monotonic_ns()
        self.timeout_s = timeout_s
        self.stopped = stopped

    @property
    def left_s(self) -> float:
        """Seconds to the deadline, never below 0."""
        spent_s = (self._clock.monotonic_ns() - self._start_ns) * 1e-9
        return max(0.0, self.timeout_s - spent_s)

    def check(self, what: str) -> None:
        """Give up on ``what`` if it is time to.

        Raises:
            AcquisitionStoppedError: ``stop`` was called.
            MicroscopeTimeoutError: the deadline is over.
        """
        if self.stopped.is_set():
            raise AcquisitionStoppedError(f"stopped while waiting for {what}")
        if not self.left_s > 0:
            raise MicroscopeTimeoutError(f"no {what} within {self.timeout_s:g} s")

    def until(self, done: Callable[[], bool], what: str, *, every_s: float = 0.02) -> None:
        """Ask ``done`` again and again until it says yes; it is asked at least once.

        Raises:
            AcquisitionStoppedError: ``stop`` was called.
            MicroscopeTimeoutError: the deadline is over.
        """
        while not done():
            self.check(what)
            self._clock.sleep(min(every_s, self.left_s))

    def sleep(self, duration_s: float, what: str) -> None:
        """Let a fixed time pass, for vendors that give no sign of having settled.

        Raises:
            AcquisitionStoppedError: ``stop`` was called.
            MicroscopeTimeoutError: the deadline is over first.
        """
        end_ns = self._clock.monotonic_ns() + round(duration_s * 1e9)
        self.until(lambda: self._clock.monotonic_ns() >= end_ns, what)
