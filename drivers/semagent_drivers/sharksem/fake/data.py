"""The data connection of a fake TESCAN microscope, and the scans that fill it."""

import contextlib
import socket
import threading
from collections.abc import Callable

from semagent.types import Pixels
from semagent_drivers.fakes import FakeServer
from semagent_drivers.sharksem import wire
from semagent_drivers.sharksem.fake.instrument import Instrument

_ROWS_A_PACKET = 16
_CONNECT_S = 1.0


class DataServer(FakeServer):
    """Keeps the data connections that clients have made, by the client's port."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._changed = threading.Condition()
        self._open: dict[int, socket.socket] = {}

    def serve(self, connection: socket.socket) -> None:
        """See `FakeServer`."""
        port = int(connection.getpeername()[1])
        with self._changed:
            self._open[port] = connection
            self._changed.notify_all()
        try:
            self.receive(connection, 1)  # nothing ever comes this way
        finally:
            with self._changed:
                del self._open[port]

    def transmit(self, port: int, data: bytes) -> None:
        """Send to the client at ``port``, which may be about to connect."""
        with self._changed, contextlib.suppress(OSError):
            if self._changed.wait_for(lambda: port in self._open, _CONNECT_S):
                self.send(self._open[port], data)

    def hang_up(self, port: int | None = None) -> None:
        """Break the data connection of a client, or of all."""
        with self._changed, contextlib.suppress(OSError):
            for each in [port] if port is not None else list(self._open):
                if each in self._open:
                    self._open[each].shutdown(socket.SHUT_RDWR)


class Scan:
    """A scan that runs and sends pixels, in real time, until it is stopped."""

    def __init__(self, instrument: Instrument, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._instrument = instrument
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._last: wire.Packet | None = None
        self.running = False

    def start(self, frame_id: int, pixels: Pixels, dwell_ns: int) -> None:
        """Scan, in place of what is scanned now."""
        self.stop()
        self._stop.clear()
        self.running = True
        self._thread = threading.Thread(target=self._run, args=(frame_id, pixels, dwell_ns))
        self._thread.start()

    def stop(self) -> None:
        """Only this ends a scan, single ones too."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.running = False

    def _run(self, frame_id: int, pixels: Pixels, dwell_ns: int) -> None:
        if self._last is not None:
            self._send(wire.data_message(self._last))  # late
        self._send(wire.message("CameraData", 0))  # and others that are not of the scan
        width = pixels.shape[1]
        flat = pixels.ravel()
        chunk = width * _ROWS_A_PACKET
        for number, index in enumerate(range(0, flat.size, chunk)):
            values = flat[index : index + chunk]
            if self._stop.wait(values.size * dwell_ns / 1e9):
                return
            data = values.astype(values.dtype.newbyteorder("<")).tobytes()
            packet = wire.Packet(frame_id, 0, index, 8 * values.itemsize, data)
            self._last = packet
            if number in self._instrument.lose:
                continue
            self._send(wire.data_message(packet._replace(channel=1)))
            self._send(wire.data_message(packet))
            if number % 3 == 0:
                self._send(wire.data_message(packet))
