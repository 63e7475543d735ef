"""The peers' methods do what their originals do, where it is easy to say what that is."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from focusing import beads, measures, methods, searches
from focusing.correlation import estimators
from focusing.mapfost import TEST, Posterior
from focusing.scope import Scope
from focusing.trials import Fields, Trial, make_trial

CONTEXT = methods.Context(data=Path(), cache=Path(), engine="sharpness", control={})


@pytest.mark.parametrize(
    "find",
    [
        searches.golden_section,
        searches.brent,
        searches.sweep,
        searches.coarse_to_fine,
        searches.binary,
    ],
)
@pytest.mark.parametrize("place", [-31.3, 0.4, 17.9])
def test_a_search_finds_a_smooth_peak(find: searches.Find, place: float) -> None:
    looked: list[float] = []

    def value(position: float) -> float:
        looked.append(position)
        return 1 / (1 + ((position - place) / 8) ** 2)

    assert find(value, -48.0, 48.0) == pytest.approx(place, abs=1.0)
    assert len(looked) < searches.MAX_EVALUATIONS
    assert min(looked) >= -48
    assert max(looked) <= 48


def test_a_parabola_through_three_points_of_a_parabola_is_exact() -> None:
    positions = np.arange(-4.0, 5.0, 2.0)
    assert searches.vertex(positions, -((positions - 0.7) ** 2)) == pytest.approx(0.7)
    assert searches.vertex(positions, positions) == 4.0


@pytest.fixture(scope="module")
def easy(fields: Fields) -> Trial:
    """Much dose, some astigmatism, a real micrograph."""
    trials = (make_trial("focus", number, fields, seed=0) for number in range(400))
    return next(
        each
        for each in trials
        if each.dose == 400 and each.image is not None and 1 < np.hypot(*each.astigmatism) < 3
    )


def test_mapfost_reads_defocus_and_astigmatism_from_two_frames(easy: Trial) -> None:
    scope = Scope(easy)
    at = 3.0 - easy.start
    scope.go(at - TEST)
    low = scope.image()
    scope.go(at + TEST)
    z, a1, a2 = Posterior(low, scope.image(), TEST, 0.25).minimum()
    assert z == pytest.approx(3.0, abs=0.7)
    assert (a1, a2) == pytest.approx(easy.astigmatism, abs=0.7)


def test_the_heuristic_tells_sharp_from_blurred_and_along_from_across(easy: Trial) -> None:
    scope = Scope(easy)
    scope.go(-easy.start)
    scope.stigmate(-easy.astigmatism[0], -easy.astigmatism[1])
    sharp, _, _ = estimators(scope.image())
    scope.go(6.0 - easy.start)
    blurred, before, _ = estimators(scope.image())
    assert blurred < sharp
    scope.stigmate(3.0, 0.0)
    _, along, _ = estimators(scope.image())
    scope.stigmate(-6.0, 0.0)
    _, across, _ = estimators(scope.image())
    assert (along - before) * (across - before) < 0


def test_a_sweep_ends_a_frame_after_its_last_whatever_others_do(easy: Trial) -> None:
    known = methods.methods(CONTEXT)
    sweeps = [each for key, each in known.items() if key.startswith("sweep-")]
    assert len(sweeps) == len(measures.CLASSICAL)
    one, other = (known[key].make()(easy) for key in ("sweep-vollath-f4", "sweep-brenner"))
    again = known["sweep-vollath-f4"].make()(easy)
    assert (one.frames, one.moves, one.final) == (again.frames, again.moves, again.final)
    assert one.frames == other.frames == 50
    assert one.dose == other.dose == pytest.approx(50 * easy.dose)
    assert min(abs(one.final), abs(other.final)) < searches.SWEEP_STEP


def test_the_searches_of_others_are_given_the_classical_measure_that_stands_noise_best() -> None:
    names = methods.names()
    for search in ("golden section", "Brent", "coarse to fine"):
        assert {f"{search}, Vollath F4", f"{search}, smoothed Tenengrad"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.skipif(not beads.available(), reason="pymmcore and mm-test-adapters are not installed")
def test_odemis_finds_the_beads_of_a_camera(fields: Fields) -> None:
    odemis = methods.methods(CONTEXT)["odemis-camera"]
    assert odemis.name == "Odemis, binary"
    assert odemis.make()(make_trial("beads", 1, fields, seed=1)).success


@pytest.mark.skipif(not beads.available(), reason="pymmcore and mm-test-adapters are not installed")
def test_beads_of_micro_managers_demo_camera_are_sharp_at_focus(fields: Fields) -> None:
    trial = make_trial("beads", 0, fields, seed=0)
    with contextlib.closing(beads.open_scope(trial)) as scope:
        assert scope.error == pytest.approx(trial.start, abs=0.05)
        blurred = scope.image()
        scope.go(-trial.start)
        assert scope.error == pytest.approx(0, abs=0.05)
        sharp = scope.image()
        assert (scope.frames, scope.moves, scope.dose) == (2, 1, 2.0)
    for score in map(measures.classical, ("Tenengrad", "Vollath F4")):
        assert score(sharp) > score(blurred)
