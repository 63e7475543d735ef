"""The supervisor, with roles that say what real ones would."""

import time
from collections.abc import Iterator
from multiprocessing import Pipe
from types import SimpleNamespace

import msgspec
import pytest

from semagent import supervisor
from semagent.bus.zeromq import Endpoints
from semagent.channels import Role
from semagent.config import Part, find_config, load_config
from semagent.errors import RoleError
from semagent.health import SILENCE_S, busy_limit_s
from semagent.process import Announced, FromChild, Plan, Ready, ToChild
from semagent.supervisor import Supervisor
from semagent.types import Capabilities, Heartbeat
from semagent.wire import Message

NOWHERE = Endpoints(publisher="inproc://nowhere", pulse="inproc://nowhere")


class Child:
    def __init__(self, plan: Plan) -> None:
        self.role = plan.role
        seen = Capabilities(driver="stub", microscope="bench", verified_on=None)
        self.says: list[FromChild] = [
            Announced(endpoints=NOWHERE, capabilities=seen),
            Ready(listens=()),
        ]

    def receive(self, _deadline_s: float) -> FromChild:
        return self.says.pop(0)

    def send(self, message: ToChild) -> None:
        pass

    def end(self, _deadline_s: float) -> bool:
        return True


class Mortal(Child):
    """Its infer role dies whenever it has begun."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.link, self.far_end = Pipe()
        self.process = SimpleNamespace(sentinel=self.far_end)
        if self.role is Role.INFER:
            self.far_end.send_bytes(b"said")

    def receive(self, deadline_s: float) -> FromChild:
        if not self.says:
            raise RoleError("the infer role died")
        return super().receive(deadline_s)

    def end(self, _deadline_s: float) -> bool:
        self.kill()
        return True

    def kill(self) -> None:
        self.link.close()
        self.far_end.close()


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Supervisor, list[str]]]:
    """A run whose infer role dies again and again, and what is said of that."""
    monkeypatch.setattr(supervisor, "_Child", Mortal)
    monkeypatch.setattr(supervisor, "_RESTART_PAUSE_S", 0.0)
    said: list[str] = []
    run = Supervisor(load_config(find_config("simulated")), on_trouble=said.append)
    try:
        run.start()
        yield run, said
    finally:
        run.close()


def test_ctrl_c_breaks_no_watch_off(
    mortal: tuple[Supervisor, list[str]], monkeypatch: pytest.MonkeyPatch
):
    """On Windows it has a wait raise, whatever its handler does."""
    waited = []

    def broken_off_once(_objects: object, timeout_s: float) -> list[object]:
        waited.append(timeout_s)
        if len(waited) == 1:
            raise InterruptedError
        return []

    run, said = mortal
    monkeypatch.setattr(supervisor, "wait", broken_off_once)
    run.watch(0.1)
    assert len(waited) == 2
    assert not said


def test_a_role_that_dies_again_and_again_ends_the_run(mortal: tuple[Supervisor, list[str]]):
    run, said = mortal

    def watch() -> None:
        for _ in range(20):
            run.watch(0.0)

    with pytest.raises(RoleError, match="the infer role died"):
        watch()
    again = "the infer role died; starting it again"
    assert said == [f"{again} ({number} of 3)" for number in (1, 2, 3)]


def test_a_role_that_dies_now_and_then_does_not_end_a_run_of_days(
    mortal: tuple[Supervisor, list[str]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(supervisor, "_STEADY_S", 0.0)
    run, said = mortal
    for _ in range(20):
        run.watch(0.0)
    assert len(said) > 3
    assert set(said) == {"the infer role died; starting it again (1 of 3)"}


class Quiet(Mortal):
    """It neither dies nor says anything."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        if self.role is Role.INFER:
            self.link.recv_bytes()


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setattr(supervisor, "_Child", Quiet)
    run = Supervisor(load_config(find_config("simulated")))
    try:
        run.start()
        yield run
    finally:
        run.close()


def beat(run: Supervisor, role: Role, busy_s: float) -> None:
    now_ns = time.perf_counter_ns()
    value = Heartbeat(
        role=role,
        monotonic_ns=now_ns,
        busy_since_ns=now_ns - round(busy_s * 1e9) if busy_s else None,
    )
    run._beats.put(Message(topic="heartbeat", sender=role, number=1, value=value))


