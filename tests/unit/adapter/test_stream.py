"""The TCP connection, against a server that answers, dawdles or hangs up."""

import threading

import pytest

from semagent.errors import AcquisitionStoppedError, DisconnectedError, MicroscopeTimeoutError
from semagent_drivers.adapter import TcpStream
from semagent_drivers.fakes import FakeServer, Fault


class Echo(FakeServer):
    def serve(self, connection):
        while True:
            data = self.receive(connection, 4)
            match self.trip.step():
                case Fault.HANG:
                    continue
                case Fault.DROP:
                    return
            self.send(connection, data)


@pytest.fixture
def server():
    with Echo() as server:
        yield server


@pytest.fixture
def stream(server):
    stream = TcpStream.connect("127.0.0.1", server.port, 5.0)
    yield stream
    stream.close()


def test_whole_messages_and_lines(stream):
    stream.send(b"ab\r\ncd\r\n", 5.0)
    assert stream.receive_line(b"\r\n", 5.0) == b"ab"
    assert stream.receive(3, 5.0) == b"cd\r"
    assert stream.receive(1, 5.0) == b"\n"


def test_after_a_time_out_a_late_answer_can_not_be_taken_for_another(server, stream):
    server.trip.arm(Fault.HANG, 1)
    stream.send(b"ask1", 5.0)
    with pytest.raises(MicroscopeTimeoutError, match=r"did not answer within 0\.05 s"):
        stream.receive(4, 0.05)
    with pytest.raises(DisconnectedError, match="open the microscope again"):
        stream.send(b"ask2", 5.0)


def test_silence_is_no_loss_where_nothing_has_to_come(stream):
    assert not stream.comes(4, 0.05)
    stream.send(b"ask1", 5.0)
    assert stream.comes(4, 5.0)
    assert stream.receive(4, 5.0) == b"ask1"


def test_a_peer_that_hangs_up(server, stream):
    server.trip.arm(Fault.DROP, 1)
    stream.send(b"ask1", 5.0)
    with pytest.raises(DisconnectedError):
        stream.receive(4, 5.0)


def test_a_stop_keeps_what_had_come(server, stream):
    stream.send(b"half", 5.0)
    stopped = threading.Event()
    threading.Timer(0.1, stopped.set).start()
    with pytest.raises(AcquisitionStoppedError):
        stream.receive(8, 5.0, stopped)
    stream.send(b"rest", 5.0)
    assert stream.receive(8, 5.0) == b"halfrest"


def test_nobody_there(server):
    port = server.port
    server.__exit__()
    with pytest.raises(DisconnectedError, match=f"127.0.0.1:{port} cannot be reached"):
        TcpStream.connect("127.0.0.1", port, 1.0)
