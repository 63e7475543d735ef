"""The surface of focus, and how honest its uncertainty is."""

from dataclasses import replace

import numpy as np
import pytest

from semagent.surface import Expected, Focused, _contradictions, fit_surface

REACH_M = 1e-3
EXPECTED = Expected(slope=0.05, sag_m=20e-6, drift_m_per_s=1e-8, reach_m=REACH_M, step_m=60e-6)
SIGMA_M = 0.3e-6


def truth(x: float, y: float, t: float) -> float:
    """A specimen that is tilted, bent and drifts."""
    u, v = x / REACH_M, y / REACH_M
    return 5e-3 + 30e-6 * u - 12e-6 * v + 8e-6 * u * u - 5e-6 * u * v + 4e-9 * t


def measured(count: int, seed: int = 0, sigma_m: float = SIGMA_M) -> list[Focused]:
    random = np.random.default_rng(seed)
    places = []
    for index in range(count):
        x, y = random.uniform(-REACH_M, REACH_M, 2)
        t = 20.0 * index
        found = truth(x, y, t) + sigma_m * random.standard_normal()
        places.append(Focused(float(x), float(y), t, found, sigma_m))
    return places


def test_one_place_predicts_itself_and_doubts_the_rest():
    surface = fit_surface([Focused(0.0, 0.0, 0.0, 5e-3, SIGMA_M)], EXPECTED)
    here_m, sigma_m = surface.at(0.0, 0.0, 0.0)
    assert here_m == pytest.approx(5e-3)
    assert sigma_m == pytest.approx(SIGMA_M, rel=0.01)
    assert surface.at(REACH_M, 0.0, 0.0)[1] == pytest.approx(54e-6, rel=0.02)
    assert surface.at(0.0, 0.0, 600.0)[1] == pytest.approx(6e-6, rel=0.02)


def test_many_places_find_tilt_curvature_and_drift():
    surface = fit_surface(measured(25), EXPECTED)
    for x, y in ((0.0, 0.0), (0.8e-3, -0.5e-3), (-0.9e-3, 0.7e-3)):
        predicted_m, sigma_m = surface.at(x, y, 480.0)
        assert predicted_m == pytest.approx(truth(x, y, 480.0), abs=1e-6)
        assert sigma_m < 0.5e-6
    assert surface.drift_m_per_s == pytest.approx(4e-9, abs=3e-9)
    assert surface.rejected == ()


@pytest.mark.parametrize("count", [4, 7, 15])
def test_the_interval_holds_the_truth(count: int):
    inside = 0
    for seed in range(200):
        surface = fit_surface(measured(count, seed), EXPECTED)
        predicted_m, sigma_m = surface.at(0.3e-3, -0.4e-3, 20.0 * count)
        inside += abs(predicted_m - truth(0.3e-3, -0.4e-3, 20.0 * count)) < 1.645 * sigma_m
    assert inside >= 0.85 * 200


def test_a_place_that_contradicts_the_others_is_left_out():
    places = measured(12, seed=3)
    dust = places[4]
    places[4] = Focused(dust.x_m, dust.y_m, dust.time_s, dust.working_distance_m - 30e-6, SIGMA_M)
    surface = fit_surface(places, EXPECTED)
    assert surface.rejected == (4,)
    assert surface.at(0.0, 0.0, 200.0)[0] == pytest.approx(truth(0, 0, 200), abs=1.5e-6)


def test_beside_a_place_that_was_left_out_the_surface_is_doubted():
    places = measured(12, seed=3)
    step = places[4]
    places[4] = Focused(step.x_m, step.y_m, step.time_s, step.working_distance_m - 30e-6, SIGMA_M)
    surface = fit_surface(places, EXPECTED)
    assert surface.doubted(step.x_m + 1e-6, step.y_m, places)
    assert not surface.doubted(places[5].x_m, places[5].y_m, places)
    # Looked for again there, and as the surface says: then it had been dust.
    again = Focused(step.x_m, step.y_m, 300.0, truth(step.x_m, step.y_m, 300.0), SIGMA_M)
    surface = fit_surface([*places, again], EXPECTED)
    assert surface.rejected == (4,)
    assert not surface.doubted(step.x_m, step.y_m, [*places, again])


