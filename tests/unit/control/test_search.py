"""The next step of a search, from the places seen and a belief."""

import math
from dataclasses import replace

import msgspec
import pytest

from semagent.control.options import AutofocusOptions
from semagent.control.search import (
    Field,
    Found,
    GiveUp,
    Look,
    Sharpest,
    Step,
    attainable,
    beside,
    certain,
    field_around,
    mean_of,
    nearer,
    next_step,
    significant,
)
from semagent.control.situation import Sample
from semagent.types import FocusBelief, FocusMode

OPTIONS = AutofocusOptions()
FIELD = field_around(0.0, 1.0, None, OPTIONS)


def belief(*modes: tuple[float, float, float], log_odds: float = 20.0) -> FocusBelief:
    """From (weight, focus, sigma) of each mode; lengths in metres, half a depth of field is 1."""
    mean = sum(weight * focus for weight, focus, _ in modes)
    variance = sum(w * (s * s + (f - mean) ** 2) for w, f, s in modes)
    return FocusBelief(
        sequence=1,
        settings_rev=1,
        frames=1,
        focus_m=mean,
        sigma_m=math.sqrt(variance),
        interval90_m=(
            min(focus - 1.645 * sigma for _, focus, sigma in modes),
            max(focus + 1.645 * sigma for _, focus, sigma in modes),
        ),
        log_odds=log_odds,
        modes=tuple(FocusMode(weight=w, focus_m=f, sigma_m=s) for w, f, s in modes),
    )


def step(places: list[float], known: FocusBelief, left: int = 5, field: Field = FIELD) -> Step:
    next_one = next_step(places, known, field, left, OPTIONS)
    return attainable(next_one, places, known, field, OPTIONS)


def test_the_side_of_the_likeliest_place_is_looked_at_first() -> None:
    assert step([0.0], belief((0.6, 20.0, 3.0), (0.4, -20.0, 3.0))) == Look(20.0 + 1.5 * 3.0)
    assert step([0.0], belief((0.6, 20.0, 9.0), (0.4, -20.0, 9.0))) == Look(20.0 + 8.0)


def test_a_place_that_is_about_known_is_visited() -> None:
    assert step([0.0, 40.0], belief((0.6, 20.0, 1.0), (0.4, -20.0, 1.0))) == Look(20.0)
    assert step([0.0, 40.0], belief((0.9, 20.0, 2.0), (0.1, -20.0, 3.0))) == Look(24.0)
    assert step([0.0], belief((0.6, 20.0, 1.0), (0.4, -20.0, 1.0))) == Look(24.0)


def test_one_frame_is_enough_to_go_there_where_the_field_is_known_in_focus() -> None:
    either = belief((0.51, 20.0, 3.0), (0.49, -20.0, 3.0))
    assert next_step([0.0], either, FIELD, 5, OPTIONS, field_known=True) == Look(20.0)
    assert next_step([0.0, 20.0], either, FIELD, 5, OPTIONS, field_known=True) != Look(20.0)


def moving(way: float, log_odds: float) -> FocusBelief:
    known = belief((1.0, 9.0, 0.3))
    return msgspec.structs.replace(known, motion_m=way, motion_log_odds=log_odds)


def test_a_specimen_that_surely_moves_is_in_focus_nowhere() -> None:
    places = [0.0, 4.0, 15.0, 9.2]
    for way in (0.6, -0.6):
        told = step(places, moving(way, 20.0))
        assert isinstance(told, GiveUp)
        assert "focus itself moves: by 600 mm from frame to frame" in told.reason
    assert step(places, moving(0.1, 20.0)) == Found(9.0)
    assert step(places, moving(0.6, -1.0)) == Found(9.0)


def test_one_that_may_move_is_looked_at_once_more() -> None:
    doubtful = moving(0.6, 20.0)
    assert isinstance(step([0.0, 4.0, 9.2], doubtful), Look)
    assert isinstance(step([0.0, 4.0, 15.0, 9.2], moving(0.6, 2.0)), Look)
    assert step([0.0, 4.0, 15.0, 9.2], moving(0.6, 2.0), left=1) == Found(9.0)


def test_where_focus_is_followed_the_specimen_may_move() -> None:
    places = [0.0, 4.0, 15.0, 9.2]
    assert next_step(places, moving(0.6, 20.0), FIELD, 5, OPTIONS, followed=True) == Found(9.0)


