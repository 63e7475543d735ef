"""The desk: order, stopping, and what happens to the work of a client that is lost."""

import pytest

from semagent.remote.desk import Desk, Job, Lost, Session
from semagent.remote.protocol import Acquire, Apply, ReadState
from semagent.types import SetBlanked

MOVE = Apply(action=SetBlanked(blanked=True))
EXPOSE = Acquire(timeout_s=1.0)


class Stops:
    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1


@pytest.fixture
def stops():
    return Stops()


@pytest.fixture
def desk(stops):
    return Desk(stops)


def session(name="a"):
    return Session(name.encode(), name, "somebody", 0)


def job(owner, work=EXPOSE, expires_ns=None):
    return Job(owner, 1, work, expires_ns)


def test_jobs_come_in_order_and_then_nothing(desk):
    owner = session()
    jobs = [job(owner) for _ in range(3)]
    assert all(desk.submit(one) for one in jobs)
    assert [desk.take(0) for _ in range(4)] == [*jobs, None]


def test_it_takes_no_more_than_its_capacity(desk):
    owner = session()
    assert all(desk.submit(job(owner)) for _ in range(Desk.CAPACITY))
    assert not desk.submit(job(owner))
    desk.take(0)
    assert desk.submit(job(owner))


def test_a_stop_cancels_what_waits_and_what_runs_but_not_reading(desk, stops):
    owner = session()
    jobs = [job(owner), job(owner, MOVE), job(owner, ReadState())]
    for one in jobs:
        desk.submit(one)
    desk.take(0)
    desk.cancel(owner, "stopped")
    assert [one.cancelled for one in jobs] == ["stopped", "stopped", ""]
    assert stops.count == 1


def test_a_stop_concerns_nobody_else(desk):
    mine, theirs = job(session("a")), job(session("b"))
    desk.submit(mine)
    desk.submit(theirs)
    desk.cancel(mine.session, "stopped")
    assert (mine.cancelled, theirs.cancelled) == ("stopped", "")
    desk.cancel(None, "the end")
    assert (mine.cancelled, theirs.cancelled) == ("stopped", "the end")


def test_a_stop_is_repeated_until_the_job_has_ended_and_no_longer(desk, stops):
    owner = session()
    desk.submit(job(owner))
    desk.take(0)
    desk.chase(0)
    assert stops.count == 0
    desk.cancel(owner, "stopped")
    desk.chase(0)
    desk.chase(0)
    assert stops.count == 3
    desk.finish()
    desk.chase(0)
    desk.submit(job(owner))
    desk.take(0)
    desk.chase(0)
    assert stops.count == 3


def test_what_nobody_waits_for_is_stopped(desk, stops):
    running = job(session(), MOVE, expires_ns=100)
    desk.submit(running)
    desk.take(0)
    desk.chase(100)
    assert (running.cancelled, stops.count) == ("", 0)
    desk.chase(101)
    assert (running.cancelled, stops.count) == ("nobody waits for it any more", 1)


def test_reading_is_never_stopped(desk, stops):
    desk.submit(job(session(), ReadState(), expires_ns=100))
    desk.take(0)
    desk.chase(101)
    assert stops.count == 0


def test_the_gate_shuts_after_the_work_of_the_lost_and_before_that_of_the_next(desk, stops):
    lost, fresh = session("lost"), session("fresh")
    before, after = job(lost, MOVE), job(fresh, MOVE)
    desk.submit(before)
    desk.lose(lost, "no sign of life")
    desk.submit(after)
    assert [desk.take(0) for _ in range(3)] == [before, Lost("no sign of life"), after]
    assert before.cancelled == "no sign of life"
    assert after.cancelled == ""
    assert stops.count == 1


def test_the_loss_is_told_even_when_the_desk_is_full(desk):
    owner = session()
    while desk.submit(job(owner)):
        pass
    desk.lose(owner, "gone")
    items = [desk.take(0) for _ in range(Desk.CAPACITY + 1)]
    assert items[-1] == Lost("gone")
    desk.chase(0)  # there is no work in it that could be stopped
