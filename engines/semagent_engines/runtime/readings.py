"""From readings of tiles to one reading of the frame."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semagent.types import BlurEllipse

Floats = npt.NDArray[np.float32]

SHARED = 0.5
"""Share of the reading's variance that all tiles of one specimen have in common."""

_STRUCTURE_SCALE = 2
"""Level of the pyramid in which structure is compared with noise: binned by 4."""


@dataclass(frozen=True)
class TileReadings:
    """Outputs of ``score.onnx`` for the tiles of one frame; one row for each tile.

    Attributes:
        blur: (N, 3), ``ln σ`` and ``ln(major/minor)`` times (cos 2φ, sin 2φ).
        blur_std: (N, 3), standard deviations.
        noise: (N,), standard deviation of the noise in grey values.
        spectra: (N, scales, F), log power spectra of the normalised tiles.
        deviation: (N,), standard deviation of the tiles in grey values.
    """

    blur: Floats
    blur_std: Floats
    noise: Floats
    spectra: Floats
    deviation: Floats


@dataclass(frozen=True)
class FrameReading:
    """The tiles' readings taken together.

    Attributes:
        blur: (3,), as in `TileReadings`.
        blur_std: (3,).
        noise: standard deviation of the noise in grey values.
        structure: variance of the specimen over that of the noise, after binning by 4.
    """

    blur: Floats
    blur_std: Floats
    noise: float
    structure: float

    @property
    def ellipse(self) -> BlurEllipse:
        """Standard deviations along the axes, their direction, and their uncertainty."""
        log_sigma, axial, diagonal = (float(value) for value in self.blur)
        ratio = math.hypot(axial, diagonal)
        # σ² is the mean of the squared axes; their ratio is exp(ratio).
        excess = math.tanh(ratio)
        sigma = math.exp(log_sigma)
        across = float(np.hypot(self.blur_std[0], 0.5 * self.blur_std[1:].mean()))
        angle = 0.5 * math.atan2(diagonal, axial)
        return BlurEllipse(
            major_px=sigma * math.sqrt(1 + excess),
            minor_px=sigma * math.sqrt(1 - excess),
            angle_rad=angle if angle > -0.5 * math.pi else 0.5 * math.pi,
            log_sigma=across,
        )

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
    half = tiles.spectra.shape[-1] // 2
    power = np.exp(tiles.spectra[:, _STRUCTURE_SCALE, :half]).mean(axis=-1) * tiles.deviation**2
    binned_noise = np.maximum(tiles.noise, 1e-6) ** 2 / 4.0**_STRUCTURE_SCALE
    structure = float((tile_weight * np.maximum(power / binned_noise - 1.0, 0.0)).sum())
    return FrameReading(blur, std, noise, structure)
