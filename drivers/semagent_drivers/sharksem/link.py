"""The two connections to a microscope: questions and answers, and the pixels."""

import socket
import threading

from semagent.errors import DisconnectedError, MicroscopeError
from semagent_drivers.adapter import TcpStream
from semagent_drivers.sharksem import wire


class SharkLink:
    """Both connections. One thread at a time; the adapter's lock sees to that.

    The microscope accepts the data connection only from a port that was registered over the
    control connection: so bind, register, connect, in this order.
    """

    def __init__(self, host: str, port: int, data_port: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._told: set[str] = set()
        self._control = TcpStream.connect(host, port, timeout_s)
        self._data: TcpStream | None = None
        try:
            self._data = self._connect_data(host, data_port)
        except BaseException:
            self.close()
            raise

    def ask(self, name: str, *arguments: wire.Argument) -> wire.Body:
        """Call a function that answers."""
        self._send(name, *arguments)
        while True:
            header = wire.read_header(self._control.receive(wire.HEADER.size, self._timeout_s))
            body = self._control.receive(header.body_size, self._timeout_s)
            # Some versions answer functions that have none in others.
            if header.name == name or header.name not in self._told:
                return wire.Body(name, body)

    def tell(self, name: str, *arguments: wire.Argument) -> None:
        """Call a function that does not answer: whether it did anything has to be asked."""
        self._told.add(name)
        self._send(name, *arguments)

    def packet(self, patience_s: float, stopped: threading.Event) -> wire.Packet | None:
        """The next packet of pixels; ``None`` if there is none for ``patience_s`` seconds."""
        if self._data is None:
            raise DisconnectedError("there is no data connection")
        while self._data.comes(wire.HEADER.size, patience_s, stopped):
            header = wire.read_header(self._data.peek(wire.HEADER.size, self._timeout_s))
            # In one piece: a stop in between would leave a body without its header.
            size = wire.HEADER.size + header.body_size
            message = self._data.receive(size, self._timeout_s, stopped)
            if header.name == wire.DATA:
                return wire.read_packet(message[wire.HEADER.size :])
        return None

    def close(self) -> None:
        """Close both. May be called twice."""
        self._control.close()
        if self._data is not None:
            self._data.close()

    def _send(self, name: str, *arguments: wire.Argument) -> None:
        self._control.send(wire.message(name, *arguments), self._timeout_s)

    def _connect_data(self, host: str, port: int) -> TcpStream:
        peer = f"{host}:{port}"
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            connection.bind(("", 0))
            code = self.ask("TcpRegDataPort", connection.getsockname()[1]).integer()
            if code < 0:
                raise MicroscopeError(
                    f"the microscope registers no data connection (code {code}); is another "
                    "program using SharkSEM?"
                )
            connection.settimeout(self._timeout_s)
            connection.connect((host, port))
        except OSError as error:
            connection.close()
            raise DisconnectedError(f"{peer} cannot be reached: {error}") from error
        except BaseException:
            connection.close()
            raise
        return TcpStream(connection, peer)
