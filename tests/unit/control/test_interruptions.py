"""Whatever goes wrong, focus and stigmators go back, or the result says where they were left."""

import math
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from semagent.control.options import AutofocusOptions, DeadlineOptions
from semagent.types import (
    Cancel,
    FocusResult,
    FrameAnalysis,
    GateStatus,
    Mode,
    Outcome,
    Reply,
    SetMode,
    SetStigmator,
    SetWorkingDistance,
    StartAutofocus,
)

from .bench import CAPABILITIES, OPTIONS, UNIT_M, Bench, Spectrum


def break_once(bench: Bench, outcome: Outcome) -> None:
    """Let the next command of the agent fail, and later ones pass."""

    def answer(reply: Reply) -> Reply:
        bench.answer = lambda reply: reply
        return msgspec.structs.replace(reply, outcome=outcome, code="limit", reason="too far")

    bench.answer = answer


def assert_put_back(bench: Bench) -> FocusResult:
    result = bench.results[-1]
    assert result.status in ("held", "failed")
    assert bench.offset == pytest.approx(0, abs=1e-6)
    assert result.final_working_distance_m == pytest.approx(bench.origin_m)
    assert "could not be put back" not in result.reason
    assert not any(event.data.get("put_back") is False for event in bench.events)
    assert bench.controller.state.task is None
    return result


def assert_left(bench: Bench) -> FocusResult:
    result = bench.results[-1]
    assert result.status == "failed"
    assert bench.offset != pytest.approx(0, abs=1e-6)
    assert result.final_working_distance_m == bench.optics.working_distance_m
    assert "could not be put back to 5.0000 mm" in result.reason
    assert f"{bench.optics.working_distance_m * 1e3:.4f} mm" in result.reason
    (event,) = (event for event in bench.events if event.kind == "autofocus_done")
    assert event.data == {"put_back": False}
    assert bench.controller.state.task is None
    return result


# -- ends that put back -----------------------------------------------------------------------


def test_cancel(bench: Bench) -> None:
    bench.request(Cancel(reason="enough"))
    assert assert_put_back(bench).reason == "enough"


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.ADVISE])
def test_other_mode(bench: Bench, mode: Mode) -> None:
    bench.request(SetMode(mode=mode))
    assert f"the mode was set to {mode}" in assert_put_back(bench).reason


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.FAILED])
def test_command_that_is_not_carried_out(bench: Bench, outcome: Outcome) -> None:
    break_once(bench, outcome)
    bench.frame()
    result = assert_put_back(bench)
    assert result.status == "failed"
    became = "was refused" if outcome is Outcome.REFUSED else "failed"
    assert f"the command to set working distance {became}: too far" in result.reason
    event = next(event for event in bench.events if event.kind == "command_failed")
    assert event.data == {"code": "limit"}


def test_command_that_is_never_answered(bench: Bench) -> None:
    bench.answer = lambda reply: None
    bench.frame()
    bench.answer = lambda reply: reply
    bench.tick(9.9)
    assert not bench.results
    bench.tick(0.2)
    assert "was not answered within 10 s" in assert_put_back(bench).reason


def test_first_command_that_is_carried_out_too_late() -> None:
    """What was read back last says nothing of where the lens is going."""
    bench = Bench(focus=25.0, options=OPTIONS)
    bench.arm()
    bench.request(StartAutofocus())
    waiting: list[Reply] = []
    bench.answer = waiting.append
    bench.frame()

    def answer(reply: Reply) -> Reply:
        bench.carry_out(waiting[0].command.action)  # commands wait in line
        return reply

    bench.answer = answer
    bench.tick(11)
    assert len(bench.commands) == 2
    assert "was not answered within 10 s" in assert_put_back(bench).reason


