import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import j1

from semagent_drivers.simulated.beam import Beam, Covariance, blur, fast_size, jinc, shift_transfer
from semagent_drivers.simulated.options import Kernel

SLOPE = 2.5e5  # 5 mrad and 10 nm pixels
MICROMETRES = st.floats(-40.0, 40.0)


def moments(image: np.ndarray) -> Covariance:
    """Second moments of a point image about its centre of mass."""
    weight = image.astype(np.float64) / image.sum(dtype=np.float64)
    y, x = np.indices(image.shape)
    x = x - (weight * x).sum()
    y = y - (weight * y).sum()
    return Covariance((weight * x * x).sum(), (weight * x * y).sum(), (weight * y * y).sum())


def point() -> np.ndarray:
    image = np.zeros((128, 128), np.float32)
    image[64, 64] = 1
    return image


def test_jinc_agrees_with_the_bessel_function() -> None:
    q = np.linspace(1e-3, 199.9, 50_001, dtype=np.float32)
    expected = 2 * j1(q.astype(np.float64)) / q
    assert np.abs(jinc(q) - expected).max() < 2e-5


def test_jinc_at_the_ends() -> None:
    ends = jinc(np.array([0.0, 200.0, 1e6], np.float32))
    assert ends.tolist() == [1.0, 0.0, 0.0]


@given(MICROMETRES, MICROMETRES, MICROMETRES)
def test_covariance_is_the_matrix_formula(z: float, a1: float, a2: float) -> None:
    beam = Beam(SLOPE, 0.7, a1 * 1e-6, a2 * 1e-6)
    astigmatism = np.array([[a1, a2], [a2, -a1]]) * 1e-6
    square = (z * 1e-6 * np.eye(2) + astigmatism) @ (z * 1e-6 * np.eye(2) + astigmatism)
    expected = SLOPE**2 * square + 0.7**2 * np.eye(2)
    xx, xy, yy = beam.covariance(z * 1e-6)
    np.testing.assert_allclose([[xx, xy], [xy, yy]], expected, rtol=1e-9, atol=1e-9)


@given(MICROMETRES, MICROMETRES, MICROMETRES)
def test_ellipse_is_the_eigensystem(z: float, a1: float, a2: float) -> None:
    xx, xy, yy = covariance = Beam(SLOPE, 0.7, a1 * 1e-6, a2 * 1e-6).covariance(z * 1e-6)
    major, minor, angle = covariance.ellipse()
    low, high = np.linalg.eigvalsh([[xx, xy], [xy, yy]])
    assert major == pytest.approx(math.sqrt(high), rel=1e-6)
    assert minor == pytest.approx(math.sqrt(low), rel=1e-3)
    assert -math.pi / 2 < angle <= math.pi / 2
    direction = np.array([math.cos(angle), math.sin(angle)])
    along = direction @ np.array([[xx, xy], [xy, yy]]) @ direction
    assert along == pytest.approx(high, rel=1e-6)


@pytest.mark.parametrize("kernel", ["disc", "gaussian"])
@pytest.mark.parametrize(("z", "a1", "a2"), [(0, 0, 0), (12, 0, 0), (-8, 3, 0), (8, 1, -4)])
def test_a_point_gets_the_moments_of_the_formula(
    kernel: Kernel, z: float, a1: float, a2: float
) -> None:
    beam = Beam(SLOPE, 0.8, a1 * 1e-6, a2 * 1e-6, kernel)
    spread = blur(point(), beam, z * 1e-6)
    np.testing.assert_allclose(moments(spread), beam.covariance(z * 1e-6), rtol=0.01, atol=0.02)


