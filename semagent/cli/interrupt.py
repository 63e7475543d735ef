"""Ctrl-C that puts things back first; other signals, and output nobody reads, count as the same."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from semagent.cli.output import Output
from semagent.signals import HANGUP, handled, ignore


class InsistedError(KeyboardInterrupt):
    """Asked a second time, while things may still be on their way back."""


class EndedAtFrameError(Exception):
    """Somebody asked to end: raised at a frame boundary, after which everything is put back."""


class Interrupt:
    """Whether somebody asked to end.

    Attributes:
        pressed: whether.
        reason: who or what it was, in words; empty before.
    """

    def __init__(self, on_first: Callable[[], None]) -> None:
        self.pressed = False
        self.reason = ""
        self._on_first = on_first

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler: the first press asks, the second insists."""
        if number == HANGUP:
            self.ask("the terminal was closed")
        elif self.pressed:
            raise InsistedError
        elif number == signal.SIGINT:
            self._press("interrupted from the keyboard")
        else:
            self._press(f"told to end by the signal {signal.Signals(number).name}")

    def ask(self, reason: str) -> None:
        """Ask in the name of somebody who has gone: it counts once, and never insists."""
        if not self.pressed:
            self._press(reason)

    def _press(self, reason: str) -> None:
        self.pressed = True
        self.reason = reason
        # Not in here: the handler interrupts code that may hold the lock this needs.
        threading.Thread(target=self._on_first, daemon=True).start()


@contextmanager
def caught_interrupts(
    output: Output,
    on_first: Callable[[], None] = lambda: None,
    *,
    moved: Callable[[], bool] = lambda: True,
) -> Iterator[Interrupt]:
    """Note the first Ctrl-C instead of raising, so that the loop ends at a frame boundary.

    Args:
        output: when nobody reads it any more, that counts as Ctrl-C too.
        on_first: called at once, in another thread; e.g. to end a long exposure.
        moved: whether there may be something to put back.

    Raises:
        InsistedError: Ctrl-C was pressed again.
        KeyboardInterrupt: the same, while there was nothing to put back.
    """
    interrupt = Interrupt(on_first)
    try:
        with handled(interrupt.handle), output.when_unread(interrupt.ask):
            yield interrupt
    except InsistedError:
        ignore()  # the end takes seconds at most; who insists must not change the exit code
        if moved():
            raise
        raise KeyboardInterrupt from None
