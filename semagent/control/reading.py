"""How much blurrier frames are than a reference of their field, read from whole spectra.

Near focus the power of the specimen falls by ``q = c² ((u² + |A|²) k² + 2 u (a1 k² cos 2φ +
a2 k² sin 2φ))``, with u the defocus, A the astigmatism and c the blur of each half depth of field
(see `semagent.control.fit`). A frame of the same field with the focus of the reference would have
the reference's specimen times a gain, and its noise at a level of its own. The logarithm of the
ratio of the frame to that is therefore a sum of five known patterns: gain, noise, and three whose
sizes are the differences of u², 2 u a1 and 2 u a2 between the frames. The spectrum of the specimen
cancels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semagent.control.fit import MODEL_SCATTER
from semagent.signature import SECTORS, geometry_of
from semagent.spectrum import Array
from semagent.types import Signature

CHANGES = 3
_NUISANCES = 2
_NOISE_RATIO_STD = 0.02
"""Error of the logarithm of the noise that a signature states."""
_LOOSE = 1e-6  # precision of the prior of everything else
_LEAST_SHARE = 0.02  # of the specimen in the power of a bin that tells something of the beam
_OUTLIER = 3.0  # standard deviations beyond which a bin counts less
_BY_CHANCE = 2.0  # times the noise that directions of a ring differ by, at most, in one field
_ROUNDS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """Changes of u², 2 u a1 and 2 u a2 from the reference, in half depths of field squared.

    Attributes:
        change: shape (N, CHANGES).
        covariance: of the noise of the frames; that of the reference is common to all. Shape
            (N, CHANGES, CHANGES). Where there is structure along one direction only, the changes
            are told together, but none of them alone.
        by_content: variance of the change of u² from one field of this kind to another, over that
            of noise, shape (N,).
    """

    change: Array
    covariance: Array
    by_content: Array


def read(signatures: Sequence[Signature], reference: Signature, slope: float) -> Readings | None:
    """Compare frames with a reference of the same field.

    Args:
        signatures: of the frames, one or more.
        reference: what they are compared with, with tiles of the same size.
        slope: blur in pixels for each half depth of field.

    Returns:
        ``None`` where too little of the specimen rises above the noise to say anything.
    """
    geometry = geometry_of(reference.tile_px)
    filled = geometry.share > 0
    power = np.exp([each.log_power for each in signatures])[:, filled]
    noise = np.exp([each.log_noise for each in signatures])[:, filled]
    pixels = np.array([[each.pixels] for each in signatures])
    reference_noise = np.exp(np.array(reference.log_noise)[filled])
    specimen = np.maximum(np.exp(np.array(reference.log_power)[filled]) - reference_noise, 0.0)
    # One frame tells how much noise there is better than its spectrum, which stays the same.
    level = np.exp(np.log(noise / reference_noise).mean(axis=1, keepdims=True))
    # The scatter of the specimen itself is the same in all frames.
    scatter = np.maximum(2 * power * noise - noise**2, noise**2) / (power**2 * pixels / 2)
    scatter = scatter / geometry.share[filled]
    beam = -(slope**2) * geometry.quadratic[:, filled]
    prior = np.diag([_LOOSE] * (CHANGES + 1) + [_NOISE_RATIO_STD**-2])
    gain = np.zeros((len(signatures), 1))
    outlying = np.ones_like(power)
    for _ in range(_ROUNDS):
        # What the frame would be with its own gain and level of noise, focused as the reference.
        signal = np.exp(gain) * specimen
        alike = signal + level * reference_noise
        share = signal / alike
        if np.count_nonzero(share > _LEAST_SHARE, axis=1).min() <= CHANGES + _NUISANCES:
            return None
        patterns = np.stack([*(share * pattern for pattern in beam), share, 1 - share], axis=-1)
        ratio = np.log(power / alike)
        variance = scatter + (MODEL_SCATTER * share) ** 2
        weighted = patterns / (variance * outlying)[:, :, None]
        covariance = np.linalg.inv(weighted.transpose(0, 2, 1) @ patterns + prior)
        sizes = covariance @ (weighted.transpose(0, 2, 1) @ ratio[:, :, None])
        left = ratio - (patterns @ sizes)[:, :, 0]
        outlying = np.maximum(1.0, np.abs(left) / np.sqrt(variance) / _OUTLIER)
        gain += sizes[:, CHANGES]
    # Power is exponentially distributed over fields of one kind.
    gains = covariance @ weighted.transpose(0, 2, 1)
    another = 2 * share**2 / (pixels / 2 * geometry.share[filled])
    by_content = (gains[:, 0] ** 2 * another).sum(axis=1) / covariance[:, 0, 0]
    covariance *= _strangeness(left, variance, np.flatnonzero(filled) // SECTORS)[:, None, None]
    sizes = sizes[:, :, 0]
    return Readings(sizes[:, :CHANGES], covariance[:, :CHANGES, :CHANGES], by_content)


def _strangeness(left: Array, variance: Array, rings: npt.NDArray[np.intp]) -> Array:
    """By how much the errors are larger than those of noise: part of the field is another.

    That shows between the directions of a ring. What no beam is like shows all around it.

    Args:
        left: what the patterns leave of the log power, shape (N, bins).
        variance: of noise, shape (N, bins).
        rings: that each bin belongs to.

    Returns:
        Factors of the variance, 1 or more, shape (N,).
    """
    of_ring = np.equal.outer(rings, np.unique(rings)).astype(np.float64)
    mean = (left / variance @ of_ring) / (1 / variance @ of_ring)
    away = left - mean @ of_ring.T
    freedom = len(rings) - of_ring.shape[1]
    ratio = (away**2 / variance).sum(axis=1) / freedom
    return np.where(ratio > _BY_CHANCE, ratio, 1.0)


def mean_of(signatures: Sequence[Signature]) -> Signature:
    """The signature of the mean of spectra of one field, taken with tiles of the same size."""

    def mean(rows: list[tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(np.log(np.exp(rows).mean(0)).tolist())

    return Signature(
        tile_px=signatures[0].tile_px,
        pixels=sum(each.pixels for each in signatures),
        log_power=mean([each.log_power for each in signatures]),
        log_noise=mean([each.log_noise for each in signatures]),
    )
