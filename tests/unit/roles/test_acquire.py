"""The acquire role over the simulated microscope: nothing passes but through the gate."""

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from semagent.bus import LocalBus, LocalHub, Mailbox
from semagent.channels import Role
from semagent.clock import ManualClock
from semagent.config import AcquireOptions, RunConfig, find_config, load_config
from semagent.errors import DisconnectedError, GateRefusedError, MicroscopeError, NotReadyError
from semagent.parts import make_acquire
from semagent.registry import open_microscope
from semagent.roles import AcquireRole, acquire
from semagent.types import (
    Action,
    Arm,
    Basis,
    Command,
    Disarm,
    FrameFault,
    Heartbeat,
    Issuer,
    Level,
    Outcome,
    Reply,
    SetWorkingDistance,
    Stop,
)
from semagent.wire import Message


class Kept:
    """A recorder that remembers in which order things were recorded."""

    def __init__(self) -> None:
        self.topics: list[str] = []

    def record(self, message: Message) -> None:
        self.topics.append(message.topic)


class Bench:
    """An acquire role with somebody who sends it commands and listens."""

    def __init__(
        self,
        *,
        patient: bool = False,
        follow_up_s: float = 0.0,
        frame_interval_s: float = 0.0,
        frame_timeout_s: float = 120.0,
        **options: Any,
    ) -> None:
        self.clock = ManualClock()
        config: RunConfig = msgspec.structs.replace(
            load_config(find_config("simulated")),
            acquire=AcquireOptions(
                frame_interval_s=frame_interval_s, frame_timeout_s=frame_timeout_s
            ),
        )
        small = {"width_px": 64, "height_px": 48, "dwell_us": 0.1}
        column = {"working_distance_mm": 5.0}
        self.microscope = open_microscope(
            "simulated",
            {"speed": 0, "scan": small, "column": column, **options},
            clock=self.clock,
        )
        self.kept = Kept()
        hub = LocalHub(self.clock, self.kept)
        self.console = LocalBus(hub, Role.CONSOLE)
        self.control = LocalBus(hub, Role.CONTROL)
        self.frames = self.console.subscribe("frame")
        self.events = self.console.subscribe("event")
        self.gates = self.console.subscribe("gate")
        self.beats = self.console.subscribe("heartbeat")
        self.role: AcquireRole = make_acquire(
            LocalBus(hub, Role.ACQUIRE),
            config,
            self.microscope,
            self.clock,
            patient=patient,
            follow_up_s=follow_up_s,
        )
        self._ids = 0

    def send(self, action: Action, *, issuer: Issuer = Issuer.OPERATOR, **more: Any) -> Reply:
        self._ids += 1
        command = Command(id=str(self._ids), issuer=issuer, action=action, **more)
        self.console.send("command", command)
        self.control.beat(busy=False, processed=0, skipped=0)
        self.role.serve()
        (answer,) = self.console.answers()
        assert answer.command == command
        return answer

    def arm(self) -> None:
        assert self.send(Arm()).outcome is Outcome.APPLIED

    def agent(self, working_distance_m: float, sequence: int, settings_rev: int) -> Reply:
        return self.send(
            SetWorkingDistance(working_distance_m=working_distance_m),
            issuer=Issuer.AGENT,
            basis=Basis(sequence=sequence, settings_rev=settings_rev),
        )

    def expose(self) -> Any:
        self.clock.advance(0.01)
        self.control.beat(busy=False, processed=0, skipped=0)
        self.role.step()
        message = self.frames.take()
        return None if message is None else message.value

    def after_each_move(self, monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
        move = self.microscope.apply

        def move_and_do(action: Any) -> None:
            move(action)
            do()

        monkeypatch.setattr(self.microscope, "apply", move_and_do)

    def busy_since_ns(self) -> int | None:
        beats = [each.value for each in taken(self.beats) if each.sender == Role.ACQUIRE]
        return beats[-1].busy_since_ns

    def kinds(self) -> list[str]:
        return [message.value.kind for message in taken(self.events)]


def taken(box: Mailbox) -> list[Message]:
    messages = []
    while (message := box.take()) is not None:
        messages.append(message)
    return messages


def focus(working_distance_m: float) -> SetWorkingDistance:
    return SetWorkingDistance(working_distance_m=working_distance_m)


def test_it_starts_disarmed_and_refuses_even_the_operator():
    bench = Bench()
    reply = bench.send(focus(5.001e-3))
    assert bench.gates.take().value.armed is False
    assert reply.outcome is Outcome.REFUSED
    assert "arm" in reply.reason
    assert bench.microscope.read_state().optics.working_distance_m == 5e-3


def test_an_armed_gate_lets_the_operator_move():
    bench = Bench()
    bench.arm()
    reply = bench.send(focus(5.001e-3))
    assert reply.outcome is Outcome.APPLIED
    assert reply.state.optics.working_distance_m == 5.001e-3
    assert reply.next_sequence == 1
    assert bench.expose().optics.working_distance_m == 5.001e-3


def test_the_agent_needs_a_frame_that_the_gate_knows():
    bench = Bench()
    bench.arm()
    header = bench.expose()
    assert bench.agent(5.001e-3, 99, header.settings_rev).code == "frame_unknown"
    assert bench.agent(5.001e-3, header.sequence, header.settings_rev + 1).outcome is (
        Outcome.REFUSED
    )
    reply = bench.agent(5.001e-3, header.sequence, header.settings_rev)
    assert reply.outcome is Outcome.APPLIED
    assert reply.next_sequence == header.sequence + 1


def test_no_frame_is_exposed_between_the_commands_of_one_way():
    bench = Bench(follow_up_s=0.02)
    bench.arm()
    header = bench.expose()
    for target_m in (4.999e-3, 5.001e-3):
        reply = bench.agent(target_m, header.sequence, header.settings_rev)
        assert reply.outcome is Outcome.APPLIED
        assert reply.next_sequence == header.sequence + 1
        assert bench.expose() is None  # 10 ms later
    assert bench.expose().optics.working_distance_m == 5.001e-3


def test_a_command_does_not_shorten_the_interval_of_the_frames():
    bench = Bench(follow_up_s=0.005, frame_interval_s=0.025)
    bench.arm()
    header = bench.expose()
    bench.agent(5.001e-3, header.sequence, header.settings_rev)
    assert [bench.expose() is None for _ in range(3)] == [True, True, False]  # every 10 ms


def test_everything_is_recorded_before_it_is_heard_and_in_order():
    bench = Bench()
    bench.arm()
    bench.expose()
    bench.send(focus(5.001e-3))
    assert bench.kept.topics == [
        "gate",
        "command",
        "reply",
        "event",
        "gate",
        "frame",
        "command",
        "reply",
        "gate",
    ]


def test_frames_are_counted_without_gaps_and_pixels_travel_along():
    bench = Bench()
    for sequence in (1, 2, 3):
        bench.clock.advance(0.01)
        bench.role.step()
        message = bench.frames.take()
        assert message.value.sequence == sequence
        assert message.pixels.shape == (48, 64)
        assert message.pixels.dtype == np.uint8


@pytest.mark.parametrize("action", [Stop(), Disarm(reason="lunch")])
def test_stop_and_disarm_pass_and_latch(action: Action):
    bench = Bench()
    bench.arm()
    assert bench.send(action).outcome is Outcome.APPLIED
    assert bench.send(focus(5.001e-3)).outcome is Outcome.REFUSED
    said = [(message.value.kind, message.value.level) for message in taken(bench.events)]
    assert said == [("gate_armed", Level.INFO), ("gate_disarmed", Level.WARNING)]


def test_the_agent_cannot_arm():
    bench = Bench()
    assert bench.send(Arm(), issuer=Issuer.AGENT).outcome is Outcome.REFUSED


def test_a_microscope_that_ignores_a_command_is_found_out():
    bench = Bench(faults={"ignored": {"at": [1]}})
    bench.arm()
    reply = bench.send(focus(5.02e-3))
    assert reply.outcome is Outcome.FAILED
    assert bench.send(focus(5.02e-3)).outcome is Outcome.REFUSED
    assert "gate_disarmed" in bench.kinds()


def test_a_microscope_that_refuses_changes_nothing_and_stays_armed():
    bench = Bench(faults={"refused": {"at": [1]}})
    bench.arm()
    reply = bench.send(focus(5.02e-3))
    assert (reply.outcome, reply.code) == (Outcome.REFUSED, "microscope")
    assert reply.state.optics.working_distance_m == 5e-3
    assert bench.send(focus(5.02e-3)).outcome is Outcome.APPLIED


def test_the_gate_of_another_machine_refuses_by_a_word_of_its_own(monkeypatch: pytest.MonkeyPatch):
    bench = Bench()
    bench.arm()

    def refuse(action: Action) -> None:
        raise GateRefusedError("refused by the safety gate of the microscope PC (disarmed)")

    monkeypatch.setattr(bench.microscope, "apply", refuse)
    reply = bench.send(focus(5.02e-3))
    assert (reply.outcome, reply.code) == (Outcome.REFUSED, "remote_gate")
    assert bench.role.gate.armed


def test_a_microscope_that_fails_disarms_even_where_it_has_arrived(
    monkeypatch: pytest.MonkeyPatch,
):
    bench = Bench()
    bench.arm()

    def fail() -> None:
        raise MicroscopeError("the answer was lost")

    bench.after_each_move(monkeypatch, fail)
    reply = bench.send(focus(5.02e-3))
    assert (reply.outcome, reply.code) == (Outcome.FAILED, "microscope")
    assert reply.reason == "the answer was lost"
    assert reply.state.optics.working_distance_m == 5.02e-3
    assert bench.role.gate.reason == (
        "the microscope failed while carrying out a command: the answer was lost"
    )
    assert bench.send(focus(5.02e-3)).code == "disarmed"


def test_a_microscope_that_cannot_be_read_is_not_moved(monkeypatch: pytest.MonkeyPatch):
    bench = Bench()
    bench.arm()

    def fail() -> Any:
        raise MicroscopeError("no answer")

    with monkeypatch.context() as silent:
        silent.setattr(bench.microscope, "read_state", fail)
        reply = bench.send(focus(5.02e-3))
    assert (reply.outcome, reply.code, reply.state) == (Outcome.REFUSED, "state_unknown", None)
    assert bench.kinds() == ["gate_armed", "state_unknown"]
    assert bench.microscope.read_state().optics.working_distance_m == 5e-3


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("frozen", FrameFault.FROZEN),
        ("incomplete", FrameFault.INCOMPLETE),
        ("saturated", FrameFault.SATURATED),
        ("blank", FrameFault.BLANK),
        ("wrong_size", FrameFault.WRONG_SIZE),
    ],
)
def test_a_bad_frame_is_flagged_and_announced(fault: str, found: FrameFault):
    bench = Bench(faults={fault: {"at": [2]}}, scan={"width_px": 256, "height_px": 192})
    assert bench.expose().faults == ()
    assert found in bench.expose().faults
    assert bench.expose().faults == ()
    assert bench.kinds() == ["frame_flagged"]


