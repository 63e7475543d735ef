"""Reports and exports that somebody asked for in the browser, one after the other.

They take seconds to minutes, so they are made on a thread, and lie beside the session afterwards.
"""

import threading
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec

from semagent.errors import SemagentError
from semagent.export import Target, export_session
from semagent.report import write_report
from semagent.session import SessionReader

_END_S = 10.0


class Work(StrEnum):
    """What can be made of a session."""

    REPORT = "report"
    OME_TIFF = "ome-tiff"
    OME_ZARR = "ome-zarr"


ENDINGS = {Work.REPORT: ".html", Work.OME_TIFF: ".ome.tif", Work.OME_ZARR: ".ome.zarr"}


class Job(msgspec.Struct, kw_only=True):
    """One piece of work.

    Attributes:
        text: where the result lies, or why there is none.
    """

    state: Literal["working", "done", "failed"] = "working"
    done: int = 0
    total: int = 0
    text: str = ""


class BusyError(SemagentError):
    """Something else is being made."""


class _EndedError(SemagentError):
    """The console ends."""


class Workshop:
    """Makes one thing at a time."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, Work], Job] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ending = False

    def start(self, session: Path, work: Work) -> Job:
        """Begin.

        Raises:
            BusyError: it has not finished what was asked for before.
        """
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                raise BusyError("something else is being made; ask again when it is done")
            job = self._jobs[session.name, work] = Job()
            self._thread = threading.Thread(
                target=self._make, args=(session, work, job), name="console-workshop", daemon=True
            )
            self._thread.start()
        return job

    def jobs(self, session: Path) -> dict[Work, Job]:
        """What was asked for of a session since the console was started."""
        with self._lock:
            return {work: job for (name, work), job in self._jobs.items() if name == session.name}

    def close(self) -> None:
        """End what goes on. May be called twice."""
        self._ending = True
        if self._thread is not None:
            self._thread.join(_END_S)

    def _make(self, session: Path, work: Work, job: Job) -> None:
        output = product(session, work)
        try:
            if work is Work.REPORT:
                write_report(session, output)
            else:
                reader = SessionReader(session, salvage=True)
                exported = export_session(
                    reader, output, Target(work), derived=True, progress=self._progress(job)
                )
                job.text = f"{len(exported.left_out)} left out. " if exported.left_out else ""
            job.text += f"{output.name}, beside the session"
            job.state = "done"
        except SemagentError as error:
            job.text = str(error)
            job.state = "failed"
        finally:
            if job.state == "working":  # a fault of the program itself, which the thread reports
                job.text = "failed; the terminal says why"
                job.state = "failed"

    def _progress(self, job: Job) -> Callable[[int, int], None]:
        def show(done: int, total: int) -> None:
            if self._ending:
                raise _EndedError("the console was closed")
            job.done, job.total = done, total

        return show


def product(session: Path, work: Work) -> Path:
    """Where the result lies: beside the session."""
    return session.with_name(session.name + ENDINGS[work])