def test_the_disc_is_a_uniform_ellipse() -> None:
    beam = Beam(SLOPE, 1.0, a1_m=6e-6)
    spread = blur(point(), beam, 20e-6)
    y, x = np.indices(spread.shape) - 64
    # Semi-axes are twice the standard deviations: 2 * 0.25 px/um * (20 +- 6) um.
    radius = np.sqrt((x / 13.0) ** 2 + (y / 7.0) ** 2)
    area = math.pi * 13 * 7
    np.testing.assert_allclose(spread[radius < 0.7], 1 / area, rtol=0.02)
    assert np.abs(spread[radius > 1.4]).max() < 0.005 / area


def test_over_and_under_focus_turn_the_ellipse_by_a_right_angle() -> None:
    beam = Beam(SLOPE, 0.7, a1_m=2e-6, a2_m=1e-6)
    *_, over = beam.covariance(8e-6).ellipse()
    *_, under = beam.covariance(-8e-6).ellipse()
    assert abs(over - under) == pytest.approx(math.pi / 2)


def test_without_astigmatism_the_sign_of_the_defocus_is_invisible() -> None:
    image = np.random.default_rng(1).random((64, 80), np.float32)
    beam = Beam(SLOPE, 0.7)
    np.testing.assert_array_equal(blur(image, beam, 6e-6), blur(image, beam, -6e-6))


def test_disc_and_gaussian_agree_at_low_frequency_only() -> None:
    shape = (256, 256)
    disc = Beam(SLOPE, 0.7, 1e-6, 2e-6, "disc").transfer(8e-6, shape)
    gaussian = Beam(SLOPE, 0.7, 1e-6, 2e-6, "gaussian").transfer(8e-6, shape)
    assert disc[0, 0] == gaussian[0, 0] == 1
    np.testing.assert_allclose(disc[:4, :4], gaussian[:4, :4], atol=2e-3)
    assert disc.min() < -0.05  # the disc reverses contrast, a Gaussian never does
    assert gaussian.min() >= 0


@pytest.mark.parametrize("shape", [(33, 47), (64, 64), (40, 17)])
@pytest.mark.parametrize("defocus_m", [0.0, 5e-6, 60e-6])
def test_blur_keeps_shape_type_and_uniform_images(shape: tuple[int, int], defocus_m: float) -> None:
    image = np.full(shape, 0.37, np.float32)
    blurred = blur(image, Beam(SLOPE, 0.7), defocus_m)
    assert blurred.shape == shape
    assert blurred.dtype == np.float32
    assert blurred.flags.c_contiguous
    np.testing.assert_allclose(blurred, 0.37, atol=1e-5)


def test_blur_shifts_the_content_by_fractions() -> None:
    beam = Beam(SLOPE, 1.5)
    still = blur(point(), beam, 0.0)
    moved = blur(point(), beam, 0.0, shift_px=(3.25, -2.5))
    y, x = np.indices(still.shape)
    centre = [(moved * axis).sum() - (still * axis).sum() for axis in (x, y)]
    np.testing.assert_allclose(centre, [3.25, -2.5], atol=1e-3)


def test_shift_transfer_rolls_whole_pixels() -> None:
    image = np.random.default_rng(2).random((32, 48), np.float32)
    shifted = np.fft.irfft2(np.fft.rfft2(image) * shift_transfer(5, -3, image.shape), s=image.shape)
    np.testing.assert_allclose(shifted, np.roll(image, (-3, 5), (0, 1)), atol=1e-5)


@given(st.integers(1, 5000))
def test_fast_size_is_even_and_not_smaller(size: int) -> None:
    assert fast_size(size) >= size
    assert fast_size(size) % 2 == 0
    assert fast_size(size) < 1.2 * size + 4


def test_little_light_falls_beyond_the_reach() -> None:
    kernels: list[Kernel] = ["disc", "gaussian"]
    for kernel in kernels:
        beam = Beam(SLOPE, 0.7, a1_m=3e-6, kernel=kernel)
        spread = blur(point(), beam, 10e-6)
        y, x = np.indices(spread.shape) - 64
        outside = np.hypot(x, y) > beam.reach_px(10e-6)
        assert abs(spread[outside].sum()) < 0.01
