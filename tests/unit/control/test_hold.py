"""Hold mode: follows drift with ordinary frames, hardly moves without it, stops when lost."""

import msgspec
import numpy as np
import pytest

from semagent.control import ControlOptions
from semagent.control.hold import has_blurred
from semagent.control.options import DriftOptions, HoldOptions
from semagent.control.situation import Follow, Return, Seen
from semagent.memory import Measure, Memory, Settings
from semagent.types import (
    Cancel,
    Issuer,
    Level,
    Mode,
    Outcome,
    SetMode,
    SetWorkingDistance,
    StartAutofocus,
)

from .bench import UNIT_M, Bench, Spectrum

FAINT = Spectrum(log_noise=1.5)


def hold(frames: int = 30, **changes: object) -> Bench:
    """A bench that has focused and follows."""
    bench = Bench(**changes)
    bench.arm()
    bench.run(frames)
    return bench


def follow(bench: Bench) -> Follow:
    task = bench.controller.state.task
    assert isinstance(task, Follow)
    return task


def lost(bench: Bench) -> int:
    return bench.kinds.count("hold_lost")


@pytest.mark.parametrize("drift", [0.1, -0.1, 0.03])
@pytest.mark.parametrize("spectrum", [Spectrum(), FAINT], ids=["clear", "faint"])
def test_follows_a_drifting_specimen(drift: float, spectrum: Spectrum) -> None:
    """One depth of field, two half ones, in 20 frames: every frame stays sharp, none is a probe."""
    bench = hold(30, drift=drift, focus=3.0, spectrum=spectrum)
    bench.run(90)
    assert np.mean(np.abs(bench.errors[30:]) <= 1) >= 0.98
    assert bench.controller.state.paused == ""
    assert lost(bench) == 0


def test_an_angle_that_is_remembered_counts_as_one_that_is_reported() -> None:
    angle_rad = 15e-3
    blur = Measure(value=angle_rad / 2, sigma=0.01 * angle_rad)
    memory = Memory().with_focusing(Settings(), blur, "")
    bench = hold(
        20, convergence_angle_rad=None, memory=memory, spectrum=Spectrum(pixels_a_half_depth=1.5)
    )
    task = follow(bench)
    assert (task.half_depth_m, task.slope) == pytest.approx((10e-9 / angle_rad, 0.5))
    assert task.slope_known


def test_drift_that_turns_round_is_followed() -> None:
    """Steady drift is what is expected, so that a sudden change costs a few frames."""
    bench = hold(40, drift=0.05)
    bench.drift = -0.05
    bench.run(70)
    assert np.all(np.abs(bench.errors[40:]) <= 2)
    assert np.all(np.abs(bench.errors[-10:]) <= 1)


@pytest.mark.parametrize("change", [-1.4, 2.0], ids=["quieter", "noisier"])
def test_noise_that_changes_is_no_blur(change: float) -> None:
    """As when the dwell time or the beam current changes, and no setting tells of it."""
    bench = hold(40, drift=0.05, focus=3.0)
    bench.spectrum = Spectrum(log_noise=bench.spectrum.log_noise + change)
    bench.run(50)
    assert np.all(np.abs(bench.errors[-50:]) <= 1.2)
    assert lost(bench) == 0


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_a_field_of_which_a_part_is_another_is_no_blur(seed: int) -> None:
    """As when somebody bumps into the table: some directions have more structure, others less."""
    bench = hold(45, seed=seed, drift=0.05)
    bench.spectrum = Spectrum(moved=0.3)
    bench.run(30)
    assert np.all(np.abs(bench.errors[-30:]) <= 0.7)
    assert lost(bench) == 0


def test_hardly_moves_while_nothing_drifts() -> None:
    """The dither goes on, about an estimate with an error of its own: inside the depth of field."""
    bench = hold()
    given = len(bench.commands)
    bench.run(60)
    assert np.all(np.abs(bench.errors[-60:]) <= 0.65)
    assert len(bench.commands) - given <= 32


def test_belief_follows_too() -> None:
    bench = hold(40, drift=0.1)
    belief = bench.controller.belief
    assert belief is not None
    assert belief.sequence == bench.sequence
    assert belief.focus_m == pytest.approx(bench.origin_m + bench.focus * UNIT_M, abs=UNIT_M / 2)
    assert belief.sigma_m is not None
    assert belief.sigma_m < UNIT_M / 2
    bench.request(SetMode(mode=Mode.OBSERVE))
    bench.frame()
    assert bench.controller.belief is not None
    assert bench.controller.belief.frames == 1


