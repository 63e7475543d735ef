"""The way to a target."""

import pytest

from semagent.legs import legs


def test_here_is_no_way():
    assert legs(1.0, 1.0) == ()


def test_from_below_it_is_direct():
    assert legs(0.0, 3.0, approach=1.0) == (3.0,)


def test_from_above_it_goes_too_far_and_comes_back():
    assert legs(5.0, 3.0, approach=1.0) == (2.0, 3.0)


def test_not_beyond_the_lowest():
    assert legs(5.0, 3.0, approach=1.0, lowest=2.5) == (2.5, 3.0)
    assert legs(5.0, 3.0, approach=1.0, lowest=3.0) == (3.0,)


def test_no_leg_is_longer_than_allowed():
    assert legs(0.0, 3.0, max_step=1.0) == (1.0, 2.0, 3.0)
    assert legs(0.0, 2.5, max_step=1.0) == pytest.approx((2.5 / 3, 5 / 3, 2.5))
