"""The signature of a frame: its power spectrum on a polar grid, small enough to travel.

Blur multiplies the power spectrum of the specimen by the squared transfer function of the beam
and leaves that of the noise alone. All that the focus estimator has to know of a frame is
therefore its power and its noise in a few rings of spatial frequency and a few directions.

The grid is the same for frames of any size, so that bins can be compared; small frames leave
the innermost rings empty.
"""

from dataclasses import dataclass
from functools import cache

import msgspec
import numpy as np

from semagent.polar import PolarBins
from semagent.spectrum import (
    MIN_SIDE_PX,
    STREAK_COLUMNS,
    TILE_SIZES_PX,
    Array,
    Grid,
    Spectrum,
    grid_of,
    measure_spectrum,
)
from semagent.types import Analysis, Frame, Signature

RINGS = 14
SECTORS = 6
BINS = RINGS * SECTORS
LOWEST_RAD = 0.03
HIGHEST_RAD = 2.4
"""Beyond, interpolation and detectors shape the spectrum more than focus does."""

_FAINTEST = 1e-24
"""Power that keeps logarithms finite on frames without any contrast."""
_FURTHEST = 60.0  # of the logarithms from 0: `_FAINTEST` is at -55, and the brightest power at 13
_MOST_PIXELS = 1e12


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """Where the bins of a signature are; arrays of shape (BINS,), ring after ring.

    Attributes:
        log_k: mean of ln k, with k in radians per pixel.
        quadratic: means of k², k² cos 2φ and k² sin 2φ, shape (3, BINS), with φ from +x to +y.
        share: share of all independent modes of the frame that fall in a bin; 0 if it is empty.
    """

    log_k: Array
    quadratic: Array
    share: Array


@cache
def _bins(tile_px: int) -> PolarBins:
    grid = grid_of(tile_px)
    usable = (grid.share > 0) & (grid.k >= LOWEST_RAD) & (grid.k < HIGHEST_RAD)
    usable[:, :STREAK_COLUMNS] = False
    used = np.flatnonzero(usable)
    k = grid.k.ravel()[used]
    angle = np.arctan2(*np.broadcast_arrays(grid.ky, grid.kx)).ravel()[used]
    ring = np.log(k / LOWEST_RAD) / np.log(HIGHEST_RAD / LOWEST_RAD) * RINGS
    # Sectors are centred on the axes, and opposite directions are the same.
    sector = np.rint(angle / np.pi * SECTORS).astype(int) % SECTORS
    index = np.minimum(ring.astype(int), RINGS - 1) * SECTORS + sector
    return PolarBins.of(grid, used, index, BINS)


@cache
def geometry_of(tile_px: int) -> Geometry:
    """The bins of frames whose spectrum was taken with tiles of ``tile_px`` pixels."""
    bins, grid = _bins(tile_px), grid_of(tile_px)
    k = np.maximum(grid.k, _FAINTEST)
    return Geometry(
        log_k=bins.mean(np.log(k)),
        quadratic=np.array([bins.mean(plane) for plane in _planes(grid)]),
        share=bins.share,
    )


def _planes(grid: Grid) -> tuple[Array, Array, Array]:
    kx, ky = np.broadcast_arrays(grid.kx, grid.ky)
    return grid.k**2, kx**2 - ky**2, 2 * kx * ky


def quadratic_of(spectrum: Spectrum) -> Array:
    """As `Geometry.quadratic`, with each frequency counted by the specimen's power there.

    That of fibres is seldom in the middle of a bin's directions.
    """
    bins, signal = _bins(spectrum.grid.size), np.maximum(spectrum.power - spectrum.noise, 0.0)
    power = bins.mean(signal)
    sums = np.array([bins.mean(plane * signal) for plane in _planes(spectrum.grid)])
    middle = geometry_of(spectrum.grid.size).quadratic
    return np.where(power > 0, sums / np.maximum(power, _FAINTEST), middle)


def signature_of(spectrum: Spectrum) -> Signature:
    """The signature of a frame with this spectrum."""
    bins = _bins(spectrum.grid.size)
    power = bins.mean(spectrum.power)
    noise = bins.mean_of_columns(spectrum.noise)
    filled = bins.share > 0

    def logarithms(values: Array) -> tuple[float, ...]:
        logs = np.where(filled, np.log(np.maximum(values, _FAINTEST)), 0.0)
        return tuple(np.round(logs, 5).tolist())

    return Signature(
        tile_px=spectrum.grid.size,
        pixels=spectrum.pixels,
        log_power=logarithms(power),
        log_noise=logarithms(noise),
    )


def is_sound(signature: Signature) -> bool:
    """Whether a frame can have this signature: what engines say is not taken on trust."""
    logarithms = (signature.log_power, signature.log_noise)
    return (
        signature.tile_px in TILE_SIZES_PX
        and 1 <= signature.pixels <= _MOST_PIXELS
        and all(len(each) == BINS for each in logarithms)
        and all(abs(value) <= _FURTHEST for each in logarithms for value in each)
    )


def with_signature(analysis: Analysis, frame: Frame) -> Analysis:
    """The analysis of a frame, with its signature if the engine did not take it.

    Frames that are too small for one stay without.
    """
    if analysis.figures.signature is not None or min(frame.specimen.shape) < MIN_SIDE_PX:
        return analysis
    signature = signature_of(measure_spectrum(frame.specimen))
    figures = msgspec.structs.replace(analysis.figures, signature=signature)
    return Analysis(figures, analysis.restored)
