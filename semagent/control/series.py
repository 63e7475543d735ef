"""Signatures of one field, as the fit of a beam takes them."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from semagent.control.specimen import specimen_prior
from semagent.signature import RINGS, SECTORS, geometry_of
from semagent.spectrum import Array
from semagent.types import Signature

Single = npt.NDArray[np.float32]

NOISE_SCATTER = 0.05
"""Error of the noise in a bin: it is never exactly white."""
BIN_STD = 0.1
"""Deviation of a bin of the specimen from its smooth spectrum, were there endless modes."""
FOREIGN_SCATTER = 3.0
"""Error of the log of the transfer of power that leaks into a bin from directions beside it."""

_SEEN = 2.0  # standard deviations above the noise that count as a signal
_LEAK = 0.45  # of a bin's power reaches the one beside it, when they are a mode of the tile wide
_BESIDE = [np.roll(np.arange(SECTORS), turn) for turn in (-1, 1)]


def single(values: Array) -> Single:
    """In single precision."""
    return values.astype(np.float32)


class _Bins(NamedTuple):
    """What is the same for all frames whose spectrum was taken with one size of tile.

    Attributes:
        filled: which bins of a signature have modes, shape (BINS,); the others are left out below.
        share: of all modes, shape (bins,).
        leak: of the power that a direction has more than the one beside it, what reaches that
            bin, shape (BINS,).
        along: mean of k², shape (bins,).
        form: (f - z, a1, a2) times this, times (f - z, a1, a2), is 2 q / c² of each bin, as in
            `semagent.control.fit`; shape (3, 3 * bins).
        mean: of the log power of a specimen as in `SpecimenPrior`, shape (bins,).
        shapes: of the same, shape (bins, R).
        shapes_std: of the same, shape (R,).
    """

    filled: npt.NDArray[np.bool_]
    share: Array
    leak: Array
    along: Single
    form: Single
    mean: Single
    shapes: Single
    shapes_std: Array


@cache
def _bins_of(tile_px: int) -> _Bins:
    geometry, specimen = geometry_of(tile_px), specimen_prior(tile_px)
    filled = geometry.share > 0
    along, cosine, sine = geometry.quadratic[:, filled]
    nothing = np.zeros_like(along)
    form = [[along, -cosine, -sine], [-cosine, along, nothing], [-sine, nothing, along]]
    mode = 2 * np.pi / tile_px / np.exp(geometry.log_k)
    return _Bins(
        filled=filled,
        share=geometry.share[filled],
        leak=_LEAK * mode,
        along=single(along),
        form=single(2 * np.reshape(form, (3, -1))),
        mean=single(specimen.mean[filled]),
        shapes=single(specimen.shapes[filled]),
        shapes_std=specimen.std,
    )


class Series:
    """Signatures of one field, and where they were taken, ready to be fitted.

    Args:
        signatures: one or more, with the same ``tile_px``.
        places: working distances, shape (N,).
        ages: variance of the log power that a frame gained with time, shape (N,).
        stigmators: changes of (x, y) since the astigmatism of the beam was as it is fitted,
            shape (N, 2).
        focused: of a frame in focus, wherever that is.
    """

    def __init__(
        self,
        signatures: Sequence[Signature],
        places: Array,
        ages: Array,
        stigmators: Array,
        focused: Signature | None = None,
    ) -> None:
        self.by_focus = np.ones(len(places))
        if focused is not None:
            signatures = [focused, *signatures]
            places, ages = np.append(0.0, places), np.append(0.0, ages)
            stigmators = np.append(np.zeros((1, 2)), stigmators, axis=0)
            self.by_focus = np.append(0.0, self.by_focus)
        known = _bins_of(signatures[0].tile_px)
        filled = known.filled
        log_power = np.array([each.log_power for each in signatures])
        noise = np.exp([each.log_noise for each in signatures])
        power = np.exp(log_power)
        leaked = _leaked(known.leak, np.where(filled, power - noise, 0.0))[:, filled]
        log_power, power, noise = log_power[:, filled], power[:, filled], noise[:, filled]
        pixels = np.array([each.pixels for each in signatures])[:, None]
        modes = known.share * pixels / 2
        # Only noise differs between frames; the specimen's own scatter is in s_j.
        scatter = np.maximum(2 * power * noise - noise**2, noise**2)
        variance = scatter / (power**2 * modes) + (NOISE_SCATTER * noise / power) ** 2
        variance += ages[:, None] + (FOREIGN_SCATTER * leaked / power) ** 2
        above = 1 - noise / power

        self.places, self.stigmators = places, stigmators
        self.log_power, self.noise, self.variance = map(single, (log_power, noise, variance))
        self.visible = single(np.minimum(np.maximum(above, 1e-12), 1.0))
        # What noise alone may be is no signal: to take it for one would be evidence of nothing.
        self.surely_visible = single(np.maximum(above - _SEEN * np.sqrt(variance), 0.0))
        self.along, self.form, self.mean = known.along, known.form, known.mean
        self.shapes, self.shapes_std = known.shapes, known.shapes_std
        self.bin_variance = single(BIN_STD**2 + 0.5 * len(modes) / modes.sum(axis=0))
        # Shapes as the deviations of bins leave them, and the products of each with each.
        self.held = self.shapes / self.bin_variance[:, None]
        products = self.held[:, :, None] * self.shapes[:, None, :]
        self.products = products.reshape(len(products), -1)


def _leaked(leak: Array, signal: Array) -> Array:
    """Power in each bin that comes from the directions beside it; signal: shape (N, BINS).

    A tile's window smears the spectrum by a mode of the tile. Beside the one direction of grooves,
    in bins a few modes wide, next to all power is theirs, and is blurred as they are.
    """
    signal = np.maximum(signal, 0.0).reshape(-1, RINGS, SECTORS)
    more = np.maximum(signal[:, :, _BESIDE] - signal[:, :, None], 0.0).sum(axis=2)
    return np.asarray(leak * more.reshape(-1, RINGS * SECTORS))
