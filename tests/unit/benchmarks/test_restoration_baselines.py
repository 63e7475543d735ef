"""The classical restorations are given what they can do."""

import numpy as np
import pytest
from restoration_baselines import (
    RICHARDSON_LUCY_STOPS,
    WIENER_WEIGHTS,
    Image,
    Kernel,
    richardson_lucy,
    wiener,
)

SHAPE = (64, 64)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel(np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32), SHAPE)


@pytest.fixture
def image() -> Image:
    return np.random.default_rng(0).uniform(80, 120, SHAPE).astype(np.float32)


def test_wiener_keeps_the_brightness_of_the_picture(image: Image, kernel: Kernel) -> None:
    restored = list(wiener(image, kernel))
    assert len(restored) == len(WIENER_WEIGHTS)
    for each in restored:
        assert each.mean() == pytest.approx(image.mean(), abs=0.5)


def test_richardson_lucy_gives_the_picture_at_each_stop(image: Image, kernel: Kernel) -> None:
    assert len(list(richardson_lucy(image, kernel))) == len(RICHARDSON_LUCY_STOPS)
    (last,) = richardson_lucy(image, kernel, (2,))
    np.testing.assert_array_equal(last, next(iter(richardson_lucy(image, kernel))))
