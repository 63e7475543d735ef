"""The signals that ask a program to end: Ctrl-C, and what terminals and service managers send."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
if hasattr(signal, "SIGBREAK"):
    ENDING = (*ENDING, signal.SIGBREAK)  # Ctrl-Break and a closed console window on Windows
HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""The terminal was closed or its connection is gone; both kernel and shell say so."""
if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
    ENDING = (*ENDING, HANGUP)  # not under nohup, which is there to outlive it

Handler = Callable[[int, FrameType | None], Any] | int


def ignore() -> None:
    """Have this process take no more notice of them."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Have ``handler`` take all signals that ask to end; in the main thread only."""
    before = {number: signal.signal(number, handler) for number in ENDING}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