def test_a_disconnected_microscope_disarms_and_ends_the_role():
    bench = Bench(faults={"disconnect": {"at": [1]}})
    bench.arm()
    with pytest.raises(DisconnectedError):
        bench.role.step()
    assert bench.kinds() == ["gate_armed", "gate_disarmed", "acquire_failed"]


def test_what_is_asked_while_the_microscope_is_lost_is_answered_and_recorded(
    monkeypatch: pytest.MonkeyPatch,
):
    bench = Bench()
    bench.arm()

    def lose(_timeout_s: float) -> Any:
        bench.console.send("command", Command(id="2", issuer=Issuer.OPERATOR, action=focus(5e-3)))
        raise DisconnectedError("the cable is cut")

    monkeypatch.setattr(bench.microscope, "acquire", lose)
    with pytest.raises(DisconnectedError, match="the cable is cut"):
        bench.role.step()
    (reply,) = bench.console.answers()
    assert (reply.command.id, reply.outcome, reply.code) == ("2", Outcome.REFUSED, "disarmed")
    assert bench.kept.topics.count("command") == 2


def test_a_run_waits_for_the_person_who_has_blanked_the_beam(monkeypatch: pytest.MonkeyPatch):
    bench = Bench(patient=True)
    bench.arm()
    assert bench.expose() is not None
    with monkeypatch.context() as blanked:
        blanked.setattr(bench.microscope, "acquire", not_ready)
        for _ in range(20):
            bench.clock.advance(1.0)
            assert bench.expose() is None
        assert bench.kinds() == ["gate_armed", "gate_disarmed", "not_ready"]
        bench.arm()  # to let the beam on again, for example
        bench.clock.advance(1.0)
        assert bench.expose() is None
        assert bench.role.gate.armed
    assert bench.expose() is None  # it is not asked again at once
    bench.clock.advance(1.0)
    assert bench.expose() is not None
    assert bench.kinds() == ["gate_armed"]
    monkeypatch.setattr(bench.microscope, "acquire", not_ready)
    assert bench.expose() is None
    assert bench.kinds() == ["gate_disarmed", "not_ready"]


