"""Hold mode: follows drift with few moves, rests when there is none, and stops when lost."""

import msgspec
import numpy as np
import pytest

from semagent.control import ControlOptions
from semagent.control.options import EstimatorOptions, HoldOptions
from semagent.control.situation import Follow
from semagent.types import Cancel, Mode, Outcome, SetMode, SetWorkingDistance, StartAutofocus

from .bench import UNIT_M, Bench, Curve

OPTIONS = ControlOptions(mode=Mode.HOLD, estimator=EstimatorOptions(memory_frames=5))


def hold(frames: int = 30, **changes: object) -> Bench:
    """A bench that has focused and follows."""
    settings = {"noise": 0.005, "scatter": 0.003, "curve": Curve(width=3.0, gain=0.4), **changes}
    bench = Bench(options=OPTIONS, **settings)
    bench.arm()
    bench.run(frames)
    return bench


def follow(bench: Bench) -> Follow:
    task = bench.controller.state.task
    assert isinstance(task, Follow)
    return task


@pytest.mark.parametrize("drift", [0.02, -0.033, 0.05])
def test_follows_a_drifting_specimen(drift: float) -> None:
    """2 half depths of field, one depth of field, per 100, 60 and 40 frames."""
    errors = []
    for seed in range(2):
        bench = hold(30, drift=drift, seed=seed, focus=12.0)
        bench.run(120)
        errors += [abs(error) for error in bench.errors[30:]]
        assert bench.controller.state.paused == ""
        assert len(bench.commands) < 45
    # Two frames in every 25 are probes beside the working point.
    assert np.mean(np.array(errors) <= 1) > 0.85
    assert np.mean(np.array(errors) <= 2.5) > 0.97


def test_rests_while_nothing_drifts() -> None:
    bench = hold()
    given = len(bench.commands)
    bench.run(250)
    assert len(bench.commands) - given <= 5 * 4
    assert abs(bench.offset - bench.focus) < 0.5


def test_starts_from_focus_without_a_second_search() -> None:
    bench = hold(60, focus=10.0)
    assert bench.kinds.count("autofocus_done") == 1
    assert bench.kinds.count("hold_started") == 1
    assert follow(bench).home.optics.working_distance_m == bench.results[0].final_working_distance_m


def test_far_jump_is_searched_for_at_once() -> None:
    bench = hold(40)
    bench.focus += 9.0
    bench.run(20)
    assert abs(bench.offset - bench.focus) < 1
    assert bench.kinds.count("autofocus_done") == 2


def test_jump_within_reach_is_followed_by_a_pair() -> None:
    bench = hold(40)
    bench.focus += 1.8
    bench.run(10)
    assert abs(bench.offset - bench.focus) < 1
    assert bench.kinds.count("autofocus_done") == 1


def test_fall_without_a_change_of_focus_is_accepted() -> None:
    """Contamination: the place is still the best, so it is kept and not searched again."""
    bench = hold(40)
    dim = bench.curve
    bench.curve = lambda defocus: dim(defocus) - 0.08
    bench.run(100)
    assert abs(bench.offset - bench.focus) < 0.5
    assert bench.kinds.count("autofocus_done") == 1


def test_gives_up_when_it_cannot_tell() -> None:
    bench = hold(40)
    home = bench.offset
    bench.curve = Curve(flat=True)
    bench.run(250)
    assert bench.results[-1].status == "held"
    assert "does not depend on the working distance" in bench.controller.state.paused
    assert bench.offset == pytest.approx(home, abs=0.5)
    given = len(bench.commands)
    bench.run(50)
    assert len(bench.commands) == given


def test_wider_pair_where_the_curve_is_broad_and_narrow_again() -> None:
    bench = hold(30, curve=Curve(width=3.0, gain=0.4), noise=0.02, scatter=0.01)
    bench.curve = Curve(width=12.0, gain=0.4)
    bench.run(150)
    assert max(abs(place - bench.focus) for place in bench.positions[-30:]) >= 3.0
    bench.curve = Curve(width=2.0, gain=0.8)
    bench.run(450)
    assert follow(bench).step == HoldOptions().probe_step


