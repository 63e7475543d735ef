"""The process of one role, without the process."""

from multiprocessing import Pipe
from types import SimpleNamespace
from typing import Any

import pytest

from semagent import process
from semagent.bus.zeromq import Endpoints
from semagent.channels import Role
from semagent.clock import ManualClock
from semagent.config import find_config, load_config
from semagent.errors import MicroscopeError
from semagent.process import Plan


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
