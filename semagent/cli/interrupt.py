"""Ctrl-C that puts things back first; SIGTERM, and Ctrl-Break on Windows, count as the same."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from semagent.signals import handled


class Interrupt:
    """Whether somebody asked to end."""

    def __init__(self, on_first: Callable[[], None]) -> None:
        self.pressed = False
        self._on_first = on_first

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """The signal handler: the first press asks, the second insists."""
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
        # Not in here: the handler interrupts code that may hold the lock this needs.
        threading.Thread(target=self._on_first, daemon=True).start()


@contextmanager
def caught_interrupts(on_first: Callable[[], None] = lambda: None) -> Iterator[Interrupt]:
    """Note the first Ctrl-C instead of raising, so that the loop ends at a frame boundary.

    Args:
        on_first: called at once, in another thread; e.g. to end a long exposure.
    """
    interrupt = Interrupt(on_first)
    with handled(interrupt.handle):
        yield interrupt
