"""Travel: summed over a sliding window, with the way back kept in hand."""

import math
from fractions import Fraction

import pytest

from semagent.safety.travel import Plan, Track
from semagent.types import Arm, Issuer, SetWorkingDistance

from .bench import CASES, WD, AxisCase, Bench, code, limits

SECOND = 10**9


def test_a_first_move_costs_the_way_there_and_back() -> None:
    plan = Track(1.0, 10).plan(1.5, 0)
    assert plan == Plan(past=Fraction(0), way=Fraction(1, 2), back=Fraction(1, 2))
    assert plan.total == 1


def test_planning_books_nothing() -> None:
    track = Track(1.0, 10)
    track.plan(1.5, 0)
    assert track.plan(1.5, 0).total == 1
    assert track.position == 1.0


def test_moves_add_up_and_the_way_back_leads_to_the_first() -> None:
    track = Track(1.0, 10)
    track.book(1.5, 0)
    track.book(1.25, 1)
    assert track.position == 1.25
    assert track.plan(0.5, 2) == Plan(past=Fraction(3, 4), way=Fraction(3, 4), back=Fraction(1, 2))
    assert track.plan(1.0, 2).total == 1


def test_a_move_counts_for_the_whole_window_and_not_longer() -> None:
    track = Track(1.0, 10)
    track.book(1.5, 100)
    track.book(1.75, 105)
    assert track.plan(1.75, 110).past == Fraction(3, 4)
    assert track.plan(1.75, 111) == Plan(past=Fraction(1, 4), way=Fraction(0), back=Fraction(1, 4))
    assert track.plan(1.75, 115).past == Fraction(1, 4)
    assert track.plan(1.75, 116).total == 0
    assert track.plan(2.0, 116) == Plan(past=Fraction(0), way=Fraction(1, 4), back=Fraction(1, 4))


def test_several_moves_leave_the_window_at_once() -> None:
    track = Track(0.0, 10)
    for _ in range(3):
        track.book(1.0, 0)
        track.book(0.0, 0)
    assert track.plan(0.0, 10).past == 6
    assert track.plan(0.0, 11).past == 0


def test_the_sum_is_exact_however_many_moves() -> None:
    track = Track(0.0, 10)
    for turn in range(1000):
        track.book(0.1 if turn % 2 == 0 else 0.0, turn)
    assert track.plan(0.0, 1000).past == 10 * Fraction(0.1)


# -- through the gate ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("issuer", list(Issuer))
def test_travel_is_inclusive(case: AxisCase, sign: int, issuer: Issuer) -> None:
    step, travel = case.limits["max_step"], case.limits["max_travel"]
    assert travel == 4 * step
    bench = Bench().arm()
    assert bench.send(case.ask(case.start + sign * step), issuer) is None
    bench.wait(2)
    assert bench.send(case.ask(case.start + sign * 2 * step), issuer) is None
    bench.wait(2)
    further = math.nextafter(case.start + sign * 2 * step, sign * math.inf)
    assert code(bench.check(case.ask(further), issuer)) == "travel_used_up"
    # All of the way back is left, in one portion or several, but not one bit more.
    assert bench.send(case.ask(case.start + sign * step), issuer) is None
    bench.wait(2)
    turned = math.nextafter(case.start + sign * step, sign * math.inf)
    assert code(bench.check(case.ask(turned), issuer)) == "travel_used_up"
    assert bench.send(case.ask(case.start), issuer) is None
    bench.wait(2)
    assert code(bench.check(case.ask(case.start + sign * step / 64), issuer)) == "travel_used_up"
    assert bench.check(case.ask(case.start), issuer) is None


def test_travel_comes_back_as_moves_leave_the_window() -> None:
    start, step = WD.start, WD.limits["max_step"]
    out = WD.ask(start + step)
    bench = Bench(working_distance_m=limits(2.0**-8, 2.0**-6, step, 2 * step)).arm()
    assert bench.send(out) is None
    first_ns = bench.now_ns
    bench.wait(5)
    assert bench.send(WD.ask(start)) is None
    for later_ns, expected in (
        (5 * SECOND, "travel_used_up"),
        (60 * SECOND, "travel_used_up"),
        # Only the way home is left in the window, which began at the far end: no way back.
        (60 * SECOND + 1, None),
        (65 * SECOND, None),
    ):
        bench.now_ns = first_ns + later_ns
        bench.wait(0)
        assert code(bench.check(out)) == expected, later_ns
        beyond_home = WD.ask(math.nextafter(start, 0))
        assert code(bench.check(beyond_home)) == "travel_used_up", later_ns
    bench.wait(1e-9)
    assert bench.check(beyond_home) is None


def test_axes_have_their_own_account() -> None:
    for case in CASES:
        bench = Bench().arm()
        assert bench.send(case.ask(case.start + 2 * case.limits["max_step"] / 2)) is None
        for other in CASES:
            if other is not case:
                assert bench.check(other.ask(other.start + other.limits["max_step"])) is None


def test_arming_again_starts_a_new_account() -> None:
    step = WD.limits["max_step"]
    bench = Bench().arm()
    for position in (WD.start + step, WD.start + 2 * step):
        assert bench.send(WD.ask(position)) is None
    onward = WD.ask(WD.start + 3 * step)
    assert code(bench.check(onward)) == "travel_used_up"
    assert bench.check(Arm(), Issuer.OPERATOR) is None
    bench.wait(1e-9)
    assert bench.check(onward) is None


def test_refused_and_unsent_commands_cost_nothing() -> None:
    bench = Bench().arm()
    for _ in range(100):
        assert bench.check(WD.ask(WD.start + WD.limits["max_step"])) is None
        assert code(bench.check(WD.ask(1.0))) == "out_of_range"


def test_travel_is_counted_from_the_last_command_not_from_read_back_noise() -> None:
    """A read-back that trembles within its tolerance neither costs travel nor saves any."""
    step = WD.limits["max_step"]
    bench = Bench().arm()
    for turn in range(2):
        target = WD.start + (turn + 1) * step / 2
        assert bench.check(WD.ask(target)) is None
        bench.state = WD.at(target + WD.tolerance)
        assert bench.applied(WD.ask(target), bench.state) is None
    bench.state = WD.at(WD.start + step)
    for target, expected in (
        (WD.start + 2 * step, None),
        (math.nextafter(WD.start + 2 * step, 1), "step_too_large"),
    ):
        assert code(bench.check(SetWorkingDistance(working_distance_m=target))) == expected
    assert bench.send(WD.ask(WD.start + 2 * step)) is None
    assert code(bench.check(WD.ask(math.nextafter(WD.start + 2 * step, 1)))) == "travel_used_up"
