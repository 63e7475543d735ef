import numpy as np
from scipy.special import j1

from semagent.transfer import log_disc_transfer


def test_a_little_blur_is_that_of_a_disc() -> None:
    q = np.array([1e-3, 0.05, 0.3])
    radius = 2 * np.sqrt(q)
    np.testing.assert_allclose(
        log_disc_transfer(q)[0], 2 * np.log(2 * j1(radius) / radius), rtol=1e-3
    )
    np.testing.assert_allclose(log_disc_transfer(q)[0], -q, rtol=0.1)


def test_beyond_the_first_zero_the_rings_are_smoothed_to_their_mean() -> None:
    # The mean of 4 J1(r)² / r² is 4 / (pi r³) with r² = 4 q. A mean over ± 0.3 in ln r raises
    # that by sinh(0.9) / 0.9.
    far = np.array([40.0, 100.0, 200.0])
    np.testing.assert_allclose(
        np.exp(log_disc_transfer(far)[0]), 1.14 * 4 / (np.pi * (4 * far) ** 1.5), rtol=0.2
    )


def test_more_blur_lets_less_through_and_the_slope_says_how_much() -> None:
    log_q = np.log(np.geomspace(1e-3, 30, 300))
    transfer, slope = log_disc_transfer(np.exp(log_q))
    assert np.all(np.diff(transfer[log_q < np.log(3)]) < 0)
    numeric = np.gradient(transfer, log_q)
    np.testing.assert_allclose(slope[2:-2], numeric[2:-2], rtol=0.1, atol=0.05)


def test_any_q_has_a_finite_transfer() -> None:
    transfer, slope = log_disc_transfer(np.array([0.0, 1e9]))
    assert np.isfinite(transfer).all()
    assert np.isfinite(slope).all()