def test_first_command_that_fails_and_leaves_the_lens_nobody_knows_where() -> None:
    bench = Bench(focus=25.0, options=OPTIONS)
    bench.arm()
    bench.request(StartAutofocus())

    def answer(reply: Reply) -> Reply:
        bench.carry_out(reply.command.action)
        bench.answer = lambda reply: reply
        return msgspec.structs.replace(reply, outcome=Outcome.FAILED, state=None, reason="lost")

    bench.answer = answer
    bench.frame()
    assert len(bench.commands) == 2
    assert "failed: lost" in assert_put_back(bench).reason


def test_frames_that_do_not_come(bench: Bench) -> None:
    bench.tick(29.9)
    assert not bench.results
    bench.tick(0.2)
    reason = assert_put_back(bench).reason
    assert "no usable frame within 30 s: the engine did not answer, or a scan" in reason


def test_frames_that_cannot_be_used(bench: Bench) -> None:
    for _ in range(OPTIONS.autofocus.max_flagged - 1):
        bench.flagged()
    assert not bench.results
    bench.flagged()
    result = assert_put_back(bench)
    assert result.status == "held"
    assert "5 frames in a row could not be used (saturated)" in result.reason
    assert result.frames_used == 8


def test_good_frame_forgives_flagged_ones(bench: Bench) -> None:
    for _ in range(2):
        for _ in range(OPTIONS.autofocus.max_flagged - 1):
            bench.flagged()
        bench.frame()
    assert not bench.results


def _said_wrongly(analysis: FrameAnalysis, what: str) -> FrameAnalysis:
    signature = analysis.signature
    assert signature is not None
    powers = list(signature.log_power)
    powers[40] = math.nan
    wrong: dict[str, dict[str, Any]] = {
        "sharpness": {"sharpness": math.nan},
        "structure": {"structure": math.inf},
        "a power": {"signature": replace(signature, log_power=tuple(powers))},
        "noise": {"signature": replace(signature, log_noise=(1e308,) * len(powers))},
        "bins": {"signature": replace(signature, log_power=signature.log_power[:10])},
        "tiles": {"signature": replace(signature, tile_px=-1)},
        "pixels": {"signature": replace(signature, pixels=math.inf)},
    }
    return replace(analysis, **wrong[what])


@pytest.mark.parametrize(
    "what", ["sharpness", "structure", "a power", "noise", "bins", "tiles", "pixels"]
)
def test_what_no_frame_can_look_like_is_a_flagged_frame(bench: Bench, what: str) -> None:
    belief = bench.controller.belief
    bench.follow(bench.controller.analysed(_said_wrongly(bench.analysis(), what)))
    assert bench.controller.belief is belief
    assert bench.controller.state.task.flagged == 1
    bench.frame()
    assert bench.controller.state.task.flagged == 0


def test_search_that_takes_too_long() -> None:
    deadlines = DeadlineOptions(frame_s=1000, task_s=4.5)
    bench = Bench(
        spectrum=Spectrum(flat=True), options=msgspec.structs.replace(OPTIONS, deadlines=deadlines)
    )
    bench.arm()
    bench.tick()
    bench.request(StartAutofocus())
    bench.run(4)
    bench.tick(0.5)
    assert not bench.results
    bench.tick(0.5)
    assert "longer than 4.5 s" in assert_put_back(bench).reason


def test_settings_that_change_with_our_own_move(bench: Bench) -> None:
    original = bench.carry_out

    def carry_out(action: object) -> None:
        bench.settings_rev = 2
        original(action)

    bench.carry_out = carry_out
    bench.run(2)
    assert "along with the working distance scan" in assert_put_back(bench).reason


def test_stigmators_dragged_along_are_put_back(bench: Bench) -> None:
    original = bench.carry_out

    def carry_out(action: object) -> None:
        original(action)
        if isinstance(action, SetWorkingDistance):
            bench.optics = msgspec.structs.replace(bench.optics, stigmator_x=0.3)

    bench.carry_out = carry_out
    bench.frame()
    bench.request(Cancel())
    assert_put_back(bench)
    assert bench.commands[-1].action == SetStigmator(x=0.1, y=-0.1)
    assert bench.optics.stigmator_x == 0.1


