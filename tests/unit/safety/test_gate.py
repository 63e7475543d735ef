"""Armed and disarmed: what opens the gate, what closes it, and that it stays closed."""

import math

import msgspec
import pytest

from semagent.types import (
    Action,
    Arm,
    Disarm,
    Issuer,
    MoveStage,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
    Stop,
)

from .bench import CASES, STATE, WD, AxisCase, Bench, code, with_optics

MOVE = SetWorkingDistance(working_distance_m=WD.start)
ACTIONS = [
    MOVE,
    SetStigmator(x=0.0, y=0.0),
    SetBeamShift(x_m=0.0, y_m=0.0),
    MoveStage(x_m=0.0),
    SetScan(dwell_s=2.0**-20),
    SetBlanked(blanked=True),
    SetBlanked(blanked=False),
]
ISSUERS = list(Issuer)
each_axis = pytest.mark.parametrize("case", CASES, ids=str)
# Every state carries a working distance; the other axes may be missing.
each_optional_axis = pytest.mark.parametrize("case", CASES[1:], ids=str)
each_issuer = pytest.mark.parametrize("issuer", ISSUERS)


# -- disarmed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
@each_issuer
def test_nothing_passes_before_a_person_arms(action: Action, issuer: Issuer) -> None:
    bench = Bench()
    assert not bench.armed
    assert bench.gate.status.reason == "not armed since the microscope was opened"
    assert bench.gate.status.monotonic_ns == 0
    assert code(bench.check(action, issuer)) == "disarmed"
    assert not bench.armed


@pytest.mark.parametrize("action", ACTIONS)
@each_issuer
def test_nothing_passes_after_disarming(action: Action, issuer: Issuer) -> None:
    bench = Bench().arm()
    assert bench.check(Disarm(reason="lunch"), Issuer.OPERATOR) is None
    for _ in range(3):
        bench.wait(1)
        assert code(bench.check(action, issuer)) == "disarmed"
    assert bench.check(Arm(), Issuer.OPERATOR) is None
    bench.wait(1e-9)
    if action != SetBlanked(blanked=False):  # nobody has blanked the beam
        assert bench.check(action, issuer) is None


@each_issuer
@pytest.mark.parametrize("armed", [True, False])
@pytest.mark.parametrize("action", [Stop(), Disarm(reason="lunch")])
def test_stop_and_disarm_always_pass(action: Action, armed: bool, issuer: Issuer) -> None:
    bench = Bench().arm() if armed else Bench()
    command = bench.command(action, issuer, expires_ns=0, basis=None)
    late_ns = bench.now_ns + 10**15
    assert bench.gate.check(command, now_ns=late_ns, state=None, basis_ns=None) is None
    assert not bench.armed
    assert bench.gate.status.refused == 0
    expected = {Stop: f"stopped by the {issuer}", Disarm: f"disarmed by the {issuer}: lunch"}
    if armed:
        assert bench.gate.status.reason == expected[type(action)]
        assert bench.gate.status.monotonic_ns == late_ns


def test_the_first_reason_stays() -> None:
    bench = Bench().arm()
    bench.gate.disarm("smoke", now_ns=5)
    bench.gate.disarm("more smoke", now_ns=6)
    bench.check(Stop(), Issuer.OPERATOR)
    assert bench.gate.status.reason == "smoke"
    assert bench.gate.status.monotonic_ns == 5
    assert "smoke" in bench.check(MOVE).reason


# -- arming -------------------------------------------------------------------------------------


def test_only_a_person_arms() -> None:
    bench = Bench()
    assert code(bench.check(Arm(), Issuer.AGENT)) == "not_operator"
    assert not bench.armed
    assert bench.check(Arm(), Issuer.OPERATOR) is None
    assert bench.armed
    assert bench.gate.status.reason == "armed by the operator for 12.7 mm stub"
    assert bench.gate.status.monotonic_ns == bench.now_ns


def test_the_agent_cannot_renew_the_arming_either() -> None:
    bench = Bench().arm()
    assert code(bench.check(Arm(), Issuer.AGENT)) == "not_operator"
    assert bench.armed


@pytest.mark.parametrize("armed", [True, False])
@pytest.mark.parametrize("action", [*ACTIONS, Arm()])
def test_what_cannot_be_read_cannot_be_judged(action: Action, armed: bool) -> None:
    bench = Bench().arm() if armed else Bench()
    bench.state = None
    assert code(bench.check(action, Issuer.OPERATOR)) == "state_unknown"
    assert bench.armed is armed


@each_axis
def test_arming_needs_every_axis_inside_the_envelope(case: AxisCase) -> None:
    low, high = case.limits["min"], case.limits["max"]
    for value, inside in (
        (low, True),
        (math.nextafter(low, -math.inf), False),
        (high, True),
        (math.nextafter(high, math.inf), False),
        (math.nan, False),
        (math.inf, False),
    ):
        bench = Bench(state=case.at(value))
        assert code(bench.check(Arm(), Issuer.OPERATOR)) == (None if inside else "out_of_range")
        assert bench.armed is inside


