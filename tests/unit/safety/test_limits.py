"""Range, step, locked and unknown axes, scan and keep-out: passes if and only if inside."""

import itertools
import math
from typing import Any

import pytest

from semagent.types import (
    Arm,
    Issuer,
    MicroscopeState,
    MoveStage,
    Region,
    SetBeamShift,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
)

from .bench import CASES, STATE, TILT, WD, AxisCase, Bench, Z, code, limits

ISSUERS = list(Issuer)
each_axis = pytest.mark.parametrize("case", CASES, ids=str)
# Every state carries a working distance; the other axes may be missing.
each_optional_axis = pytest.mark.parametrize("case", CASES[1:], ids=str)


@each_axis
@pytest.mark.parametrize("issuer", ISSUERS)
def test_range_is_inclusive_to_the_last_bit(case: AxisCase, issuer: Issuer) -> None:
    low, high = case.limits["min"], case.limits["max"]
    wide = limits(low, high, 8.0, 16.0)
    bench = Bench(**{case.axis.key: wide}).arm()
    for value, inside in (
        (low, True),
        (math.nextafter(low, -math.inf), False),
        (math.nextafter(low, math.inf), True),
        (high, True),
        (math.nextafter(high, math.inf), False),
        (math.nextafter(high, -math.inf), True),
        ((low + high) / 2, True),
        (case.start, True),
        (low - 1, False),
        (high + 1, False),
        (math.inf, False),
        (-math.inf, False),
        (math.nan, False),
        (1.7e308, False),
    ):
        found = code(bench.check(case.ask(value), issuer))
        assert found == (None if inside else "out_of_range"), value
        assert bench.armed


@each_axis
def test_range_holds_over_a_dense_sweep(case: AxisCase) -> None:
    low, high = case.limits["min"], case.limits["max"]
    bench = Bench(**{case.axis.key: limits(low, high, 8.0, 16.0)}).arm()
    width = high - low
    for step in range(-200, 401):
        value = low + width * step / 200
        allowed = bench.check(case.ask(value)) is None
        assert allowed is (0 <= step <= 200), value


