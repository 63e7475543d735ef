"""The process of one role, without the process."""

import os
import sys
import threading
from multiprocessing import Pipe
from types import SimpleNamespace
from typing import Any

import msgspec
import psutil
import pytest

from semagent import process
from semagent.bus.zeromq import Endpoints
from semagent.channels import Role
from semagent.clock import ManualClock
from semagent.config import Part, find_config, load_config
from semagent.errors import MicroscopeError, UsageError
from semagent.process import Plan


@pytest.mark.parametrize("role", [Role.RESTORE, Role.CONSOLE])
@pytest.mark.parametrize("error", [PermissionError("not permitted"), psutil.AccessDenied()])
def test_a_role_that_may_not_step_back_runs_all_the_same(
    monkeypatch: pytest.MonkeyPatch, role: Role, error: Exception
):
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(psutil.Process, "nice", refuse)
    if sys.platform == "linux":  # containers may forbid it
        monkeypatch.setattr(os, "sched_setscheduler", refuse)
        monkeypatch.setattr(os, "setpriority", refuse)
    process._step_back(role)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process has one priority")
@pytest.mark.parametrize("role", [Role.RESTORE, Role.CONSOLE])
def test_a_role_steps_back_with_all_its_threads(monkeypatch: pytest.MonkeyPatch, role: Role):
    stepped: list[int] = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda thread, *_: stepped.append(thread))
    monkeypatch.setattr(os, "setpriority", lambda _which, thread, _nice: stepped.append(thread))
    done = threading.Event()
    worker = threading.Thread(target=done.wait)
    worker.start()
    process._step_back(role)
    done.set()
    worker.join()
    assert worker.native_id in stepped
    assert threading.get_native_id() in stepped


def test_a_role_does_not_step_back_before_it_has_opened_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
):
    """On a machine that is busy, a start would not come to its end."""
    monkeypatch.delattr(process, "_step_back")
    config = load_config(find_config("simulated"))
    config = msgspec.structs.replace(config, restoration=Part(name="sharpness"))
    here, there = Pipe()
    with here, there, pytest.raises(UsageError, match="restores none"):
        process._run(Plan(role=Role.RESTORE, config=config, token=""), there)


def test_a_microscope_that_cannot_be_read_at_the_start_is_closed(monkeypatch: pytest.MonkeyPatch):
    closed = []

    def fail() -> None:
        raise MicroscopeError("no answer")

    microscope: Any = SimpleNamespace(
        capabilities=None, read_state=fail, close=lambda: closed.append(True)
    )
    monkeypatch.setattr(process.registry, "open_microscope", lambda *_, **__: microscope)
    plan = Plan(role=Role.ACQUIRE, config=load_config(find_config("simulated")), token="")
    bus: Any = SimpleNamespace(endpoints=Endpoints(publisher="", pulse=""))
    here, there = Pipe()
    with here, there, pytest.raises(MicroscopeError, match="no answer"):
        process._run_role(plan, there, bus, ManualClock())
    assert closed


def test_a_role_that_is_told_to_end_before_it_has_begun_opens_nothing(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delattr(process.registry, "open_microscope")
    plan = Plan(role=Role.ACQUIRE, config=load_config(find_config("simulated")), token="")
    bus: Any = SimpleNamespace()
    here, there = Pipe()
    with there:
        here.close()  # as when the supervisor is gone
        process._run_role(plan, there, bus, ManualClock())