@each_axis
def test_arming_does_not_mind_axes_that_are_locked_or_not_reported(case: AxisCase) -> None:
    Bench(state=case.at(case.limits["max"] * 3), **{case.axis.key: None}).arm()
    if case is not WD:
        Bench(state=case.at(None)).arm()


@each_axis
def test_an_axis_that_is_locked_does_not_hide_the_others(case: AxisCase) -> None:
    locked = next(each.axis.key for each in CASES if each.axis.key != case.axis.key)
    bench = Bench(state=case.at(case.limits["max"] * 3), **{locked: None})
    assert code(bench.check(Arm(), Issuer.OPERATOR)) == "out_of_range"


def test_arming_needs_the_gate_of_the_microscope_pc_armed_first() -> None:
    bench = Bench()
    open_state = bench.state
    bench.state = msgspec.structs.replace(open_state, barred="the other gate is disarmed")
    refusal = bench.check(Arm(), Issuer.OPERATOR)
    assert refusal is not None
    assert (refusal.code, refusal.reason) == ("remote_gate", "the other gate is disarmed")
    assert not bench.armed
    bench.state = open_state
    assert bench.arm().armed


def test_arming_does_not_forgive_what_is_wrong_now() -> None:
    bench = Bench().arm()
    bench.gate.disarm("smoke", now_ns=bench.now_ns)
    bench.state = WD.at(1.0)
    assert code(bench.check(Arm(), Issuer.OPERATOR)) == "out_of_range"
    assert bench.gate.status.reason == "smoke"


def test_counters_and_snapshots() -> None:
    bench = Bench().arm()
    before = bench.gate.status
    assert (before.refused, before.applied) == (0, 0)
    assert bench.send(MOVE) is None
    assert bench.send(MOVE) is None
    for _ in range(3):
        bench.check(SetWorkingDistance(working_distance_m=1.0))
    assert (bench.gate.status.refused, bench.gate.status.applied) == (3, 2)
    assert (before.refused, before.applied) == (0, 0)
    with pytest.raises(AttributeError):
        before.armed = False


def test_the_word_for_why_it_has_disarmed_itself_stays_until_it_is_armed() -> None:
    bench = Bench()
    assert bench.gate.status.code == ""
    bench.arm()
    assert bench.gate.status.code == ""
    moved = WD.at(WD.start + 2 * WD.tolerance)
    bench.gate.observe(moved, now_ns=bench.now_ns)
    bench.check(Stop(), Issuer.OPERATOR)
    bench.check(MOVE)
    assert bench.gate.status.code == "moved_by_hand"
    bench.arm()
    assert bench.gate.status.code == ""
    bench.check(Stop(), Issuer.OPERATOR)
    assert code(bench.applied(MOVE, moved)) == "readback_differs"
    assert bench.gate.status.code == ""


# -- the control role's sign of life ------------------------------------------------------------


def test_silence_of_the_control_role_disarms_for_good() -> None:
    bench = Bench().arm()
    beat_ns = bench.now_ns
    for silence_ns in (0, 1, 499_999_999, 500_000_000):
        assert bench.gate.check_liveness(beat_ns + silence_ns) is None
        assert bench.armed
    assert code(bench.gate.check_liveness(beat_ns + 500_000_001)) == "heartbeat_lost"
    assert not bench.armed
    assert "control role" in bench.gate.status.reason
    assert bench.gate.status.monotonic_ns == beat_ns + 500_000_001
    bench.wait(1)
    assert bench.gate.check_liveness(bench.now_ns) is None
    assert code(bench.check(MOVE)) == "disarmed"


@each_issuer
def test_no_command_slips_through_before_the_silence_is_noticed(issuer: Issuer) -> None:
    bench = Bench().arm()
    bench.now_ns += 500_000_000
    assert bench.check(MOVE, issuer) is None
    bench.now_ns += 1
    assert code(bench.check(MOVE, issuer)) == "heartbeat_lost"
    assert not bench.armed


def test_arming_gives_the_control_role_one_time_out_to_show_itself() -> None:
    bench = Bench()
    assert bench.gate.check_liveness(bench.now_ns) is None
    assert bench.check(Arm(), Issuer.OPERATOR) is None
    assert bench.gate.check_liveness(bench.now_ns + 500_000_000) is None
    assert code(bench.gate.check_liveness(bench.now_ns + 500_000_001)) == "heartbeat_lost"


def test_a_sign_of_life_from_the_future_is_none() -> None:
    """A heartbeat stamped by another clock must not keep the gate open."""
    bench = Bench().arm()
    bench.gate.heartbeat(bench.now_ns + 1)
    assert code(bench.gate.check_liveness(bench.now_ns)) == "heartbeat_lost"


def test_each_heartbeat_counts_anew() -> None:
    bench = Bench().arm()
    for _ in range(10):
        bench.wait(0.4)
        assert bench.gate.check_liveness(bench.now_ns + 500_000_000) is None
    assert bench.armed