def test_operator_takes_over() -> None:
    bench = hold()
    bench.carry_out(SetWorkingDistance(working_distance_m=4.9e-3))
    given = len(bench.commands)
    bench.run(60)
    assert len(bench.commands) == given
    assert "working distance was changed" in bench.controller.state.paused
    bench.request(SetMode(mode=Mode.HOLD))
    bench.run(60)
    assert bench.controller.state.paused == ""
    assert len(bench.commands) > given


def run_until_probe(bench: Bench) -> None:
    for _ in range(250):
        if follow(bench).pair is not None:
            return
        bench.frame()
    raise AssertionError("no probe")


def test_cancel_during_a_probe_goes_back() -> None:
    bench = hold()
    home = bench.offset
    run_until_probe(bench)
    assert bench.offset != pytest.approx(home, abs=0.1)
    bench.request(Cancel())
    assert bench.offset == pytest.approx(home, abs=0.01)
    assert bench.controller.state.paused == "cancelled by the operator"


def test_other_mode_during_a_probe_goes_back() -> None:
    bench = hold()
    home = bench.offset
    run_until_probe(bench)
    bench.request(SetMode(mode=Mode.ADVISE))
    assert bench.offset == pytest.approx(home, abs=0.01)
    assert bench.controller.state.task is None
    assert bench.controller.state.paused == ""


def test_refused_probe_goes_back_and_pauses() -> None:
    bench = hold()
    home = bench.offset
    bench.answer = lambda reply: (
        msgspec.structs.replace(reply, outcome=Outcome.REFUSED, reason="too far")
        if reply.command.action.working_distance_m > bench.origin_m + (home + 1) * UNIT_M
        else reply
    )
    bench.run(40)
    assert bench.offset == pytest.approx(home, abs=0.01)
    assert "too far" in bench.controller.state.paused


def test_frames_that_do_not_come_during_a_probe() -> None:
    bench = hold()
    home = bench.offset
    run_until_probe(bench)
    bench.tick(61)
    assert bench.offset == pytest.approx(home, abs=0.01)
    assert "no usable frame" in bench.controller.state.paused


def test_frames_that_do_not_come_at_rest_are_no_reason_to_stop() -> None:
    bench = hold()
    bench.tick(1000)
    assert bench.controller.state.paused == ""
    follow(bench)


def test_disarmed_gate_suspends_and_arming_starts_afresh() -> None:
    bench = hold(40)
    given = len(bench.commands)
    bench.arm(False, "heartbeat lost")
    bench.run(50)
    assert len(bench.commands) == given
    assert bench.controller.state.task is None
    bench.arm()
    bench.run(20)
    assert bench.kinds.count("hold_started") == 2


def test_autofocus_on_request_starts_from_the_working_point() -> None:
    bench = hold()
    home = bench.offset
    run_until_probe(bench)
    bench.request(StartAutofocus(max_frames=9))
    bench.results.clear()
    result = bench.run_until_result()
    start = (result.start_working_distance_m - bench.origin_m) / UNIT_M
    assert start == pytest.approx(home, abs=0.01)
    assert result.frames_used <= 9
    bench.run(5)
    follow(bench)


def test_request_adopts_the_search_that_hold_began() -> None:
    bench = hold(3, focus=90.0)  # far, so that it would take more
    bench.request(StartAutofocus(max_frames=5))
    assert bench.run_until_result().frames_used == 5


def test_no_following_where_it_is_switched_off() -> None:
    options = ControlOptions(mode=Mode.HOLD, hold=HoldOptions(follow=False))
    bench = Bench(options=options, focus=10.0)
    bench.arm()
    bench.run(50)
    assert bench.commands == []
    bench.request(StartAutofocus())
    bench.run_until_result()
    given = len(bench.commands)
    bench.run(50)
    assert len(bench.commands) == given


@pytest.mark.parametrize("jump", [2.5, 4.0, -6.0])
def test_jump_before_the_first_pair(jump: float) -> None:
    """How the curve bends is not known yet, so a pair has to say how far it is."""
    bench = hold(18)
    assert follow(bench).bend is None
    bench.focus += jump
    bench.run(60)
    assert abs(bench.offset - bench.focus) < 1


def test_cancel_while_idle_pauses() -> None:
    bench = Bench(options=ControlOptions(mode=Mode.HOLD))
    bench.arm()
    bench.request(Cancel(reason="not now"))
    bench.run(10)
    assert bench.commands == []
    assert bench.controller.state.paused == "not now"