def test_a_sure_estimate_is_visited_and_verified_there() -> None:
    known = belief((1.0, 9.0, 0.3))
    assert step([0.0, 4.0], known) == Look(9.0)
    assert step([0.0, 4.0, 9.2], known) == Found(9.0)


def test_a_frame_that_is_surely_in_focus_verifies_unless_it_has_to_be_close() -> None:
    places = [0.0, 4.0, 9.7]
    known = belief((1.0, 9.0, 0.15))
    assert step(places, known) == Found(9.0)
    assert next_step(places, known, FIELD, 5, OPTIONS, as_trimmed=1) == Look(9.0)
    assert step(places, belief((1.0, 9.0, 0.3))) == Look(9.0)


def test_two_frames_are_never_enough() -> None:
    assert step([0.0, 0.0], belief((1.0, 0.0, 0.1))) != Found(0.0)


def test_what_is_visited_and_still_unsure_is_flanked_on_the_side_seen_less() -> None:
    known = belief((1.0, 5.0, 0.8))
    assert step([0.0, 5.1], known) == Look(5.0 + OPTIONS.fine_step)
    assert step([9.0, 5.1], known) == Look(5.0 - OPTIONS.fine_step)
    assert step([1.0, 9.0, 5.1], known) == Look(5.0 + OPTIONS.fine_step / 2)


def test_a_place_far_from_all_frames_is_looked_beyond() -> None:
    assert step([-20.0, -45.0], belief((1.0, 5.0, 2.0))) == Look(5.0 + OPTIONS.fine_step)
    assert step([20.0, 45.0], belief((1.0, -5.0, 2.0))) == Look(-5.0 - OPTIONS.fine_step)


def test_where_nothing_changes_the_steps_grow() -> None:
    known = belief((1.0, 0.0, 2.0), log_odds=0.0)
    assert step([0.0, 4.0], known) == Look(-8.0)
    assert step([0.0, 4.0, -8.0], known) == Look(16.0)
    edges = field_around(0.0, 1.0, (-8.0, 16.0), OPTIONS)
    assert isinstance(step([0.0, 4.0, -8.0, 16.0], known, field=edges), GiveUp)


def test_a_place_out_of_range_leads_to_the_edge_once() -> None:
    field = field_around(0.0, 1.0, (-30.0, 10.0), OPTIONS)
    known = belief((1.0, 40.0, 3.0))
    assert step([0.0], known, field=field) == Look(10.0)
    given_up = step([0.0, 10.0], known, field=field)
    assert isinstance(given_up, GiveUp)
    assert "beyond the allowed range" in given_up.reason
    hardly_inside = belief((0.95, 40.0, 3.0), (0.05, 5.0, 2.0))
    assert step([0.0], hardly_inside, field=field) == Look(10.0)


def test_what_was_left_out_is_looked_at_before_focus_is_called_out_of_range() -> None:
    field = field_around(0.0, 1.0, (-30.0, 50.0), OPTIONS)
    known = belief((1.0, 90.0, 3.0))
    assert step([0.0, 50.0], known, field=field) == Look(25.0)
    assert isinstance(step([0.0, 50.0, 25.0], known, field=field), GiveUp)


def test_flanks_stay_inside_the_limits() -> None:
    field = field_around(0.0, 1.0, (-30.0, 6.0), OPTIONS)
    target = step([0.0, 5.0], belief((1.0, 5.0, 0.8)), field=field)
    assert target == Look(5.0 - OPTIONS.fine_step)


def test_beside_a_focus_just_out_of_range_is_inside() -> None:
    field = field_around(0.0, 1.0, (-30.0, 6.0), OPTIONS)
    look = beside([0.0, 6.0], belief((1.0, 6.2, 0.2)), field, OPTIONS)
    assert field.allows(look.working_distance_m)


def test_a_single_frame_at_the_edge_does_not_end_a_search() -> None:
    field = field_around(0.0, 1.0, (0.0, 20.0), OPTIONS)
    assert step([0.0], belief((1.0, -3.0, 2.0)), field=field) == Look(8.0)


def test_a_focus_that_may_be_in_range_after_all_is_looked_for_beside_the_edge() -> None:
    field = field_around(0.0, 1.0, (-30.0, 10.0), OPTIONS)
    vague = belief((1.0, 12.0, 3.0))
    assert step([0.0, 10.0], vague, field=field) == Look(12.0 - 1.5 * 3.0)
    given_up = step([0.0, 10.0, 7.5], vague, field=field)
    assert isinstance(given_up, GiveUp)
    assert "uncertain" in given_up.reason


