"""A way that takes longer than the evidence lasts that it rests on."""

import msgspec

from semagent.control.options import AutofocusOptions
from semagent.memory import Calibration, Measure, Memory, Settings
from semagent.types import Cancel, Outcome, Reply, SetWorkingDistance, StartAutofocus

from .bench import OPTIONS, SCAN, UNIT_M, Bench
from .test_interruptions import assert_left, assert_put_back


def expire(bench: Bench, *, after: int) -> None:
    """Refuse the agent's commands as too old, once so many were given on one frame."""
    given: list[int] = []

    def answer(reply: Reply) -> Reply:
        given.append(bench.sequence)
        if given.count(bench.sequence) <= after:
            return reply
        return msgspec.structs.replace(
            reply, outcome=Outcome.REFUSED, code="expired", reason="too old", state=bench.state()
        )

    bench.answer = answer


def slow_bench(**autofocus: float) -> Bench:
    options = msgspec.structs.replace(
        OPTIONS, autofocus=AutofocusOptions(max_step_m=4 * UNIT_M, **autofocus)
    )
    scan = msgspec.structs.replace(SCAN, dwell_s=1e-6)
    bench = Bench(focus=25.0, options=options, scan=scan, beam_current_a=1.602176634e-10)
    bench.arm()
    bench.request(StartAutofocus())
    return bench


def cancelled_on_the_way(*, after: int) -> Bench:
    """A search that is called off after one frame, the way back being too long for its evidence."""
    bench = slow_bench()
    bench.frame()
    expire(bench, after=after)
    bench.request(Cancel(reason="enough"))
    return bench


def test_a_long_way_is_looked_at_again_and_gone_on_with() -> None:
    bench = slow_bench()
    expire(bench, after=3)
    result = bench.run_until_result()
    assert result.status == "focused"
    assert abs(bench.offset - 25.0) <= 1
    assert result.frames_used == bench.sequence
    assert "looking_again" in bench.kinds


def test_so_is_the_way_back() -> None:
    bench = slow_bench()
    bench.frame()
    assert abs(bench.offset) > 9
    expire(bench, after=1)
    bench.request(Cancel(reason="enough"))
    assert not bench.results
    bench.flagged()  # any frame will do
    bench.run_until_result()
    assert assert_put_back(bench).reason == "enough"
    assert bench.results[-1].frames_used == bench.sequence


def test_frames_too_old_to_begin_with_end_the_search() -> None:
    bench = slow_bench()
    expire(bench, after=0)
    bench.frame()
    assert "was refused: too old" in assert_put_back(bench).reason


def test_an_angle_that_is_remembered_is_no_move() -> None:
    calibration = Calibration(
        date="", frames=20, blur_per_focus=Measure(value=2.5e-3, sigma=2.5e-5)
    )
    memory = Memory().with_calibration(Settings(), calibration)
    bench = Bench(focus=25.0, options=OPTIONS, convergence_angle_rad=None, memory=memory)
    bench.arm()
    bench.request(StartAutofocus())
    expire(bench, after=0)
    bench.frame()
    assert "was refused: too old" in assert_put_back(bench).reason


def test_on_the_way_back_they_leave_focus_where_it_is() -> None:
    bench = cancelled_on_the_way(after=0)
    assert not bench.results
    bench.frame()  # and its evidence is too old for anything, too
    assert_left(bench)


def test_no_frame_on_the_way_back_has_a_deadline() -> None:
    bench = cancelled_on_the_way(after=2)
    bench.tick(29.0)
    assert not bench.results
    bench.tick(2.0)
    assert "no frame within 30 s" in assert_left(bench).reason


def test_the_gate_may_close_before_the_way_back_goes_on() -> None:
    bench = cancelled_on_the_way(after=2)
    bench.arm(False, "stopped by the operator")
    bench.frame()
    assert "the safety gate is disarmed" in assert_left(bench).reason


def test_the_operator_may_take_over_on_the_way_back() -> None:
    bench = cancelled_on_the_way(after=2)
    given = len(bench.commands)
    bench.operator(SetWorkingDistance(working_distance_m=bench.origin_m + 3 * UNIT_M))
    bench.frame()
    assert len(bench.commands) == given
    assert "left as it is" in bench.results[-1].reason


def test_a_dose_budget_that_is_used_up_buys_no_frame_for_the_way_back() -> None:
    bench = slow_bench(max_dose_e_nm2=15.0)  # one frame of 10 e/nm², and half of another
    expire(bench, after=2)
    bench.frame()
    (result,) = bench.results
    assert result.status == "held"
    assert bench.sequence == 1
    assert_put_back(bench)
    bench = slow_bench(max_dose_e_nm2=25.0)
    bench.run(2)
    (result,) = bench.results
    assert bench.sequence == 2
    assert_put_back(bench)


def test_a_way_back_that_would_exceed_the_dose_budget_ends_where_it_is() -> None:
    bench = slow_bench(max_dose_e_nm2=25.0)
    bench.frame()
    expire(bench, after=1)
    bench.frame()
    assert bench.sequence == 2
    assert_left(bench)