def test_failures_count_that_come_one_after_the_other(monkeypatch: pytest.MonkeyPatch):
    bench = Bench(patient=True)
    for _ in range(2):
        with monkeypatch.context() as failing:
            failing.setattr(bench.microscope, "acquire", fail_once)
            assert [bench.expose(), bench.expose()] == [None, None]
        assert bench.expose() is not None
    assert bench.kinds() == ["acquire_failed"] * 4
    monkeypatch.setattr(bench.microscope, "acquire", fail_once)
    assert [bench.expose(), bench.expose()] == [None, None]
    with pytest.raises(MicroscopeError, match="the scan did not end"):
        bench.expose()


def fail_once(_: float) -> Any:
    raise MicroscopeError("the scan did not end")


def test_a_single_task_does_not_wait_for_a_person(monkeypatch: pytest.MonkeyPatch):
    bench = Bench()
    monkeypatch.setattr(bench.microscope, "acquire", not_ready)
    assert [bench.expose(), bench.expose()] == [None, None]
    with pytest.raises(NotReadyError, match="the beam is blanked"):
        bench.expose()


def not_ready(_: float) -> Any:
    raise NotReadyError("the beam is blanked")


def test_silence_of_control_disarms():
    bench = Bench()
    bench.arm()
    bench.clock.advance(1.9)
    bench.role.serve()
    assert bench.kinds() == ["gate_armed"]
    bench.clock.advance(0.2)
    bench.role.serve()
    assert bench.kinds() == ["gate_disarmed"]