def test_every_move_is_small() -> None:
    bench = hold(30, drift=0.1, spectrum=FAINT)
    given = len(bench.commands)
    bench.run(60)
    ways = np.abs(np.diff(bench.positions[given - 1 :]))
    assert np.all(ways <= 2 * HoldOptions().dither + 1)


def test_astigmatism_and_hysteresis_do_not_mislead() -> None:
    bench = hold(30, drift=-0.1, astigmatism=(0.4, 0.3), play=0.1)
    bench.run(70)
    assert np.mean(np.abs(bench.errors[30:]) <= 1.1) >= 0.98


@pytest.mark.parametrize(("seed", "drift"), [(1, 0.05), (2, -0.05)])
def test_grooves_are_followed_as_sharp_as_they_were(seed: int, drift: float) -> None:
    """No change is told alone along them, only what defocus and astigmatism change together."""
    grooves = Spectrum(grooves=True, log_noise=-2.0)
    bench = hold(130, seed=seed, drift=drift, focus=0.4, spectrum=grooves)
    assert bench.results[0].astigmatism_open
    assert np.mean(np.abs(bench.errors[20:]) <= 1.5) >= 0.95
    assert bench.controller.state.paused == ""


def test_unknown_convergence_angle_does_not_mislead() -> None:
    bench = hold(30, drift=0.05, convergence_angle_rad=None)
    bench.run(70)
    assert np.mean(np.abs(bench.errors[30:]) <= 1) >= 0.95


def test_starts_from_focus_without_a_second_search() -> None:
    bench = hold(60, focus=10.0)
    assert bench.kinds.count("autofocus_done") == 1
    assert bench.kinds.count("hold_started") == 1
    assert follow(bench).origin_m == bench.results[0].final_working_distance_m


@pytest.mark.parametrize("jump", [4.0, -6.0, 9.0])
def test_jump_is_searched_for(jump: float) -> None:
    bench = hold(40)
    bench.focus += jump
    bench.run(40)
    assert abs(bench.offset - bench.focus) <= 1
    assert lost(bench) >= 1


@pytest.mark.parametrize("jump", [4.0, -6.0, 15.0, -15.0])
def test_a_search_after_a_jump_goes_where_it_may_have_led_at_once(jump: float) -> None:
    """The frame that has told of it is its first, and says how far; the next one, to which side."""
    bench = hold(45)
    bench.focus += jump
    bench.run(6)
    first, second, *others = np.abs(bench.errors[45:]).tolist()
    assert min(second, abs(second - 2 * first)) <= 1
    assert max(others) <= 5


@pytest.mark.parametrize("jump", [2.0, -2.0, 4.0, -6.0, 15.0])
def test_a_jump_between_a_search_and_the_first_frame_after_it_is_noticed(jump: float) -> None:
    bench = Bench()
    bench.arm()
    bench.run_until_result()
    bench.focus += jump
    for _ in range(8):
        bench.frame()
        belief = bench.controller.belief
        assert belief is not None
        assert belief.focus_m is not None
        assert belief.sigma_m is not None
        error_m = belief.focus_m - bench.origin_m - bench.focus * UNIT_M
        assert abs(error_m) <= 3 * belief.sigma_m
    assert np.all(np.abs(bench.errors[-3:]) <= 1)


@pytest.mark.parametrize("jump", [0.0, 4.0])
def test_a_specimen_that_has_become_another_does_not_lead_a_search_astray(jump: float) -> None:
    """It looks like a jump, and nothing is as sharp any more as it was in focus."""
    bench = hold(45)
    bench.focus += jump
    bench.spectrum = Spectrum(slope=-2.6, log_noise=-1.0)
    bench.run(10)
    assert lost(bench) == 1
    assert np.max(np.abs(bench.errors[-10:])) <= 10
    assert np.all(np.abs(bench.errors[-4:]) <= 1)


def test_jump_within_reach_is_followed() -> None:
    bench = hold(40)
    bench.focus += 1.0
    bench.run(30)
    assert abs(bench.offset - bench.focus) < 1


