"""The posterior of a peak: calibrated, robust, and honest about flat curves."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semagent.control.posterior import Peak, locate_peak

SPAN = (-60.0, 60.0)


def curve(z: np.ndarray, focus: float, width: float = 4.5, gain: float = 1.0) -> np.ndarray:
    return -gain * np.log1p(((z - focus) / width) ** 2)


def case(random: np.random.Generator) -> tuple[np.ndarray, float, float, float]:
    """Places as a search visits them, the focus, and the width and gain of its curve."""
    focus = random.uniform(-30, 30)
    count = random.integers(5, 10)
    around = focus + 6 * random.normal(size=count - 4)
    flanks = focus + np.array([-4.0, 4.0]) + random.normal(size=2)
    places = np.concatenate([[0.0, 8.0], around, flanks])
    return places, focus, np.exp(random.normal(np.log(4.5), 0.5)), random.uniform(0.4, 1.4)


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Over curves that are not quite of the model, with scatter the engine does not know of."""
    random = np.random.default_rng(7)
    held = 0
    for _ in range(300):
        z, focus, width, gain = case(random)
        sigma = np.full(z.size, random.choice([0.005, 0.02, 0.05]))
        widths = width * np.where(z > focus, random.uniform(0.9, 1.1), 1.0)
        y = -gain * np.log1p(((z - focus) / widths) ** 2)
        y += random.normal(0, np.hypot(sigma, random.uniform(0, 0.04)))
        peak = locate_peak(z, y, sigma, SPAN)
        held += peak.low <= focus <= peak.high
    assert 0.80 <= held / 300 <= 0.97


def test_errors_agree_with_sigma() -> None:
    random = np.random.default_rng(8)
    ratios = []
    for _ in range(150):
        z, focus, width, gain = case(random)
        y = curve(z, focus, width, gain) + random.normal(0, 0.03, z.size)
        peak = locate_peak(z, y, np.full(z.size, 0.03), SPAN)
        ratios.append((peak.mean - focus) / peak.sigma)
    assert 0.3 < float(np.std(ratios)) < 1.3
    assert np.mean(np.abs(ratios) > 3) < 0.03


def test_one_outlier_does_not_pull_the_estimate() -> None:
    z = np.array([-20.0, -10, -5, 0, 5, 10, 20])
    y = curve(z, 1.0)
    y[1] -= 1.0
    peak = locate_peak(z, y, np.full(z.size, 0.02), SPAN)
    assert peak.mean == pytest.approx(1.0, abs=0.5)


def test_flat_curve_is_not_a_peak() -> None:
    random = np.random.default_rng(9)
    odds = [
        locate_peak(
            random.uniform(-40, 40, 7), random.normal(0, 0.03, 7), np.full(7, 0.03), SPAN
        ).log_odds
        for _ in range(200)
    ]
    assert np.median(odds) < -1
    assert np.quantile(odds, 0.99) < 3


def test_curve_with_a_minimum_has_its_peak_somewhere_else() -> None:
    z = np.linspace(-10, 10, 7)
    peak = locate_peak(z, -curve(z, 0.0), np.full(7, 0.02), SPAN)
    assert peak.sigma > 8


def test_single_frame_says_nothing() -> None:
    peak = locate_peak(np.array([3.0]), np.array([-1.0]), np.array([0.02]), SPAN)
    assert peak.sigma > 25
    assert abs(peak.log_odds) < 0.1


def test_rising_flank_points_up() -> None:
    z = np.array([0.0, 8.0])
    peak = locate_peak(z, curve(z, 30.0), np.full(2, 0.005), SPAN)
    assert peak.mean > 8
    assert peak.low > 0


@settings(max_examples=30, deadline=None)
@given(
    offset=st.floats(-20, 20),
    level=st.floats(-10, 10),
    focus=st.floats(-15, 15),
    mirror=st.booleans(),
)
def test_shift_level_and_mirror_do_not_matter(
    offset: float, level: float, focus: float, mirror: bool
) -> None:
    z = np.array([-20.0, -8, -3, 2, 9, 21]) + 0.1
    y = curve(z, focus)
    sigma = np.full(z.size, 0.02)
    plain = locate_peak(z, y, sigma, SPAN)
    sign = -1.0 if mirror else 1.0
    low, high = sorted(sign * edge + offset for edge in SPAN)
    moved = locate_peak(sign * z + offset, y + level, sigma, (low, high))
    assert moved.mean == pytest.approx(sign * plain.mean + offset, abs=0.02)
    assert moved.sigma == pytest.approx(plain.sigma, rel=0.05)
    assert moved.log_odds == pytest.approx(plain.log_odds, abs=0.05)


def test_peak_is_ordered_and_finite() -> None:
    random = np.random.default_rng(3)
    for count in range(1, 41):
        peak = locate_peak(
            random.uniform(-60, 60, count),
            random.normal(0, 2, count),
            random.uniform(0, 1, count),
            SPAN,
        )
        assert isinstance(peak, Peak)
        assert SPAN[0] - 1 <= peak.low <= peak.high <= SPAN[1] + 1
        assert peak.sigma > 0
        assert math.isfinite(peak.log_odds)


@pytest.mark.parametrize("count", [0, 3])
def test_lengths_have_to_match(count: int) -> None:
    with pytest.raises(ValueError, match="one value and one sigma a position"):
        locate_peak(np.zeros(count), np.zeros(count + (count > 0)), np.zeros(count), SPAN)