def test_stigmators_are_left_alone_where_they_cannot_be_set() -> None:
    capabilities = msgspec.structs.replace(CAPABILITIES, stigmator=False)
    bench = Bench(focus=25.0, options=OPTIONS, capabilities=capabilities)
    bench.arm()
    bench.request(StartAutofocus())
    bench.run(3)
    bench.request(Cancel())
    assert_put_back(bench)
    assert not any(isinstance(command.action, SetStigmator) for command in bench.commands)


@pytest.mark.parametrize("outcome", Outcome)
def test_outstanding_command_is_waited_for_before_going_back(
    bench: Bench, outcome: Outcome
) -> None:
    waiting: list[Reply] = []
    bench.answer = waiting.append
    bench.frame()
    bench.request(Cancel())
    assert not bench.results
    assert len(waiting) == 1
    bench.answer = lambda reply: reply
    bench.carry_out(waiting[0].command.action)
    reply = replace(waiting[0], outcome=outcome, reason="too far")
    bench.follow(bench.controller.replied(reply))
    assert_put_back(bench)


def test_the_way_home_is_straight_where_there_is_no_travel_for_one_around_the_play(
    bench: Bench,
) -> None:
    def answer(reply: Reply) -> Reply:
        action = reply.command.action
        assert isinstance(action, SetWorkingDistance)
        if action.working_distance_m >= bench.origin_m:
            return reply
        return msgspec.structs.replace(
            reply, outcome=Outcome.REFUSED, code="travel", reason="no travel is left"
        )

    bench.frame()
    assert bench.offset > 0  # home is passed, and reached from below
    given = len(bench.positions)
    bench.answer = answer
    bench.request(Cancel())
    assert_put_back(bench)
    assert bench.positions[given:] == pytest.approx([-OPTIONS.autofocus.approach, 0.0])


# -- ends that cannot put back ----------------------------------------------------------------


def test_disarmed(bench: Bench) -> None:
    bench.arm(False, "heartbeat lost")
    result = assert_left(bench)
    assert "the safety gate was disarmed (heartbeat lost)" in result.reason
    assert "(the safety gate is disarmed)" in result.reason


def test_way_home_that_is_refused(bench: Bench) -> None:
    bench.answer = lambda reply: msgspec.structs.replace(
        reply, outcome=Outcome.REFUSED, code="limit", reason="too far"
    )
    bench.request(Cancel())
    assert "(too far)" in assert_left(bench).reason


def test_way_home_that_is_never_answered(bench: Bench) -> None:
    bench.answer = lambda reply: None
    bench.request(Cancel())
    bench.tick(11)
    assert "(the command was not answered in time)" in assert_left(bench).reason


def test_reply_without_state_is_survived(bench: Bench) -> None:
    bench.answer = lambda reply: msgspec.structs.replace(reply, state=None)
    bench.run(3)
    bench.request(Cancel())
    assert bench.offset == pytest.approx(0, abs=1e-6)


# -- before anything was seen -----------------------------------------------------------------


def test_no_frame_at_all() -> None:
    bench = Bench(options=OPTIONS)
    bench.arm()
    bench.tick()
    bench.request(StartAutofocus())
    bench.tick(31)
    result = bench.results[-1]
    assert result.status == "failed"
    assert result.frames_used == 0
    assert result.start_working_distance_m != result.start_working_distance_m  # NaN: never seen


def test_deadline_starts_with_the_first_tick() -> None:
    bench = Bench(options=OPTIONS)
    bench.arm()
    bench.now_ns = 10**15
    bench.request(StartAutofocus())
    bench.tick()
    assert not bench.results
    bench.tick(31)
    assert bench.results


def test_gate_that_never_reports() -> None:
    bench = Bench(options=OPTIONS)
    bench.request(StartAutofocus())
    bench.run(32)
    assert "no word of the safety gate" in bench.results[-1].reason
    assert bench.commands == []


