"""When corrections contradict a calibration, and when they do not."""

import numpy as np

from semagent.control.refutation import Check, Sight

FRAME_NS = 10**9
RATE = np.array([5e-9, 0.0])  # metres a frame


def sight(frame: int, beam_m: float = 0.0, stage_m: float = 0.0, error_m: float = 0.0) -> Sight:
    return Sight(
        time_ns=frame * FRAME_NS,
        drift=RATE * frame + (error_m, 0.0),
        by_focus=np.zeros(2),
        sigma_m=1e-9,
        by_beam=np.array([beam_m, 0.0]),
        by_stage=np.array([stage_m, 0.0]),
    )


def begun(*, stage: bool = False, check: Check | None = None) -> Check:
    check = check or Check()
    check.expect([sight(0), sight(1), sight(2)], stage=stage)
    return check


def test_steady_drift_during_a_long_correction_is_no_contradiction():
    assert begun().saw(sight(30, beam_m=-100e-9), play_m=0.0) == ""


def test_a_picture_that_goes_the_other_way_is_one():
    said = begun().saw(sight(3, beam_m=-100e-9, error_m=200e-9), play_m=0.0)
    assert said == ("the picture went by +100, +0 nm where the calibration says -100, +0 nm")


def test_the_play_of_the_stage_is_none():
    after = sight(3, stage_m=-100e-9, error_m=200e-9)
    assert begun(stage=True).saw(after, play_m=200e-9) == ""
    assert begun(stage=True).saw(after, play_m=0.0) != ""


def test_the_play_of_the_lens_is_none():
    """Focus turns round with every other frame, as where it is followed."""
    after = sight(3, beam_m=-100e-9, error_m=200e-9)
    assert begun().saw(after, play_m=0.0, lens_m=50e-9) == ""
    assert begun().saw(after, play_m=0.0, lens_m=30e-9) != ""


def test_two_in_a_row_are_needed_of_the_beam_and_one_of_the_stage():
    assert begun(stage=True).missed()
    check = begun()
    assert not check.missed()
    assert check.missed()
    check = begun()
    assert not check.missed()
    assert begun(check=check).saw(sight(3, beam_m=-100e-9), play_m=0.0) == ""
    assert not check.missed()


def test_a_correction_that_moved_nothing_says_nothing():
    assert begun().saw(sight(3, error_m=1e-6), play_m=0.0) == ""


def test_what_was_forgotten_is_not_judged():
    check = begun()
    assert check.watched
    check.forget()
    assert not check.watched
    assert check.saw(sight(3, beam_m=-100e-9, error_m=1e-6), play_m=0.0) == ""
