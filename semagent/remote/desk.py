"""Between the thread that talks to clients and the thread that owns the microscope."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from semagent.remote.protocol import ReadState, Work


@dataclass(eq=False, slots=True)
class Session:
    """One client, from its hello until it leaves or falls silent.

    Attributes:
        identity: its address on the server's socket.
        token: what it has to name in every question.
        who: for people.
        heard_ns: when it last gave a sign of life.
    """

    identity: bytes
    token: str
    who: str
    heard_ns: int


@dataclass(eq=False, slots=True)
class Job:
    """Something a client wants of the microscope.

    Attributes:
        cancelled: why nobody waits for it any more; empty as long as somebody does.
    """

    session: Session
    id: int
    work: Work
    expires_ns: int | None
    cancelled: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """A client has gone without a word. The gate has to shut before anything else happens."""

    reason: str


class Desk:
    """Hands jobs over in order, and stops those that nobody waits for.

    A stop may come a moment before the driver has begun what it is meant for, and then go
    unheard. So it is repeated, by `chase`, for as long as the job goes on.

    Args:
        stop: `Microscope.stop`, the one method that any thread may call.
    """

    CAPACITY = 8

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._queue: deque[Job | Lost] = deque()
        self._running: Job | None = None
        # Held while the driver is told to stop, so that this can never hit the next job.
        self._changed = threading.Condition()

    # -- for the thread that talks to clients -------------------------------------------------

    def submit(self, job: Job) -> bool:
        """Queue a job; ``False`` if too many wait already."""
        with self._changed:
            if len(self._queue) >= self.CAPACITY:
                return False
            self._queue.append(job)
            self._changed.notify()
        return True

    def lose(self, session: Session, reason: str) -> None:
        """Drop everything ``session`` has asked for and have the gate shut."""
        # In this order, so that nothing it asked for can begin before the gate is shut.
        self.cancel(session, reason)
        with self._changed:
            self._queue.append(Lost(reason))
            self._changed.notify()

    def cancel(self, session: Session | None, reason: str) -> None:
        """Stop what ``session``, or anybody if that is ``None``, has asked for so far.

        Reading the settings disturbs nothing and goes on.
        """
        with self._changed:
            for job in (*self._queue, self._running):
                if not isinstance(job, Job) or isinstance(job.work, ReadState):
                    continue
                if session is None or job.session is session:
                    job.cancelled = job.cancelled or reason
            self._stop()

    def chase(self, now_ns: int) -> None:
        """Stop again what should have ended. To be called every now and then."""
        with self._changed:
            job = self._running
            if job is None or isinstance(job.work, ReadState):
                return
            if not job.cancelled and job.expires_ns is not None and now_ns > job.expires_ns:
                job.cancelled = "nobody waits for it any more"
            if job.cancelled:
                self._stop()

    # -- for the thread that owns the microscope ----------------------------------------------

    def take(self, timeout_s: float) -> Job | Lost | None:
        """The next thing to do, ``None`` if there is none within ``timeout_s``.

        A job counts as running from here on, until `finish`.
        """
        with self._changed:
            self._changed.wait_for(lambda: bool(self._queue), timeout_s)
            item = self._queue.popleft() if self._queue else None
            self._running = item if isinstance(item, Job) else None
            return item

    def finish(self) -> None:
        """The running job has come to its end; a stop no longer concerns it."""
        with self._changed:
            self._running = None