@pytest.mark.parametrize("told", ["before it is asked", "after it is asked", "once it is armed"])
def test_disarmed_from_the_start_is_refused_without_a_frame(told: str) -> None:
    bench = Bench(options=OPTIONS)
    if told == "once it is armed":
        bench.arm()
    if told == "before it is asked":
        bench.arm(False)
    bench.request(StartAutofocus())
    if told != "before it is asked":
        bench.arm(False)
    [result] = bench.results
    assert (result.status, result.frames_used) == ("held", 0)
    assert result.reason == "the safety gate is disarmed; arm it and ask again"
    assert bench.commands == []


# -- frames that were exposed too early -------------------------------------------------------


def test_stale_frames_are_ignored(bench: Bench) -> None:
    samples = bench.controller.state.task.samples
    belief = bench.controller.belief
    early = bench.analysis()
    header = msgspec.structs.replace(early.header, sequence=2)
    bench.follow(bench.controller.analysed(msgspec.structs.replace(early, header=header)))
    assert bench.controller.state.task.samples == samples
    assert bench.controller.belief is belief


def test_frames_during_a_command_are_ignored(bench: Bench) -> None:
    bench.answer = lambda reply: None
    bench.frame()
    assert bench.controller.state.pending is not None
    task = bench.controller.state.task
    bench.run(3)
    bench.flagged()
    assert bench.controller.state.task == task


def test_late_answer_to_a_forgotten_command_is_ignored(bench: Bench) -> None:
    kept: list[Reply] = []
    bench.answer = kept.append
    bench.frame()
    bench.answer = lambda reply: reply
    bench.tick(11)
    assert_put_back(bench)
    before = bench.controller.state
    bench.follow(bench.controller.replied(kept[0]))
    after = bench.controller.state
    assert msgspec.structs.replace(after, first_sequence=before.first_sequence) == before


def test_late_answer_to_a_forgotten_command_is_not_that_to_the_way_home(bench: Bench) -> None:
    kept: list[Reply] = []
    bench.answer = kept.append
    bench.frame()
    bench.tick(11)
    way_home = bench.controller.state.pending
    bench.follow(bench.controller.replied(kept[0]))
    assert bench.controller.state.pending == way_home is not None


def test_old_legs_do_not_go_on_under_a_new_task() -> None:
    autofocus = AutofocusOptions(max_step_m=UNIT_M)
    bench = Bench(focus=25.0, options=msgspec.structs.replace(OPTIONS, autofocus=autofocus))
    bench.arm()
    bench.request(StartAutofocus())
    kept: list[Reply] = []
    bench.answer = kept.append
    bench.frame()
    assert bench.controller.state.pending.then
    bench.operator(SetStigmator(x=0.0, y=0.0))
    bench.request(StartAutofocus())
    bench.answer = lambda reply: reply
    bench.follow(bench.controller.replied(kept[0]))
    assert len(bench.commands) == 1


def test_command_given_before_the_first_tick_has_a_deadline() -> None:
    bench = Bench(focus=25.0, options=OPTIONS)
    bench.arm()
    bench.request(StartAutofocus())
    bench.answer = lambda reply: None
    bench.follow(bench.controller.analysed(bench.analysis()))
    assert bench.controller.state.pending is not None
    bench.now_ns = 10**15
    bench.tick()
    assert bench.controller.state.pending is not None
    assert "command_failed" not in bench.kinds
    bench.tick(11)
    assert "command_failed" in bench.kinds


def test_stigmators_that_cannot_be_put_back_any_more(bench: Bench) -> None:
    """The gate closes between the two commands of the way home."""

    def answer(reply: Reply) -> Reply:
        status = GateStatus(armed=False, reason="x", monotonic_ns=0)
        bench.follow(bench.controller.gate_changed(status))
        return reply

    original = bench.carry_out

    def carry_out(action: object) -> None:
        original(action)
        bench.optics = msgspec.structs.replace(bench.optics, stigmator_x=0.3)

    bench.carry_out, bench.answer = carry_out, answer
    bench.request(Cancel())
    result = bench.results[-1]
    assert result.status == "failed"
    assert "could not be put back" in result.reason
