"""The signals that ask a program to end: Ctrl-C, and what terminals and service managers send."""

import signal
import sys
import time
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

if sys.platform == "win32":
    import ctypes

    _CLOSED = (2, 5, 6)  # CTRL_CLOSE_EVENT, CTRL_LOGOFF_EVENT, CTRL_SHUTDOWN_EVENT
    _LONGER_THAN_WINDOWS_WAITS_S = 60.0

    @ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_uint)  # type: ignore[untyped-decorator]
    def _outlive(event: int) -> int:
        """Windows ends a process when this has returned, or else after five seconds."""
        if event in _CLOSED:
            time.sleep(_LONGER_THAN_WINDOWS_WAITS_S)
        return 0


def ignore() -> None:
    """Have this process take no more notice of them."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "win32":
        ctypes.windll.kernel32.SetConsoleCtrlHandler(_outlive, 1)


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Have ``handler`` take all signals that ask to end; in the main thread only."""
    before = {number: signal.signal(number, handler) for number in ENDING}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