def test_in_a_range_too_narrow_for_flanks_every_look_is_at_another_place() -> None:
    field = field_around(0.0, 1.0, (-1.0, 1.5), OPTIONS)
    known = belief((1.0, 0.0, 1.5))
    assert step([0.0], known, field=field) == Look(1.5)
    assert step([0.0, 1.5], known, field=field) == Look(-1.0)
    assert step([-1.0, 1.5], known, field=field) == Look(0.25)


def test_a_range_in_which_there_is_no_other_place_is_given_up() -> None:
    """As at a low magnification, whose depth of field is longer than the range."""
    field = field_around(0.0, 1.0, (-0.1, 0.1), OPTIONS)
    for known in (belief((1.0, 9.0, 2.0)), belief((1.0, 9.0, 2.0), log_odds=0.0)):
        assert isinstance(step([0.0], known, field=field), GiveUp)


def test_a_focus_out_of_range_is_named_only_where_all_that_is_likely_is_out() -> None:
    field = field_around(0.0, 1.0, (-30.0, 10.0), OPTIONS)
    both = belief((0.6, 40.0, 3.0), (0.4, -45.0, 3.0))
    given_up = step([0.0, 10.0, -30.0], both, left=0, field=field)
    assert isinstance(given_up, GiveUp)
    assert "near 40000.0000 or -45000.0000 mm" in given_up.reason
    one_inside = belief((0.6, 40.0, 3.0), (0.4, 5.0, 3.0))
    given_up = step([0.0, 10.0], one_inside, left=0, field=field)
    assert isinstance(given_up, GiveUp)
    assert "uncertain" in given_up.reason


def test_with_no_frames_left_it_gives_up_unless_it_is_sure() -> None:
    assert step([0.0, 4.0, 9.2], belief((1.0, 9.0, 0.3)), left=0) == Found(9.0)
    unsure = step([0.0, 9.2], belief((1.0, 9.0, 2.0)), left=0)
    assert isinstance(unsure, GiveUp)
    assert "uncertain" in unsure.reason
    flat = step([0.0, 9.2], belief((1.0, 9.0, 0.3), log_odds=-5.0), left=0)
    assert isinstance(flat, GiveUp)
    assert "does not depend" in flat.reason


def test_frames_all_around_that_leave_focus_and_astigmatism_open_are_enough() -> None:
    around = [8.0, -8.0, 4.0, -4.0, 2.0, 0.0]
    known = belief((1.0, 0.0, 1.8), log_odds=300.0)
    known = msgspec.structs.replace(known, astigmatism_sigma_m=(1.8, 0.2))
    sharpest = step(around, known)
    assert isinstance(sharpest, Sharpest)
    assert sharpest.working_distance_m == 0.0
    assert "along one direction only" in sharpest.reason
    assert isinstance(step(around[:-1], known), Look)
    assert isinstance(step([abs(place) for place in around], known), Look)
    told = msgspec.structs.replace(known, astigmatism_sigma_m=(0.2, 0.2))
    assert isinstance(step(around, told), Look)
    faint = msgspec.structs.replace(known, log_odds=5.0)
    assert isinstance(step(around, faint), Look)
    anywhere = belief((1.0, 0.0, 2.5), log_odds=300.0)
    anywhere = msgspec.structs.replace(anywhere, astigmatism_sigma_m=(1.8, 0.2))
    assert isinstance(step(around, anywhere), Look)


def test_a_frame_is_taken_where_what_shows_is_sharpest() -> None:
    around = [0.4, 9.0, 8.0, -8.0, 4.0, -4.0, 2.0]
    known = belief((1.0, 0.0, 1.8), log_odds=300.0)
    known = msgspec.structs.replace(known, astigmatism_sigma_m=(1.8, 0.2))
    assert step(around, known) == Look(0.0)
    assert isinstance(step(around, known, left=0), Sharpest)
    assert isinstance(step([*around, 0.9], known), Sharpest)


def test_new_stigmators_are_looked_at_before_what_is_open_counts_as_one_direction() -> None:
    around = [8.0, -8.0, 4.0, -4.0, 2.0, 0.0]
    known = belief((1.0, 0.0, 1.8), log_odds=300.0)
    known = msgspec.structs.replace(known, astigmatism_sigma_m=(1.8, 0.2))

    def seen(frames: int, left: int = 5) -> Step:
        return next_step(around, known, FIELD, left, OPTIONS, as_trimmed=frames)

    assert isinstance(seen(4), Look)
    assert isinstance(seen(5), Sharpest)
    assert isinstance(seen(1, left=1), Sharpest)  # the last frame is for the old ones
    assert isinstance(seen(1, left=2), Look)


