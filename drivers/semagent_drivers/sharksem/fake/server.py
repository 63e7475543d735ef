"""The server of a fake TESCAN microscope."""

import socket
from typing import Self

from semagent_drivers.fakes import FakeServer, Fault
from semagent_drivers.sharksem import wire
from semagent_drivers.sharksem.fake.data import DataServer
from semagent_drivers.sharksem.fake.functions import SILENT, Functions
from semagent_drivers.sharksem.fake.instrument import Instrument


class FakeSharkSem(FakeServer):
    """The control connection, and the server of the data connection beside it.

    Args:
        port: of the control connection, the data connection is the one above it; 0 takes any
            free ones.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.instrument = Instrument()
        self._data = DataServer(port + 1 if port else 0)

    @property
    def data_port(self) -> int:
        """Where the data connection is accepted."""
        return self._data.port

    def hang_up(self) -> None:
        """Break all data connections, as a cable that is pulled does."""
        self._data.hang_up()

    def serve(self, connection: socket.socket) -> None:
        """See `FakeServer`."""
        functions = Functions(self.instrument, self._data)
        try:
            while True:
                header = wire.read_header(self.receive(connection, wire.HEADER.size))
                body = wire.Body(header.name, self.receive(connection, header.body_size))
                answer = self._answer(functions, header.name, body)
                if answer is not None:
                    self.send(connection, wire.message(header.name, *answer))
        finally:
            functions.hang_up()

    def __enter__(self) -> Self:
        self._data.__enter__()
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._data.__exit__()

    def _answer(
        self, functions: Functions, name: str, body: wire.Body
    ) -> tuple[wire.Argument, ...] | None:
        function = getattr(functions, name, None)
        match self.trip.step():
            case Fault.FAIL:
                return None if function is None or name in SILENT else ()
            case Fault.HANG:
                # The next question would be answered; the client has given up by then.
                self.trip.hang()
                raise EOFError("hung up")
            case Fault.DROP:
                raise EOFError("dropped")
        if function is None or name in self.instrument.deaf:
            return None
        result: tuple[wire.Argument, ...] | None = function(body)
        return (0,) if result is None and self.instrument.talkative else result
