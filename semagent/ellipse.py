"""The blur ellipse in numbers that can be averaged, and one ellipse from several readings."""

import math
from collections.abc import Sequence
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from semagent.spectrum import Array
from semagent.types import BlurEllipse

SHARED = 0.6
"""Correlation of what the readings of two detectors of one scan err by: 0.4 to 0.75 on contrasts
made from training micrographs, 0.6 on average (benchmarks/detectors.py)."""


def parameters_of(ellipse: BlurEllipse) -> Array:
    """``ln σ`` and ``ln(major/minor)`` times (cos 2φ, sin 2φ), shape (3,).

    σ² is the mean of the squared axes. They make up the logarithm of the covariance, but for
    second order in the ellipticity, and their errors are about as large at any blur.
    """
    log_ratio = math.log(ellipse.major_px / ellipse.minor_px)
    return np.array(
        [
            0.5 * math.log((ellipse.major_px**2 + ellipse.minor_px**2) / 2),
            log_ratio * math.cos(2 * ellipse.angle_rad),
            log_ratio * math.sin(2 * ellipse.angle_rad),
        ]
    )


def ellipse_of(parameters: Array | npt.NDArray[np.float32], log_sigma: float) -> BlurEllipse:
    """The ellipse of some `parameters_of`, with its uncertainty."""
    log_spread, axial, diagonal = (float(value) for value in parameters)
    excess = math.tanh(math.hypot(axial, diagonal))
    sigma = math.exp(log_spread)
    angle = 0.5 * math.atan2(diagonal, axial)
    return BlurEllipse(
        major_px=sigma * math.sqrt(1 + excess),
        minor_px=sigma * math.sqrt(1 - excess),
        angle_rad=angle if angle > -0.5 * math.pi else 0.5 * math.pi,
        log_sigma=log_sigma,
    )


def joint_ellipse(ellipses: Sequence[BlurEllipse]) -> BlurEllipse | None:
    """The blur of one beam from what several detectors show of it at once.

    The best linear unbiased mean (A. C. Aitken, Proc. R. Soc. Edinburgh 55, 1935) of
    `parameters_of` for errors with the correlation `SHARED`: most of what a reading errs by is a
    bias of the specimen, and detectors that look at one specimen have much of it in common.
    A reading so much less certain than the others that it would tell of the bias alone, with a
    weight below zero, is left out: never is the result less certain than the best reading.

    Args:
        ellipses: one for each detector with structure, as without there is no reading.

    Returns:
        ``None`` if there are none.
    """
    kept = sorted(ellipses, key=attrgetter("log_sigma"))
    while kept:
        std = np.array([each.log_sigma for each in kept])
        correlation = SHARED + (1 - SHARED) * np.eye(len(std))
        weights = np.linalg.solve(correlation * np.outer(std, std), np.ones(len(std)))
        # Weights fall with the uncertainty: the last is below zero if any is.
        if weights[-1] >= 0:
            total = float(weights.sum())
            mean = weights @ [parameters_of(each) for each in kept] / total
            return ellipse_of(mean, total**-0.5)
        kept.pop()
    return None
