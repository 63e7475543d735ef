"""All methods start from the same state, and a state depends on the seed and its number alone."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from focusing.scope import Scope
from focusing.trials import DOSES, EXPERIMENTS, MAX_ASTIGMATISM, MAX_START, Fields, make_trial


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_trial_is_the_same_whenever_it_is_asked_for(fields: Fields, experiment: str) -> None:
    first = [make_trial(experiment, number, fields, seed=3) for number in range(30)]
    again = [make_trial(experiment, number, fields, seed=3) for number in reversed(range(30))]
    assert first == again[::-1]
    assert first != [make_trial(experiment, number, fields, seed=4) for number in range(30)]


def test_two_parts_of_a_benchmark_may_prepare_the_fields_at_once(
    data: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: Fields(data, "train", cache), range(2))
    assert first.sources == second.sources
    assert [path.name for path in cache.iterdir()] == [first.name]


def test_fields_of_other_micrographs_are_prepared_anew(data: Path, tmp_path: Path) -> None:
    cache, other = tmp_path / "cache", tmp_path / "data"
    before = Fields(data, "train", cache)
    shutil.copytree(data, other)
    assert Fields(other, "train", cache).name == before.name
    first, second, *_ = sorted(other.rglob("*.png"))
    shutil.copy(second, first)
    after = Fields(other, "train", cache)
    assert {path.name for path in cache.iterdir()} == {before.name, after.name}
    assert len(list(cache.iterdir())) == 2


def test_trials_cover_what_they_claim(fields: Fields) -> None:
    trials = [make_trial("focus", number, fields, seed=0) for number in range(400)]
    starts = np.array([trial.start for trial in trials])
    astigmatism = np.array([np.hypot(*trial.astigmatism) for trial in trials])
    assert {trial.dose for trial in trials} == set(DOSES)
    assert abs(starts).max() <= MAX_START
    assert starts.min() < -0.9 * MAX_START
    assert starts.max() > 0.9 * MAX_START
    assert 0.9 * MAX_ASTIGMATISM < astigmatism.max() <= MAX_ASTIGMATISM
    assert 0.4 < np.mean(astigmatism == 0) < 0.6
    assert 0.5 < np.mean([trial.image is not None for trial in trials]) < 0.7
    assert {trial.source for trial in trials} >= {"axons", "bacterial-cellulose", "particles"}


def test_the_microscope_of_a_trial_is_in_its_state(fields: Fields) -> None:
    for number in range(6):
        trial = make_trial("focus", number, fields, seed=0)
        scope = Scope(trial)
        assert scope.error == pytest.approx(trial.start)
        assert scope.astigmatism_px == pytest.approx(np.hypot(*trial.astigmatism) / 2)
        scope.frame()
        assert scope.dose == pytest.approx(trial.dose)


def test_two_methods_that_do_the_same_see_the_same(fields: Fields) -> None:
    trial = make_trial("focus", 1, fields, seed=0)
    frames = []
    for _ in range(2):
        scope = Scope(trial)
        scope.go(5.0)
        frames.append([scope.frame().pixels for _ in range(2)])
    np.testing.assert_array_equal(frames[0], frames[1])


def test_going_to_focus_and_stigmating_removes_the_blur(fields: Fields) -> None:
    trials = (make_trial("focus", number, fields, seed=0) for number in range(100))
    trial = next(each for each in trials if abs(each.astigmatism[0]) > 1)
    scope = Scope(trial)
    scope.go(-trial.start)
    scope.stigmate(-trial.astigmatism[0], -trial.astigmatism[1])
    assert abs(scope.error) < 0.15
    assert scope.astigmatism_px == pytest.approx(0, abs=1e-6)
    assert (scope.frames, scope.moves) == (0, 1)


def test_no_method_looks_beyond_the_limit(fields: Fields) -> None:
    scope = Scope(make_trial("focus", 0, fields, seed=0))
    scope.go(1000.0)
    assert scope.position == pytest.approx(scope.limit)
