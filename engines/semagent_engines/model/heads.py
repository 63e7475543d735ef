"""What is read from the spectra: the blur ellipse, the noise, and the difference of two frames.

The heads see the spectra and not the encoder's tokens: on sources that were not trained on, the
tokens made the readings worse, and without them a reading costs a tenth.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from semagent_engines.model.config import ModelConfig
from semagent_engines.model.spectrum import ANGLES, FEATURES, RADII
from semagent_engines.runtime.readings import PAIR_UNIT_PX2

LOG_STD_RANGE = (-4.0, 2.0)
SHARP_PX = 2.0

_LOG_VARIANCE_RANGE = (-4.0, 7.0)
_LOG_FACTOR = 2.0


class Reading(NamedTuple):
    """What the head says of one frame, with one row for each tile.

    Attributes:
        blur: (N, 3): ``ln σ`` with σ the root-mean-square of the two axes (standard deviations,
            px), and ``ln(major/minor)`` times (cos 2φ, sin 2φ).
        blur_std: (N, 3), predicted standard deviations of ``blur``.
        noise: (N,), standard deviation of the noise over that of the whole tile.
    """

    blur: Tensor
    blur_std: Tensor
    noise: Tensor


class Signature(NamedTuple):
    """What the pair head needs to know of a frame, one row for each tile.

    Attributes:
        spectra: (N, scales, FEATURES).
        blur: (N, 3), see `Reading`.
        blur_std: (N, 3).
    """

    spectra: Tensor
    blur: Tensor
    blur_std: Tensor


class Standardise(nn.Module):
    """Brings each entry to mean 0 and deviation 1 over the training data.

    Spectra fall over five orders of magnitude while blur is told by small differences: left as
    they are, the layers above learn several times more slowly.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(entries))
        self.register_buffer("scale", torch.ones(entries))

    def fit(self, samples: Tensor) -> None:
        """Take mean and deviation from (N, entries) samples."""
        self.centre.copy_(samples.mean(dim=0))
        self.scale.copy_(samples.std(dim=0).clamp_min(1e-3))

    def forward(self, entries: Tensor) -> Tensor:
        """(N, entries) to the same."""
        return (entries - self.centre) / self.scale


