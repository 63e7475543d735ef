"""What is expected of a specimen's power spectrum before anything is seen of it.

Spectra of specimens are smooth: roughly a power of the frequency that falls more steeply where
it is higher, with slow deviations, and different in different directions. The widths here are
generous; on 66 sharp micrographs of four sources the deviations along k were about half as large.
Directions are freer still: grooves and gratings have next to nothing along one of them, which must
not be taken for astigmatism.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from semagent.signature import RINGS, SECTORS, geometry_of
from semagent.spectrum import Array

_SLOPE, _BEND = -1.8, -0.25
"""The mean logarithm of the power is ``_SLOPE x + _BEND x²`` with x = ln k + 1."""

_LEVEL_STD, _SLOPE_STD, _BEND_STD = 10.0, 1.0, 0.4
_RIPPLE_STD, _RIPPLE_WIDTH, _RIPPLE_STEP = 0.3, 0.6, 0.75
_DIRECTED_STD, _DIRECTED_SLOPE_STD = 1.0, 0.3


@dataclass(frozen=True, slots=True, eq=False)
class SpecimenPrior:
    """Log power as ``mean + shapes @ coefficients``, plus a deviation of each bin of its own.

    Attributes:
        mean: shape (BINS,).
        shapes: shape (BINS, R).
        std: standard deviations of the coefficients, shape (R,).
    """

    mean: Array
    shapes: Array
    std: Array


@cache
def specimen_prior(tile_px: int) -> SpecimenPrior:
    """The prior in the bins of frames whose spectrum was taken with such tiles."""
    x = geometry_of(tile_px).log_k + 1.0
    angle = np.tile(np.arange(SECTORS) * np.pi / SECTORS, RINGS)
    shapes, std = [np.ones_like(x), x, x * x], [_LEVEL_STD, _SLOPE_STD, _BEND_STD]
    for centre in np.arange(-2.6, 2.0, _RIPPLE_STEP):
        shapes.append(np.exp(-0.5 * ((x - centre) / _RIPPLE_WIDTH) ** 2))
        std.append(_RIPPLE_STD)
    waves = [turn(fold * angle) for fold in (2, 4) for turn in (np.cos, np.sin)]
    for wave in [*waves, np.cos(6 * angle)]:
        shapes += [wave, wave * x]
        std += [_DIRECTED_STD, _DIRECTED_SLOPE_STD]
    return SpecimenPrior(
        mean=_SLOPE * x + _BEND * x * x, shapes=np.array(shapes).T, std=np.array(std)
    )