def test_a_role_that_is_busy_with_one_thing_for_too_long_is_lost(quiet: Supervisor):
    limit_s = busy_limit_s(Role.CONTROL, load_config(find_config("simulated")))
    beat(quiet, Role.CONTROL, busy_s=limit_s - 1)
    quiet.watch(0.0)
    beat(quiet, Role.CONTROL, busy_s=limit_s + 1)
    with pytest.raises(RoleError, match="the control role has been busy with one thing for"):
        quiet.watch(0.0)


def test_a_silent_role_is_lost_but_not_for_a_standstill_of_the_supervisor(
    quiet: Supervisor, monkeypatch: pytest.MonkeyPatch
):
    now_s = time.perf_counter()
    watch = SimpleNamespace(perf_counter=lambda: now_s, perf_counter_ns=time.perf_counter_ns)
    monkeypatch.setattr(supervisor, "time", watch)
    quiet.watch(0.0)
    now_s += 2 * SILENCE_S  # this process was stopped
    quiet.watch(0.0)
    for _ in range(3):
        quiet.watch(0.0)
        now_s += 0.4 * SILENCE_S
        for role in (Role.ACQUIRE, Role.INFER):
            beat(quiet, role, busy_s=0.0)
    with pytest.raises(RoleError, match="the control role has given no sign of life"):
        quiet.watch(0.0)


@pytest.mark.parametrize("restoration", [None, Part(name="onnxruntime")])
def test_all_roles_are_expected_to_give_signs_of_life(
    monkeypatch: pytest.MonkeyPatch, restoration: Part | None
):
    monkeypatch.setattr(supervisor, "_Child", Child)
    config = msgspec.structs.replace(load_config(find_config("simulated")), restoration=restoration)
    run = Supervisor(config, console=True)
    try:
        run.start()
        restores = set() if restoration is None else {Role.RESTORE}
        expected = {Role.ACQUIRE, Role.INFER, Role.CONTROL, Role.CONSOLE} | restores
        assert set(run.roles) == expected
    finally:
        run.close()


@pytest.mark.parametrize("slow", [Role.ACQUIRE, Role.INFER])
def test_a_start_that_is_interrupted_waits_only_for_the_microscope_and_what_has_been_opened(
    monkeypatch: pytest.MonkeyPatch, slow: Role
):
    waited_for, killed = [], []

    class Interrupted(Child):
        def receive(self, deadline_s: float) -> FromChild:
            if self.role is slow:
                raise KeyboardInterrupt
            return super().receive(deadline_s)

        def end(self, _deadline_s: float) -> bool:
            waited_for.append(self.role)
            return True

        def kill(self) -> None:
            killed.append(self.role)

    monkeypatch.setattr(supervisor, "_Child", Interrupted)
    run = Supervisor(load_config(find_config("simulated")))
    with pytest.raises(KeyboardInterrupt):
        run.start()
    assert waited_for == [Role.ACQUIRE]
    assert set(killed) == {Role.INFER, Role.CONTROL}


def test_a_ctrl_c_while_roles_are_brought_down_forgets_none(monkeypatch: pytest.MonkeyPatch):
    killed = []

    class Interrupted(Child):
        def end(self, _deadline_s: float) -> bool:
            if self.role is Role.INFER:
                raise KeyboardInterrupt  # before it has begun to wait
            return True

        def kill(self) -> None:
            killed.append(self.role)

    monkeypatch.setattr(supervisor, "_Child", Interrupted)
    run = Supervisor(load_config(find_config("simulated")))
    run.start()
    with pytest.raises(KeyboardInterrupt):
        run.close()
    assert Role.INFER in killed


def test_a_ctrl_c_while_a_lost_role_is_ended_does_not_forget_it(
    mortal: tuple[Supervisor, list[str]], monkeypatch: pytest.MonkeyPatch
):
    run, _ = mortal
    pressed, ended = [], []

    def end(child: Mortal, _deadline_s: float) -> bool:
        if child.role is Role.INFER and not pressed:
            pressed.append(child.role)
            raise KeyboardInterrupt
        ended.append(child.role)
        child.kill()
        return True

    monkeypatch.setattr(Mortal, "end", end)
    with pytest.raises(KeyboardInterrupt):
        run.watch(0.0)
    run.watch(0.0)  # as while focus is put back
    run.close()
    assert Role.INFER in ended


def test_a_process_that_was_let_go_of_may_be_ended_again():
    role = supervisor._Child(
        Plan(role=Role.INFER, config=load_config(find_config("simulated")), token="0" * 64)
    )
    role.kill()
    assert role.end(0.0)
