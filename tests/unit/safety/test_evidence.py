"""What the agent may act on, and when."""

from typing import Any

import msgspec
import pytest

from semagent.safety import Refusal
from semagent.types import (
    Action,
    Arm,
    Basis,
    Issuer,
    MoveStage,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
)

from .bench import STATE, WD, Bench, code

MOVE = SetWorkingDistance(working_distance_m=WD.start)
SECOND = 10**9
ACTIONS = [
    MOVE,
    SetStigmator(x=0.0, y=0.0),
    SetBeamShift(x_m=0.0, y_m=0.0),
    MoveStage(x_m=0.0),
    SetScan(dwell_s=2.0**-20),
    SetBlanked(blanked=False),
]
each_action = pytest.mark.parametrize("action", ACTIONS, ids=lambda action: type(action).__name__)


def judge(
    bench: Bench, action: Action = MOVE, *, age_ns: int | None = 0, **changes: Any
) -> Refusal | None:
    """Judge a command of the agent whose basis is ``age_ns`` old."""
    return bench.gate.check(
        bench.command(action, **changes),
        now_ns=bench.now_ns,
        state=bench.state,
        basis_ns=None if age_ns is None else bench.now_ns - age_ns,
    )


@pytest.fixture
def bench() -> Bench:
    """Armed some time ago, the beam blanked by a command so that it may be unblanked."""
    bench = Bench().arm()
    blanked = STATE.optics
    bench.state = msgspec.structs.replace(
        STATE, optics=msgspec.structs.replace(blanked, blanked=True)
    )
    bench.applied(SetBlanked(blanked=True), bench.state)
    bench.wait(10)
    return bench


@each_action
def test_the_agent_has_to_name_a_frame(bench: Bench, action: Action) -> None:
    assert code(judge(bench, action, basis=None)) == "no_basis"
    assert judge(bench, action) is None


@each_action
def test_the_frame_has_to_be_known(bench: Bench, action: Action) -> None:
    assert code(judge(bench, action, age_ns=None)) == "frame_unknown"


@each_action
def test_evidence_may_be_just_as_old_as_allowed(bench: Bench, action: Action) -> None:
    for age_ns, fresh in (
        (-1, False),
        (0, True),
        (1, True),
        (2 * SECOND - 1, True),
        (2 * SECOND, True),
        (2 * SECOND + 1, False),
        (-(10**15), False),
        (9 * SECOND, False),
    ):
        assert code(judge(bench, action, age_ns=age_ns)) == (None if fresh else "stale"), age_ns


@each_action
@pytest.mark.parametrize("revision", [2, 4])
def test_other_settings_void_the_evidence(bench: Bench, action: Action, revision: int) -> None:
    basis = Basis(sequence=7, settings_rev=revision)
    assert code(judge(bench, action, basis=basis)) == "settings_changed"
    assert bench.armed


@pytest.mark.parametrize("action", [*ACTIONS, SetBlanked(blanked=True), Arm()])
@pytest.mark.parametrize("issuer", list(Issuer))
def test_an_expired_command_is_void(bench: Bench, action: Action, issuer: Issuer) -> None:
    for late_ns, expired in ((-1, False), (0, False), (1, True)):
        refusal = judge(bench, action, issuer=issuer, expires_ns=bench.now_ns - late_ns)
        assert (code(refusal) == "expired") is expired


@each_action
def test_the_operator_needs_no_evidence(bench: Bench, action: Action) -> None:
    assert judge(bench, action, issuer=Issuer.OPERATOR, basis=None, age_ns=None) is None
    old = Basis(sequence=1, settings_rev=1)
    assert judge(bench, action, issuer=Issuer.OPERATOR, basis=old, age_ns=10**15) is None


def test_blanking_needs_no_evidence() -> None:
    bench = Bench().arm()
    assert judge(bench, SetBlanked(blanked=True), basis=None, age_ns=None) is None


# -- the operator beats the agent ---------------------------------------------------------------


def test_frames_from_before_arming_do_not_count() -> None:
    bench = Bench()
    assert bench.check(Arm(), Issuer.OPERATOR) is None
    armed_ns = bench.now_ns
    bench.wait(1)
    for basis_ns, after in ((armed_ns - 1, False), (armed_ns, False), (armed_ns + 1, True)):
        found = code(judge(bench, age_ns=bench.now_ns - basis_ns))
        assert found == (None if after else "operator_first")


@each_action
def test_after_the_operator_the_agent_waits_for_later_frames(bench: Bench, action: Action) -> None:
    assert bench.send(MOVE, Issuer.OPERATOR) is None
    free_ns = bench.now_ns + 1 * SECOND
    bench.wait(1)
    assert code(judge(bench, action)) == "operator_first"
    bench.wait(1)
    for basis_ns, expected in (
        (free_ns - SECOND, "operator_first"),
        (free_ns - 1, "operator_first"),
        (free_ns, "operator_first"),
        (free_ns + 1, None),
    ):
        assert code(judge(bench, action, age_ns=bench.now_ns - basis_ns)) == expected
    assert judge(bench, SetBlanked(blanked=True), basis=None) is None


def test_the_wait_starts_when_the_operators_command_is_done(bench: Bench) -> None:
    assert bench.check(MOVE, Issuer.OPERATOR) is None
    bench.wait(30)  # a long way
    assert bench.applied(MOVE, bench.state, Issuer.OPERATOR) is None
    free_ns = bench.now_ns + SECOND
    bench.wait(2)
    assert code(judge(bench, age_ns=bench.now_ns - free_ns)) == "operator_first"
    assert judge(bench, age_ns=bench.now_ns - free_ns - 1) is None


def test_a_command_the_operator_did_not_get_through_stops_nobody(bench: Bench) -> None:
    too_far = SetWorkingDistance(working_distance_m=1.0)
    assert code(bench.check(too_far, Issuer.OPERATOR)) == "out_of_range"
    assert judge(bench) is None


def test_the_agents_own_commands_do_not_make_it_wait(bench: Bench) -> None:
    assert bench.send(MOVE) is None
    assert judge(bench) is None


def test_arming_again_lets_the_agent_in_at_once(bench: Bench) -> None:
    assert bench.send(MOVE, Issuer.OPERATOR) is None
    bench.wait(0.1)
    assert bench.check(Arm(), Issuer.OPERATOR) is None
    assert code(judge(bench)) == "operator_first"
    bench.wait(1e-9)
    assert judge(bench) is None
