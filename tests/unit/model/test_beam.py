import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semagent_engines.data.beam import PROFILES, Beam, blur, profile_table, transfer_function

SIZE = 192


def one_beam(
    defocus: float, a1: float = 0.0, a2: float = 0.0, floor: float = 0.3, profile: int = 0
) -> Beam:
    return Beam(
        torch.tensor([defocus]),
        torch.tensor([[a1, a2]]),
        torch.tensor([floor]),
        torch.tensor([profile]),
    )


def moments(kernel: torch.Tensor) -> list[float]:
    axis = torch.arange(SIZE, dtype=torch.float32) - SIZE // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return [float((kernel * part).sum()) for part in (x * x, y * y, x * y)]


def point_image() -> torch.Tensor:
    point = torch.zeros(1, SIZE, SIZE)
    point[0, SIZE // 2, SIZE // 2] = 1.0
    return point


@pytest.mark.parametrize("profile", range(len(PROFILES)), ids=PROFILES)
def test_second_moments_of_the_kernel_are_the_covariance(profile: int) -> None:
    beam = one_beam(4.0, 1.0, -0.6, floor=2.0, profile=profile)
    kernel = blur(point_image(), beam)[0]
    # The tails of the Airy powers reach beyond the image, so their moments fall short.
    tolerance = 0.08 if PROFILES[profile] == "airy3" else 0.03
    expected = beam.covariance()[0].tolist()
    for found, wanted in zip(moments(kernel), expected, strict=True):
        assert found == pytest.approx(wanted, abs=tolerance * expected[0])


@given(
    defocus=st.floats(-10, 10),
    a1=st.floats(-3, 3),
    a2=st.floats(-3, 3),
    floor=st.floats(0.1, 1.0),
)
def test_covariance_is_that_of_the_matrix_formula(
    defocus: float, a1: float, a2: float, floor: float
) -> None:
    root = defocus * np.eye(2) + np.array([[a1, a2], [a2, -a1]])
    expected = root @ root + floor**2 * np.eye(2)
    xx, yy, xy = one_beam(defocus, a1, a2, floor).covariance()[0].tolist()
    np.testing.assert_allclose([[xx, xy], [xy, yy]], expected, atol=1e-3)


def test_focus_on_the_other_side_turns_the_ellipse_by_90_degrees() -> None:
    over = one_beam(3.0, 0.5, 0.2).covariance()[0]
    under = one_beam(-3.0, 0.5, 0.2).covariance()[0]
    assert over[0] == pytest.approx(float(under[1]))
    assert over[2] == pytest.approx(-float(under[2]))


def test_blur_keeps_the_mean() -> None:
    image = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert float(blur(image, one_beam(5.0, 1.0)).mean()) == pytest.approx(
        float(image.mean()), abs=1e-5
    )


@pytest.mark.parametrize("shift", [(3.0, 0.0), (0.0, -2.0), (5.0, 7.0)])
def test_whole_pixel_shifts_are_rolls(shift: tuple[float, float]) -> None:
    image = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))
    beam = one_beam(1.0)
    shifted = blur(image, beam, torch.tensor([shift]))
    expected = torch.roll(blur(image, beam), (int(shift[1]), int(shift[0])), dims=(1, 2))
    torch.testing.assert_close(shifted, expected, atol=1e-4, rtol=0)


def test_profiles_start_at_one_and_curve_like_unit_variance() -> None:
    table = profile_table()
    kappa = 0.3
    at = table[:, round(kappa / 0.03)]
    assert torch.allclose(table[:, 0], torch.ones(len(PROFILES)), atol=1e-4)
    # Every profile of unit variance is 1 - κ²/2 to second order.
    curvature = -2 * (at - 1) / kappa**2
    assert torch.all((curvature - 1).abs() < 0.25)


def test_disc_has_its_first_zero_where_the_bessel_function_has() -> None:
    disc = profile_table()[1]
    first = int(torch.nonzero(disc < 0)[0])
    assert first * 0.03 == pytest.approx(3.8317 / 2, abs=0.03)


@pytest.mark.parametrize("profile", range(len(PROFILES)), ids=PROFILES)
def test_transfer_of_the_largest_blur_is_finite_and_ends_in_nothing(profile: int) -> None:
    transfer = transfer_function(one_beam(24.0, 4.0, profile=profile), 64, 64)
    assert torch.isfinite(transfer).all()
    assert float(transfer.abs().max()) <= 1.0 + 1e-5
    assert math.isclose(float(transfer[0, 0, 0]), 1.0, abs_tol=1e-4)
    assert float(transfer[0, 32, 32].abs()) < 0.01
