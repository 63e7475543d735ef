"""Micrographs with a known blur."""

import math
from typing import Protocol

import numpy as np
import pytest
from scipy.special import j1

from semagent.types import Pixels


class Micrograph(Protocol):
    """Makes a frame of a random specimen through a beam that is a disc, or a Gaussian."""

    def __call__(
        self,
        major_px: float,
        minor_px: float | None = None,
        angle_rad: float = 0.0,
        *,
        shape: tuple[int, int] = (512, 640),
        slope: float = 2.5,
        noise: float = 4.0,
        seed: int = 0,
        gaussian: bool = False,
    ) -> Pixels: ...


def make_micrograph(
    major_px: float,
    minor_px: float | None = None,
    angle_rad: float = 0.0,
    *,
    shape: tuple[int, int] = (512, 640),
    slope: float = 2.5,
    noise: float = 4.0,
    seed: int = 0,
    gaussian: bool = False,
) -> Pixels:
    """A field of power k^-slope and, when sharp, 40 grey levels of contrast; uint8.

    The blur is given by its standard deviations; the noise in grey levels.
    """
    minor_px = major_px if minor_px is None else minor_px
    rng = np.random.default_rng(seed)
    ky = 2 * np.pi * np.fft.fftfreq(shape[0])[:, None]
    kx = 2 * np.pi * np.fft.rfftfreq(shape[1])[None, :]
    k = np.maximum(np.hypot(kx, ky), 2 * np.pi / max(shape))
    specimen = np.fft.rfft2(rng.standard_normal(shape)) * k ** (-slope / 2)
    along = major_px * (kx * math.cos(angle_rad) + ky * math.sin(angle_rad))
    across = minor_px * (ky * math.cos(angle_rad) - kx * math.sin(angle_rad))
    reach = np.maximum(2 * np.hypot(along, across), 1e-9)
    transfer = np.exp(-(reach**2) / 8) if gaussian else 2 * j1(reach) / reach
    contrast = 40 / np.fft.irfft2(specimen, shape).std()
    image = 128 + contrast * np.fft.irfft2(specimen * transfer, shape)
    noisy = image + rng.normal(0, noise, shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def micrograph() -> Micrograph:
    """See `make_micrograph`."""
    return make_micrograph
