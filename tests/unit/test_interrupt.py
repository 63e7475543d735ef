"""Who asks a command to end, and what happens when nobody reads what it prints."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from semagent.cli.interrupt import InsistedError, Interrupt, caught_interrupts
from semagent.cli.output import Output, UnreadError
from semagent.signals import HANGUP


@pytest.fixture(params=["stdout", "stderr"])
def unread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Output]:
    """An output, one of whose streams leads into a pipe that nobody reads."""
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as stream:
        monkeypatch.setattr(sys, request.param, stream)
        yield Output(json=True)


def talk(output: Output) -> None:
    output.record({"event": "frame"})
    output.say("a line")


def test_a_second_press_insists() -> None:
    interrupt = Interrupt(lambda: None)
    interrupt.handle(signal.SIGINT, None)
    assert interrupt.pressed
    with pytest.raises(InsistedError):
        interrupt.handle(signal.SIGTERM, None)


def test_the_reason_says_who_asked_first() -> None:
    said = []
    for number in (signal.SIGINT, signal.SIGTERM, *([HANGUP] if HANGUP else [])):
        interrupt = Interrupt(lambda: None)
        assert interrupt.reason == ""
        interrupt.handle(number, None)
        interrupt.ask("nobody reads the output any more")
        said.append(interrupt.reason)
    assert said[:2] == ["interrupted from the keyboard", "told to end by the signal SIGTERM"]
    assert said[2:] in ([], ["the terminal was closed"])


@pytest.mark.skipif(HANGUP is None, reason="this system has no such signal")
def test_a_terminal_that_is_closed_asks_once_however_often_it_says_so() -> None:
    interrupt = Interrupt(lambda: None)
    for _ in range(3):  # the kernel and each shell
        interrupt.handle(HANGUP or 0, None)
    assert interrupt.pressed


def test_what_nobody_reads_is_not_worth_going_on_for(unread: Output) -> None:
    with pytest.raises(UnreadError):
        talk(unread)
    talk(unread)  # silent from here on


def test_what_nobody_reads_asks_to_put_things_back_first(unread: Output) -> None:
    with caught_interrupts(unread) as interrupt:
        talk(unread)
        assert interrupt.pressed
        assert interrupt.reason == "nobody reads the output any more"
        talk(unread)
