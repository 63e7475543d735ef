"""The way to a target."""

import pytest

from semagent.errors import CommandRefusedError, MicroscopeError
from semagent.legs import legs, put_back


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


def test_a_way_back_that_is_refused_goes_straight():
    gone = []

    def way(straight: bool) -> None:
        gone.append(straight)
        if not straight:
            raise CommandRefusedError("no travel left")

    put_back(way)
    assert gone == [False, True]


def test_ways_back_do_not_depend_on_each_other():
    gone = []

    def refused(_straight: bool) -> None:
        raise CommandRefusedError("the gate is closed")

    def broken(_straight: bool) -> None:
        raise MicroscopeError("the link is gone")

    with pytest.raises(MicroscopeError, match=r"put back: the gate is closed; the link is gone$"):
        put_back(refused, broken, gone.append)
    assert gone == [False]
    with pytest.raises(CommandRefusedError, match=r"put back: the gate is closed$"):
        put_back(refused, refused)
