"""From readings of tiles to one reading of the frame."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semagent.ellipse import ellipse_of, parameters_of
from semagent.spectrum import Array
from semagent.types import BlurEllipse
from semagent_engines.runtime.tiling import Floats

SHARED = 0.5
"""Share of the reading's variance that all tiles of one specimen have in common."""

HEAD_INFLATION = 4.0
"""What the deviations of the head count more than predicted beside a fit of the spectrum: chosen,
as the next, where both together err least on training sources."""

CONTRADICTION = 0.7
"""Deviations apart from which fit and head contradict each other: chosen where ordinary training
specimens are read as well as without, and those with grooves in one direction better."""

PAIR_INFLATION, PAIR_CONTRADICTION = 2.0, 1.5
"""The same for the difference of two frames."""

PAIR_UNIT_PX2 = 0.5
"""Scale of what the head for two frames says: asinh of the difference in this unit."""

Z90 = 1.6449
"""Standard deviations that hold 90 % of a normal distribution, on either side."""


@dataclass(frozen=True)
class TileReadings:
    """Outputs of ``score.onnx`` for the tiles of one frame; one row for each tile.

    Attributes:
        blur: (N, 3), see `semagent.ellipse.parameters_of`.
        blur_std: (N, 3), standard deviations.
        noise: (N,), standard deviation of the noise in grey values.
        spectra: (N, scales, F), log power spectra of the normalised tiles.
    """

    blur: Floats
    blur_std: Floats
    noise: Floats
    spectra: Floats

    def within(self, blur_range_px: tuple[float, float]) -> npt.NDArray[np.bool_]:
        """Which tiles read a blur that training covered: what else they say means nothing."""
        low, high = np.log(blur_range_px)
        return np.asarray((self.blur[:, 0] >= low) & (self.blur[:, 0] <= high))

    def of(self, which: npt.NDArray[np.bool_]) -> "TileReadings":
        """Some of the tiles, or all where it would be none."""
        if not which.any():
            return self
        return TileReadings(
            self.blur[which], self.blur_std[which], self.noise[which], self.spectra[which]
        )


@dataclass(frozen=True)
class FrameReading:
    """The tiles' readings taken together.

    Attributes:
        blur: (3,), as in `TileReadings`.
        blur_std: (3,).
        noise: standard deviation of the noise in grey values.
    """

    blur: Floats
    blur_std: Floats
    noise: float

    @property
    def ellipse(self) -> BlurEllipse:
        """Standard deviations along the axes, their direction, and their uncertainty."""
        across = float(np.hypot(self.blur_std[0], 0.5 * self.blur_std[1:].mean()))
        return ellipse_of(self.blur, across)

    @property
    def covariance(self) -> Floats:
        """Blur covariance, (2, 2) over (x, y), px²."""
        log_sigma, axial, diagonal = (float(value) for value in self.blur)
        half = math.exp(2 * log_sigma)
        ratio = math.hypot(axial, diagonal)
        part = half * math.tanh(ratio) / ratio if ratio > 0 else 0.0
        return np.array(
            [[half + part * axial, part * diagonal], [part * diagonal, half - part * axial]],
            np.float32,
        )


def weighted_mean(values: Floats, std: Floats) -> tuple[Floats, Floats]:
    """Mean over the tiles, weighted by certainty, and its standard deviation.

    Tiles of one specimen err together, so their number reduces only a part of the variance.

    Args:
        values: (N, K).
        std: (N, K).
    """
    weights = 1.0 / np.square(std)
    total = weights.sum(axis=0)
    mean = (weights * values).sum(axis=0) / total
    variance = (SHARED * len(weights) + (1 - SHARED)) / total
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def combine(tiles: TileReadings) -> FrameReading:
    """The frame's reading; certain tiles count more."""
    blur, std = weighted_mean(tiles.blur, tiles.blur_std)
    weights = 1.0 / np.square(tiles.blur_std)
    total = weights.sum(axis=0)
    tile_weight = weights[:, 0] / total[0]
    noise = float((tile_weight * tiles.noise).sum())
    return FrameReading(blur, std, noise)


def together(
    fit: Array,
    fit_std: Array,
    head: Array | Floats,
    head_std: Array | Floats,
    at_most: float = CONTRADICTION,
) -> tuple[Array, Array]:
    """Weighted mean of what the spectral fit and the network's head read, and its deviation.

    Where they contradict each other the deviation grows by the factor of Birge (R. T. Birge,
    Phys. Rev. 40, 1932), and the head alone is believed: the fit supposes a specimen with structure
    in all directions, and grooves or fibres that lie in parallel deceive it far more.

    Args:
        fit: what the fit read.
        fit_std: its deviation.
        head: what the head read.
        head_std: its deviation.
        at_most: deviations that they may be apart without contradicting each other.
    """
    variance, head_variance = np.square(fit_std), np.square(head_std)
    total = variance + head_variance
    mean = (head_variance * fit + variance * head) / total
    std = np.sqrt(variance * head_variance / total)
    contradiction = np.abs(fit - head) / np.sqrt(total)
    believe_head = contradiction > at_most
    return (
        np.where(believe_head, head, mean),
        np.where(believe_head, head_std, std) * np.maximum(contradiction, 1.0),
    )


def with_ellipse(reading: FrameReading, ellipse: BlurEllipse) -> FrameReading:
    """The reading of the head together with an ellipse fitted to the spectrum."""
    fitted = parameters_of(ellipse)
    std = np.full_like(fitted, ellipse.log_sigma)
    blur, blur_std = together(fitted, std, reading.blur, HEAD_INFLATION * reading.blur_std)
    return FrameReading(blur.astype(np.float32), blur_std.astype(np.float32), reading.noise)
