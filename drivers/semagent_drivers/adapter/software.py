"""The base of adapters over a vendor's software that runs in this process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from semagent.clock import Clock
from semagent.errors import (
    CommandRefusedError,
    DisconnectedError,
    MicroscopeError,
    MicroscopeTimeoutError,
    SemagentError,
)
from semagent.types import Capabilities
from semagent_drivers.adapter.base import Adapter, AdapterOptions
from semagent_drivers.adapter.limits import Limits
from semagent_drivers.adapter.sdk import SdkThread
from semagent_drivers.adapter.waiting import Wait

T = TypeVar("T")

_OVERHEAD = 2.0
"""The way back of each line, and its synchronisation, are not in the dwell."""


@contextmanager
def opening(
    name: str,
    thread: SdkThread,
    *,
    failures: tuple[type[Exception], ...],
    leave: Callable[[], object],
) -> Iterator[None]:
    """Connecting to a vendor's software: if it fails, nothing is left behind.

    Args:
        name: of the software, for messages.
        thread: touches it; closed if the block fails.
        failures: the vendor's exceptions.
        leave: disconnects; called on the thread if the block fails.

    Raises:
        DisconnectedError: it cannot be reached.
        MicroscopeError: it failed.
    """
    try:
        yield
    except BaseException as error:
        thread.post(leave)
        thread.close()
        if isinstance(error, SemagentError):
            raise
        if isinstance(error, Adapter.losses):
            raise DisconnectedError(f"{name} cannot be reached: {error}") from error
        if isinstance(error, failures):
            raise MicroscopeError(f"{name} failed to connect: {error}") from error
        raise


class SdkAdapter(Adapter):
    """An `Adapter` whose vendor is called through an `SdkThread`.

    Many vendors raise one and the same exception whether they refuse or fail; `change` tells the
    two apart by looking. Such exceptions belong in ``failures``, not in ``refusals``.
    """

    def __init__(
        self,
        thread: SdkThread,
        capabilities: Capabilities,
        limits: Limits,
        options: AdapterOptions,
        clock: Clock,
    ) -> None:
        super().__init__(capabilities, limits, options, clock)
        self._thread = thread

    def ask(
        self,
        call: Callable[[], T],
        what: str = "answer",
        *,
        timeout_s: float | None = None,
        stopped: threading.Event | None = None,
    ) -> T:
        """Call the vendor and return what it returned; see `SdkThread.call`.

        ``timeout_s`` is the option ``call_timeout_s`` unless given.
        """
        longest_s = self._options.call_timeout_s if timeout_s is None else timeout_s
        return self._thread.call(
            self._telling(call), timeout_s=longest_s, what=what, stopped=stopped
        )

    def expose(self, grab: Callable[[], T], beam_s: float, wait: Wait) -> T:
        """Call the vendor for an exposure, which nobody can interrupt.

        Args:
            grab: exposes.
            beam_s: how long the beam is on; the call may take up to twice that, and
                ``call_timeout_s``.
            wait: the longest time it may take; what cannot end by then is not begun.

        Raises:
            AcquisitionStoppedError: ``wait`` says so.
            MicroscopeTimeoutError: there is not so much time, or it did not come back.
        """
        wait.check("frame")
        if beam_s > wait.left_s:
            raise MicroscopeTimeoutError(
                f"an exposure takes at least {beam_s:.3g} s, and {wait.left_s:.3g} s are left of "
                f"{wait.timeout_s:g} s"
            )
        longest_s = _OVERHEAD * beam_s + self._options.call_timeout_s
        return self.ask(
            grab, "expose a frame", timeout_s=min(wait.left_s, longest_s), stopped=wait.stopped
        )

    def change(self, setting: str, call: Callable[[], object], read: Callable[[], object]) -> None:
        """Ask the vendor for the only change of an action.

        Args:
            setting: what is changed, for messages.
            call: changes it.
            read: returns it, as something that can be compared.

        Raises:
            CommandRefusedError: the vendor said no, and indeed nothing has changed.
        """
        before = self.ask(read)
        try:
            self.ask(call)
        except self.failures as error:
            if self.ask(read) == before:
                raise CommandRefusedError(f"{self._name} refused the {setting}: {error}") from error
            raise

    def restore(self, call: Callable[[], object], verb: str, wait: Wait) -> None:
        """Put something back, for `put_back`.

        After a stop the vendor may still be busy with what was stopped; then this is done as soon
        as it has time, and nobody waits for it.

        Raises:
            MicroscopeError: it could not be put back.
        """
        if wait.stopped.is_set():
            self._thread.post(call)
            return
        with self.edge(verb):
            self.ask(call)

    def _disconnect(self) -> None:
        # Behind an exposure that was stopped it would have to wait for its end.
        self._thread.post(self._leave)
        self._thread.close()

    def _telling(self, call: Callable[[], T]) -> Callable[[], T]:
        """A call to the vendor whose exceptions tell what went wrong; a hook."""
        return call

    def _leave(self) -> None:
        """Disconnect from the vendor; called on its thread."""