def test_the_signs_of_life_of_another_role_are_not_those_of_control():
    bench = Bench()
    bench.arm()
    bench.clock.advance(2.1)
    bench.console.beat(busy=False, processed=0, skipped=0)
    bench.role.serve()
    assert bench.kinds() == ["gate_armed", "gate_disarmed"]


def test_a_control_role_that_hangs_in_a_decision_is_silent_though_its_bus_still_beats():
    bench = Bench()
    bench.arm()
    since_ns = bench.clock.monotonic_ns()
    for kinds in ([], ["gate_disarmed"]):
        bench.kinds()
        bench.clock.advance(1.1)
        now_ns = bench.clock.monotonic_ns()
        beat = Heartbeat(role=Role.CONTROL, monotonic_ns=now_ns, busy_since_ns=since_ns)
        bench.control.publish("heartbeat", beat)
        bench.role.serve()
        assert bench.kinds() == kinds


def test_a_frame_is_given_the_time_that_is_configured(monkeypatch: pytest.MonkeyPatch):
    bench = Bench(frame_timeout_s=7.0)
    given_s: list[float] = []
    acquire = bench.microscope.acquire

    def note(timeout_s: float) -> Any:
        given_s.append(timeout_s)
        return acquire(timeout_s)

    monkeypatch.setattr(bench.microscope, "acquire", note)
    bench.expose()
    assert given_s == [7.0]


def test_a_long_move_before_a_command_is_no_silence_of_control(monkeypatch: pytest.MonkeyPatch):
    bench = Bench()
    bench.arm()
    move = bench.microscope.apply

    def slow_move(action: Any) -> None:
        move(action)
        bench.clock.advance(10.0)
        bench.control.beat(busy=False, processed=0, skipped=0)

    monkeypatch.setattr(bench.microscope, "apply", slow_move)
    for number, target_m in enumerate((5.001e-3, 5.002e-3)):
        command = Command(id=f"nudge-{number}", issuer=Issuer.OPERATOR, action=focus(target_m))
        bench.console.send("command", command)
    bench.role.serve()
    assert [answer.outcome for answer in bench.console.answers()] == [Outcome.APPLIED] * 2


def test_a_hand_on_the_microscope_disarms():
    bench = Bench()
    bench.arm()
    bench.expose()
    bench.microscope.apply(focus(5.05e-3))
    bench.expose()
    assert bench.kinds() == ["gate_armed", "gate_disarmed"]
    assert "by hand" in bench.gates.take().value.reason


def test_frames_keep_their_interval():
    bench = Bench(frame_interval_s=0.025)
    exposed = [bench.expose() is not None for _ in range(7)]  # every 10 ms
    assert exposed == [True, False, False, True, False, False, True]


