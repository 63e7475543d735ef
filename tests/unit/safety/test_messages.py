"""Refusals as people read them: value, unit, limit, and what to do."""

import math

import pytest

from semagent.display import Quantity, show, show_alike
from semagent.safety import Code, Refusal
from semagent.types import (
    Action,
    Arm,
    Basis,
    Issuer,
    MicroscopeState,
    MoveStage,
    Region,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
)

from .bench import CASES, STATE, TILT, WD, Bench, Z, limits, with_optics, with_scan

AGAIN = "decide again from a new frame"
REARM = ". The safety gate is disarmed; look at the microscope, then arm again"
BOX = {
    "working_distance_m": [0, 0.003],
    "stage_z_m": [0, 0.02],
    "stage_tilt_rad": [-math.inf, math.inf],
}


@pytest.mark.parametrize(
    ("quantity", "values", "texts"),
    [
        ("length", [0.02, 0.003], ["20 mm", "3 mm"]),
        ("length", [0.001], ["1 mm"]),
        ("length", [0.000999], ["999 µm"]),
        ("length", [-0.02, 1e-6], ["-20 mm", "0.001 mm"]),
        ("length", [1e-6, 5e-9], ["1 µm", "0.005 µm"]),
        ("length", [9.99e-7], ["999 nm"]),
        ("length", [0.0], ["0 nm"]),
        ("length", [math.nan, 0.02], ["nan mm", "20 mm"]),
        ("length", [math.inf, 2e-5], ["inf µm", "20 µm"]),
        ("length", [math.nan], ["nan mm"]),
        ("angle", [math.pi, -math.pi / 6], ["180°", "-30°"]),
        ("time", [2.0, 0.001], ["2 s", "0.001 s"]),
        ("time", [1.21976], ["1.22 s"]),
        ("time", [60.0, 3712.25], ["60 s", "3712 s"]),
        ("time", [2.000001, 2.0], ["2.000001 s", "2 s"]),
        ("dwell", [1e-6, 9.99e-4], ["1 µs", "999 µs"]),
        ("fraction", [0.25, -1.0], ["0.25", "-1"]),
        ("length", [0.0123456789], ["12.3457 mm"]),
        ("length", [0.02, 0.02], ["20 mm", "20 mm"]),
        ("fraction", [1.0, 1.0000004], ["1", "1.0000004"]),
        ("fraction", [1.0, 1.0 + 2**-52], ["1", "1.0000000000000002"]),
    ],
)
def test_values_are_shown_as_operators_read_them(
    quantity: Quantity, values: list[float], texts: list[str]
) -> None:
    assert show_alike(quantity, *values) == texts


def test_values_that_no_digit_tells_apart_are_still_shown() -> None:
    close = [1.5 + n * 2**-52 for n in (4, 5)]
    assert show_alike("angle", *close) == ["85.943669269623541°"] * 2


def test_one_value() -> None:
    assert show("length", 0.0123456789) == "12.3457 mm"


@pytest.mark.parametrize(
    ("action", "code", "reason"),
    [
        (
            SetWorkingDistance(working_distance_m=0.02),
            Code.OUT_OF_RANGE,
            (
                "working distance 20 mm is outside 4 mm to 15.5 mm, the limits "
                "working_distance_m of the safety envelope; stay inside, or check that the "
                "envelope fits instrument and specimen holder"
            ),
        ),
        (
            SetStigmator(x=0.75, y=0.0),
            Code.OUT_OF_RANGE,
            (
                "stigmator x 0.75 is outside -0.5 to 0.5, the limits stigmator of the safety "
                "envelope; stay inside, or check that the envelope fits instrument and specimen "
                "holder"
            ),
        ),
        (
            SetWorkingDistance(working_distance_m=0.0085),
            Code.STEP_TOO_LARGE,
            (
                "working distance from the measured 7.8125 mm to 8.5 mm is a step of 687.5 µm, "
                "more than the 500 µm of working_distance_m.max_step; make smaller moves, or "
                "think it over and raise the limit in the safety envelope"
            ),
        ),
        (
            MoveStage(x_m=0.01),
            Code.LOCKED,
            (
                "stage x may not be moved through semagent: stage_x_m is null in the safety "
                "envelope; move it at the microscope's own console"
            ),
        ),
        (
            MoveStage(y_m=0.01),
            Code.POSITION_UNKNOWN,
            (
                "the microscope does not report stage y, so a move to 10 mm cannot be judged; "
                "move it at the microscope's own console"
            ),
        ),
        (
            MoveStage(tilt_rad=math.pi / 6),
            Code.OUT_OF_RANGE,
            (
                "stage tilt 30° is outside -10° to 20°, the limits stage_tilt_rad of the safety "
                "envelope; stay inside, or check that the envelope fits instrument and specimen "
                "holder"
            ),
        ),
        (
            SetScan(dwell_s=1e-3),
            Code.OUT_OF_RANGE,
            (
                "dwell time 1000 µs is outside 0.1 µs to 10 µs, the limits scan.dwell_s of the "
                "safety envelope; stay inside"
            ),
        ),
        (
            SetScan(frame_averages=99),
            Code.OUT_OF_RANGE,
            (
                "99 frame averages are outside 1 to 16, the limits scan.max_frame_averages of the "
                "safety envelope; stay inside"
            ),
        ),
        (
            SetScan(region=Region(left=0.5, top=0, width=0.75, height=0.1)),
            Code.OUT_OF_RANGE,
            (
                "scan region left 0.5, top 0, width 0.75, height 0.1 must lie within 0 to 1 of the "
                "field and be at least 0.125 wide and high, the limit scan.min_region of the "
                "safety envelope"
            ),
        ),
        (
            SetBlanked(blanked=False),
            Code.UNBLANK,
            (
                "semagent may not let the beam on the specimen: allow_unblank is false in the "
                "safety envelope; unblank at the microscope's own console"
            ),
        ),
    ],
)
def test_refusals_outside_the_envelope(action: Action, code: Code, reason: str) -> None:
    bench = Bench(
        state=CASES[6].at(None),
        working_distance_m=limits(0.004, 0.0155, 0.0005, 0.001),
        stage_x_m=None,
        stage_tilt_rad=limits(-math.pi / 18, math.pi / 9, 0.1, 0.2),
        scan={"dwell_s": [1e-7, 1e-5], "max_frame_averages": 16, "min_region": 0.125},
        allow_unblank=False,
    ).arm()
    assert bench.check(action) == Refusal(code, reason)


