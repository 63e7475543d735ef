"""The wire: lines of text, each question answered by a line that begins with the question."""

import socket
import time
from typing import NamedTuple

from semagent.errors import DisconnectedError
from semagent_drivers.adapter import TcpStream

END = b"\r\n"
TO_SEM = "0300 0303 0000"
FROM_SEM = "0303 0300 0000"

_SLICE_S = 0.1


class HitachiError(Exception):
    """The SEM PC failed to answer a question."""


class HitachiRefusalError(Exception):
    """The SEM PC did not take a setting; nothing has changed."""


class Answer(NamedTuple):
    """What a question brought: the data, and whether the SEM is still at something."""

    data: str
    busy: bool

    def numbers(self, count: int) -> list[int]:
        """The data as whole numbers.

        Raises:
            HitachiError: it is something else.
        """
        try:
            values = [int(part) for part in self.data.split(",")]
        except ValueError as error:
            raise HitachiError(f"{self.data!r} is not {count} whole numbers") from error
        if len(values) != count:
            raise HitachiError(f"{self.data!r} is not {count} whole numbers")
        return values


def await_call(bind: str, port: int, peer: str | None, timeout_s: float) -> TcpStream:
    """Listen until the SEM PC has connected; it is the one that calls.

    Raises:
        DisconnectedError: it did not, or this machine cannot listen there.
    """
    where = f"{bind}:{port}"
    deadline_s = time.perf_counter() + timeout_s
    turned_away = ""
    try:
        with socket.create_server((bind, port)) as listener:
            listener.settimeout(_SLICE_S)
            while time.perf_counter() < deadline_s:
                try:
                    connection, (caller, *_) = listener.accept()
                except TimeoutError:
                    continue
                if peer is None or caller == peer:
                    return TcpStream(connection, f"the SEM PC at {caller}")
                connection.close()
                turned_away = f"; {caller} called and was turned away, peer is {peer}"
    except OSError as error:
        raise DisconnectedError(f"{where} cannot be listened on: {error}") from error
    raise DisconnectedError(
        f"no SEM PC called {where} within {timeout_s:g} s{turned_away}; switch its external "
        "control on, with the address of this machine and this port"
    )


class Line:
    """Questions to the SEM PC and their answers."""

    def __init__(self, stream: TcpStream, timeout_s: float) -> None:
        self._stream = stream
        self._timeout_s = timeout_s

    def get(self, main: str, sub: str) -> Answer:
        """Ask for something.

        Raises:
            HitachiError: the answer is no answer.
        """
        data, status = self._ask(f"Get {main} {sub}")
        if status not in ("IDLE", "PROCESSING"):
            raise HitachiError(f"Get {main} {sub} was answered with {status}")
        return Answer(data, status == "PROCESSING")

    def set(self, main: str, sub: str, data: str) -> None:
        """Set something; whether it is done yet, `get` tells.

        Raises:
            HitachiRefusalError: the SEM PC said no.
            HitachiError: the answer is no answer.
        """
        question = f"Set {main} {sub}"
        _, status = self._ask(question, data)
        if status == "NG":
            raise HitachiRefusalError(
                f"{question} {data}: NG, not possible in the state the microscope is in"
            )
        if status == "PARAMERROR":
            raise HitachiRefusalError(f"{question} {data}: PARAMERROR, not a value it takes")
        if status != "OK":
            raise HitachiError(f"{question} {data} was answered with {status}")

    def close(self) -> None:
        """Hang up."""
        self._stream.close()

    def _ask(self, question: str, data: str = "") -> tuple[str, str]:
        # One space between the parts: two are an error.
        line = " ".join(part for part in (TO_SEM, question, data) if part)
        self._stream.send(line.encode("ascii") + END, self._timeout_s)
        answer = self._stream.receive_line(END, self._timeout_s).decode("ascii", "replace")
        start = f"{FROM_SEM} {question} "
        if not answer.startswith(start):
            self._stream.close()  # whatever comes next would be taken for another answer, too
            raise EOFError(f"{question} was answered with {answer!r}")
        data, _, status = answer.removeprefix(start).rpartition(" ")
        return data, status
