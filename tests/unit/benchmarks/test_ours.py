"""semagent runs in the benchmark as it runs for a user: through roles, gate and driver."""

from unittest.mock import MagicMock

import pytest
from focusing.ours import Ours, _hold
from focusing.trials import Fields, make_trial


@pytest.fixture(scope="module")
def ours() -> Ours:
    return Ours("ours", "sharpness", {})


def test_it_focuses(fields: Fields, ours: Ours) -> None:
    trials = (make_trial("focus", number, fields, seed=0) for number in range(100))
    trial = next(each for each in trials if each.dose == 400 and each.astigmatism == (0, 0))
    outcome = ours(trial)
    assert outcome.success
    assert outcome.start == pytest.approx(trial.start)
    assert outcome.frames == len(outcome.decide_s) >= 3
    assert outcome.moves > 0
    assert 0 < outcome.dose <= trial.dose * outcome.frames * (1 + 1e-9)
    assert outcome.covered is not None


def test_it_does_not_move_on_noise(fields: Fields, ours: Ours) -> None:
    outcome = ours(make_trial("noise", 0, fields, seed=0))
    assert outcome.moves == 0
    assert outcome.final == pytest.approx(outcome.start, abs=0.1)  # the specimen itself drifts
    assert outcome.status == "held"


@pytest.mark.parametrize(("before", "after", "held"), [(0.95, 1.04, 1), (0.98, 1.08, 0)])
def test_a_frame_is_as_far_off_as_in_the_middle_of_its_exposure(
    monkeypatch: pytest.MonkeyPatch, before: float, after: float, held: int
) -> None:
    monkeypatch.setattr("focusing.ours.HOLD_FRAMES", 1)
    monkeypatch.setattr("focusing.ours._focus", lambda *_: None)
    scope, lockstep = MagicMock(dose=0.0, error=before), MagicMock()
    lockstep.acquire.step.side_effect = lambda: setattr(scope, "error", after)
    assert _hold(lockstep, MagicMock(decide_s=[]), scope)[0] == held


def test_hold_mode_counts_the_frames_of_the_user(
    fields: Fields, ours: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("focusing.ours.HOLD_FRAMES", 30)
    outcome = ours(make_trial("hold", 0, fields, seed=0))
    assert outcome.held_frames is not None
    assert 0 <= outcome.held_frames <= 30
    assert outcome.extra_dose is not None
    assert outcome.extra_dose >= -1e-6
    assert outcome.frames >= 30