def test_it_says_since_when_it_exposes_or_moves(monkeypatch: pytest.MonkeyPatch):
    bench = Bench()
    bench.arm()
    busy_since: list[int | None] = []

    def noted(do: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def note_and_do(argument: Any) -> Any:
            busy_since.append(bench.busy_since_ns())
            return do(argument)

        return note_and_do

    for name in ("acquire", "apply"):
        monkeypatch.setattr(bench.microscope, name, noted(getattr(bench.microscope, name)))
    bench.expose()
    exposing_ns = bench.clock.monotonic_ns()
    assert busy_since == [exposing_ns]
    assert bench.busy_since_ns() is None
    bench.clock.advance(1.0)
    bench.send(focus(5.001e-3))
    assert busy_since == [exposing_ns, bench.clock.monotonic_ns()]
    assert bench.busy_since_ns() is None


def test_who_comes_late_hears_how_the_gate_stands():
    bench = Bench()
    bench.role.serve()
    assert bench.gates.take() is not None
    bench.clock.advance(0.9)
    bench.role.serve()
    assert bench.gates.take() is None
    bench.clock.advance(0.2)
    bench.role.serve()
    assert bench.gates.take().value.armed is False


def test_the_frames_last_exposed_are_those_to_rest_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(acquire, "_REMEMBERED_FRAMES", 2)
    bench = Bench()
    bench.arm()
    first, second, third = (bench.expose() for _ in range(3))
    rest = [
        bench.agent(5.001e-3, header.sequence, header.settings_rev).code
        for header in (first, second)
    ]
    assert rest == ["frame_unknown", ""]
    assert third.sequence == 3


def test_paused_serves_commands_and_exposes_nothing():
    bench = Bench()
    bench.role.paused = True
    bench.arm()
    assert bench.expose() is None
    assert bench.role.frames == 0


def test_a_frame_is_ended_and_a_move_is_not(monkeypatch: pytest.MonkeyPatch):
    bench = Bench(speed=1)
    bench.arm()
    stops: list[str] = []
    doing = "nothing"

    def pass_time(duration_s: float) -> None:
        bench.clock.advance(duration_s)
        bench.role.end_exposure()

    def stop() -> None:
        stops.append(doing)
        really_stop()

    really_stop = bench.microscope.stop
    monkeypatch.setattr(bench.microscope, "stop", stop)
    monkeypatch.setattr(bench.clock, "sleep", pass_time)
    bench.role.end_exposure()
    doing = "move"
    assert bench.send(focus(5.001e-3)).outcome is Outcome.APPLIED
    doing = "frame"
    assert bench.expose() is None
    doing = "nothing"
    bench.role.end_exposure()
    assert stops == ["frame"]
    assert bench.kinds() == ["gate_armed", "frame_stopped"]


def test_a_stop_ends_what_was_about_to_begin(monkeypatch: pytest.MonkeyPatch):
    bench = Bench()
    bench.arm()
    stopped, ended = threading.Event(), []

    def apply(_action: Action) -> None:
        stop = Command(id="stop", issuer=Issuer.OPERATOR, action=Stop())
        bench.console.send("command", stop)
        assert stopped.is_set()
        stopped.clear()  # as drivers do when they begin
        ended.append(stopped.wait(20))

    monkeypatch.setattr(bench.microscope, "apply", apply)
    monkeypatch.setattr(bench.microscope, "stop", stopped.set)
    bench.console.send(
        "command", Command(id="move", issuer=Issuer.OPERATOR, action=focus(5.001e-3))
    )
    bench.role.serve()
    assert ended == [True]
    bench.role.serve()
    assert not bench.role.gate.armed


def test_what_was_asked_before_a_stop_is_not_carried_out_after_it():
    bench = Bench()
    bench.arm()
    for number, action in enumerate((focus(5.001e-3), Stop(), focus(5.002e-3))):
        command = Command(id=f"queued-{number}", issuer=Issuer.OPERATOR, action=action)
        bench.console.send("command", command)
    bench.role.serve()
    outcomes = [answer.outcome for answer in bench.console.answers()]
    assert outcomes == [Outcome.REFUSED, Outcome.APPLIED, Outcome.REFUSED]
    assert bench.microscope.read_state().optics.working_distance_m == 5e-3
    assert bench.role.gate.reason == "stopped by the operator"


def test_no_frame_is_begun_after_a_stop_that_came_during_a_command(
    monkeypatch: pytest.MonkeyPatch,
):
    bench = Bench()
    bench.arm()
    stop = Command(id="stop", issuer=Issuer.OPERATOR, action=Stop())
    bench.after_each_move(monkeypatch, lambda: bench.console.send("command", stop))
    nudge = Command(id="nudge", issuer=Issuer.OPERATOR, action=focus(5.001e-3))
    bench.console.send("command", nudge)
    bench.role.step()
    assert bench.role.frames == 0
    bench.role.step()
    assert not bench.role.gate.armed
    assert bench.role.frames == 1


def test_a_stop_holds_even_if_the_gate_was_armed_in_the_same_moment():
    bench = Bench()
    for number, action in enumerate((Arm(), Stop())):
        command = Command(id=f"queued-{number}", issuer=Issuer.OPERATOR, action=action)
        bench.console.send("command", command)
    bench.role.serve()
    assert not bench.role.gate.armed
