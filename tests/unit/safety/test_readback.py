"""Read-back: the microscope did what it was told, and nothing else, or the gate closes."""

import math

import msgspec
import pytest

from semagent.types import (
    Action,
    Arm,
    Disarm,
    Issuer,
    MicroscopeState,
    MoveStage,
    Region,
    SetBlanked,
    SetScan,
    SetWorkingDistance,
    Stop,
)

from .bench import CASES, ENVELOPE, STATE, WD, AxisCase, Bench, code, with_optics, with_scan

MOVE = SetWorkingDistance(working_distance_m=WD.start)
each_axis = pytest.mark.parametrize("case", CASES, ids=str)


@each_axis
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_read_back_may_differ_by_the_tolerance(case: AxisCase, sign: int) -> None:
    target = case.start + case.limits["max_step"]
    edge = target + sign * case.tolerance
    for value, taken in ((target, True), (edge, True), (math.nextafter(edge, sign * 1e9), False)):
        bench = Bench().arm()
        assert bench.check(case.ask(target)) is None
        found = code(bench.applied(case.ask(target), case.at(value)))
        assert found == (None if taken else "readback_differs")
        assert bench.armed is taken
        if not taken:
            assert case.axis.name in bench.gate.status.reason
            assert bench.gate.status.monotonic_ns == bench.now_ns


@each_axis
def test_a_command_that_is_ignored_disarms(case: AxisCase) -> None:
    bench = Bench().arm()
    action = case.ask(case.start + case.limits["max_step"])
    assert bench.check(action) is None
    assert code(bench.applied(action, STATE)) == "readback_differs"
    assert code(bench.check(action)) == "disarmed"


@pytest.mark.parametrize(
    ("case", "value"),
    [
        *((case, value) for case in CASES for value in (math.nan, math.inf)),
        *((case, None) for case in CASES[1:]),
    ],
)
def test_a_read_back_that_is_no_position_disarms(case: AxisCase, value: float | None) -> None:
    bench = Bench().arm()
    action = case.ask(case.start)
    assert bench.check(action) is None
    assert code(bench.applied(action, case.at(value))) == "readback_differs"
    assert not bench.armed


def test_a_read_back_that_fails_disarms() -> None:
    bench = Bench().arm()
    assert bench.check(MOVE) is None
    assert code(bench.applied(MOVE, None)) == "readback_differs"
    assert bench.gate.status.reason == "the settings could not be read back after a command"


@each_axis
def test_an_axis_that_moves_along_uncommanded_disarms(case: AxisCase) -> None:
    """A stage that drags the working distance with it, for one."""
    action = CASES[1].ask(0.0) if case.part == "stage" else MoveStage(x_m=0.0)
    bench = Bench().arm()
    assert bench.check(action) is None
    dragged = case.at(case.start + 2 * case.tolerance)
    assert code(bench.applied(action, dragged)) == "readback_differs"


def test_after_a_move_the_axis_is_watched_where_it_was_sent() -> None:
    step = WD.limits["max_step"]
    bench = Bench().arm()
    assert bench.send(WD.ask(WD.start + step)) is None
    assert bench.gate.observe(WD.at(WD.start + step), now_ns=1) is None
    assert code(bench.gate.observe(WD.at(WD.start), now_ns=1)) == "moved_by_hand"


@pytest.mark.parametrize(
    ("asked", "after", "taken"),
    [
        (SetScan(), with_scan(dwell_s=None, frame_averages=3), True),
        (SetScan(dwell_s=2.0**-19), with_scan(dwell_s=2.0**-19), True),
        (SetScan(dwell_s=2.0**-19), with_scan(dwell_s=2.0**-19 + 2.0**-28), True),
        (SetScan(dwell_s=2.0**-19), with_scan(dwell_s=2.0**-19 - 2.0**-28), True),
        (SetScan(dwell_s=2.0**-19), with_scan(dwell_s=2.0**-19 + 2.0**-28 + 2.0**-60), False),
        (SetScan(dwell_s=2.0**-19), with_scan(dwell_s=2.0**-19 - 2.0**-28 - 2.0**-60), False),
        (SetScan(dwell_s=2.0**-19), with_scan(dwell_s=None), False),
        (SetScan(dwell_s=2.0**-19), with_scan(dwell_s=math.nan), False),
        (SetScan(frame_averages=4), with_scan(frame_averages=4), True),
        (SetScan(frame_averages=4), with_scan(frame_averages=3), False),
        (SetScan(frame_averages=4), with_scan(frame_averages=5), False),
    ],
)
def test_scan_settings_are_read_back(asked: SetScan, after: MicroscopeState, taken: bool) -> None:
    bench = Bench().arm()
    assert bench.check(asked) is None
    assert code(bench.applied(asked, after)) == (None if taken else "readback_differs")
    assert bench.armed is taken


@pytest.mark.parametrize("field", ["left", "top", "width", "height"])
def test_a_scan_region_is_read_back(field: str) -> None:
    region = Region(left=0.25, top=0.25, width=0.5, height=0.5)
    asked = SetScan(region=region)
    tolerance = ENVELOPE["readback_tolerance"]["region"]
    for off, taken in (
        (0, True),
        (tolerance, True),
        (-tolerance, True),
        (tolerance + 2.0**-40, False),
        (-tolerance - 2.0**-40, False),
        (math.nan, False),
    ):
        read = msgspec.structs.replace(region, **{field: getattr(region, field) + off})
        bench = Bench().arm()
        assert bench.check(asked) is None
        found = code(bench.applied(asked, with_scan(region=read)))
        assert found == (None if taken else "readback_differs")


def test_no_region_reads_back_as_the_whole_field() -> None:
    for edges, taken in (
        ({"left": 0.0, "top": 0.0, "width": 1.0, "height": 1.0}, True),
        ({"left": 0.5, "top": 0.0, "width": 0.5, "height": 1.0}, False),
        ({"left": 0.0, "top": 0.5, "width": 1.0, "height": 0.5}, False),
        ({"left": 0.0, "top": 0.0, "width": 0.5, "height": 1.0}, False),
        ({"left": 0.0, "top": 0.0, "width": 1.0, "height": 0.5}, False),
    ):
        bench = Bench().arm()
        asked = SetScan(region=Region(**edges))
        assert bench.check(asked) is None
        assert (bench.applied(asked, STATE) is None) is taken


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("read", [True, False, None])
def test_blanking_is_read_back(asked: bool, read: bool | None) -> None:
    bench = Bench().arm()
    action = SetBlanked(blanked=asked)
    assert bench.check(action, Issuer.OPERATOR) is None
    refusal = bench.applied(action, with_optics(blanked=read), Issuer.OPERATOR)
    assert (refusal is None) is (read is asked)
    assert bench.armed is (read is asked)


@pytest.mark.parametrize("action", [Stop(), Arm(), Disarm(reason="")])
def test_commands_that_are_not_sent_cannot_be_applied(action: Action) -> None:
    bench = Bench()
    with pytest.raises(ValueError, match="not sent to a microscope"):
        bench.applied(action, STATE)
    assert bench.gate.status.applied == 0


def test_a_command_overtaken_by_a_stop_is_still_booked() -> None:
    bench = Bench().arm()
    action = WD.ask(WD.start + WD.limits["max_step"])
    assert bench.check(action) is None
    assert bench.check(Stop(), Issuer.OPERATOR) is None
    assert code(bench.applied(action, STATE)) == "readback_differs"
    assert bench.gate.status.applied == 1
    assert bench.gate.status.reason == "stopped by the operator"
