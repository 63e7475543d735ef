"""The dose budget of a search: never exceeded, and said to be the reason where it is."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from semagent.control import ControlOptions
from semagent.control.options import AutofocusOptions, HoldOptions
from semagent.control.situation import Follow
from semagent.types import FocusResult, StartAutofocus

from .bench import OPTIONS, SCAN, Bench, Curve

FRAME_E_NM2 = 10.0
DOSED: dict[str, Any] = {
    "scan": msgspec.structs.replace(SCAN, dwell_s=1e-6),
    "beam_current_a": 1.602176634e-10,  # a thousand electrons on a pixel of 10 nm
}


def within(budget_e_nm2: float | None, **autofocus: Any) -> ControlOptions:
    changed = AutofocusOptions(max_dose_e_nm2=budget_e_nm2, **autofocus)
    return msgspec.structs.replace(OPTIONS, autofocus=changed)


def focus(bench: Bench) -> FocusResult:
    bench.arm()
    bench.request(StartAutofocus())
    return bench.run_until_result()


@settings(max_examples=25, deadline=None)
@given(
    frames=st.floats(0.2, 9.0),
    seed=st.integers(0, 10**6),
    start=st.floats(-40, 40),
    flat=st.booleans(),
    structure=st.sampled_from([0.1, 5.0]),
)
def test_no_search_exceeds_its_budget(
    frames: float, seed: int, start: float, flat: bool, structure: float
):
    bench = Bench(
        seed=seed,
        focus=start,
        curve=Curve(flat=flat),
        structure=structure,
        options=within(frames * FRAME_E_NM2),
        **DOSED,
    )
    bench.arm()
    bench.sequence = 7  # the microscope has been in use
    bench.request(StartAutofocus())
    result = bench.run_until_result()
    # Nothing is known of the settings before the first frame; whoever asks looks at them.
    # Ten frames fit into ten times the dose of one, however that is rounded.
    assert bench.sequence - 7 <= max(int(frames + 1e-8), 1)
    assert result.frames_used == bench.sequence - 7
    if result.status != "focused":
        assert result.status == "held"
        assert bench.offset == pytest.approx(0, abs=1e-6)
        assert bench.stigmators == (0.1, -0.1)


def test_a_search_that_would_exceed_its_budget_is_put_back_and_says_so():
    bench = Bench(focus=20.0, options=within(2 * FRAME_E_NM2), **DOSED)
    result = focus(bench)
    assert (result.status, result.frames_used) == ("held", 2)
    assert result.reason.startswith("the dose budget of 20 e/nm² (max_dose_e_nm2)")
    assert "20 e/nm² were taken, one more would add 10 e/nm²" in result.reason
    assert bench.offset == pytest.approx(0, abs=1e-6)


def test_a_budget_that_suffices_changes_nothing():
    free, bound = (Bench(focus=20.0, options=within(each), **DOSED) for each in (None, 1e3))
    assert focus(free) == focus(bound)
    assert free.positions == bound.positions


def test_the_last_frame_of_a_budget_may_verify():
    frames = focus(Bench(focus=8.0, options=within(None), **DOSED)).frames_used
    bench = Bench(focus=8.0, options=within(frames * FRAME_E_NM2), **DOSED)
    assert focus(bench).status == "focused"
    assert bench.sequence == frames


def test_frames_that_could_not_be_used_cost_dose_too():
    bench = Bench(focus=20.0, options=within(3.5 * FRAME_E_NM2), **DOSED)
    bench.arm()
    bench.request(StartAutofocus())
    bench.frame()
    bench.flagged()
    bench.sequence += 1  # one that control was never told of
    bench.frame()
    (result,) = bench.results
    assert result.reason.startswith("the dose budget")
    assert "40 e/nm² were taken" in result.reason  # the frame nobody counted on is told, too

    bench = Bench(focus=20.0, options=within(2 * FRAME_E_NM2), **DOSED)
    bench.arm()
    bench.request(StartAutofocus())
    bench.frame()
    bench.flagged()
    (result,) = bench.results
    assert result.status == "held"
    assert "saturated" in result.reason


def test_where_the_dose_is_not_known_no_budget_can_be_kept():
    bench = Bench(focus=20.0, options=within(100.0), scan=DOSED["scan"])
    result = focus(bench)
    assert (result.status, result.frames_used, result.moves) == ("held", 1, 0)
    assert "does not report beam current" in result.reason
    again = focus(Bench(focus=20.0, options=within(None)))
    assert again.status == "focused"


@pytest.mark.parametrize("current_a", [0.0, math.nan, math.inf])
def test_a_frame_that_does_not_tell_its_dose_does_not_lift_the_budget(current_a: float):
    bench = Bench(focus=20.0, options=within(20 * FRAME_E_NM2), **DOSED)
    bench.arm()
    bench.request(StartAutofocus())
    bench.frame()
    bench.optics = replace(bench.optics, beam_current_a=current_a)
    bench.flagged()
    (result,) = bench.results
    assert (result.status, result.frames_used) == ("held", 2)
    assert "does not report beam current" in result.reason
    assert bench.offset == pytest.approx(0, abs=1e-6)


def test_once_the_settings_are_known_a_request_beyond_the_budget_takes_no_frame():
    bench = Bench(options=within(5.0), **DOSED)
    bench.arm()
    bench.frame()
    bench.request(StartAutofocus())
    (result,) = bench.results
    assert (result.status, result.frames_used) == ("held", 0)
    assert "is less than the 10 e/nm² of one frame" in result.reason
    assert bench.sequence == 1


def test_every_search_has_a_budget_of_its_own():
    bench = Bench(focus=8.0, options=within(6 * FRAME_E_NM2), **DOSED)
    assert focus(bench).status == "focused"
    taken = bench.sequence
    bench.request(StartAutofocus())
    bench.run(6)
    assert len(bench.results) == 2
    assert bench.results[1].status == "focused"
    assert 3 <= bench.sequence - taken <= 6


# -- searches that mode hold starts -----------------------------------------------------------


def holding(budget_e_nm2: float | None, **changes: Any) -> Bench:
    options = msgspec.structs.replace(within(budget_e_nm2), hold=HoldOptions())
    bench = Bench(**{"options": options, **DOSED, **changes})
    bench.arm()
    return bench


def test_mode_hold_starts_no_search_it_cannot_afford():
    bench = holding(5.0, focus=20.0)
    bench.run(4)
    (result,) = bench.results
    assert (result.status, result.frames_used, result.moves) == ("held", 0, 0)
    assert "is less than the 10 e/nm² of one frame" in result.reason
    assert "autofocus_started" not in bench.kinds
    assert "is less than" in bench.controller.state.paused
    assert bench.commands == []


def test_nor_while_it_follows_where_a_frame_has_become_too_much():
    bench = holding(200.0, focus=3.0)
    bench.run(30)
    assert isinstance(bench.controller.state.task, Follow)
    bench.focus += 6.0
    bench.beam_up(30.0)  # without a change of settings: dearer than the whole budget
    while "hold_lost" not in bench.kinds:
        bench.run(1)
    left = bench.offset
    bench.run(40)
    assert bench.kinds.count("hold_lost") == 1
    assert bench.kinds.count("autofocus_started") == 1
    assert bench.kinds[-1] == "paused"
    assert "is less than the 300 e/nm² of one frame" in bench.results[-1].reason
    assert bench.offset == left


def test_a_request_beyond_the_budget_leaves_hold_following():
    bench = holding(200.0, focus=3.0)
    bench.run(30)
    bench.beam_up(30.0)
    bench.frame()
    bench.request(StartAutofocus())
    assert bench.kinds[-1] == "request_refused"
    assert isinstance(bench.controller.state.task, Follow)
    bench.run(3)
    assert bench.controller.state.paused == ""