def test_travel() -> None:
    bench = Bench(working_distance_m=limits(0.004, 0.0155, 0.0005, 0.0014)).arm()
    assert bench.send(SetWorkingDistance(working_distance_m=0.0083)) is None
    refusal = bench.check(SetWorkingDistance(working_distance_m=0.0086))
    assert refusal == Refusal(
        Code.TRAVEL_USED_UP,
        "working distance: 0.4875 mm travelled in the last 60 s, 0.3 mm for this move and "
        "0.7875 mm kept for the way back make 1.575 mm, more than the 1.4 mm of "
        "working_distance_m.max_travel; wait, or look at the microscope and arm again, or think "
        "it over and raise the limit in the safety envelope",
    )


def test_a_locked_scan() -> None:
    assert Bench(scan=None).arm().check(SetScan()) == Refusal(
        Code.LOCKED,
        "the scan may not be changed through semagent: scan is null in the safety envelope; "
        "change it at the microscope's own console",
    )


def test_keep_out() -> None:
    region = (
        "the keep-out region of working distance 0 mm to 3 mm, stage z 0 mm to 20 mm and stage "
        "tilt -inf° to inf°; an axis the microscope does not report counts as inside. Go round "
        "it, or drive clear of it at the microscope's own console"
    )
    wide = limits(0.001, 0.0155, 0.01, 0.02)
    bench = Bench(keep_out=[BOX], working_distance_m=wide).arm()
    refusal = bench.check(SetWorkingDistance(working_distance_m=0.003))
    assert refusal == Refusal(Code.KEEP_OUT, f"the move would touch {region}")
    bench = Bench(state=WD.at(0.002), keep_out=[BOX], working_distance_m=wide)
    refusal = bench.check(Arm(), Issuer.OPERATOR)
    assert refusal == Refusal(Code.KEEP_OUT, f"the microscope stands in {region}")


MOVE = SetWorkingDistance(working_distance_m=WD.start)


def test_refusals_of_evidence() -> None:
    bench = Bench().arm()
    now_ns = bench.now_ns
    bench.wait(10)
    frame = "frame 7, on which the command rests,"
    for changes, basis_ns, expected in (
        (
            {"basis": None},
            None,
            Refusal(Code.NO_BASIS, f"the agent's command names no frame it rests on; {AGAIN}"),
        ),
        (
            {},
            None,
            Refusal(Code.FRAME_UNKNOWN, f"{frame} is not among the frames remembered; {AGAIN}"),
        ),
        (
            {},
            bench.now_ns - 2_500_000_000,
            Refusal(
                Code.STALE,
                f"{frame} is 2.5 s old where 0 to 2 s is allowed (max_evidence_age_s); {AGAIN}",
            ),
        ),
        (
            {"basis": Basis(sequence=7, settings_rev=1)},
            bench.now_ns,
            Refusal(
                Code.SETTINGS_CHANGED,
                f"{frame} has settings revision 1, the microscope is at 3: scan, beam energy, "
                f"magnification or detector have changed; {AGAIN}",
            ),
        ),
        (
            {"expires_ns": bench.now_ns - 1_500_000_000},
            bench.now_ns,
            Refusal(Code.EXPIRED, "the command expired 1.5 s ago; decide again"),
        ),
    ):
        command = bench.command(MOVE, **changes)
        found = bench.gate.check(command, now_ns=bench.now_ns, state=STATE, basis_ns=basis_ns)
        assert found == expected
    assert bench.send(MOVE, Issuer.OPERATOR) is None
    refusal = bench.check(MOVE)
    assert refusal == Refusal(
        Code.OPERATOR_FIRST,
        f"{frame} was exposed 1 s too early: the agent has to wait for a frame exposed after the "
        f"gate was armed, and more than operator_hold_s after a command of the operator; {AGAIN}",
    )
    assert now_ns < bench.now_ns


