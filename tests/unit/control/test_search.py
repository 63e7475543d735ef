"""Where the search looks next, as a pure function of samples and belief."""

import itertools
import math

import pytest

from semagent.control.options import AutofocusOptions
from semagent.control.search import (
    Field,
    Found,
    GiveUp,
    Look,
    Step,
    certain,
    field_around,
    mean_of,
    near,
    next_step,
    significant,
)
from semagent.control.situation import Sample
from semagent.types import FocusBelief

OPTIONS = AutofocusOptions()
FIELD = field_around(0.0, 1.0, (-1000.0, 1000.0), OPTIONS)


def sample(z: float, y: float, sigma: float = 0.01) -> Sample:
    return Sample(working_distance_m=z, sharpness=y, sigma=sigma)


def belief(focus: float | None = None, sigma: float = 1e3, log_odds: float = 10.0) -> FocusBelief:
    return FocusBelief(
        sequence=1, settings_rev=1, frames=1, focus_m=focus, sigma_m=sigma, log_odds=log_odds
    )


def step(
    *samples: Sample,
    known: FocusBelief | None = None,
    left: int = 10,
    field: Field = FIELD,
    options: AutofocusOptions = OPTIONS,
) -> Step:
    return next_step(samples, known or belief(), field, left, options)


def place(result: Step) -> float:
    assert isinstance(result, Look)
    return result.working_distance_m


def test_first_step_is_coarse() -> None:
    assert place(step(sample(0, 0))) == OPTIONS.first_step


def test_first_step_turns_round_at_the_limit() -> None:
    field = field_around(0.0, 1.0, (-1000.0, 1.0), OPTIONS)
    assert place(step(sample(0, 0), field=field)) == -OPTIONS.first_step


def test_steps_grow_while_sharpness_rises() -> None:
    assert place(step(sample(0, 0), sample(8, 1))) == 24
    assert place(step(sample(0, 0), sample(8, -1))) == -16
    assert place(step(sample(0, 0), sample(8, 1), sample(24, 2))) == 56


def test_rising_edge_leads_beyond_the_range_but_not_beyond_what_is_allowed() -> None:
    rising = (sample(0, 0), sample(8, 1), sample(24, 2), sample(48, 3))
    assert place(step(*rising)) == 96
    field = field_around(0.0, 1.0, (-1000.0, 60.0), OPTIONS)
    assert place(step(*rising, field=field)) == 60
    at_edge = step(*rising, sample(60, 4), sample(59.5, 3.9), field=field)
    assert isinstance(at_edge, GiveUp)
    assert "still rises at the end of the allowed range" in at_edge.reason


def test_gap_before_the_edge_is_looked_into() -> None:
    field = field_around(0.0, 1.0, (-1000.0, 48.0), OPTIONS)
    assert place(step(sample(0, 0), sample(24, 2), sample(48, 3), field=field)) == 36


def test_bracket_is_narrowed_by_the_belief_or_halved() -> None:
    bracket = (sample(0, 0), sample(8, 2), sample(24, 0))
    assert place(step(*bracket, known=belief(12.0, 6.0))) == 12
    assert place(step(*bracket, known=belief(8.5, 6.0))) == 16
    assert place(step(*bracket, known=belief(40.0, 6.0))) == 16


def test_nothing_visible_looks_on_both_sides_then_into_gaps_then_gives_up() -> None:
    flat = [sample(0, 0)]
    visited = []
    while isinstance(result := step(*flat, known=belief(log_odds=-2), left=30), Look):
        visited.append(result.working_distance_m)
        flat.append(sample(result.working_distance_m, 0))
    assert visited[:5] == [8, -16, 24, 48, -48]
    assert min(visited) == -48
    assert max(visited) == 48
    places = sorted(item.working_distance_m for item in flat)
    assert max(b - a for a, b in itertools.pairwise(places)) <= 2 * OPTIONS.first_step
    assert isinstance(result, GiveUp)
    assert "does not depend on the working distance" in result.reason