class BlurHead(nn.Module):
    """Blur ellipse with uncertainty, and noise, from the spectra of a tile."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        entries = config.scales * FEATURES
        self.standardise = Standardise(entries)
        self.layers = _perceptron(entries, config, 7)

    def forward(self, spectra: Tensor) -> Reading:
        """Read (N, scales, FEATURES) log power spectra."""
        out = self.layers(self.standardise(spectra.flatten(1)))
        return Reading(out[:, :3], _deviation(out[:, 3:6]), functional.softplus(out[:, 6]))


class PairHead(nn.Module):
    """Difference of the blur covariances of two frames of one field.

    The specimen's spectrum is the same in both, so it cancels in the difference of the log
    spectra (the idea of MAPFoSt, Binding, Mikula, Denk 2013). The round part comes from the
    logarithm of the ratio of the two variances, which the head corrects, and from their mean. The
    astigmatic parts are least-squares slopes of that difference against ``-k² cos 2θ`` and
    ``-k² sin 2θ``; the head chooses the weights of the frequencies, which depend on how far the
    blurred signal stands out of the noise. Swapping the frames changes the sign of the result
    and nothing else, by construction.
    """

    squared: Tensor
    moments: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scales = config.scales
        entries = config.scales * FEATURES
        self.standardise = Standardise(entries)
        self.correct = _perceptron(2 * entries + 12, config, 4)
        self.weigh = _perceptron(2 * entries, config, config.scales * len(RADII) + 2)
        scale = 2.0 ** torch.arange(config.scales)[:, None]
        squared = (2 * math.pi * torch.tensor(RADII) / scale).square().flatten()
        theta = math.pi * torch.arange(ANGLES) / ANGLES
        moments = torch.stack([(2 * theta).cos(), (2 * theta).sin()], dim=1) * 2 / ANGLES
        self.register_buffer("squared", squared, persistent=False)
        self.register_buffer("moments", moments, persistent=False)

    def forward(self, first: Signature, second: Signature) -> tuple[Tensor, Tensor]:
        """Compare two frames, tile by tile.

        Returns:
            (N, 3) ``asinh(ΔM / 0.5 px²)`` with ΔM = M(second) - M(first) as round part
            (xx + yy) / 2, axial part (xx - yy) / 2 and diagonal part xy; and (N, 3) the predicted
            standard deviation on the same scale.
        """
        one = self.standardise(first.spectra.flatten(1))
        other = self.standardise(second.spectra.flatten(1))
        mean, difference = 0.5 * (one + other), 0.5 * (other - one)
        readings = [torch.cat([side.blur, side.blur_std.log()], dim=1) for side in (first, second)]
        typical, change = 0.5 * (readings[0] + readings[1]), readings[1] - readings[0]
        there = self.correct(torch.cat([mean, difference, typical, change], dim=1))
        back = self.correct(torch.cat([mean, -difference, typical, -change], dim=1))
        std = _deviation(0.5 * (there + back)[:, 1:])

        chosen = self.weigh(torch.cat([mean, difference.abs()], dim=1))
        log_ratio = 2 * change[:, :1] + 0.5 * (there - back)[:, :1]
        log_variance = 2 * typical[:, :1] + chosen[:, -1:]
        variance = log_variance.clamp(*_LOG_VARIANCE_RANGE).exp()
        round_part = 2 * variance * torch.sinh(0.5 * log_ratio.clamp(-10.0, 10.0))
        factor = chosen[:, -2:-1].clamp(-_LOG_FACTOR, _LOG_FACTOR).exp()
        astigmatic = factor * self._slopes(first, second, chosen[:, :-2].softmax(dim=1))
        parts = torch.cat([round_part, astigmatic], dim=1)
        return torch.asinh(parts / PAIR_UNIT_PX2), std

    def _slopes(self, first: Signature, second: Signature, weights: Tensor) -> Tensor:
        """Axial and diagonal part of ΔM by weighted least squares, (N, 2), px²."""
        powers = (second.spectra - first.spectra)[..., : len(RADII) * ANGLES]
        change = powers.reshape(powers.shape[0], -1, ANGLES) @ self.moments
        weighted = weights * self.squared
        slope: Tensor = (weighted.unsqueeze(-1) * change).sum(dim=1)
        norm: Tensor = (weighted * self.squared).sum(dim=1, keepdim=True)
        return -slope / norm


def _perceptron(entries: int, config: ModelConfig, outputs: int) -> nn.Sequential:
    hidden = config.head_dim
    return nn.Sequential(
        nn.Linear(entries, hidden),
        nn.GELU(),
        nn.Dropout(config.head_dropout),
        nn.Linear(hidden, hidden),
        nn.GELU(),
        nn.Dropout(config.head_dropout),
        nn.Linear(hidden, outputs),
    )


def _deviation(log_std: Tensor) -> Tensor:
    return log_std.clamp(*LOG_STD_RANGE).exp()


def blur_target(covariance_px2: Tensor) -> Tensor:
    """`Reading.blur` of known covariances.

    Args:
        covariance_px2: (N, 3) as (xx, yy, xy).
    """
    xx, yy, xy = covariance_px2.unbind(-1)
    half = 0.5 * (xx + yy)
    axial, diagonal = 0.5 * (xx - yy), xy
    strength = torch.hypot(axial, diagonal)
    # ln(major / minor) = atanh(strength / half).
    ratio = torch.atanh((strength / half).clamp(max=1 - 1e-6)) / strength.clamp_min(1e-12)
    return torch.stack([0.5 * half.log(), ratio * axial, ratio * diagonal], dim=-1)


def covariance(blur: Tensor) -> Tensor:
    """Round, axial and diagonal part of the covariance of `Reading.blur`, (N, 3), px²."""
    half = (2 * blur[:, :1]).clamp(-6.0, 8.0).exp()
    size = (blur[:, 1:].square().sum(dim=1, keepdim=True) + 1e-8).sqrt()
    direction = blur[:, 1:] / size
    return torch.cat([half, half * torch.tanh(size) * direction], dim=1)


def pair_target(first_px2: Tensor, second_px2: Tensor) -> Tensor:
    """The pair head's target from two known covariances (xx, yy, xy), (N, 3)."""
    xx, yy, xy = (second_px2 - first_px2).unbind(-1)
    parts = torch.stack([0.5 * (xx + yy), 0.5 * (xx - yy), xy], dim=-1)
    return torch.asinh(parts / PAIR_UNIT_PX2)


def focus_score(log_sigma: Tensor) -> Tensor:
    """Sharpness in [0, 1] from ``ln σ``: 1 for a sharp frame, 1/2 at a blur of 2 px.

    σ is the root mean square of the axes. Their product would be wrong: with astigmatism it has
    two minima, at the line foci, and a maximum at best focus between them.
    """
    return 1.0 / (1.0 + (2 * (log_sigma - torch.log(torch.tensor(SHARP_PX)))).exp())
