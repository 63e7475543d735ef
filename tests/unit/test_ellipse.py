"""One blur ellipse from several readings."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semagent.ellipse import SHARED, ellipse_of, joint_ellipse, parameters_of
from semagent.types import BlurEllipse

ELLIPSES = st.builds(
    lambda minor, ratio, angle, sigma: BlurEllipse(
        major_px=minor * ratio, minor_px=minor, angle_rad=angle, log_sigma=sigma
    ),
    st.floats(0.3, 20),
    st.floats(1.01, 5),
    st.floats(-1.57, 1.57),
    st.floats(0.02, 1),
)


def ellipse(major: float, minor: float, angle: float = 0.0, log_sigma: float = 0.2) -> BlurEllipse:
    return BlurEllipse(major_px=major, minor_px=minor, angle_rad=angle, log_sigma=log_sigma)


@given(ELLIPSES)
def test_the_parameters_are_those_of_one_ellipse(one: BlurEllipse) -> None:
    again = ellipse_of(parameters_of(one), one.log_sigma)
    assert again.major_px == pytest.approx(one.major_px)
    assert again.minor_px == pytest.approx(one.minor_px)
    assert math.sin(again.angle_rad - one.angle_rad) == pytest.approx(0, abs=1e-6)
    assert again.log_sigma == one.log_sigma


def test_nothing_read_is_no_ellipse() -> None:
    assert joint_ellipse([]) is None


def test_readings_alike_agree_and_are_surer_by_what_they_do_not_share() -> None:
    joint = joint_ellipse([ellipse(2.0, 2.0), ellipse(4.0, 4.0)])
    assert joint is not None
    assert joint.major_px == joint.minor_px == pytest.approx(math.sqrt(8))
    assert joint.log_sigma == pytest.approx(0.2 * math.sqrt((1 + SHARED) / 2))


def test_reliefs_that_deceive_in_opposite_directions_cancel() -> None:
    joint = joint_ellipse([ellipse(3.0, 2.0), ellipse(3.0, 2.0, math.pi / 2)])
    assert joint is not None
    assert joint.major_px == pytest.approx(joint.minor_px)


def test_a_reading_that_only_knows_the_bias_is_left_out() -> None:
    sure, vague = ellipse(2.0, 1.5, 0.3, 0.2), ellipse(9.0, 3.0, 1.0, 0.21 / SHARED)
    joint = joint_ellipse([vague, sure])
    assert joint is not None
    assert joint.major_px == pytest.approx(sure.major_px)
    assert joint.angle_rad == pytest.approx(sure.angle_rad)
    assert joint.log_sigma == pytest.approx(sure.log_sigma)


@given(st.lists(ELLIPSES, min_size=1, max_size=4))
def test_it_is_never_less_sure_than_the_best_and_lies_between(readings: list[BlurEllipse]) -> None:
    joint = joint_ellipse(readings)
    assert joint is not None
    assert joint.log_sigma <= min(each.log_sigma for each in readings) * (1 + 1e-9)
    spreads = [parameters_of(each)[0] for each in readings]
    assert min(spreads) - 1e-9 <= parameters_of(joint)[0] <= max(spreads) + 1e-9


def test_its_uncertainty_is_that_of_errors_with_this_correlation() -> None:
    rng = np.random.default_rng(0)
    std = np.array([0.1, 0.13, 0.12])
    errors = rng.normal(0, math.sqrt(SHARED), (4000, 1)) + rng.normal(
        0, math.sqrt(1 - SHARED), (4000, 3)
    )
    sizes = np.exp(errors * std)
    joints = [
        joint_ellipse([ellipse(size, size, 0.0, s) for size, s in zip(row, std, strict=True)])
        for row in sizes
    ]
    found = [math.log(joint.major_px) for joint in joints if joint]
    assert np.std(found) == pytest.approx(joints[0].log_sigma if joints[0] else 0, rel=0.05)
