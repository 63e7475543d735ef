"""Calls into a vendor's software on one thread of its own, so that none can hang the agent."""

import importlib
import queue
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, Generic, TypeVar

from semagent.errors import (
    AcquisitionStoppedError,
    ConfigError,
    DisconnectedError,
    MicroscopeTimeoutError,
)
from semagent.requirements import DriverFacts, explain

_SLICE_S = 0.02
_GOODBYE_S = 1.0

T = TypeVar("T")


def load_sdk(module: str, driver: str, facts: DriverFacts) -> ModuleType:
    """Import a vendor's Python package, or a fake that stands for it.

    Raises:
        ConfigError: it cannot be imported; says what is missing and how to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = facts.missing()
        where = f"driver {driver}"
        raise ConfigError(f"{explain(where, missing) if missing else where}: {error}") from error


class _Job(Generic[T]):
    """One call, and how it ended."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self.done = threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001 - it is raised again where it belongs
            self._error = error
        self.done.set()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value] # of the type the call returned


class SdkThread:
    """The only thread that touches a vendor's objects.

    Most of them are not thread-safe, COM objects belong to a thread, and none has time-outs. A
    call that does not come back cannot be ended; its caller is let go at the deadline, and the
    link counts as lost from then on, because nobody knows what the call may still do.

    Args:
        name: of the vendor's software, for messages.
        enter: called first on the thread, for example ``pythoncom.CoInitialize``.
        leave: called last.
    """

    def __init__(
        self,
        name: str,
        *,
        enter: Callable[[], object] | None = None,
        leave: Callable[[], object] | None = None,
    ) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._hung = False
        self._closed = False
        self._busy_until_s = 0.0
        self._edges = (enter, leave)
        # A daemon: a call that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name=f"{name} calls", daemon=True)
        self._thread.start()

    def call(
        self,
        call: Callable[[], T],
        *,
        timeout_s: float,
        what: str,
        stopped: threading.Event | None = None,
    ) -> T:
        """Return what ``call`` returns, or raise what it raises.

        The time is real time, whatever clock the run is on: it is the vendor that is late.

        Args:
            call: runs on the vendor's thread.
            timeout_s: longest wait, from when a call that was stopped has had its time.
            what: it does, for messages.
            stopped: ends the wait early. The call itself runs on, and later ones queue behind it.

        Raises:
            MicroscopeTimeoutError: it did not come back in time.
            DisconnectedError: an earlier one did not, or the thread is closed.
            AcquisitionStoppedError: ``stopped`` was set.
        """
        if self._closed:
            raise DisconnectedError(f"{self._name} is closed")
        if self._hung:
            raise DisconnectedError(
                f"an earlier call of {self._name} has not come back; start it and semagent again"
            )
        job = _Job(call)
        self._jobs.put(job)
        deadline_s = max(time.perf_counter(), self._busy_until_s) + timeout_s
        while not job.done.wait(max(0.0, min(_SLICE_S, deadline_s - time.perf_counter()))):
            if stopped is not None and stopped.is_set():
                self._busy_until_s = deadline_s
                raise AcquisitionStoppedError(f"stopped while {self._name} was to {what}")
            if time.perf_counter() >= deadline_s:
                self._hung = True
                raise MicroscopeTimeoutError(
                    f"{self._name} did not {what} within {timeout_s:g} s and may be hanging"
                )
        return job.result()

    def post(self, call: Callable[[], object]) -> None:
        """Run ``call`` without waiting for it; later calls do. What it raises is not told."""
        if not self._closed and not self._hung:
            self._jobs.put(_Job(call))

    def close(self) -> None:
        """End the thread, unless it hangs. May be called twice."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        self._thread.join(0.0 if self._hung else _GOODBYE_S)

    def _run(self) -> None:
        enter, leave = self._edges
        if enter is not None:
            enter()
        try:
            while (job := self._jobs.get()) is not None:
                job.run()
        finally:
            if leave is not None:
                leave()
