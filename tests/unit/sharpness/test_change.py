import itertools
import math

import numpy as np
import pytest

from semagent.spectrum import measure_spectrum
from semagent_engines.sharpness.change import SpectralChange, fit_blur_change

from .conftest import Micrograph

SIGMAS_PX = (1.0, 2.5, 5.0, 10.0)


def change(
    micrograph: Micrograph, *blurs: tuple[float, ...], noise: float, gaussian: bool = False
) -> SpectralChange:
    first, second = (micrograph(*blur, noise=noise, gaussian=gaussian) for blur in blurs)
    return fit_blur_change(measure_spectrum(first), measure_spectrum(second))


@pytest.mark.parametrize("noise", [2.0, 12.0])
@pytest.mark.parametrize("gaussian", [False, True], ids=["disc", "gaussian"])
@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(SIGMAS_PX, 2)))
def test_the_change_of_a_round_blur_is_found(
    micrograph: Micrograph, one: float, other: float, gaussian: bool, noise: float
) -> None:
    found = change(micrograph, (one,), (other,), noise=noise, gaussian=gaussian)
    truth = other**2 - one**2
    assert found.difference_px2[0] == pytest.approx(truth, rel=0.25)
    assert abs(found.difference_px2[0] - truth) < 3 * found.std_px2[0]


def test_its_direction_is_found(micrograph: Micrograph) -> None:
    angle = math.radians(30)
    found = change(micrograph, (2.0,), (5.0, 3.0, angle), noise=4.0)
    strength = (5.0**2 - 3.0**2) / 2
    assert found.difference_px2[1] == pytest.approx(strength * math.cos(2 * angle), rel=0.2)
    assert found.difference_px2[2] == pytest.approx(strength * math.sin(2 * angle), rel=0.2)


def test_the_other_way_round_it_changes_its_sign(micrograph: Micrograph) -> None:
    frames = [measure_spectrum(micrograph(blur, noise=4.0)) for blur in (1.5, 4.0)]
    there, back = fit_blur_change(*frames), fit_blur_change(*reversed(frames))
    np.testing.assert_allclose(there.difference_px2, -back.difference_px2, rtol=1e-3, atol=1e-3)


def test_frames_without_contrast_do_not_break_it() -> None:
    flat = measure_spectrum(np.full((128, 128), 7, np.uint8))
    found = fit_blur_change(flat, flat)
    assert np.isfinite(found.difference_px2).all()
    assert np.isfinite(found.std_px2).all()
