"""Mailboxes: latest wins and is counted; lossless keeps order and notices holes."""

from semagent.bus import Mailbox
from semagent.channels import CHANNELS, Delivery
from semagent.wire import Message


def message(topic: str, number: int, sender: str = "acquire") -> Message:
    return Message(topic=topic, sender=sender, number=number, value=number)


def test_the_newest_frame_wins_and_the_others_are_counted():
    box = Mailbox("frame")
    for number in range(1, 11):
        box.put(message("frame", number))
    taken = box.take()
    assert taken is not None
    assert taken.number == 10
    assert box.skipped == 9
    assert box.missing == 0
    assert box.take() is None


def test_reading_in_time_skips_nothing():
    box = Mailbox("frame")
    for number in range(1, 11):
        box.put(message("frame", number))
        assert box.take() is not None
    assert box.skipped == 0


def test_each_sender_of_a_shared_channel_has_a_slot():
    assert CHANNELS["heartbeat"].delivery is Delivery.LATEST
    box = Mailbox("heartbeat")
    box.put(message("heartbeat", 1, "infer"))
    box.put(message("heartbeat", 1, "control"))
    box.put(message("heartbeat", 2, "infer"))
    taken = [box.take(), box.take(), box.take()]
    assert [(m.sender, m.number) for m in taken if m] == [("infer", 2), ("control", 1)]
    assert box.skipped == 1


def test_lossless_keeps_all_in_order():
    box = Mailbox("reply")
    for number in range(1, 6):
        box.put(message("reply", number))
    numbers = []
    while (taken := box.take()) is not None:
        numbers.append(taken.number)
    assert numbers == [1, 2, 3, 4, 5]
    assert box.skipped == 0


def test_a_hole_in_the_numbering_is_counted():
    box = Mailbox("reply")
    for number in (1, 2, 5, 6, 9):
        box.put(message("reply", number))
    assert box.missing == 4


def test_a_listener_that_joins_late_has_missed_nothing():
    box = Mailbox("frame")
    box.put(message("frame", 400))
    assert box.missing == 0


def test_a_sender_that_starts_again_is_no_loss():
    box = Mailbox("reply")
    for number in (7, 8, 1, 2):
        box.put(message("reply", number))
    assert box.missing == 0


def test_truth_says_whether_something_waits():
    box = Mailbox("event")
    assert not box
    box.put(message("event", 1))
    assert box
    box.take()
    assert not box


def test_arrival_is_announced_after_the_message_is_there():
    seen = []
    box = Mailbox("event", lambda: seen.append(bool(box)))
    box.put(message("event", 1))
    assert seen == [True]