# -- changes nobody commanded -------------------------------------------------------------------


@each_axis
@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("sign", [-1, 1])
def test_an_axis_moved_by_hand_disarms(case: AxisCase, locked: bool, sign: int) -> None:
    changes = {case.axis.key: None} if locked else {}
    edge = case.start + sign * case.tolerance
    beyond = case.start + sign * math.nextafter(case.tolerance, 1)
    if beyond == edge:
        beyond = math.nextafter(edge, sign * math.inf)
    bench = Bench(**changes).arm()
    for value in (case.start, edge, case.start):
        assert bench.gate.observe(case.at(value), now_ns=bench.now_ns) is None
        assert bench.armed
    assert code(bench.gate.observe(case.at(beyond), now_ns=99)) == "moved_by_hand"
    assert not bench.armed
    assert case.axis.name in bench.gate.status.reason
    assert bench.gate.status.monotonic_ns == 99
    assert bench.gate.observe(STATE, now_ns=bench.now_ns) is None
    assert not bench.armed


@each_axis
def test_slow_creep_is_measured_from_where_the_axis_belongs(case: AxisCase) -> None:
    bench = Bench().arm()
    found = [
        code(bench.gate.observe(case.at(case.start + part * case.tolerance / 4), now_ns=1))
        for part in range(1, 6)
    ]
    assert found == [None, None, None, None, "moved_by_hand"]


@each_axis
@each_issuer
def test_a_hand_is_noticed_before_the_next_command(case: AxisCase, issuer: Issuer) -> None:
    bench = Bench().arm()
    bench.state = case.at(case.start + 2 * case.tolerance)
    assert code(bench.check(MOVE, issuer)) == "moved_by_hand"
    assert not bench.armed
    assert bench.check(Arm(), Issuer.OPERATOR) is None
    bench.wait(1e-9)
    assert bench.check(case.ask(case.start), issuer) is None


@each_optional_axis
def test_an_axis_that_falls_silent_is_no_sign_of_a_hand(case: AxisCase) -> None:
    bench = Bench().arm()
    assert bench.gate.observe(case.at(None), now_ns=1) is None
    assert code(bench.gate.observe(case.at(case.start + 2 * case.tolerance), now_ns=1))


def test_an_axis_not_reported_does_not_hide_the_others() -> None:
    silent = with_optics(stigmator_x=None, stigmator_y=None)
    bench = Bench(state=silent).arm()
    moved = CASES[-1].at(0.5, silent)
    assert code(bench.gate.observe(moved, now_ns=1)) == "moved_by_hand"


@each_optional_axis
def test_an_axis_reported_later_is_followed_from_then(case: AxisCase) -> None:
    bench = Bench(state=case.at(None)).arm()
    elsewhere = case.start + 4 * case.tolerance
    assert bench.gate.observe(case.at(elsewhere), now_ns=1) is None
    assert code(bench.gate.observe(case.at(case.start), now_ns=1)) == "moved_by_hand"


def test_a_frame_on_the_way_to_nowhere_is_not_watched_while_disarmed() -> None:
    bench = Bench()
    assert bench.gate.observe(WD.at(1.0), now_ns=1) is None
    assert bench.gate.status.reason == "not armed since the microscope was opened"


def test_a_change_of_settings_does_not_disarm() -> None:
    bench = Bench().arm()
    zoomed = msgspec.structs.replace(with_optics(magnification=5e4), settings_rev=4)
    assert bench.gate.observe(zoomed, now_ns=bench.now_ns) is None
    assert bench.armed


# -- the beam -----------------------------------------------------------------------------------


@each_issuer
def test_unblanking_has_to_be_allowed(issuer: Issuer) -> None:
    bench = Bench(allow_unblank=False).arm()
    assert bench.check(SetBlanked(blanked=True), issuer) is None
    assert bench.applied(SetBlanked(blanked=True), with_optics(blanked=True)) is None
    assert code(bench.check(SetBlanked(blanked=False), issuer)) == "unblank"


def test_the_operator_may_unblank_whoever_blanked() -> None:
    assert Bench().arm().check(SetBlanked(blanked=False), Issuer.OPERATOR) is None


def test_the_agent_undoes_only_a_blanking_commanded_since_arming() -> None:
    bench = Bench().arm()
    on, off = SetBlanked(blanked=False), SetBlanked(blanked=True)
    assert code(bench.check(on)) == "unblank"
    assert bench.check(off) is None
    assert code(bench.check(on)) == "unblank"  # not done yet
    assert bench.applied(off, with_optics(blanked=True)) is None
    assert bench.check(on) is None
    assert bench.applied(on, with_optics(blanked=False)) is None
    assert code(bench.check(on)) == "unblank"
    assert bench.applied(off, with_optics(blanked=True)) is None
    assert bench.send(MOVE) is None
    assert bench.check(on) is None
    assert bench.check(Arm(), Issuer.OPERATOR) is None
    bench.wait(1e-9)
    assert code(bench.check(on)) == "unblank"