@pytest.mark.parametrize("seed", [0, 1])
def test_a_jump_beyond_the_depth_of_field_is_followed_without_a_search(seed: int) -> None:
    """One frame says how far, the next one to which side.

    The first is taken on the side to which focus jumps; on the other it would be beyond the depth
    of field from focus on either side, and a search begin.
    """
    bench = hold(44, seed=seed, drift=0.05)
    bench.focus -= 2.0
    bench.run(8)
    assert lost(bench) == 0
    assert np.all(np.abs(bench.errors[-6:]) <= 1)


@pytest.mark.parametrize("jump", [2.0, -2.0, 4.0, -4.0])
@pytest.mark.parametrize(
    ("astigmatism", "log_noise"), [((0.0, 0.0), 0.0), ((0.5, 0.1), -2.0)], ids=["round", "clear"]
)
def test_belief_after_a_jump_claims_no_more_than_is_known(
    jump: float, astigmatism: tuple[float, float], log_noise: float
) -> None:
    """Far from focus a frame tells neither how far it is nor, with astigmatism, to which side."""
    bench = hold(45, drift=0.05, astigmatism=astigmatism, spectrum=Spectrum(log_noise=log_noise))
    bench.focus += jump
    for _ in range(8):
        bench.frame()
        belief = bench.controller.belief
        if belief is None or belief.focus_m is None:
            continue  # the frame with which the search begins
        assert belief.sigma_m is not None
        error_m = belief.focus_m - bench.origin_m - bench.focus * UNIT_M
        assert abs(error_m) <= 3 * belief.sigma_m


def test_first_frames_that_seemed_sharp_by_chance_do_not_make_others_blurred() -> None:
    """Both have noise: a difference of 3.9 is three of its standard deviations, and 6 are more."""
    task, noise = follow(hold(45)), tuple((2.25**2 * np.eye(3)).ravel().tolist())

    def read(seen: Seen, change: float) -> Seen:
        return msgspec.structs.replace(seen, change=(change, 0.0, 0.0), covariance=noise)

    def blurred(change: float) -> bool:
        first = tuple(read(seen, 0.0) for seen in task.first)
        last = tuple(read(seen, change) for seen in task.seen)
        return has_blurred(msgspec.structs.replace(task, first=first, seen=last))

    assert not blurred(3.9)
    assert blurred(6.0)


def test_frames_that_tell_nothing_move_nothing_and_end_in_a_search_that_gives_up() -> None:
    """Fields without structure: at first nothing moves, then the doubt is too large."""
    bench = hold(40)
    home, given = bench.offset, len(bench.commands)
    bench.structure = 0.1
    bench.frame()
    assert len(bench.commands) == given
    bench.run(120)
    assert bench.results[-1].status == "held"
    assert "nothing to focus on" in bench.controller.state.paused
    assert bench.offset == pytest.approx(home, abs=0.5)
    assert lost(bench) == 1
    given = len(bench.commands)
    bench.run(20)
    assert len(bench.commands) == given