def test_flanks_are_taken_on_the_side_seen_less() -> None:
    seen = (sample(0, 0), sample(8, -1), sample(-8, -1))
    assert place(step(*seen, known=belief(1.0, 2.0))) == 1 - OPTIONS.fine_step / 2
    seen_below = (sample(0, 0), sample(3, 2))
    assert place(step(*seen_below, known=belief(5.0, 1.0))) == 5 + OPTIONS.fine_step
    wide = belief(5.0, 3.0)
    assert place(step(*seen_below, known=wide)) == 5 + 2 * 3.0


def test_flank_stays_inside_the_limits() -> None:
    field = field_around(0.0, 1.0, (-1.0, 1000.0), OPTIONS)
    assert place(step(sample(0, 0), sample(8, -1), known=belief(0.5, 2.0), field=field)) == 4.5
    narrow = field_around(0.0, 1.0, (-1.0, 2.0), OPTIONS)
    target = place(step(sample(0, 0), sample(1.5, -1), known=belief(0.5, 2.0), field=narrow))
    assert -1 <= target <= 2


def test_certain_estimate_is_visited_then_verified() -> None:
    known = belief(3.0, 0.3)
    assert place(step(sample(0, 0), sample(8, 0), known=known)) == 3
    assert step(sample(0, 0), sample(3.2, 1), known=known) == Found()


def test_verifying_frame_has_to_be_the_sharpest() -> None:
    known = belief(3.0, 0.3)
    assert isinstance(step(sample(7, 2), sample(3, 1), known=known), Look)
    assert isinstance(step(sample(7, 2), sample(3, 1), known=known, left=0), GiveUp)


def test_last_frame_goes_to_a_rough_estimate() -> None:
    known = belief(3.0, 2.0)
    assert place(step(sample(0, 0), sample(8, 0), known=known, left=1)) == 3
    assert step(sample(0, 0), sample(3, 1), known=known, left=0) == Found()
    wide = step(sample(0, 0), sample(3, 1), known=belief(3.0, 9.0), left=0)
    assert isinstance(wide, GiveUp)
    assert "half a depth of field is" in wide.reason


def test_estimate_outside_the_limits_is_not_visited() -> None:
    field = field_around(0.0, 1.0, (-10.0, 10.0), OPTIONS)
    target = place(step(sample(0, 0), sample(8, 1), known=belief(20.0, 0.1), field=field))
    assert target <= 10


def test_certainty_needs_odds_and_precision() -> None:
    assert certain(belief(0.0, 0.5), FIELD, OPTIONS)
    assert not certain(belief(0.0, 0.51), FIELD, OPTIONS)
    assert not certain(belief(0.0, 0.5, log_odds=OPTIONS.min_log_odds - 0.1), FIELD, OPTIONS)
    assert not certain(belief(None), FIELD, OPTIONS)
    coarse = AutofocusOptions(finest_step_m=3.0)
    assert certain(belief(0.0, 2.9), FIELD, coarse)


def test_field_respects_range_limits_and_resolution() -> None:
    field = field_around(5.0, 1.0, (0.0, 40.0), AutofocusOptions(range_m=20.0), resolution_m=99.0)
    assert field.wanted_m == (0.0, 25.0)
    assert field.allowed_m == (0.0, 40.0)
    assert field.resolution_m == OPTIONS.first_step
    assert field_around(5.0, 1.0, None, OPTIONS).wanted_m == (-43.0, 53.0)


def test_mean_is_more_certain_than_its_parts() -> None:
    mean = mean_of([sample(1, 1, 0.03), sample(2, 3, 0.04)])
    assert (mean.working_distance_m, mean.sharpness) == (1.5, 2)
    assert mean.sigma == pytest.approx(math.hypot(0.03, 0.04) / 2)


def test_significance_is_strict_and_one_sided() -> None:
    assert significant(sample(0, 0.06, 0.03), sample(1, 0, 0.0), 1.99)
    assert not significant(sample(0, 0.06, 0.03), sample(1, 0, 0.0), 2.01)
    assert not significant(sample(0, -1, 0.03), sample(1, 0, 0.03), 2)


def test_near_counts_the_resolution() -> None:
    samples = [sample(0, 0), sample(0.5, 0), sample(0.6, 0), sample(2, 0)]
    assert len(near(samples, 0.0, FIELD)) == 2
    field = field_around(0.0, 1.0, None, OPTIONS, resolution_m=1.5)
    assert len(near(samples, 0.0, field)) == 4
