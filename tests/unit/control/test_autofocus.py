"""Autofocus on synthetic curves: finds focus, and never ends worse than it began."""

import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semagent.control import ControlOptions
from semagent.control.options import AutofocusOptions, HoldOptions
from semagent.memory import Calibration, Entry, Measure, Memory, Settings
from semagent.types import (
    FocusResult,
    Level,
    MicroscopeAction,
    Mode,
    SetWorkingDistance,
    StartAutofocus,
)

from .bench import CAPABILITIES, STIGMATORS, UNIT_M, Bench, Curve, Spectrum


def options(**autofocus: object) -> ControlOptions:
    return ControlOptions(
        mode=Mode.HOLD,
        hold=HoldOptions(follow=False),
        autofocus=msgspec.convert(autofocus, AutofocusOptions),
    )


def focus(bench: Bench, max_frames: int | None = None) -> FocusResult:
    bench.arm()
    bench.request(StartAutofocus(max_frames=max_frames))
    return bench.run_until_result()


def random_bench(seed: int, **changes: object) -> Bench:
    random = np.random.default_rng(seed)
    curve = Curve(width=np.exp(random.normal(np.log(4), 0.4)), gain=random.uniform(0.3, 1.2))
    settings = {"curve": curve, "focus": random.uniform(-40, 40), "options": options(), **changes}
    return Bench(seed=seed, **settings)


def test_finds_focus_from_both_sides_in_few_frames() -> None:
    errors, frames = [], []
    for seed in range(40):
        bench = random_bench(seed, noise=0.01)
        result = focus(bench)
        errors.append(abs(bench.offset - bench.focus))
        frames.append(result.frames_used)
        assert bench.sequence == result.frames_used
        assert len(bench.commands) == result.moves
        assert result.engine == "bench"
        assert result.final_working_distance_m == bench.optics.working_distance_m
        assert result.start_working_distance_m == bench.origin_m
    assert np.mean(np.array(errors) <= 1) >= 0.97
    assert np.median(frames) <= 4
    assert max(frames) <= AutofocusOptions().max_frames


@pytest.mark.parametrize("seed", [3, 29])
def test_half_a_depth_of_field_is_that_of_the_angle_that_is_remembered(seed: int) -> None:
    """15 mrad where 5 would be assumed: a third of the depth of field."""
    blur = Measure(value=15e-3 / 2, sigma=1e-4)
    bench = Bench(
        seed=seed,
        focus=6 + seed % 7,
        options=options(),
        memory=Memory().with_focusing(Settings(), blur, ""),
        convergence_angle_rad=None,
        spectrum=Spectrum(pixels_a_half_depth=1.5, log_noise=1.0, scatter=0.03),
    )
    assert focus(bench).status == "focused"
    assert 3 * abs(bench.offset - bench.focus) <= 1


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    start=st.floats(-60, 60),
    noise=st.floats(0.0, 0.1),
    scatter=st.floats(0.0, 0.02),
    drift=st.floats(-0.03, 0.03),
    flat=st.booleans(),
    max_frames=st.integers(1, 20),
)
def test_never_ends_worse_than_it_began(
    seed: int, start: float, noise: float, scatter: float, drift: float, flat: bool, max_frames: int
) -> None:
    bench = Bench(
        seed=seed,
        focus=start,
        noise=noise,
        scatter=scatter,
        drift=drift,
        curve=Curve(flat=flat),
        options=options(),
    )
    result = focus(bench, max_frames)
    assert result.frames_used <= max_frames
    assert abs(bench.offset - bench.focus) <= abs(start) + 1.0
    if flat or result.status != "focused":
        assert bench.offset == pytest.approx(0, abs=1e-6)
        assert result.final_working_distance_m == pytest.approx(bench.origin_m, abs=1e-9)


