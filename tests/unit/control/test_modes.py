"""What the agent may do in each mode, and what it says instead."""

from collections.abc import Callable

import msgspec
import pytest

from semagent.control import Controller, ControlOptions
from semagent.types import (
    Cancel,
    Decline,
    FocusBelief,
    FrameAnalysis,
    Mode,
    Note,
    Reply,
    SetMode,
    SetWorkingDistance,
    Signature,
    StagePosition,
    StartAutofocus,
)

from .bench import CAPABILITIES, OPTIONS, UNIT_M, Bench, Spectrum

Leave = Callable[[StagePosition, int], StagePosition]


def turn_knob(bench: Bench, places: tuple[float, ...]) -> None:
    """The operator focuses by hand, one frame a place."""
    for place in places:
        bench.lens_m = bench.origin_m + place * UNIT_M
        bench.optics = msgspec.structs.replace(bench.optics, working_distance_m=bench.lens_m)
        bench.frame()


PLACES = (-20.0, -10.0, -5.0, 8.0, 14.0)


@pytest.mark.parametrize("armed", [True, False])
def test_observe_believes_and_says_nothing(armed: bool) -> None:
    bench = Bench(focus=3.0, options=ControlOptions(), noise=0.005)
    bench.arm(armed)
    turn_knob(bench, PLACES)
    assert bench.commands == []
    assert bench.events == []
    belief = bench.controller.belief
    assert belief is not None
    assert belief.focus_m == pytest.approx(5e-3 + 3 * UNIT_M, abs=UNIT_M)


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.ADVISE])
def test_autofocus_is_refused_with_a_reason(mode: Mode) -> None:
    bench = Bench(options=ControlOptions(mode=mode))
    bench.arm()
    bench.frame()
    bench.request(StartAutofocus())
    result = bench.results[-1]
    assert result.status == "held"
    assert f"in mode {mode}" in result.reason
    assert result.final_working_distance_m == bench.origin_m
    assert "request_refused" in bench.kinds
    bench.run(3)
    assert bench.commands == []


def test_senseless_request_is_refused() -> None:
    bench = Bench(options=OPTIONS)
    bench.arm()
    bench.request(StartAutofocus(max_frames=0))
    assert bench.results[-1].status == "held"
    assert "max_frames is 0" in bench.results[-1].reason
    assert bench.controller.state.task is None


def test_second_request_does_not_disturb_the_first() -> None:
    bench = Bench(focus=20.0, options=OPTIONS)
    bench.arm()
    bench.request(StartAutofocus())
    bench.run(2)
    task = bench.controller.state.task
    bench.request(StartAutofocus())
    assert bench.controller.state.task == task
    assert bench.kinds.count("request_refused") == 1
    assert bench.run_until_result().status == "focused"


def test_on_the_way_home_another_request_is_refused_and_a_cancel_is_waited_for() -> None:
    bench = Bench(focus=20.0, options=OPTIONS)
    bench.arm()
    bench.request(StartAutofocus())
    bench.run(2)
    kept: list[Reply] = []
    bench.answer = kept.append
    bench.request(Cancel())
    bench.request(StartAutofocus())
    assert bench.kinds.count("request_refused") == 1
    bench.request(Cancel())
    assert bench.kinds.count("request_refused") == 1
    assert len(kept) == 1
    assert "autofocus_done" not in bench.kinds


@pytest.mark.parametrize("mode", [Mode.ADVISE, Mode.HOLD])
def test_proposals_instead_of_commands(mode: Mode) -> None:
    """In mode advise always, in mode hold while the gate is disarmed."""
    bench = Bench(focus=3.0, options=ControlOptions(mode=mode), noise=0.005)
    bench.arm(mode is Mode.ADVISE)
    turn_knob(bench, PLACES)
    proposals = [event for event in bench.events if event.kind == "proposal"]
    assert proposals
    assert len(proposals) < len(PLACES)
    focus_m = proposals[-1].data["working_distance_m"]
    assert focus_m == pytest.approx(5e-3 + 3 * UNIT_M, abs=UNIT_M)
    assert bench.commands == []


@pytest.mark.parametrize("mode", [Mode.ADVISE, Mode.HOLD])
def test_where_blur_does_not_tell_nothing_is_proposed(mode: Mode) -> None:
    options = msgspec.structs.replace(OPTIONS, mode=mode)
    bench = Bench(focus=6.0, options=options, spectrum=Spectrum(flat=True))
    turn_knob(bench, PLACES)
    assert bench.controller.belief is not None
    assert "proposal" not in bench.kinds


def test_nothing_is_proposed_before_focus_is_known_to_half_a_depth_of_field() -> None:
    bench = Bench(focus=3.0, options=ControlOptions(mode=Mode.ADVISE), noise=0.005)
    turn_knob(bench, (-20.0, -10.0))
    belief = bench.controller.belief
    assert belief is not None
    assert belief.sigma_m is not None
    assert belief.sigma_m > UNIT_M
    assert "proposal" not in bench.kinds