def test_focus_is_not_sure_while_astigmatism_is_open() -> None:
    known = belief((1.0, 9.0, 0.3))
    still_open = msgspec.structs.replace(known, astigmatism_sigma_m=(0.6, 0.6))
    assert not certain(still_open, 9.0, FIELD, OPTIONS)
    assert step([0.0, 4.0, 9.2], still_open) != Found(9.0)
    told = msgspec.structs.replace(known, astigmatism_sigma_m=(0.4, 0.4))
    assert step([0.0, 4.0, 9.2], told) == Found(9.0)


def test_nothing_known_gives_up() -> None:
    nothing = FocusBelief(sequence=1, settings_rev=1, frames=0)
    result = step([0.0], nothing)
    assert isinstance(result, GiveUp)
    assert "too small" in result.reason


def test_sure_means_within_half_a_depth_of_field_with_odds() -> None:
    assert certain(belief((1.0, 0.0, 0.6)), 0.0, FIELD, OPTIONS)
    assert not certain(belief((1.0, 0.0, 0.62)), 0.0, FIELD, OPTIONS)
    assert not certain(belief((1.0, 0.0, 0.3)), 0.6, FIELD, OPTIONS)
    assert not certain(belief((1.0, 0.0, 0.3), log_odds=1.0), 0.0, FIELD, OPTIONS)
    coarse = AutofocusOptions(finest_step_m=3.0)
    assert certain(belief((1.0, 0.0, 1.5)), 0.0, FIELD, coarse)


def test_nearer_is_the_probability_of_the_side_of_the_middle() -> None:
    known = belief((0.75, 10.0, 0.1), (0.25, -10.0, 0.1))
    assert nearer(known, 8.0, 0.0) == pytest.approx(0.75, abs=1e-6)
    assert nearer(known, 0.0, 8.0) == pytest.approx(0.25, abs=1e-6)
    assert nearer(known, -8.0, 0.0) == pytest.approx(0.25, abs=1e-6)


def test_field_respects_range_limits_and_resolution() -> None:
    field = field_around(
        5.0, 1.0, (0.0, 40.0), AutofocusOptions(range_m=20.0), ways_m=((1.0, 1.5), (1.0, 100.0))
    )
    assert field.allowed_m == (0.0, 25.0)
    assert field.resolution_m == 0.5


def test_mean_is_more_certain_than_its_parts() -> None:
    def sample(place: float, sharpness: float, sigma: float) -> Sample:
        return Sample(working_distance_m=place, sharpness=sharpness, sigma=sigma)

    mean = mean_of([sample(1, 1, 0.03), sample(2, 3, 0.04)])
    assert (mean.working_distance_m, mean.sharpness) == (1.5, 2)
    assert mean.sigma == pytest.approx(math.hypot(0.03, 0.04) / 2)
    assert significant(sample(0, 0.06, 0.03), sample(1, 0, 0.0), 1.99)
    assert not significant(sample(0, 0.06, 0.03), sample(1, 0, 0.0), 2.01)


def test_a_look_that_would_lead_back_to_a_frame_goes_beyond_what_cannot_be_had() -> None:
    unsure = belief((1.0, 20.0, 3.0))
    gap = replace(FIELD, ways_m=((20.0, 40.0),))
    assert step([0.0, 40.0], unsure) == Look(24.5)
    assert step([0.0, 40.0], unsure, field=gap) == Look(9.0)
    assert step([0.0, 10.0], unsure, field=gap) == Look(24.5)  # no frame was taken there yet


def test_where_focus_is_known_but_cannot_be_had_that_is_said() -> None:
    gap = replace(FIELD, ways_m=((20.0, 40.0),))
    last = step([0.0, 10.0, 40.0], belief((1.0, 20.0, 0.2)), field=gap)
    assert isinstance(last, GiveUp)
    assert "known, but no frame can be had at 20000.0000 mm" in last.reason


def test_where_nothing_else_can_be_had_either_the_search_ends() -> None:
    stuck = field_around(0.0, 1.0, (-8.0, 8.0), OPTIONS, ((8.0, 0.0), (-8.0, 0.0)))
    last = step([0.0, 0.0, 0.0], belief((0.6, 4.0, 1.0), (0.4, -4.0, 1.0)), field=stuck)
    assert isinstance(last, GiveUp)
    assert "goes to 0.0000 mm instead" in last.reason
