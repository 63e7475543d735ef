"""Who knocks is answered, a crowd by and by, and named in the log now and then."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from semagent.admission import Admission, seldom, with_secret

CROWD = 500


@pytest.fixture
def context() -> "Iterator[zmq.Context[Any]]":
    context: zmq.Context[Any] = zmq.Context()
    yield context
    context.destroy(linger=0)


def test_a_crowd_is_answered_by_and_by_and_hardly_logged(
    context: "zmq.Context[Any]", caplog: pytest.LogCaptureFixture
) -> None:
    admission = Admission(context, with_secret(b"semagent", b"secret"))
    crowd = context.socket(zmq.DEALER)
    crowd.connect("inproc://zeromq.zap.01")
    for number in range(CROWD):
        name, password = b"semagent", b"wrong"
        request = (b"1.0", b"%d" % number, b"", b"127.0.0.1", b"", b"PLAIN", name, password)
        crowd.send_multipart([b"", *request])
    with caplog.at_level(logging.WARNING):
        admission.answer()
        answered = 0
        while crowd.poll(0):
            _, _, number, code, *_ = crowd.recv_multipart()
            assert (int(number), code) == (answered, b"400")
            answered += 1
        assert 0 < answered < CROWD
        while answered < CROWD:
            admission.answer()
            while crowd.poll(0):
                crowd.recv_multipart()
                answered += 1
    crowd.close(linger=0)
    admission.socket.close()
    said = [record.getMessage() for record in caplog.records]
    assert [line.rpartition("(")[2] for line in said] == ["1 so far)", "10 so far)", "100 so far)"]
    assert all(line.startswith("turned away a client from 127.0.0.1") for line in said)


def test_what_is_said_seldom() -> None:
    assert [count for count in range(1, 2000) if seldom(count)] == [1, 10, 100, 1000]