def test_proposal_is_not_repeated_and_ends_in_focus() -> None:
    bench = Bench(focus=3.0, options=ControlOptions(mode=Mode.ADVISE), noise=0.005)
    turn_knob(bench, PLACES)
    said = bench.kinds.count("proposal")
    decision = bench.controller.analysed(bench.analysis())
    assert isinstance(decision.proposal, SetWorkingDistance)
    turn_knob(bench, (14.0,) * 5)
    assert bench.kinds.count("proposal") == said
    turn_knob(bench, (3.0, 3.0, 3.0))
    assert bench.controller.analysed(bench.analysis()).proposal is None


def having_declined() -> Bench:
    bench = Bench(focus=3.0, options=ControlOptions(mode=Mode.ADVISE), noise=0.005)
    turn_knob(bench, PLACES)
    proposal = bench.controller.analysed(bench.analysis()).proposal
    assert isinstance(proposal, SetWorkingDistance)
    bench.request(Decline(working_distance_m=proposal.working_distance_m))
    return bench


def test_what_was_declined_is_not_proposed_again_for_this_field() -> None:
    bench = having_declined()
    assert bench.kinds[-1] == "proposal_declined"
    turn_knob(bench, (14.0,) * 5)
    assert bench.controller.analysed(bench.analysis()).proposal is None
    bench.request(SetMode(mode=Mode.ADVISE))
    assert bench.controller.analysed(bench.analysis()).proposal is not None


def test_what_was_declined_is_proposed_for_another_field() -> None:
    bench = having_declined()
    bench.stage = msgspec.structs.replace(bench.stage, x_m=1e-3)
    turn_knob(bench, PLACES)
    assert bench.controller.analysed(bench.analysis()).proposal is not None


def test_a_proposal_of_another_place_is_told() -> None:
    bench = Bench(focus=3.0, options=ControlOptions(mode=Mode.ADVISE), noise=0.005)
    turn_knob(bench, PLACES)
    told = bench.kinds.count("proposal")
    bench.stage, bench.focus = msgspec.structs.replace(bench.stage, x_m=1e-3), 30.0
    turn_knob(bench, tuple(30.0 + place for place in PLACES))
    assert bench.kinds.count("proposal") > told


@pytest.mark.parametrize(
    "leave",
    [
        lambda stage, frame: msgspec.structs.replace(stage, x_m=frame * 2e-6),
        lambda stage, frame: msgspec.structs.replace(stage, rotation_rad=frame * 0.1),
        lambda stage, frame: msgspec.structs.replace(stage, tilt_rad=frame * 0.02),
    ],
)
def test_frames_of_a_field_that_was_left_in_small_steps_are_no_evidence(leave: Leave) -> None:
    """The first is 10.24 µm wide and left by a fifth of that with every frame."""
    bench = Bench(focus=3.0, options=ControlOptions(mode=Mode.ADVISE))
    bench.stage = msgspec.structs.replace(bench.stage, rotation_rad=0.0, tilt_rad=0.0)
    for frame, place in enumerate(PLACES):
        bench.stage = leave(bench.stage, frame)
        turn_knob(bench, (place,))
        assert bench.controller.belief is not None
        assert bench.controller.belief.frames <= 2


def test_nothing_is_proposed_without_evidence() -> None:
    bench = Bench(focus=30.0, options=ControlOptions(mode=Mode.ADVISE))
    bench.run(20)
    assert bench.events == []


def test_commands_name_the_frame_they_rest_on() -> None:
    bench = Bench(focus=20.0, options=OPTIONS)
    bench.arm()
    bench.request(StartAutofocus())
    bench.run(2)
    basis = bench.commands[-1].basis
    assert basis is not None
    assert (basis.sequence, basis.settings_rev) == (2, 1)


def test_stage_move_voids_the_belief() -> None:
    bench = Bench(options=ControlOptions())
    bench.run(3)
    bench.stage = msgspec.structs.replace(bench.stage, x_m=1e-4)
    bench.frame()
    belief = bench.controller.belief
    assert belief is not None
    assert belief.frames == 1  # the frame that showed it


def test_note_and_idle_cancel_change_nothing() -> None:
    bench = Bench(options=ControlOptions())
    bench.frame()
    state = bench.controller.state
    bench.request(Note(text="hello"))
    bench.request(Cancel())
    assert bench.controller.state == state
    assert bench.kinds == ["request_refused"]


def test_mode_of_the_configuration_holds_at_the_start() -> None:
    controller = Controller(ControlOptions(mode=Mode.ADVISE), CAPABILITIES)
    assert controller.state.mode is Mode.ADVISE
    controller.requested(SetMode(mode=Mode.OBSERVE))
    assert controller.state.mode is Mode.OBSERVE


class Told:
    """Believes what it was told, whatever the frames say."""

    def reset(self, focused: Signature | None = None) -> None:
        pass

    def update(self, analysis: FrameAnalysis) -> FocusBelief:
        header = analysis.header
        return FocusBelief(
            sequence=header.sequence,
            settings_rev=header.settings_rev,
            frames=1,
            focus_m=5.5e-3,
            sigma_m=1e-6,
        )


def test_another_estimator_can_be_given() -> None:
    bench = Bench(options=ControlOptions())
    bench.controller = Controller(ControlOptions(), CAPABILITIES, estimator=Told())
    bench.frame()
    assert bench.controller.belief is not None
    assert bench.controller.belief.focus_m == 5.5e-3
