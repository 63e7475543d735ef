import math
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from semagent.spectrum import measure_spectrum
from semagent.types import BlurEllipse, Pixels
from semagent_engines.sharpness.ellipse import fit_blur_ellipse

from .conftest import Micrograph

Grey = npt.NDArray[np.float64]


def fit(pixels: Pixels) -> BlurEllipse:
    return fit_blur_ellipse(measure_spectrum(pixels))


@pytest.mark.parametrize("sigma", [1.0, 2.0, 4.0, 8.0, 12.0])
@pytest.mark.parametrize("noise", [2.0, 12.0])
def test_a_round_blur_is_found_within_what_is_stated(
    micrograph: Micrograph, sigma: float, noise: float
) -> None:
    blur = fit(micrograph(sigma, noise=noise))
    for axis in (blur.major_px, blur.minor_px):
        assert abs(math.log(axis / sigma)) < 2 * blur.log_sigma
    # Near focus the specimen's own blur is as large: there it may say nothing.
    assert blur.log_sigma < (0.5 if sigma >= 2 else 1.2)


@pytest.mark.parametrize("degrees", [-80, -45, -10, 0, 30, 45, 60, 90])
def test_the_direction_of_the_longer_axis_is_found(micrograph: Micrograph, degrees: float) -> None:
    blur = fit(micrograph(5.0, 2.5, math.radians(degrees), seed=degrees + 90))
    off = (math.degrees(blur.angle_rad) - degrees + 90) % 180 - 90
    assert abs(off) < 8
    assert -math.pi / 2 < blur.angle_rad <= math.pi / 2
    assert 1.5 < blur.major_px / blur.minor_px < 3


def test_a_specimen_of_another_slope_is_not_taken_for_blur(micrograph: Micrograph) -> None:
    for slope in (2.4, 3.6):
        blur = fit(micrograph(3.0, slope=slope))
        assert abs(math.log(blur.major_px / 3)) < 2 * blur.log_sigma


def directed(strength: float, sigma_px: float) -> Pixels:
    """A field whose power along x is ``exp(4 strength)`` times that along y, with a round blur."""
    rng = np.random.default_rng(0)
    ky, kx = np.meshgrid(*(2 * np.pi * np.fft.fftfreq(n) for n in (512, 640)), indexing="ij")
    k2 = kx**2 + ky**2
    k2[0, 0] = 1.0
    log_power = -1.25 * np.log(k2) + 2 * strength * (kx**2 - ky**2) / k2 - sigma_px**2 * k2
    field = np.fft.ifft2(np.exp(log_power / 2) * np.fft.fft2(rng.normal(size=k2.shape))).real
    frame = 128 + 30 * (field - field.mean()) / field.std() + rng.normal(0, 3, field.shape)
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("strength", [-0.3, 0.3])
def test_a_specimen_that_is_stronger_in_one_direction_is_not_taken_for_astigmatism(
    strength: float,
) -> None:
    blur = fit(directed(strength, 3.0))
    assert blur.major_px / blur.minor_px < 1.12
    assert abs(math.log(blur.major_px / 3)) < 2 * blur.log_sigma


def test_near_focus_it_says_that_it_does_not_know(micrograph: Micrograph) -> None:
    sharp = fit(micrograph(0.3))
    soft = fit(micrograph(4.0))
    assert sharp.major_px < 1.2
    assert sharp.log_sigma > 2 * soft.log_sigma


def lattice(rows: Grey, columns: Grey) -> Grey:
    return 128 + 30 * np.sin(columns / 4 + rows / 6)


def scratch(rows: Grey, columns: Grey) -> Grey:
    return np.where(np.abs(rows - columns) < 2, 40.0, 120.0)


def text(rows: Grey, _columns: Grey) -> Grey:
    page = np.full(rows.shape, 235, np.uint8)
    for bottom in range(14, len(page), 18):
        line = "HV 5.00 kV  WD 4.9 mm  mag 12 000 x  curr 50 pA   det SE"
        cv2.putText(page, line, (4, bottom), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 20)
    return page.astype(np.float64)


@pytest.mark.parametrize("made", [lattice, scratch, text])
def test_what_no_blur_of_a_specimen_explains_is_read_as_unsure(
    made: Callable[[Grey, Grey], Grey], micrograph: Micrograph
) -> None:
    frame = made(*np.indices((512, 640)).astype(np.float64))
    frame += np.random.default_rng(0).normal(0, 5, frame.shape)
    known = fit(micrograph(4.0))
    strange = fit(np.clip(np.rint(frame), 0, 255).astype(np.uint8))
    assert strange.log_sigma > 0.5 > 1.8 * known.log_sigma


@pytest.mark.parametrize("fill", [0, 255])
def test_frames_without_contrast_do_not_break_it(fill: int) -> None:
    blur = fit(np.full((128, 128), fill, np.uint8))
    assert all(math.isfinite(figure) for figure in (blur.major_px, blur.minor_px, blur.log_sigma))
