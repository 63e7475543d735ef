"""Mixtures of modes: weights, intervals, mirror images."""

import numpy as np
import pytest

from semagent.control.fit import BEAM, Modes
from semagent.control.posterior import INFLATION, LEAST_STD, combine, mirrored


def modes(*places: float, log_evidence: list[float] | None = None, std: float = 1.0) -> Modes:
    beam = np.zeros((len(places), BEAM))
    beam[:, 0] = places
    return Modes(
        beam=beam,
        covariance=np.tile(np.eye(BEAM) * std**2, (len(places), 1, 1)),
        log_evidence=np.array(log_evidence or [0.0] * len(places)),
        start=np.arange(len(places)),
        misfit=np.zeros(len(places)),
    )


def test_one_mode_is_a_normal_distribution() -> None:
    posterior = combine(modes(5.0), 4)
    std = np.hypot(INFLATION, LEAST_STD)
    assert posterior.mean == 5.0
    assert posterior.std == pytest.approx(std)
    low, high = posterior.interval90()
    assert (low, high) == pytest.approx((5 - 1.6449 * std, 5 + 1.6449 * std), abs=0.01)
    assert posterior.below(5.0) == pytest.approx(0.5)


def test_two_places_are_kept_apart_and_the_interval_spans_both() -> None:
    posterior = combine(modes(-20.0, 20.0, std=0.1), 4)
    assert posterior.weights.tolist() == [0.5, 0.5]
    low, high = posterior.interval90()
    assert low < -19.5
    assert high > 19.5


def test_the_same_place_twice_counts_once_and_the_likelier_stands_for_both() -> None:
    posterior = combine(modes(1.1, 1.0, log_evidence=[-3.0, 0.0], std=0.1), 4)
    assert posterior.focus.tolist() == [1.0]


def test_evidence_sets_the_weights_and_what_is_hopeless_is_dropped() -> None:
    posterior = combine(modes(-20.0, 0.0, 20.0, log_evidence=[-2.0, 0.0, -500.0], std=0.1), 4)
    assert posterior.focus.tolist() == [0.0, -20.0]
    assert posterior.weights[0] > posterior.weights[1] > 0


def test_no_more_modes_than_asked_for() -> None:
    assert len(combine(modes(0.0, 10.0, 20.0, 30.0, std=0.1), 2).weights) == 2


def test_a_mirror_image_is_as_far_away_with_astigmatism_the_other_way() -> None:
    beam = np.array([[7.0, 1.0, -2.0, -0.7, -0.4, -3.0]])
    images = mirrored(beam, [0.0, 5.0])
    assert images[:, 0].tolist() == [-7.0, 3.0]
    assert images[:, 1].tolist() == [-1.0, -1.0]
    assert images[:, 2].tolist() == [2.0, 2.0]
    assert images[:, 3:].tolist() == [[-0.7, -0.4, -3.0]] * 2