def test_with_too_few_places_nobody_is_left_out():
    """Of two that differ, nobody knows which one is wrong."""
    places = [Focused(0.0, 0.0, 0.0, 5e-3, SIGMA_M), Focused(0.0, 0.0, 1.0, 5.1e-3, SIGMA_M)]
    surface = fit_surface(places, EXPECTED)
    assert surface.rejected == ()
    assert surface.at(0.0, 0.0, 1.0)[1] > 10e-6


def test_no_place_is_no_surface():
    with pytest.raises(ValueError, match="one place"):
        fit_surface([], EXPECTED)


def test_what_the_others_predict_is_told_from_sums_over_all():
    places = [replace(place, sigma_m=SIGMA_M / 2) for place in measured(14, seed=1)]
    smooth = replace(EXPECTED, step_m=1e-12)
    contradictions = _contradictions(places, smooth)
    for index, place in enumerate(places):
        others = fit_surface(places[:index] + places[index + 1 :], smooth)
        assert others.rejected == ()
        predicted_m, sigma_m = others.at(place.x_m, place.y_m, place.time_s)
        off_m = abs(place.working_distance_m - predicted_m)
        wanted = off_m / np.sqrt(sigma_m**2 - others.uneven_m2 + place.sigma_m**2)
        assert contradictions[index] == pytest.approx(wanted, rel=1e-5)


def test_over_a_round_step_nothing_is_sure():
    """No straight edge parts the places; a third of them is left out, and the others disagree."""
    places = [
        replace(
            place,
            working_distance_m=place.working_distance_m
            + 200e-6 * (np.hypot(place.x_m, place.y_m) < 7e-4),
        )
        for place in measured(300)
    ]
    surface = fit_surface(places, EXPECTED)
    assert len(surface.rejected) == 102
    assert min(surface.at(place.x_m, place.y_m, 800.0)[1] for place in places) > 10e-6


def lifted(places: list[Focused], direction: float, at: float, height_m: float) -> list[Focused]:
    """The places, those beyond an edge higher."""
    x, y = np.cos(direction) / REACH_M, np.sin(direction) / REACH_M
    return [
        replace(
            place,
            working_distance_m=place.working_distance_m
            + height_m * (x * place.x_m + y * place.y_m > at),
        )
        for place in places
    ]


@pytest.mark.parametrize("at", [-0.5, 0.0, 0.5])
@pytest.mark.parametrize("direction", [0.0, 0.8, 1.57, 2.4])
def test_an_edge_is_found_and_both_sides_are_predicted(direction: float, at: float):
    surface = fit_surface(lifted(measured(40), direction, at, 40e-6), EXPECTED)
    assert surface.rejected == ()
    assert surface.steps.likeliest is not None
    x, y = REACH_M * np.cos(direction), REACH_M * np.sin(direction)
    for along in np.arange(-0.9, 1.0, 0.1):
        predicted_m, sigma_m = surface.at(along * x, along * y, 800.0)
        off_m = abs(predicted_m - truth(along * x, along * y, 800.0) - 40e-6 * (along > at))
        assert off_m < 4 * sigma_m
        assert sigma_m < 1e-6 or abs(along - at) < 0.35  # the distance of the places
    assert surface.at(at * x, at * y, 800.0)[1] > 5e-6
    assert surface.tilt[0] == pytest.approx(0.03, abs=0.003)


@pytest.mark.parametrize("count", [4, 7, 15, 40])
def test_a_smooth_surface_has_no_edge(count: int):
    for seed in range(50):
        assert fit_surface(measured(count, seed), EXPECTED).steps.likeliest is None


def test_dust_is_left_out_beside_an_edge_too():
    places = lifted(measured(40), 0.8, 0.1, 40e-6)
    for index in (4, 17):
        dust_m = places[index].working_distance_m - 30e-6
        dusty = [*places[:index], replace(places[index], working_distance_m=dust_m)]
        dusty += places[index + 1 :]
        assert fit_surface(dusty, EXPECTED).rejected == (index,)


def test_what_the_focusings_leave_unexplained_predictions_are_as_uncertain_as():
    """A rough specimen is no better known between the places for there being many."""
    random = np.random.default_rng(0)
    rough = [
        replace(place, working_distance_m=place.working_distance_m + 1e-6 * random.normal())
        for place in measured(60)
    ]
    assert fit_surface(rough, EXPECTED).at(0.1e-3, 0.2e-3, 0.0)[1] == pytest.approx(1e-6, rel=0.3)