@pytest.mark.parametrize("seed", [1, 3])
def test_a_search_out_of_doubt_that_does_not_tell_lets_hold_go_on(seed: int) -> None:
    """Along grooves it often does not, and what was known before tells enough to follow."""
    options = ControlOptions(mode=Mode.HOLD, hold=HoldOptions(max_sigma=0.5))
    grooves = Spectrum(grooves=True, log_noise=-1.0)
    bench = hold(150, seed=seed, options=options, drift=0.05, focus=0.4, spectrum=grooves)
    assert [result.status for result in bench.results] == ["focused", "held"]
    assert lost(bench) == 1
    assert bench.controller.state.paused == ""
    assert np.all(np.abs(bench.errors[-20:]) <= 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_hold_goes_on_in_doubt_once_and_does_not_walk(seed: int) -> None:
    """Nothing but noise, which an engine takes for structure."""
    bench = hold(45, seed=seed, drift=0.03)
    home = working_point(bench)
    bench.spectrum = Spectrum(log_noise=8.0, flat=True)
    bench.tick(80)
    bench.run(200)
    assert [result.status for result in bench.results] == ["focused", "held", "held"]
    assert lost(bench) == 2
    assert bench.controller.state.paused
    assert abs(bench.offset - home) <= 3


def test_a_request_makes_a_search_out_of_doubt_one_that_was_asked_for() -> None:
    """Where it does not find focus, hold rests until it is asked again."""
    bench = hold(45, drift=0.03)
    bench.spectrum = Spectrum(log_noise=8.0, flat=True)
    bench.tick(80)
    while not lost(bench):
        bench.frame()
    bench.request(StartAutofocus())
    bench.results.clear()
    assert bench.run_until_result().status == "held"
    assert "blur does not depend" in bench.controller.state.paused


def test_cancelling_while_a_search_out_of_doubt_goes_back_leaves_hold_at_rest() -> None:
    bench = hold(45, drift=0.03)
    bench.spectrum = Spectrum(log_noise=8.0, flat=True)
    bench.tick(80)
    bench.results.clear()
    while not isinstance(bench.controller.state.task, Return):
        bench.answer = lambda reply: (
            None if isinstance(bench.controller.state.task, Return) else reply
        )
        bench.frame()
    bench.request(Cancel(reason="not now"))
    assert bench.controller.state.pending is not None
    command = bench.commands[-1].action
    bench.answer = lambda reply: reply
    bench.carry_out(command)
    bench.follow(bench.controller.replied(bench.reply(command, Issuer.AGENT)))
    bench.run(3)
    assert bench.results[-1].status == "held"
    assert bench.controller.state.task is None
    assert bench.controller.state.paused


def test_frames_with_faults_are_bridged_while_the_drift_is_known() -> None:
    bench = hold(60, drift=0.1)
    for _ in range(15):
        bench.flagged()
    assert np.all(np.abs(bench.errors[-15:]) <= 1)
    bench.run(15)
    assert np.all(np.abs(bench.errors[-15:]) <= 1)
    assert lost(bench) == 0


def test_frames_with_faults_are_not_followed_for_ever() -> None:
    bench = hold(60, drift=0.1)
    for _ in range(60):
        bench.flagged()
    given = len(bench.commands)
    for _ in range(20):
        bench.flagged()
    assert len(bench.commands) == given
    bench.run(20)
    assert abs(bench.offset - bench.focus) <= 1


def test_frames_with_faults_before_the_drift_is_known_move_nothing() -> None:
    bench = hold(8)
    follow(bench)
    given = len(bench.commands)
    for _ in range(40):
        bench.flagged()
    assert len(bench.commands) - given <= 1


def test_reference_is_renewed_without_a_jump() -> None:
    bench = hold(30, drift=0.1)
    first = follow(bench).reference
    bench.run(60)
    assert follow(bench).reference != first
    assert np.all(np.abs(bench.errors[30:]) <= 1)


@pytest.mark.parametrize("pause_s", [3e3, 1e5, 3e6])
def test_a_long_pause_is_no_reason_to_fail(pause_s: float) -> None:
    """Where focus has drifted to is then not known at all: it is searched for."""
    bench = hold()
    bench.tick(pause_s)
    bench.run(40)
    assert lost(bench) == 1
    assert np.all(np.abs(bench.errors[-10:]) <= 1)


def test_leaves_turns_to_the_correction_of_drift() -> None:
    """Once focus is known well, not every frame is followed by a move."""
    options = ControlOptions(mode=Mode.HOLD, drift=DriftOptions(correct=True))
    bench = hold(40, options=options, drift=0.1)
    given = len(bench.commands)
    bench.run(40)
    assert len(bench.commands) - given <= 30


def test_operator_takes_over() -> None:
    bench = hold()
    bench.carry_out(SetWorkingDistance(working_distance_m=4.9e-3))
    given = len(bench.commands)
    bench.run(60)
    assert len(bench.commands) == given
    assert "working distance was changed" in bench.controller.state.paused
    bench.request(SetMode(mode=Mode.HOLD))
    bench.run(60)
    assert bench.controller.state.paused == ""
    assert len(bench.commands) > given


def working_point(bench: Bench) -> float:
    """Where focus is believed to be, in half depths of field."""
    return (follow(bench).home.optics.working_distance_m - bench.origin_m) / UNIT_M


def run_until_beside(bench: Bench) -> float:
    """Run until a frame is to be taken beside focus; where focus is."""
    for _ in range(50):
        if abs(bench.offset - working_point(bench)) > 0.05:
            return working_point(bench)
        bench.frame()
    raise AssertionError("always in focus")


def test_cancel_goes_to_the_working_point() -> None:
    bench = hold()
    home = run_until_beside(bench)
    bench.request(Cancel())
    assert bench.offset == pytest.approx(home, abs=0.01)
    assert bench.controller.state.paused == "cancelled by the operator"


@pytest.mark.parametrize("planned", [True, False])
def test_hold_that_ends_with_the_run_as_planned_is_no_trouble(planned: bool) -> None:
    bench = hold()
    home = run_until_beside(bench)
    bench.request(Cancel(reason="the end", planned=planned))
    bench.run(5)
    assert bench.offset == pytest.approx(home, abs=0.01)
    (ended,) = [event for event in bench.events if event.kind == "hold_ended"]
    assert ended.message == "the end"
    assert (ended.level is Level.INFO) == planned
    assert ("paused" in bench.kinds) != planned


def test_other_mode_goes_to_the_working_point() -> None:
    bench = hold()
    home = run_until_beside(bench)
    bench.request(SetMode(mode=Mode.ADVISE))
    assert bench.offset == pytest.approx(home, abs=0.01)
    assert bench.controller.state.task is None
    assert bench.controller.state.paused == ""


def test_refused_move_pauses() -> None:
    bench = hold()
    bench.answer = lambda reply: msgspec.structs.replace(
        reply, outcome=Outcome.REFUSED, reason="too far"
    )
    bench.run(40)
    assert "too far" in bench.controller.state.paused


def test_frames_that_do_not_come_are_no_reason_to_stop() -> None:
    bench = hold()
    bench.tick(1000)
    assert bench.controller.state.paused == ""
    follow(bench)


def test_disarmed_gate_suspends_and_arming_starts_afresh() -> None:
    bench = hold(40)
    given = len(bench.commands)
    bench.arm(False, "heartbeat lost")
    bench.run(50)
    assert len(bench.commands) == given
    assert bench.controller.state.task is None
    bench.arm()
    bench.run(20)
    assert bench.kinds.count("hold_started") == 2


def test_focus_that_is_held_needs_no_way_back_when_the_gate_is_disarmed() -> None:
    bench = hold()
    run_until_beside(bench)
    bench.arm(False, "disarmed by the operator")
    ended = bench.events[-1]
    assert (ended.kind, ended.level, ended.data) == ("hold_ended", Level.INFO, {})
    assert ended.message == "the safety gate has closed"


def test_focus_that_is_held_is_in_doubt_where_a_move_was_not_answered() -> None:
    bench = hold()
    bench.answer = lambda reply: None
    given = len(bench.commands)
    while len(bench.commands) == given:
        bench.frame()
    bench.arm(False, "disarmed by the operator")
    bench.tick(1000)
    assert "could not be put back to" in bench.events[-1].message
    assert bench.events[-1].data == {"put_back": False}


def test_focusing_by_hand_while_disarmed_is_no_reason_to_rest_once_armed() -> None:
    bench = Bench()
    bench.arm()
    bench.run(20)
    bench.arm(False, "stopped")
    bench.focus = 2.0
    bench.carry_out(SetWorkingDistance(working_distance_m=bench.origin_m + 3 * UNIT_M))
    bench.run(5)
    bench.arm()
    bench.run(20)
    assert not bench.controller.state.paused
    assert abs(bench.offset - bench.focus) < 1


def test_autofocus_on_request_starts_from_the_working_point() -> None:
    bench = hold()
    run_until_beside(bench)
    home = bench.offset
    bench.request(StartAutofocus(max_frames=9))
    bench.results.clear()
    result = bench.run_until_result()
    start = (result.start_working_distance_m - bench.origin_m) / UNIT_M
    assert start == pytest.approx(home, abs=0.01)
    assert result.frames_used <= 9
    bench.run(5)
    follow(bench)


def test_request_adopts_the_search_that_hold_began() -> None:
    bench = hold(3, focus=90.0)  # far, so that it would take more
    bench.request(StartAutofocus(max_frames=5))
    assert bench.run_until_result().frames_used == 5


def test_no_following_where_it_is_switched_off() -> None:
    options = ControlOptions(mode=Mode.HOLD, hold=HoldOptions(follow=False))
    bench = Bench(options=options, focus=10.0)
    bench.arm()
    bench.run(50)
    assert bench.commands == []
    bench.request(StartAutofocus())
    bench.run_until_result()
    given = len(bench.commands)
    bench.run(50)
    assert len(bench.commands) == given


def test_cancel_while_idle_pauses() -> None:
    bench = Bench(options=ControlOptions(mode=Mode.HOLD))
    bench.arm()
    bench.request(Cancel(reason="not now"))
    bench.run(10)
    assert bench.commands == []
    assert bench.controller.state.paused == "not now"
