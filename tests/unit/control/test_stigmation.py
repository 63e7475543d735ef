"""Stigmation: what the frames say of it, and what a search does with the stigmators."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from semagent import registry
from semagent.clock import ManualClock
from semagent.config import find_config, load_config
from semagent.control import ControlOptions, estimator
from semagent.control.fit import Fit
from semagent.control.options import AutofocusOptions
from semagent.control.situation import Return
from semagent.lockstep import Lockstep
from semagent.memory import Calibration, Matrix, Memory, Settings, Vector
from semagent.types import (
    Arm,
    Cancel,
    FocusResult,
    Mode,
    Outcome,
    Reply,
    SetMode,
    SetStigmator,
    StartAutofocus,
)

from .bench import CAPABILITIES, OPTIONS, STIGMATORS, UNIT_M, Bench, Spectrum

COILS = ((14.0, -5.0), (-4.0, -13.0))  # turned, of unlike scale, one sign the other way
ASTIGMATISM = (2.0, -1.5)


def calibrated(coils: tuple[tuple[float, float], ...] = COILS) -> Memory:
    """What a calibration with an error of three parts in a hundred has left."""
    (xx, xy), (yx, yy) = coils
    matrix = Matrix(
        xx=1.03 * xx * UNIT_M,
        xy=xy * UNIT_M,
        yx=yx * UNIT_M,
        yy=0.97 * yy * UNIT_M,
        sigma=0.03 * abs(xx) * UNIT_M,
    )
    moved = Vector(x=0.0, y=0.0, sigma=0.1 * UNIT_M)
    calibration = Calibration(
        date="", frames=20, astigmatism_per_stigmator=matrix, focus_per_stigmator=moved
    )
    return Memory().with_calibration(Settings(), calibration)


def make(**changes: object) -> Bench:
    known = {"focus": 12.0, "astigmatism": ASTIGMATISM, "coils": COILS, "memory": calibrated()}
    bench = Bench(options=OPTIONS, **{**known, **changes})
    bench.arm()
    return bench


def search(bench: Bench, *, stigmation: bool = True) -> FocusResult:
    bench.request(StartAutofocus(stigmation=stigmation))
    return bench.run_until_result()


def trims(bench: Bench) -> list[SetStigmator]:
    actions = [command.action for command in bench.commands]
    return [action for action in actions if isinstance(action, SetStigmator)]


@pytest.mark.parametrize("seed", range(4))
def test_a_search_leaves_neither_defocus_nor_astigmatism(seed: int) -> None:
    turn = 1.7 * seed
    bench = make(seed=seed, astigmatism=(3 * math.cos(turn), 3 * math.sin(turn)))
    result = search(bench)
    assert (result.status, result.reason.rpartition("; ")[2]) == (
        "focused",
        "astigmatism was taken out",
    )
    assert math.hypot(*bench.left) < 0.6
    assert abs(bench.offset - bench.focus) < 1
    assert result.frames_used <= 6


def test_the_belief_says_how_much_astigmatism_is_left_and_what_removes_it() -> None:
    bench = make()
    search(bench, stigmation=False)
    belief = bench.controller.belief
    assert belief is not None
    assert belief.astigmatism_m is not None
    assert belief.astigmatism_sigma_m is not None
    assert belief.stigmator_correction is not None
    left = np.array(belief.astigmatism_m) / UNIT_M
    sigma = np.array(belief.astigmatism_sigma_m) / UNIT_M
    assert np.abs(left - ASTIGMATISM).max() < 3 * sigma.max() < 1.5
    change = np.array(COILS) @ belief.stigmator_correction
    assert change == pytest.approx(-np.array(ASTIGMATISM), abs=0.6)


@pytest.mark.parametrize("frames", [2, 12], ids=["as it searches", "as it follows"])
def test_a_request_during_hold_corrects_the_stigmators(frames: int) -> None:
    known = {"focus": 12.0, "astigmatism": ASTIGMATISM, "coils": COILS, "memory": calibrated()}
    bench = Bench(options=ControlOptions(mode=Mode.HOLD), **known)
    bench.arm()
    bench.run(frames)
    assert not trims(bench)
    bench.results.clear()
    assert search(bench).status == "focused"
    assert trims(bench)


def test_stigmators_stay_where_nobody_asked_for_them() -> None:
    bench = make()
    result = search(bench, stigmation=False)
    assert result.status == "focused"
    assert not trims(bench)


def test_without_astigmatism_stigmators_stay() -> None:
    bench = make(astigmatism=(0.0, 0.0))
    result = search(bench)
    assert result.status == "focused"
    assert not trims(bench)


def test_nothing_to_see_leaves_the_stigmators_alone() -> None:
    bench = make(structure=0.1)
    assert search(bench).status == "held"
    assert not bench.commands


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"capabilities": msgspec.structs.replace(CAPABILITIES, stigmator=False)},
            "stigmators cannot be set on this microscope",
        ),
        (
            {"coils": tuple(tuple(each / 20 for each in row) for row in COILS)},
            "-1 to 1 is allowed",
        ),
    ],
)
def test_stigmators_that_cannot_be_set_leave_the_circle_of_least_confusion(
    changes: dict[str, object], why: str
) -> None:
    if "coils" in changes:
        changes = {**changes, "memory": calibrated(changes["coils"])}  # type: ignore[arg-type]
    bench = make(**changes)
    result = search(bench)
    assert result.status == "focused"
    assert "circle of least confusion" in result.reason
    assert why in result.reason
    assert not trims(bench)
    assert abs(bench.offset - bench.focus) < 1


def test_steps_of_the_stigmators_are_no_longer_than_allowed() -> None:
    options = msgspec.structs.replace(OPTIONS, autofocus=AutofocusOptions(max_stigmator_step=0.05))
    bench = Bench(
        options=options, focus=12.0, astigmatism=ASTIGMATISM, coils=COILS, memory=calibrated()
    )
    bench.arm()
    assert search(bench).status == "focused"
    way = [STIGMATORS, *((action.x, action.y) for action in trims(bench))]
    assert len(way) > 3
    assert np.abs(np.diff(way, axis=0)).max() < 0.05 + 1e-9
    assert math.hypot(*bench.left) < 0.6


def test_a_calibration_with_the_wrong_sign_ends_with_the_stigmators_put_back() -> None:
    bench = make(memory=calibrated(tuple(tuple(-each for each in row) for row in COILS)))
    result = search(bench)
    assert math.hypot(*bench.left) <= math.hypot(*ASTIGMATISM) + 1e-9
    if result.status == "focused":
        assert abs(bench.offset - bench.focus) < 1
    else:
        assert bench.offset == pytest.approx(0.0, abs=1e-6)


def test_a_cancelled_search_puts_the_stigmators_back() -> None:
    bench = make()
    bench.request(StartAutofocus())
    while not trims(bench):
        bench.frame()
    bench.request(Cancel())
    assert bench.stigmators == pytest.approx(STIGMATORS)
    assert bench.offset == pytest.approx(0.0, abs=1e-6)


def test_coils_so_strong_that_little_is_much() -> None:
    """A hundredth of their range is more astigmatism than there was."""
    coils = tuple(tuple(10 * each for each in row) for row in COILS)
    wrong = tuple(tuple(-each for each in row) for row in coils)
    bench = make(coils=coils, memory=calibrated(wrong), astigmatism=(1.0, -0.8))
    bench.request(StartAutofocus())
    while not trims(bench):
        bench.frame()
    bench.request(Cancel())
    assert bench.stigmators == pytest.approx(STIGMATORS)


@pytest.mark.parametrize("seed", range(4))
def test_strong_coils_are_set_when_the_result_says_so(seed: int) -> None:
    coils = tuple(tuple(10 * each for each in row) for row in COILS)
    bench = make(
        coils=coils, memory=calibrated(coils), astigmatism=(0.7, -0.4), focus=6.0, seed=seed
    )
    result = search(bench)
    assert ("astigmatism was taken out" in result.reason) == bool(trims(bench))
    assert math.hypot(*bench.left) < 0.4


@pytest.mark.parametrize("seed", range(3))
def test_astigmatism_known_too_vaguely_takes_a_frame_beside_focus(seed: int) -> None:
    bench = make(spectrum=Spectrum(log_noise=1.0), seed=seed)
    result = search(bench)
    assert result.status == "focused"
    assert math.hypot(*bench.left) < 0.6
    assert any(1 < abs(error) < 9 for error in bench.errors[1:])
    assert abs(bench.offset - bench.focus) < 1


@pytest.mark.parametrize("seed", range(3))
def test_without_a_calibration_two_probes_tell_what_the_stigmators_do(seed: int) -> None:
    bench = make(memory=None, seed=seed)
    result = search(bench)
    assert result.status == "focused"
    (x, y), first, second = STIGMATORS, *trims(bench)[:2]
    assert (first.x - x, first.y - y) == pytest.approx((0.15, 0))
    assert (second.x - x, second.y - y) == pytest.approx((0.15, 0.15))
    assert math.hypot(*bench.left) < 0.6
    assert abs(bench.offset - bench.focus) < 1
    assert result.frames_used <= 8


@pytest.mark.parametrize("seed", [0, 1, 4, 6])
def test_without_a_calibration_much_astigmatism_is_taken_out_too(seed: int) -> None:
    """What the new stigmators have left is not known at first: that is no sign of grooves."""
    turn = 0.9 * seed
    bench = make(memory=None, seed=seed, astigmatism=(4 * math.cos(turn), 4 * math.sin(turn)))
    result = search(bench)
    assert result.reason.endswith("astigmatism was taken out")
    assert math.hypot(*bench.left) < 0.6
    assert result.frames_used <= 10


def test_where_two_probes_do_not_tell_the_first_is_looked_at_again() -> None:
    turn = 0.9 * 22
    bench = make(
        memory=None,
        seed=22,
        astigmatism=(3.5 * math.cos(turn), 3.5 * math.sin(turn)),
        spectrum=Spectrum(log_noise=1.0),
    )
    search(bench)
    (x, y), (*_, second, third) = STIGMATORS, trims(bench)[:3]
    assert (second.x - x, second.y - y) == pytest.approx((0.15, 0.15))
    assert (third.x - x, third.y - y) == pytest.approx((0.15, 0))
    assert math.hypot(*bench.left) < 0.6


@pytest.mark.parametrize(
    ("seed", "kind", "dwell_us", "off_um", "astigmatism_um"),
    [
        pytest.param(257, "fibres", 0.2, 5.21, (-0.47, 3.85), id="direction shows beside focus"),
        pytest.param(178, "particles", 0.1, 23.16, (6.02, -4.8), id="probes do not tell at first"),
    ],
)
def test_without_a_calibration_astigmatism_of_the_simulated_beam_is_taken_out(
    seed: int, kind: str, dwell_us: float, off_um: float, astigmatism_um: tuple[float, float]
) -> None:
    clock = ManualClock()
    options = {
        "seed": seed,
        "scan": {"width_px": 512, "height_px": 384, "pixel_size_nm": 10, "dwell_us": dwell_us},
        "column": {"working_distance_mm": 5 + off_um / 1e3, "astigmatism_um": astigmatism_um},
        "drift": {"z_nm_per_s": 0},
        "specimen": {"kind": kind, "working_distance_mm": 5.0},
    }
    microscope: Any = registry.open_microscope("simulated", options, clock=clock)
    engine = registry.open_engine("sharpness", {})
    config = load_config(find_config("simulated"))
    with Lockstep(config, microscope, engine, clock) as lockstep:
        results = lockstep.listen("result")
        lockstep.operate(Arm())
        lockstep.request(SetMode(mode=Mode.HOLD))
        lockstep.request(StartAutofocus(stigmation=True))
        while (message := results.take()) is None:
            lockstep.cycle()
        assert message.value.reason.endswith("astigmatism was taken out")
        truth = microscope.truth()
        assert math.hypot(truth.a1_m, truth.a2_m) < 0.5 * truth.half_depth_m
        assert abs(truth.defocus_m) < truth.half_depth_m


@pytest.mark.parametrize(("probe", "probed"), [(0.15, True), (0.35, True), (0.7, False)])
def test_probes_stay_within_the_limits(probe: float, probed: bool) -> None:
    limits = (-0.2, 0.2)
    autofocus = AutofocusOptions(probe_stigmator=probe, stigmator_range=limits)
    bench = Bench(
        options=msgspec.structs.replace(OPTIONS, autofocus=autofocus),
        focus=12.0,
        astigmatism=ASTIGMATISM,
        coils=COILS,
    )
    bench.arm()
    result = search(bench)
    assert result.status == "focused"
    places = [place for each in trims(bench) for place in (each.x, each.y)]
    assert bool(places) == probed
    assert all(limits[0] <= place <= limits[1] for place in places)
    assert ("run semagent calibrate" in result.reason) != probed


def test_probes_that_do_not_tell_are_taken_back() -> None:
    bench = make(memory=None, coils=((0.3, 0.0), (0.0, 0.3)))
    result = search(bench)
    assert result.status == "focused"
    assert "stigmators_back" in bench.kinds
    assert "circle of least confusion" in result.reason
    assert result.reason.endswith("stays: nothing better can be had with the stigmators")
    assert bench.stigmators == pytest.approx(STIGMATORS)
    assert abs(bench.offset - bench.focus) < 1


def test_without_a_calibration_and_probes_stigmators_stay_and_the_result_says_so() -> None:
    options = msgspec.structs.replace(OPTIONS, autofocus=AutofocusOptions(probe_stigmator=0.0))
    bench = Bench(options=options, focus=12.0, astigmatism=ASTIGMATISM, coils=COILS)
    bench.arm()
    result = search(bench)
    assert "circle of least confusion" in result.reason
    assert "run semagent calibrate" in result.reason
    assert not trims(bench)


@pytest.mark.parametrize("memory", [None, calibrated()])
def test_stigmators_that_the_gate_refuses_do_not_cost_the_focus(memory: Memory | None) -> None:
    def refuse(reply: Reply) -> Reply:
        if not isinstance(reply.command.action, SetStigmator) or reply.command.action.x < 0.2:
            return reply
        return msgspec.structs.replace(reply, outcome=Outcome.REFUSED, reason="no travel left")

    bench = make(memory=memory, answer=refuse, astigmatism=(-1.5, 2.0))
    result = search(bench)
    assert result.status == "focused"
    assert "command_failed" in bench.kinds
    assert bench.stigmators == pytest.approx(STIGMATORS)
    assert abs(bench.offset - bench.focus) < 1


def test_stigmators_that_the_gate_lets_go_out_and_not_back_end_the_search() -> None:
    def refuse(reply: Reply) -> Reply:
        if not isinstance(reply.command.action, SetStigmator) or len(trims(bench)) < 2:
            return reply
        return msgspec.structs.replace(reply, outcome=Outcome.REFUSED, reason="no travel left")

    bench = make(memory=None, answer=refuse)
    result = search(bench)
    assert result.status == "failed"
    assert "could not be put back" in result.reason


def test_stigmators_that_fail_end_the_search() -> None:
    def fail(reply: Reply) -> Reply:
        if not isinstance(reply.command.action, SetStigmator):
            return reply
        bench.answer = lambda reply: reply
        return msgspec.structs.replace(reply, outcome=Outcome.FAILED, reason="no answer")

    bench = make(answer=fail)
    result = search(bench)
    assert result.status == "failed"
    assert "failed: no answer" in result.reason
    assert bench.stigmators == pytest.approx(STIGMATORS)


def test_stigmators_go_back_where_focus_may_not() -> None:
    """The travel of one axis may be used up when that of the others is not."""

    def refuse(reply: Reply) -> Reply:
        if isinstance(reply.command.action, SetStigmator) or not went:
            return reply
        return msgspec.structs.replace(reply, outcome=Outcome.REFUSED, reason="no travel left")

    bench, went = make(answer=refuse, astigmatism=(-1.5, 2.0)), []
    bench.arm()
    bench.request(StartAutofocus(stigmation=True))
    while not trims(bench):
        bench.frame()
    went.append(bench.offset)
    bench.request(Cancel(reason="test"))
    result = bench.run_until_result()
    assert result.status == "failed"
    assert "no travel left" in result.reason
    assert f"last read back {5 + 1e3 * bench.offset * UNIT_M:.4f} mm, check it" in result.reason
    assert bench.stigmators == pytest.approx(STIGMATORS)
    assert bench.offset == went[0] != 0


def test_a_last_change_that_the_gate_refuses_does_not_spoil_the_result() -> None:
    refused = 0
    for seed in range(6):
        bench = make(spectrum=Spectrum(log_noise=1.0), seed=seed)

        def refuse_at_the_end(reply: Reply, bench: Bench = bench) -> Reply:
            stigmates = isinstance(reply.command.action, SetStigmator)
            if not stigmates or not isinstance(bench.controller.state.task, Return):
                return reply
            return msgspec.structs.replace(reply, outcome=Outcome.REFUSED, reason="no travel left")

        bench.answer = refuse_at_the_end
        result = search(bench)
        assert result.status == "focused"
        assert abs(bench.offset - bench.focus) < 1
        refused += result.reason.endswith("a last change of the stigmators was refused")
    assert refused > 0


# -- a calibration that is wrong --------------------------------------------------------------


def times(signs: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    return tuple(
        tuple(np.multiply(row, sign).tolist()) for row, sign in zip(COILS, signs, strict=True)
    )


WRONG = {
    "both signs": times(((-1, -1), (-1, -1))),
    "one sign": times(((1, 1), (-1, -1))),
    "exchanged": (COILS[1], COILS[0]),
    "three times": times(((3, 3), (3, 3))),
}


@pytest.mark.parametrize("coils", WRONG.values(), ids=WRONG)
def test_a_calibration_that_frames_refute_is_not_followed(
    coils: tuple[tuple[float, float], ...],
) -> None:
    """Frames say what the stigmators do, so they are set right all the same, or put back."""
    for seed in range(6):
        turn = 1.1 * seed
        begun = (3 * math.cos(turn), 3 * math.sin(turn))
        bench = make(seed=seed, focus=15.0 - 6 * seed, astigmatism=begun, memory=calibrated(coils))
        result = search(bench)
        assert math.hypot(*bench.left) <= 3.1, (seed, bench.left)
        if result.status == "focused":
            assert abs(bench.offset - bench.focus) <= 1
        else:
            assert bench.offset == pytest.approx(0, abs=1e-6)
            assert bench.stigmators == STIGMATORS


def test_a_calibration_is_doubted_by_the_fit_of_the_frames_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another fit beside it takes as long as a third of it, in the frames that take longest."""
    fits: list[Fit] = []

    def fit(*arguments: Any, **options: Any) -> Fit:
        fits.append(Fit(*arguments, **options))
        return fits[-1]

    monkeypatch.setattr(estimator, "Fit", fit)
    bench = make()
    result = search(bench)
    assert trims(bench)
    assert len(fits) == result.frames_used


def test_a_calibration_of_another_day_is_not_refuted() -> None:
    """A scale that is a third too large is still taken at its word: it does no harm."""
    for seed in range(4):
        bench = make(seed=seed, memory=calibrated(times(((1.3, 1.3), (1.3, 1.3)))))
        assert search(bench).status == "focused"
        assert math.hypot(*bench.left) < 0.7
        assert bench.results[0].frames_used <= 7