@each_axis
@pytest.mark.parametrize("issuer", ISSUERS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_step_is_inclusive_and_from_the_measured_position(
    case: AxisCase, issuer: Issuer, sign: int
) -> None:
    step = case.limits["max_step"]
    bench = Bench().arm()
    off = case.tolerance  # the measured position is off its set-point by what is tolerated
    for measured in (case.start, case.start + off, case.start - off):
        bench.state = case.at(measured)
        edge = measured + sign * step
        outside = math.nextafter(edge, sign * math.inf)
        assert bench.check(case.ask(edge), issuer) is None
        # Next to zero floats lie closer than the difference can resolve.
        while abs(outside - measured) == step:
            outside = math.nextafter(outside, sign * math.inf)
        assert code(bench.check(case.ask(outside), issuer)) == "step_too_large"
        assert bench.check(case.ask(math.nextafter(edge, measured)), issuer) is None
    assert bench.armed


@each_axis
def test_a_locked_axis_does_not_move(case: AxisCase) -> None:
    bench = Bench(**{case.axis.key: None}).arm()
    for issuer in ISSUERS:
        assert code(bench.check(case.ask(case.start), issuer)) == "locked"


@each_optional_axis
def test_an_axis_of_unknown_position_does_not_move(case: AxisCase) -> None:
    bench = Bench(state=case.at(None)).arm()
    for issuer in ISSUERS:
        assert code(bench.check(case.ask(case.start), issuer)) == "position_unknown"


@each_axis
def test_a_measured_position_that_is_not_a_number_allows_nothing(case: AxisCase) -> None:
    bench = Bench().arm()
    bench.state = case.at(math.nan)
    assert code(bench.check(case.ask(case.start))) == "moved_by_hand"
    assert not bench.armed


@each_optional_axis
def test_an_axis_first_reported_as_not_a_number_does_not_move(case: AxisCase) -> None:
    bench = Bench(state=case.at(None)).arm()
    bench.state = case.at(math.nan)
    assert code(bench.check(case.ask(case.start))) == "step_too_large"


@each_optional_axis
def test_an_axis_reported_later_can_be_moved_then(case: AxisCase) -> None:
    bench = Bench(state=case.at(None)).arm()
    bench.state = STATE
    assert bench.send(case.ask(case.start + case.limits["max_step"])) is None


@pytest.mark.parametrize(
    "action",
    [
        SetStigmator(x=0.0, y=0.6),
        SetStigmator(x=0.6, y=0.0),
        SetBeamShift(x_m=0.0, y_m=1.0),
        MoveStage(x_m=0.0, y_m=0.0, z_m=0.0, rotation_rad=0.0, tilt_rad=1.1),
        MoveStage(x_m=1.1, y_m=0.0, z_m=0.0, rotation_rad=0.0, tilt_rad=0.0),
    ],
)
def test_every_axis_of_a_move_has_to_be_inside(action: Any) -> None:
    assert code(Bench().arm().check(action)) == "out_of_range"


def test_something_that_is_no_action_never_passes() -> None:
    with pytest.raises(AssertionError):
        Bench().arm().check("full speed ahead", Issuer.OPERATOR)


# -- scan ---------------------------------------------------------------------------------------

WHOLE = {"left": 0.0, "top": 0.0, "width": 1.0, "height": 1.0}


@pytest.mark.parametrize("issuer", ISSUERS)
@pytest.mark.parametrize(
    ("action", "inside"),
    [
        (SetScan(), True),
        (SetScan(dwell_s=2.0**-23), True),
        (SetScan(dwell_s=math.nextafter(2.0**-23, 0)), False),
        (SetScan(dwell_s=2.0**-17), True),
        (SetScan(dwell_s=math.nextafter(2.0**-17, 1)), False),
        (SetScan(dwell_s=math.nan), False),
        (SetScan(dwell_s=math.inf), False),
        (SetScan(dwell_s=-1.0), False),
        (SetScan(frame_averages=1), True),
        (SetScan(frame_averages=0), False),
        (SetScan(frame_averages=16), True),
        (SetScan(frame_averages=17), False),
        (SetScan(dwell_s=2.0**-20, frame_averages=17), False),
        (SetScan(dwell_s=2.0**-20, frame_averages=4, region=Region(**WHOLE)), True),
        (SetScan(dwell_s=2.0**-20, frame_averages=4, region=Region(**WHOLE | {"top": 1})), False),
    ],
)
def test_scan_limits_are_inclusive(action: SetScan, inside: bool, issuer: Issuer) -> None:
    found = code(Bench().arm().check(action, issuer))
    assert found == (None if inside else "out_of_range")


@pytest.mark.parametrize(
    ("changes", "inside"),
    [
        ({}, True),
        ({"left": -5e-324}, False),
        ({"top": -5e-324}, False),
        ({"left": 0.5, "width": 0.5}, True),
        ({"top": 0.5, "height": 0.5}, True),
        ({"left": 0.5, "width": math.nextafter(0.5, 1)}, False),
        ({"top": 0.5, "height": math.nextafter(0.5, 1)}, False),
        ({"width": 0.125}, True),
        ({"height": 0.125}, True),
        ({"width": math.nextafter(0.125, 0)}, False),
        ({"height": math.nextafter(0.125, 0)}, False),
        ({"width": math.nextafter(1, 2)}, False),
        ({"height": math.nextafter(1, 2)}, False),
        ({"left": math.nan}, False),
        ({"top": math.nan}, False),
        ({"width": math.nan}, False),
        ({"height": math.nan}, False),
    ],
)
def test_a_scan_region_lies_in_the_field(changes: dict[str, float], inside: bool) -> None:
    found = code(Bench().arm().check(SetScan(region=Region(**WHOLE | changes))))
    assert found == (None if inside else "out_of_range")


def test_a_locked_scan_does_not_change() -> None:
    assert code(Bench(scan=None).arm().check(SetScan(dwell_s=2.0**-20))) == "locked"


# -- keep-out -----------------------------------------------------------------------------------

LOW = 2.0**-7 - 2.0**-9
BOX = {
    "working_distance_m": [LOW - 2.0**-10, LOW],
    "stage_z_m": [2.0**-8, 2.0**-7],
    "stage_tilt_rad": [0.25, 0.5],
}
WIDE = {
    "working_distance_m": limits(2.0**-8, 2.0**-6, 1.0, 8.0),
    "stage_z_m": limits(-(2.0**-6), 2.0**-6, 1.0, 8.0),
    "stage_tilt_rad": limits(-0.5, 1.0, 4.0, 8.0),
}
SIDES = [(WD, "working_distance_m"), (Z, "stage_z_m"), (TILT, "stage_tilt_rad")]


def middle(key: str) -> float:
    low, high = BOX[key]
    return (low + high) / 2


def placed(wd: float, z: float | None, tilt: float | None) -> MicroscopeState:
    return TILT.at(tilt, Z.at(z, WD.at(wd)))


def points(key: str) -> list[tuple[float, int]]:
    """Positions at, just inside and just outside the two faces: with -1 below, 0 in, 1 above."""
    low, high = BOX[key]
    return [
        (math.nextafter(low, -math.inf), -1),
        (low, 0),
        ((low + high) / 2, 0),
        (high, 0),
        (math.nextafter(high, math.inf), 1),
    ]


@pytest.mark.parametrize("issuer", ISSUERS)
@pytest.mark.parametrize("key", sorted(BOX))
def test_a_move_may_not_touch_the_box(key: str, issuer: Issuer) -> None:
    """One axis moves, the others stand inside: passes iff start and end are on one side."""
    case = next(case for case, name in SIDES if name == key)
    inside = {name: middle(name) for _, name in SIDES}
    for (start, start_side), (end, end_side) in itertools.product(points(key), repeat=2):
        at = list((inside | {key: start}).values())
        bench = Bench(keep_out=[BOX], **WIDE)
        bench.state = placed(*at)
        armed = bench.check(Arm(), Issuer.OPERATOR)
        assert (armed is None) is (start_side != 0)
        bench.wait(1e-9)
        if armed is None:
            apart = start_side == end_side
            found = code(bench.check(case.ask(end), issuer))
            assert found == (None if apart else "keep_out"), (start, end)


@pytest.mark.parametrize("key", sorted(BOX))
def test_a_box_forbids_only_what_is_inside_all_three_sides(key: str) -> None:
    """The axis that is outside stays outside, so the other two may go anywhere."""
    low, high = BOX[key]
    for outside in (math.nextafter(low, -math.inf), math.nextafter(high, math.inf)):
        at = {name: middle(name) for _, name in SIDES} | {key: outside}
        bench = Bench(state=placed(*at.values()), keep_out=[BOX], **WIDE).arm()
        for case, name in SIDES:
            if name != key:
                for end, _ in points(name):
                    assert bench.check(case.ask(end)) is None


def test_a_path_through_the_box_is_refused_though_both_ends_are_outside() -> None:
    bench = Bench(keep_out=[BOX], state=placed(middle("working_distance_m"), 0.0, 0.0), **WIDE)
    bench.arm()
    assert code(bench.check(MoveStage(z_m=2.0**-6, tilt_rad=0.9))) == "keep_out"
    # The instrument may raise z first and tilt then: the corner of the path is in the box.
    assert code(bench.check(MoveStage(z_m=2.0**-7, tilt_rad=0.25))) == "keep_out"


def test_an_unreported_axis_counts_as_inside() -> None:
    for z, tilt in ((None, None), (None, 0.3), (2.0**-8, None)):
        bench = Bench(keep_out=[BOX], state=placed(2.0**-7, z, tilt), **WIDE).arm()
        assert code(bench.check(SetWorkingDistance(working_distance_m=LOW))) == "keep_out"
        assert bench.check(SetWorkingDistance(working_distance_m=math.nextafter(LOW, 1))) is None


def test_an_unreported_axis_does_not_hide_that_another_is_outside() -> None:
    state = placed(2.0**-7, None, 0.1)
    bench = Bench(keep_out=[BOX], state=state, **WIDE).arm()
    assert bench.check(SetWorkingDistance(working_distance_m=LOW)) is None


@pytest.mark.parametrize("face", [0, 1])
def test_who_has_crept_onto_a_face_is_not_let_go_either(face: int) -> None:
    """Within the read-back tolerance an axis may come to lie on the box after arming."""
    key = "working_distance_m"
    away = (-1, 1)[face] * WD.tolerance / 2
    on_face = BOX[key][face]
    inside = (middle("stage_z_m"), middle("stage_tilt_rad"))
    bench = Bench(keep_out=[BOX], state=placed(on_face + away, *inside), **WIDE).arm()
    clear = SetWorkingDistance(working_distance_m=on_face + 4 * away)
    assert bench.check(clear) is None
    bench.state = placed(on_face, *inside)
    assert code(bench.check(clear)) == "keep_out"


def test_an_axis_that_reads_not_a_number_counts_as_inside() -> None:
    state = placed(2.0**-7, None, 0.3)
    bench = Bench(keep_out=[BOX], state=state, **(WIDE | {"stage_z_m": None})).arm()
    bench.state = Z.at(math.nan, state)
    assert code(bench.check(SetWorkingDistance(working_distance_m=LOW))) == "keep_out"


def test_every_box_counts() -> None:
    far = {**BOX, "stage_z_m": [0.5, 0.6]}
    for boxes, expected in (
        ([], None),
        ([far], None),
        ([far, BOX], "keep_out"),
        ([BOX, far], "keep_out"),
    ):
        bench = Bench(keep_out=boxes, state=placed(2.0**-7, 2.0**-8, 0.25), **WIDE).arm()
        assert code(bench.check(SetWorkingDistance(working_distance_m=LOW))) == expected


def test_no_stage_axis_moves_within_the_box_but_stigmators_and_beam_shift_do() -> None:
    box = {**BOX, "working_distance_m": [LOW, 2.0**-7 + 2.0**-9]}
    # Arming inside is refused, so get there by an axis that falls silent later.
    state = placed(2.0**-7, 0.0, None)
    bench = Bench(keep_out=[box], state=state, **(WIDE | {"stage_z_m": None})).arm()
    bench.state = Z.at(None, state)
    assert code(bench.check(MoveStage(x_m=0.0))) == "keep_out"
    assert code(bench.check(MoveStage(rotation_rad=0.0))) == "keep_out"
    assert bench.check(SetStigmator(x=0.1, y=0.0)) is None
    assert bench.check(SetBeamShift(x_m=2.0**-18, y_m=0.0)) is None


def test_open_sides_of_a_box() -> None:
    box = {
        "working_distance_m": [-math.inf, LOW],
        "stage_z_m": [-math.inf, math.inf],
        "stage_tilt_rad": [-math.inf, math.inf],
    }
    bench = Bench(keep_out=[box], **WIDE).arm()
    assert code(bench.check(SetWorkingDistance(working_distance_m=LOW))) == "keep_out"
    assert bench.check(SetWorkingDistance(working_distance_m=math.nextafter(LOW, 1))) is None
