"""The queue a socket thread can wait for."""

import threading

import pytest
import zmq

from semagent.remote.outbox import Outbox


@pytest.fixture
def outbox():
    box = Outbox()
    yield box
    box.close()


def test_the_poller_wakes_up_and_order_is_kept(outbox):
    poller = zmq.Poller()
    poller.register(outbox, zmq.POLLIN)
    assert poller.poll(0) == []
    outbox.put(1)
    outbox.put(None)
    assert poller.poll(1000)
    assert outbox.take() == [1, None]
    assert outbox.take() == []
    assert poller.poll(0) == []


def test_more_than_the_wake_up_buffer_holds(outbox):
    for number in range(100_000):
        outbox.put(number)
    assert outbox.take() == list(range(100_000))


def test_many_threads(outbox):
    threads = [
        threading.Thread(target=lambda: [outbox.put(n) for n in range(500)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    taken = []
    while any(thread.is_alive() for thread in threads):
        taken += outbox.take()
    taken += outbox.take()
    assert sorted(taken) == sorted(list(range(500)) * 8)


def test_after_close_what_is_handed_over_is_dropped(outbox):
    outbox.close()
    outbox.put(1)
    outbox.close()
