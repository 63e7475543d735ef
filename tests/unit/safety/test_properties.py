"""Random sequences of commands against an oracle that knows the rules but not the code.

The oracle keeps every command ever sent and recomputes everything from them, in exact
fractions and with other formulae than the gate.
"""

import itertools
import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from semagent.types import (
    Arm,
    Basis,
    Issuer,
    MicroscopeAction,
    MicroscopeState,
    MoveStage,
    SetBeamShift,
    SetStigmator,
    SetWorkingDistance,
)

from .bench import CASES, STATE, TILT, WD, AxisCase, Bench, Z, limits, obey

SECOND = 10**9
BOXES = [
    {
        "working_distance_m": [0.0, 2.0**-7 - 2.0**-9],
        "stage_z_m": [2.0**-9, math.inf],
        "stage_tilt_rad": [-math.inf, 0.25],
    },
    {
        "working_distance_m": [2.0**-7 + 2.0**-10, 2.0**-7 + 2.0**-9],
        "stage_z_m": [-(2.0**-8), 0.0],
        "stage_tilt_rad": [0.0, 0.5],
    },
]


def sorted_median(*values: float) -> float:
    return sorted(values)[len(values) // 2]


@dataclass
class Oracle:
    """All rules for moves, as a list of those that a command breaks."""

    moves: list[tuple[int, AxisCase, float, float]] = field(default_factory=list)

    def broken(self, asked: dict[AxisCase, Any], state: MicroscopeState, now_ns: int) -> set[str]:
        rules: set[str] = set()
        for case, target in asked.items():
            low, high, step, _ = case.limits.values()
            here = case.axis.read(state)
            assert here is not None
            if math.isnan(target) or sorted_median(low, target, high) != target:
                rules.add("out_of_range")
                continue
            if not -step <= target - here <= step:
                rules.add("step_too_large")
            if self.travel(case, target, here, now_ns) > 2 * Fraction(step):
                rules.add("travel_used_up")
        if any(not math.isfinite(target) for target in asked.values()):
            return rules
        if any(case is WD or case.part == "stage" for case in asked) and any(
            self.meets(box, asked, state) for box in BOXES
        ):
            rules.add("keep_out")
        return rules

    def travel(self, case: AxisCase, target: float, here: float, now_ns: int) -> Fraction:
        recent = [
            (start, end)
            for at_ns, axis, start, end in self.moves
            if axis is case and at_ns >= now_ns - 60 * SECOND
        ]
        stops = [Fraction(recent[0][0])] if recent else [Fraction(here)]
        stops += [Fraction(end) for _, end in recent]
        tour = [*stops, Fraction(target), stops[0]]
        return sum((abs(b - a) for a, b in itertools.pairwise(tour)), Fraction(0))

    @staticmethod
    def meets(box: dict[str, Any], asked: dict[AxisCase, float], state: MicroscopeState) -> bool:
        """Closed intervals meet iff the largest low is not above the smallest high."""
        common = []
        for case, key in ((WD, "working_distance_m"), (Z, "stage_z_m"), (TILT, "stage_tilt_rad")):
            here = case.axis.read(state)
            assert here is not None
            there = asked.get(case, here)
            bottom, top = sorted((here, there))
            common.append(max(bottom, box[key][0]) <= min(top, box[key][1]))
        return all(common)


def as_action(asked: dict[AxisCase, float]) -> MicroscopeAction:
    values = {case.field: value for case, value in asked.items()}
    if "working_distance_m" in values:
        return SetWorkingDistance(**values)
    if "stigmator_x" in values:
        return SetStigmator(x=values["stigmator_x"], y=values["stigmator_y"])
    if "beam_shift_x_m" in values:
        return SetBeamShift(x_m=values["beam_shift_x_m"], y_m=values["beam_shift_y_m"])
    return MoveStage(**values)


def positions(case: AxisCase) -> st.SearchStrategy[float]:
    """Mostly quarter steps, so that limits are met exactly; else just beside, far or absurd."""
    step = case.limits["max_step"]
    near = [case.start + n * step / 4 for n in range(-5, 6)]
    odd = [case.start + n * step / 7 for n in range(-6, 7)]
    beside = [math.nextafter(value, way) for value in near for way in (-math.inf, math.inf)]
    far = [case.start + n * step for n in range(-9, 10)]
    special = [math.nan, math.inf, -math.inf, 0.0, 1e300]
    return st.sampled_from([*near * 9, *odd, *beside, *far, *special])


def moves() -> st.SearchStrategy[dict[AxisCase, float]]:
    stage = st.sets(st.sampled_from(CASES[5:]), min_size=1, max_size=3)
    groups = st.one_of(
        st.just({WD}), st.just({WD}), st.just(set(CASES[1:3])), st.just(set(CASES[3:5])), stage
    )
    return groups.flatmap(
        lambda group: st.fixed_dictionaries(
            {case: positions(case) for case in CASES if case in group}
        )
    )


STEPS = st.lists(
    st.tuples(
        moves(),
        st.sampled_from([Issuer.OPERATOR, Issuer.AGENT]),
        st.sampled_from([SECOND, SECOND + 1, 2 * SECOND, 20 * SECOND, 0, 60 * SECOND]),
        st.sampled_from([*[0] * 8, -1, 1, SECOND, 2 * SECOND, 2 * SECOND + 1]),
        st.sampled_from([*[3] * 8, 4]),
    ),
    min_size=3,
    max_size=16,
)


@given(STEPS)
@settings(max_examples=200, deadline=None)
def test_a_command_passes_if_and_only_if_it_breaks_no_rule(steps: list[Any]) -> None:
    tight = {
        case.axis.key: {**case.limits, "max_travel": 2 * case.limits["max_step"]} for case in CASES
    }
    bench = Bench(keep_out=BOXES, **tight).arm()
    oracle = Oracle()
    free_after_ns = bench.now_ns - 1
    for asked, issuer, pause_ns, age_ns, revision in steps:
        bench.wait(pause_ns / 1e9)
        action = as_action(asked)
        broken = oracle.broken(asked, bench.state, bench.now_ns)
        if issuer is Issuer.AGENT:
            if age_ns < 0 or age_ns > 2 * SECOND:
                broken.add("stale")
            if revision != bench.state.settings_rev:
                broken.add("settings_changed")
            if bench.now_ns - age_ns <= free_after_ns:
                broken.add("operator_first")
        command = bench.command(action, issuer, basis=Basis(sequence=1, settings_rev=revision))
        refusal = bench.gate.check(
            command, now_ns=bench.now_ns, state=bench.state, basis_ns=bench.now_ns - age_ns
        )
        if refusal is None:
            assert not broken
            before, bench.state = bench.state, obey(bench.state, action)
            for case, target in asked.items():
                start = case.axis.read(before)
                assert start is not None
                oracle.moves.append((bench.now_ns, case, start, target))
            assert bench.gate.applied(command, after=bench.state, now_ns=bench.now_ns) is None
            if issuer is Issuer.OPERATOR:
                free_after_ns = bench.now_ns + SECOND
        else:
            assert refusal.code in broken
        assert bench.armed


@given(
    st.lists(st.tuples(st.integers(-64, 64), st.floats(-1, 1), st.integers(0, 20)), max_size=20),
    st.floats(0.01, 1),
)
@settings(max_examples=200, deadline=None)
def test_the_agent_can_always_put_back_what_it_changed(
    tries: list[tuple[int, float, int]], stride: float
) -> None:
    """From wherever the agent has got within the window, home is within the limits.

    The read-back trembles within its tolerance all the while.
    """
    step = WD.limits["max_step"]
    bench = Bench(
        working_distance_m=limits(2.0**-8, 2.0**-6, step, 2.5 * step), travel_window_s=1000.0
    ).arm()
    position = WD.start

    def send(target: float, noise: float) -> bool:
        if bench.check(WD.ask(target)) is not None:
            return False
        bench.state = WD.at(target + 0.9 * noise * WD.tolerance)
        assert bench.applied(WD.ask(target), bench.state) is None
        return True

    for number, noise, pause_s in tries:
        bench.wait(pause_s)
        target = position + number * step / 64 * stride
        if send(target, noise):
            position = target
    stride_m = (step - 2 * WD.tolerance) * stride
    while position != WD.start:
        away = position - WD.start
        position = WD.start if abs(away) <= stride_m else position - math.copysign(stride_m, away)
        assert send(position, 1.0)
    assert bench.armed


@given(
    st.tuples(*(positions(case) for case in (WD, Z, TILT))),
    st.tuples(*(positions(case) for case in (WD, Z, TILT))),
    st.permutations([WD, Z, TILT]),
    st.lists(st.floats(0, 1), min_size=5, max_size=5),
)
@settings(max_examples=300, deadline=None)
def test_no_allowed_move_passes_through_a_box(
    start: tuple[float, ...],
    end: tuple[float, ...],
    order: list[AxisCase],
    fractions: list[float],
) -> None:
    """Whatever the order in which the instrument moves its axes, and also along a straight line."""
    wide = {
        case.axis.key: limits(*list(case.limits.values())[:2], 4.0, 8.0) for case in (WD, Z, TILT)
    }
    state = STATE
    for case, value in zip((WD, Z, TILT), start, strict=True):
        low, high = case.limits["min"], case.limits["max"]
        state = case.at(value if low <= value <= high else case.start, state)
    bench = Bench(state=state, keep_out=BOXES, **wide)
    refusal = bench.gate.check(
        bench.command(Arm(), Issuer.OPERATOR), now_ns=bench.now_ns, state=state, basis_ns=None
    )
    if refusal is not None:
        assert refusal.code == "keep_out"
        assert any(_inside(box, state) for box in BOXES)
        return
    assert not any(_inside(box, state) for box in BOXES)
    action = MoveStage(z_m=end[1], tilt_rad=end[2])
    if bench.check(action, Issuer.OPERATOR) is not None:
        return
    here = {case: case.axis.read(state) or 0.0 for case in (Z, TILT)}
    there = {Z: end[1], TILT: end[2]}
    for fraction in fractions:
        moved = state
        for case in (Z, TILT):
            moved = case.at(here[case] + fraction * (there[case] - here[case]), moved)
        assert not any(_inside(box, moved) for box in BOXES)
        moved = state
        for case in order:
            if case in there:
                part = case.at(here[case] + fraction * (there[case] - here[case]), moved)
                assert not any(_inside(box, part) for box in BOXES)
                moved = case.at(there[case], moved)


def _inside(box: dict[str, Any], state: MicroscopeState) -> bool:
    return all(
        box[key][0] <= (case.axis.read(state) or 0.0) <= box[key][1]
        for case, key in ((WD, "working_distance_m"), (Z, "stage_z_m"), (TILT, "stage_tilt_rad"))
    )
