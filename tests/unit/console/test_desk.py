"""Who was told that a command was not answered can rely on nothing happening later."""

import asyncio
import threading

import pytest

from semagent.bus import LocalBus, LocalHub
from semagent.channels import Role
from semagent.clock import SystemClock
from semagent.errors import RoleError
from semagent.roles.base import Announcer
from semagent.types import Arm, Event, Note

pytest.importorskip("starlette", reason="the extra 'console' is not installed")

from semagent.console import desk as module
from semagent.console.desk import Desk, longest_wait_s


def test_a_command_is_void_before_it_counts_as_not_answered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_BEGIN_S", 0.1)
    monkeypatch.setattr(module, "ANSWER_S", 0.2)
    clock = SystemClock()
    hub = LocalHub(clock)
    acquire = LocalBus(hub, Role.ACQUIRE)
    acquire.serve("command")  # it takes nothing up: a frame is being exposed
    desk = Desk(LocalBus(hub, Role.CONSOLE), clock, frame_timeout_s=0.1)
    ended = threading.Event()

    def step() -> None:
        while not ended.wait(0.002):
            desk.step()

    role = threading.Thread(target=step)
    role.start()
    asked_ns = clock.monotonic_ns()
    try:
        with pytest.raises(RoleError, match="what has not begun by now is void"):
            asyncio.run(desk.command(Arm(), asked_ns))
    finally:
        told_ns = clock.monotonic_ns()
        ended.set()
        role.join()
    assert told_ns - asked_ns >= longest_wait_s(0.1) * 1e9
    (delivered,) = acquire.deliveries()
    assert delivered.value.expires_ns < told_ns


def test_what_could_not_be_sent_takes_no_later_answer():
    clock = SystemClock()
    hub = LocalHub(clock)
    control = LocalBus(hub, Role.CONTROL)
    desk = Desk(LocalBus(hub, Role.CONSOLE), clock, frame_timeout_s=0.1)

    async def ask() -> "asyncio.Task[Event]":
        asked = asyncio.create_task(desk.request(Note(text="grains")))
        await asyncio.sleep(0)
        desk.step()
        return asked

    async def twice() -> str:
        with pytest.raises(RoleError, match="no role serves"):
            await (await ask())
        control.serve("request")
        asked = await ask()
        (delivered,) = control.deliveries()
        delivered.answer(Announcer(control, clock).compose("request_taken", "Note"))
        desk.step()
        return (await asked).kind

    assert asyncio.run(twice()) == "request_taken"
