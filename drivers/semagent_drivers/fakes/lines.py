"""Questions that come as lines of text ending in CR LF."""

import socket
import threading
from collections.abc import Callable, Iterator

from semagent_drivers.fakes.trip import Fault, Trip

_SLICE_S = 0.005


def questions(
    connection: socket.socket, trip: Trip, closing: threading.Event, work: Callable[[], None]
) -> Iterator[tuple[str, bool]]:
    """The lines that are to be answered, and whether with a failure, until ``closing`` is set.

    In between ``work`` is called again and again, for what happens by itself.
    """
    waiting = b""
    while not closing.is_set():
        work()
        connection.settimeout(_SLICE_S)
        try:
            more = connection.recv(4096)
        except TimeoutError:
            continue
        if not more:
            return
        waiting += more
        while b"\r\n" in waiting:
            line, _, waiting = waiting.partition(b"\r\n")
            fault = trip.step()
            if fault is Fault.DROP:
                return
            if fault is not Fault.HANG:
                yield line.decode("ascii"), fault is Fault.FAIL
