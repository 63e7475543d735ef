"""The wire: a line of text each way to accept a command, and one with what has come of it."""

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from semagent.errors import AcquisitionStoppedError, DisconnectedError, MicroscopeTimeoutError

END = b"\r\n"
ACCEPTED, REJECTED, DONE, FAILED = "@", "#", ">", "*"

_SLICE_S = 0.02
_AFTER_REJECTION_S = 0.1
"""Some versions say why they rejected a command, and some say no more."""

_MEANINGS = {
    600: "unknown command",
    601: "wrong number of parameters",
    602: "wrong type of parameter",
    603: "parameter out of range",
    604: "the command timed out",
    605: "catastrophic error, the system has to be started again",
    611: "aborted",
    613: "that value cannot be reached",
    614: "that option is not fitted",
    615: "that parameter cannot be changed",
    616: "that command cannot be executed",
    617: "the command is too long",
}
_LATER = {604, 605, 611}
"""What went wrong with a command that had begun."""


class RemConError(Exception):
    """A command failed, or its answer is no answer."""


class RemConRefusalError(Exception):
    """RemCon did not take a command; nothing has changed."""


class Line:
    """Commands to RemCon and their answers, one at a time.

    After a time-out the answer may still come and would be taken for that of the next command; so
    the line is closed then, and all later calls say that it is gone.

    Args:
        port: an open port of pyserial, with a read time-out of a moment.
        name: of the port, for messages.
        timeout_s: longest time a line of an answer may take.
    """

    def __init__(self, port: Any, name: str, timeout_s: float) -> None:
        self._port = port
        self._name = name
        self._timeout_s = timeout_s
        self._gone: str | None = None
        self._waiting = bytearray()
        self._owed_until_s: float | None = None

    @classmethod
    def opened(
        cls, open_port: Callable[..., Any], port: str, baud_rate: int, timeout_s: float
    ) -> "Line":
        """Open a port of pyserial, which nobody else may have open.

        Raises:
            DisconnectedError: it cannot be opened.
        """
        try:
            opened = open_port(
                port,
                baudrate=baud_rate,
                timeout=_SLICE_S,
                write_timeout=timeout_s,
                exclusive=True,  # two programs would take up each other's answers
            )
        except (OSError, ValueError) as error:
            raise DisconnectedError(f"{port} cannot be opened: {error}") from error
        return cls(opened, port, timeout_s)

    def ask(
        self,
        command: str,
        *,
        timeout_s: float | None = None,
        stopped: threading.Event | None = None,
    ) -> str:
        """Give a command and return what it brought, which may be nothing.

        Args:
            command: as RemCon writes it.
            timeout_s: longest time it may take, once accepted.
            stopped: ends the wait; what the command brings is thrown away later.

        Raises:
            RemConRefusalError: it was not taken.
            RemConError: it failed.
            AcquisitionStoppedError: ``stopped`` was set.
            MicroscopeTimeoutError: there was no answer.
            DisconnectedError: the line is gone.
        """
        if self._gone is not None:
            raise DisconnectedError(f"{self._gone}; open the microscope again")
        if self._owed_until_s is not None:
            self._receive(self._owed_until_s + self._timeout_s)
            self._owed_until_s = None
        self._forget()
        self._port.write(command.encode("ascii") + END)
        accepted = self._receive(time.perf_counter() + self._timeout_s)
        if accepted[:1] == REJECTED:
            self._await_reason()
            raise RemConRefusalError(f"{command} was rejected")
        if accepted[:1] != ACCEPTED:
            raise self._lose(f"{command} was answered with {accepted!r}")
        deadline_s = time.perf_counter() + (timeout_s or self._timeout_s)
        try:
            outcome = self._receive(deadline_s, stopped)
        except AcquisitionStoppedError:
            self._owed_until_s = deadline_s
            raise
        if outcome[:1] == DONE:
            return outcome[1:].strip()
        if outcome[:1] == FAILED:
            raise _failure(command, outcome[1:].strip())
        raise self._lose(f"{command} was answered with {outcome!r}")

    def numbers(self, command: str, count: int) -> list[float]:
        """Ask for ``count`` numbers.

        Raises:
            RemConError: it is something else, or the question was not taken: what was changed
                before it stays changed. Otherwise as `ask`.
        """
        try:
            answer = self.ask(command)
        except RemConRefusalError as error:
            raise RemConError(str(error)) from error
        try:
            values = [float(part) for part in answer.split()]
        except ValueError:
            values = []
        if len(values) != count or not all(map(math.isfinite, values)):
            raise RemConError(f"{command} was answered with {answer!r}, not {count} numbers")
        return values

    def close(self) -> None:
        """Let go of the port. May be called twice."""
        self._gone = self._gone or f"{self._name} is closed"
        self._port.close()

    def _forget(self) -> None:
        """What came unasked must not pass for an answer."""
        # pyserial's own reset raises no OSError where a USB adapter was pulled out.
        while self._port.in_waiting:
            self._read()
        self._waiting.clear()

    def _await_reason(self) -> None:
        deadline_s = time.perf_counter() + _AFTER_REJECTION_S
        while END not in self._waiting and time.perf_counter() < deadline_s:
            self._read()

    def _receive(self, deadline_s: float, stopped: threading.Event | None = None) -> str:
        while END not in self._waiting:
            if stopped is not None and stopped.is_set():
                raise AcquisitionStoppedError(f"stopped while waiting for {self._name}")
            if time.perf_counter() >= deadline_s:
                error = self._lose(f"RemCon on {self._name} did not answer in time")
                raise MicroscopeTimeoutError(str(error))
            self._read()
        line, _, rest = bytes(self._waiting).partition(END)
        self._waiting[:] = rest
        return line.decode("ascii", "replace")

    def _read(self) -> None:
        # No more than are there: pyserial waits for all that it is asked for.
        self._waiting += self._port.read(max(1, self._port.in_waiting))

    def _lose(self, reason: str) -> DisconnectedError:
        self.close()
        self._gone = reason
        return DisconnectedError(reason)


def _failure(command: str, code: str) -> Exception:
    number = int(code) if code.isdecimal() else 0
    meaning = _MEANINGS.get(number)
    text = f"{command}: error {code}{f', {meaning}' if meaning else ''}"
    if meaning is None or number in _LATER:
        return RemConError(text)
    return RemConRefusalError(text)