def test_refusals_of_a_closed_gate() -> None:
    bench = Bench()
    assert bench.check(MOVE) == Refusal(
        Code.DISARMED,
        "the safety gate is disarmed: not armed since the microscope was opened. Look at the "
        "microscope, then arm",
    )
    assert bench.check(Arm()) == Refusal(Code.NOT_OPERATOR, "only a person may arm the safety gate")
    bench.state = None
    assert bench.check(MOVE) == Refusal(
        Code.STATE_UNKNOWN,
        "the settings of the microscope cannot be read, so no command can be judged; check the "
        "connection",
    )


def test_an_unblanking_for_the_operator() -> None:
    assert Bench().arm().check(SetBlanked(blanked=False)) == Refusal(
        Code.UNBLANK,
        "the agent may only undo a blanking that semagent commanded since the gate was armed; any "
        "other is for the operator to undo",
    )


def test_a_hand_at_the_console() -> None:
    bench = Bench().arm()
    reason = (
        "moved by hand or by the microscope itself: stage tilt reads 11.4592° where 0° is "
        "expected, more than the 0.0559529° of readback_tolerance.stage_tilt_rad"
    )
    assert bench.gate.observe(TILT.at(0.2), now_ns=1) == Refusal(Code.MOVED_BY_HAND, reason + REARM)
    assert bench.gate.status.reason == reason


def test_a_silent_control_role() -> None:
    bench = Bench().arm()
    reason = (
        "the last sign of life of the control role is 1.25 s old where 0 to 0.5 s is allowed "
        "(heartbeat_timeout_s)"
    )
    # Armed 1 ns before the bench's last heartbeat.
    refusal = bench.gate.check_liveness(bench.now_ns + 1_250_000_000)
    assert refusal == Refusal(Code.HEARTBEAT_LOST, reason + REARM)
    assert bench.gate.status.reason == reason


@pytest.mark.parametrize(
    ("action", "after", "reason"),
    [
        (MOVE, None, "the settings could not be read back after a command"),
        (
            MoveStage(z_m=0.0),
            Z.at(None),
            "the microscope no longer reports stage z after a command to move it",
        ),
    ],
)
def test_a_read_back_that_is_missing(
    action: Action, after: MicroscopeState | None, reason: str
) -> None:
    bench = Bench().arm()
    assert bench.check(action, Issuer.OPERATOR) is None
    refusal = bench.applied(action, after, Issuer.OPERATOR)
    assert refusal == Refusal(Code.READBACK_DIFFERS, reason + REARM)


@pytest.mark.parametrize(
    ("action", "after", "difference"),
    [
        (
            MOVE,
            WD.at(0.008),
            (
                "working distance reads 8 mm where 7.8125 mm is expected, more than the 953.674 "
                "nm of readback_tolerance.working_distance_m"
            ),
        ),
        (
            SetBlanked(blanked=True),
            with_optics(blanked=False),
            "the beam reads back as on the specimen where blanked was commanded",
        ),
        (
            SetBlanked(blanked=True),
            with_optics(blanked=None),
            "the beam reads back as in an unknown state where blanked was commanded",
        ),
        (
            SetBlanked(blanked=False),
            with_optics(blanked=True),
            "the beam reads back as blanked where on the specimen was commanded",
        ),
        (
            SetScan(dwell_s=1e-6),
            with_scan(dwell_s=2e-6),
            (
                "dwell time reads 2 µs where 1 µs was commanded, more than the 0.00372529 µs of "
                "readback_tolerance.dwell_s"
            ),
        ),
        (
            SetScan(dwell_s=1e-6),
            with_scan(dwell_s=None),
            (
                "dwell time reads nothing where 1 µs was commanded, more than the 0.00372529 µs of "
                "readback_tolerance.dwell_s"
            ),
        ),
        (
            SetScan(frame_averages=4),
            with_scan(frame_averages=1),
            "frame averages read 1 where 4 were commanded",
        ),
        (
            SetScan(region=Region(left=0.5, top=0.0, width=0.5, height=1.0)),
            with_scan(region=None),
            (
                "scan region reads left 0, top 0, width 1, height 1 where left 0.5, top 0, width "
                "0.5, height 1 was commanded, more than the 0.00390625 of readback_tolerance.region"
            ),
        ),
    ],
)
def test_a_read_back_that_differs(action: Action, after: MicroscopeState, difference: str) -> None:
    bench = Bench().arm()
    issuer = Issuer.OPERATOR
    assert bench.check(action, issuer) is None
    refusal = bench.applied(action, after, issuer)
    reason = f"not carried out as commanded, or changed by hand meanwhile: {difference}"
    assert refusal == Refusal(Code.READBACK_DIFFERS, reason + REARM)
    assert bench.gate.status.reason == reason
