"""Whom the microscope belongs to, without a network: what a client says is handed over directly."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from semagent.clock import ManualClock
from semagent.remote.desk import Desk, Job, Lost
from semagent.remote.protocol import Acquire, Bye, Hello, Question
from semagent.remote.reception import Reception
from semagent.types import Capabilities

SILENCE_S = 2.0


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.stops: list[None] = []
        self.desk = Desk(lambda: self.stops.append(None))
        self.reception = Reception(
            "tcp://127.0.0.1:*",
            None,
            capabilities=Capabilities(driver="simulated", microscope="bench", verified_on=None),
            desk=self.desk,
            heartbeat_timeout_s=SILENCE_S,
            clock=self.clock,
        )
        self.say(Hello(who="an agent"))
        assert self.reception._owner is not None
        self.token = self.reception._owner.token

    def say(self, ask: Hello | Acquire | Bye, session: str = "") -> None:
        self.reception._take(b"a client", Question(id=1, ask=ask, session=session), "")


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    with closing(bench.reception):
        yield bench


def test_what_lay_in_a_buffer_while_the_server_stood_still_is_no_sign_of_life(bench: Bench):
    bench.clock.advance(SILENCE_S + 0.1)
    bench.say(Acquire(timeout_s=1.0), bench.token)
    lost = bench.desk.take(0.0)
    assert isinstance(lost, Lost)
    assert "no sign of life from an agent for 2.1 s" in lost.reason
    assert bench.desk.take(0.0) is None


def test_what_a_client_asked_for_ends_when_it_leaves(bench: Bench):
    bench.say(Acquire(timeout_s=1.0), bench.token)
    bench.say(Bye(), bench.token)
    job = bench.desk.take(0.0)
    assert isinstance(job, Job)
    assert job.cancelled == "the client has left"
    assert bench.stops == [None]
