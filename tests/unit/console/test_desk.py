"""Who was told that a command was not answered can rely on nothing happening later."""

import asyncio
import threading

import pytest

from semagent.bus import LocalBus, LocalHub
from semagent.channels import Role
from semagent.clock import SystemClock
from semagent.errors import RoleError
from semagent.types import Arm

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
