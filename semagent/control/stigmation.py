"""What stigmators do to the beam, and by how much to change them."""

from dataclasses import dataclass, replace

import numpy as np

from semagent.control.fit import BEAM, RESPONSE
from semagent.control.posterior import Posterior
from semagent.memory import Entry
from semagent.spectrum import Array

UNKNOWN_STD = 50.0
"""Half depths of field that a stigmator at full range may make, where there is no calibration."""
TELLING = 1.5
"""Standard deviations, wide as they are, that the weaker effect of the stigmators has to be."""
_LEAST_RELATIVE_STD = 0.03  # of a calibration: apertures and days differ by as much


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """What a unit of stigmator (x, y) does, in half depths of field.

    Attributes:
        matrix: change of astigmatism, rows (a1, a2), shape (2, 2).
        std: standard deviation of each.
        focus: change of the focal working distance, shape (2,).
    """

    matrix: Array
    std: float
    focus: Array

    @property
    def mean_and_std(self) -> tuple[Array, Array]:
        """As parameters of the beam, each of shape (RESPONSE,)."""
        return self.matrix.ravel(), np.full(RESPONSE, self.std)


def response_of(entry: Entry | None, unit_m: float) -> Response:
    """What is remembered of the stigmators; without a calibration next to nothing."""
    calibration = entry.calibration if entry else None
    known = calibration.astigmatism_per_stigmator if calibration else None
    if calibration is None or known is None:
        return Response(np.zeros((2, 2)), UNKNOWN_STD, np.zeros(2))
    matrix = np.array([[known.xx, known.xy], [known.yx, known.yy]]) / unit_m
    std = max(known.sigma / unit_m, _LEAST_RELATIVE_STD * float(np.abs(matrix).max()))
    moved = calibration.focus_per_stigmator
    focus = np.array([moved.x, moved.y]) / unit_m if moved else np.zeros(2)
    return Response(matrix, std, focus)


def with_response(posterior: Posterior, response: Response) -> Posterior:
    """The posterior with what is known of the stigmators, where no frame has told of them."""
    modes, width = posterior.beam.shape
    if width > BEAM:
        return posterior
    mean, std = response.mean_and_std
    covariance = np.zeros((modes, BEAM + RESPONSE, BEAM + RESPONSE))
    covariance[:, :BEAM, :BEAM] = posterior.covariance
    covariance[:, BEAM:, BEAM:] = np.diag(std**2)
    beam = np.concatenate([posterior.beam, np.tile(mean, (modes, 1))], axis=1)
    return replace(posterior, beam=beam, covariance=covariance)


def astigmatism(posterior: Posterior, stigmators: Array) -> tuple[Array, Array]:
    """Mean and standard deviations of (a1, a2), in half depths of field, shape (2,) each.

    Args:
        posterior: with the response of the stigmators.
        stigmators: by how much they were changed since the first frame, shape (2,).
    """
    return _mixture(posterior, *_astigmatism(posterior, stigmators, stigmators))


def correction(posterior: Posterior, stigmators: Array) -> tuple[Array, Array] | None:
    """Mean and standard deviations of the change of (x, y) that removes astigmatism, (2,) each.

    ``None`` as long as it is not known what the stigmators do.
    """
    likeliest = posterior.beam[0, BEAM:].reshape(2, 2)
    std = float(np.sqrt(np.diagonal(posterior.covariance[0])[BEAM:].max()))
    if np.linalg.svd(likeliest, compute_uv=False)[-1] < TELLING * std:
        return None
    inverse = np.linalg.inv(likeliest)
    now, _ = _mixture(posterior, *_astigmatism(posterior, stigmators, stigmators))
    # What the response may be off by counts over the whole way from the first frame.
    modes, covariance = _astigmatism(posterior, stigmators, stigmators - inverse @ now)
    return _mixture(posterior, -modes @ inverse.T, inverse @ covariance @ inverse.T)


def _astigmatism(posterior: Posterior, stigmators: Array, way: Array) -> tuple[Array, Array]:
    """Of each mode, shape (M, 2), and its covariance, (M, 2, 2), with errors over ``way``."""
    response = posterior.beam[:, BEAM:].reshape(-1, 2, 2)
    by_beam = np.zeros((2, BEAM + RESPONSE))
    by_beam[:, 1:3] = np.eye(2)
    by_beam[0, BEAM : BEAM + 2] = by_beam[1, BEAM + 2 :] = way
    mean = posterior.beam[:, 1:3] + response @ stigmators
    return mean, by_beam @ posterior.covariance @ by_beam.T


def _mixture(posterior: Posterior, means: Array, covariance: Array) -> tuple[Array, Array]:
    mean = posterior.weights @ means
    variance = np.diagonal(covariance, axis1=1, axis2=2) + (means - mean) ** 2
    return mean, np.sqrt(posterior.weights @ variance)