@pytest.mark.parametrize("drift", [2.0, -2.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_specimen_that_moves_in_height_is_not_called_focused(seed: int, drift: float) -> None:
    bench = Bench(seed=seed, focus=12.0, drift=drift, options=options())
    result = focus(bench)
    assert result.status == "held"
    assert "focus itself moves" in result.reason
    assert bench.offset == pytest.approx(0, abs=1e-6)


GROOVES = Spectrum(grooves=True, log_noise=-2.0)


@pytest.mark.parametrize("away", [12.0, -9.0])
@pytest.mark.parametrize("seed", range(3))
def test_grooves_are_made_as_sharp_as_they_can_be(seed: int, away: float) -> None:
    """Astigmatism along them moves where that is, and nothing tells; the result says so."""
    bench = Bench(
        seed=seed, focus=away, astigmatism=(0.8, 0.5), spectrum=GROOVES, options=options()
    )
    result = focus(bench)
    assert (result.status, result.astigmatism_open, result.verified) == ("focused", True, False)
    assert "along one direction only" in result.reason
    assert result.sigma_m is not None
    assert result.sigma_m > 0.8 * UNIT_M
    assert abs(bench.offset - bench.focus) < 2.0
    assert bench.stigmators == STIGMATORS
    (done,) = (event for event in bench.events if event.kind == "autofocus_done")
    assert done.level is Level.WARNING


def test_grooves_too_faint_for_their_sharpness_to_tell_are_made_as_sharp_as_spectra_say() -> None:
    bench = Bench(focus=12.0, spectrum=GROOVES, noise=3.0, options=options())
    assert focus(bench).status == "focused"
    assert abs(bench.offset - bench.focus) < 2.0


def test_grooves_that_seemed_sharper_at_the_start_are_put_back_whatever_spectra_say() -> None:
    bench = Bench(focus=12.0, spectrum=GROOVES, curve=Curve(gain=-1.0), options=options())
    assert focus(bench).status == "held"
    assert bench.offset == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_grooves_that_are_sharp_stay_where_they_are(seed: int) -> None:
    bench = Bench(seed=seed, focus=0.5, spectrum=GROOVES, options=options())
    result = focus(bench)
    assert (result.status, result.astigmatism_open) == ("focused", True)
    assert "at the start" in result.reason
    assert bench.offset == pytest.approx(0, abs=1e-6)


def test_grooves_that_are_not_surely_sharper_elsewhere_are_held() -> None:
    bench = Bench(seed=2, focus=2.0, spectrum=GROOVES, options=options())
    result = focus(bench)
    assert (result.status, result.astigmatism_open) == ("held", True)
    assert "along one direction only" in result.reason
    assert bench.offset == pytest.approx(0, abs=1e-6)


def test_noise_only_fields_end_where_they_began() -> None:
    for seed in range(8):
        bench = Bench(seed=seed, curve=Curve(flat=True), noise=0.05, options=options())
        result = focus(bench)
        assert result.status == "held"
        assert "does not depend" in result.reason or "uncertain" in result.reason
        assert bench.offset == pytest.approx(0, abs=1e-6)


def test_no_structure_holds_without_moving() -> None:
    bench = Bench(structure=0.1, options=options())
    result = focus(bench)
    assert result.status == "held"
    assert "nothing to focus on" in result.reason
    assert (result.frames_used, result.moves, bench.commands) == (3, 0, [])


def test_where_nothing_shows_focus_is_looked_for_if_that_is_asked_for() -> None:
    bench = Bench(structure=0.0, focus=30.0, options=options(blind_search=True))
    assert focus(bench).status == "focused"
    assert bench.offset == pytest.approx(30.0, abs=1.0)


def test_one_poor_frame_is_not_enough_to_hold() -> None:
    bench = Bench(structure=0.1, focus=10.0, options=options())
    bench.arm()
    bench.request(StartAutofocus())
    bench.frame()
    bench.structure = 5.0
    assert bench.run_until_result().status == "focused"


def test_faint_structure_that_more_frames_may_show_is_waited_for() -> None:
    bench = Bench(structure=0.2, focus=10.0, options=options())
    bench.arm()
    bench.request(StartAutofocus())
    for _ in range(5):
        bench.frame()
    assert bench.offset == 0
    assert bench.run_until_result().status == "focused"
    assert bench.offset == pytest.approx(10.0, abs=1.0)


def test_structure_fainter_than_more_frames_may_show_costs_no_more() -> None:
    result = focus(Bench(structure=0.14, options=options()))
    assert (result.status, result.frames_used, result.moves) == ("held", 3, 0)


def test_start_in_focus_stays_there() -> None:
    moved = 0
    for seed in range(30):
        bench = random_bench(seed, focus=0.0, noise=0.01)
        result = focus(bench)
        moved += abs(bench.offset) > 0.5
        assert result.status == "focused"
    assert moved == 0


def test_start_a_little_off_is_corrected() -> None:
    errors = []
    for seed in range(30):
        bench = random_bench(seed, focus=2.0, noise=0.005, scatter=0.005)
        focus(bench)
        errors.append(abs(bench.offset - bench.focus))
    assert np.mean(np.array(errors) <= 1) >= 0.95


@pytest.mark.parametrize("sign", [-1, 1])
def test_focus_far_away_is_found(sign: int) -> None:
    errors = []
    for seed in range(3):
        bench = Bench(focus=90.0 * sign, seed=seed, options=options(max_frames=20))
        assert focus(bench).status == "focused"
        errors.append(abs(bench.offset - bench.focus))
    assert np.median(errors) <= 1
    assert max(errors) <= 2


@pytest.mark.parametrize("sign", [-1, 1])
def test_limits_of_the_instrument_are_never_left(sign: int) -> None:
    limits = (5e-3 - 20 * UNIT_M, 5e-3 + 20 * UNIT_M)
    capabilities = msgspec.structs.replace(CAPABILITIES, working_distance_range_m=limits)
    bench = Bench(focus=35.0 * sign, noise=0.005, capabilities=capabilities, options=options())
    result = focus(bench)
    assert result.status == "held"
    assert "beyond the allowed range" in result.reason
    assert max(abs(place) for place in bench.positions) <= 20 + 1e-6
    assert bench.offset == pytest.approx(0, abs=1e-6)


def test_range_option_is_in_metres() -> None:
    bench = Bench(curve=Curve(flat=True), options=options(range_m=10 * UNIT_M, approach=0.0))
    focus(bench)
    assert 9.9 < max(abs(place) for place in bench.positions) <= 10 + 1e-6


def test_every_frame_is_reached_from_below() -> None:
    bench = Bench(focus=-25.0, play=2.0, noise=0.005, options=options())
    bench.arm()
    bench.request(StartAutofocus())
    while not bench.results:
        bench.frame()
        assert bench.sequence == 1 or bench.lens_m <= bench.optics.working_distance_m
    assert bench.results[0].status == "focused"
    assert bench.offset == pytest.approx(bench.focus, abs=1)


@pytest.mark.parametrize("start", [-25.0, -4.0, 0.5, 6.0, 25.0])
@pytest.mark.parametrize("play", [2.5, 5.0])
def test_a_play_that_calibration_has_found_is_taken_up(play: float, start: float) -> None:
    """However near the start is, where the first frame is taken anywhere within the play."""
    bench = Bench(focus=-start, play=play, noise=0.005, options=options(), memory=with_play(play))
    result = focus(bench)
    assert result.status == "focused"
    lens = (bench.lens_m - bench.origin_m) / UNIT_M
    assert lens == pytest.approx(bench.focus, abs=1)
    assert bench.positions[:2] == pytest.approx([-3 * play, 0])
    before, here = len(bench.positions), bench.offset
    assert focus(bench).status == "focused"
    assert bench.positions[before:][:1] != pytest.approx([here - 3 * play])  # it is taken up
    assert (bench.lens_m - bench.origin_m) / UNIT_M == pytest.approx(bench.focus, abs=1)


def with_play(play: float) -> Memory:
    found = Calibration(
        date="2026-01-01T00:00:00Z",
        frames=50,
        focus_hysteresis_m=Measure(value=play * UNIT_M, sigma=0.02 * UNIT_M),
    )
    return Memory(entries=(Entry(settings=Settings(), calibration=found),))


def test_direct_moves_where_no_approach_is_wanted() -> None:
    bench = Bench(focus=-25.0, options=options(approach=0.0))
    result = focus(bench)
    assert result.moves <= result.frames_used


def test_long_moves_are_split() -> None:
    bench = Bench(focus=35.0, options=options(max_step_m=5 * UNIT_M, max_frames=20))
    assert focus(bench).status == "focused"
    places = [0.0, *bench.positions]
    assert max(abs(b - a) for a, b in itertools.pairwise(places)) <= 5 + 1e-6


@pytest.mark.parametrize("spacing", [0.5, 2.0, 5.0])
def test_recorded_stack_ends_at_its_nearest_frame(spacing: float) -> None:
    for focus_at in (-17.3, 0.4, 22.2):
        bench = Bench(focus=focus_at, grid_m=spacing * UNIT_M, noise=0.005, options=options())
        result = focus(bench)
        assert result.status == "focused"
        assert abs(bench.offset - focus_at) <= max(1.0, 0.75 * spacing)
        away = abs(bench.offset - focus_at) > 1.5
        assert not away or "as near as the microscope goes" in result.reason


@pytest.mark.parametrize(("focus_at", "known"), [(3.0, True), (35.0, False)])
def test_focus_is_not_said_to_be_known_better_than_it_is(focus_at: float, known: bool) -> None:
    """Where steps are coarse, focus is found that lies within a step."""
    bench = Bench(focus=focus_at, options=options(finest_step_m=10 * UNIT_M))
    result = focus(bench)
    assert result.status == "focused"
    assert result.sigma_m is not None
    assert (1.64 * result.sigma_m < UNIT_M) == known
    assert ("within half a depth of field" in result.reason) == known
    assert ("as finely as the microscope follows" in result.reason) != known


@pytest.mark.parametrize(("start", "status"), [(-34.0, "held"), (-17.0, "focused")])
def test_a_stack_with_a_gap_is_asked_for_no_frame_again_and_again(
    start: float, status: str
) -> None:
    there = [*range(-40, -31, 2), *range(32, 41, 2), *([] if status == "held" else [-17, -15, 0])]
    bench = Bench(focus=0.5, noise=0.005, options=options())

    def nearest(action: MicroscopeAction) -> None:
        assert isinstance(action, SetWorkingDistance)
        asked = (action.working_distance_m - bench.origin_m) / UNIT_M
        place = min(there, key=lambda each: abs(each - asked))
        Bench.carry_out(
            bench, SetWorkingDistance(working_distance_m=bench.origin_m + place * UNIT_M)
        )

    bench.carry_out = nearest
    nearest(SetWorkingDistance(working_distance_m=bench.origin_m + start * UNIT_M))
    result = focus(bench)
    assert result.status == status
    assert result.frames_used < 9
    assert status == "focused" or "no frame can be had at 5.00" in result.reason


def test_microscope_that_ignores_commands_is_not_called_focused() -> None:
    bench = Bench(focus=20.0, options=options())
    bench.carry_out = lambda action: None
    assert focus(bench).status == "held"


def test_wrong_scale_still_improves() -> None:
    """The half depth of field is a guess where the microscope does not report its angle."""
    for assumed in (2e-3, 12e-3):
        scale = {"assumed_convergence_angle_rad": assumed}
        config = msgspec.structs.replace(
            options(), scale=msgspec.convert(scale, type(options().scale))
        )
        bench = Bench(focus=12.0, noise=0.005, convergence_angle_rad=None, options=config)
        result = focus(bench)
        assert result.status == "focused"
        assert abs(bench.offset - bench.focus) < 2.5


def test_a_small_gain_is_kept_or_undone() -> None:
    for seed in range(20):
        bench = Bench(seed=seed, focus=1.6, noise=0.02, options=options())
        result = focus(bench)
        kept = result.status == "focused" and abs(bench.offset - bench.focus) <= 1.6
        assert kept or bench.offset == pytest.approx(0, abs=1e-6)
