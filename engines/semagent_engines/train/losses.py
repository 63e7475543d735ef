"""Losses. Each returns a scalar; uncertainties are trained by likelihood."""

import torch
from torch import Tensor

from semagent_engines.model.heads import Reading, blur_target

_MSE_FLOOR = 1e-3
_BETA = 0.5


def restoration_loss(restored: Tensor, truth: Tensor, std: Tensor) -> Tensor:
    """Mean logarithm of the squared error of each tile: maximises the mean PSNR.

    The logarithm makes the loss independent of a tile's contrast and weighs easy and hopeless tiles
    alike, as the mean of decibels does.

    Args:
        restored: (N, 1, H, W).
        truth: the same shape and grey scale.
        std: (N, 1, 1, 1), standard deviation of the raw tile.
    """
    error = ((restored - truth) / std).square().mean(dim=(1, 2, 3))
    return (error + _MSE_FLOOR).log().mean()


def gaussian_loss(mean: Tensor, std: Tensor, target: Tensor) -> Tensor:
    """β-weighted Gaussian negative log-likelihood, mean over all entries.

    With β = 1/2 (Seitzer et al., "On the Pitfalls of Heteroscedastic Uncertainty Estimation",
    2022), entries of high uncertainty keep half of their pull on the mean.
    """
    likelihood = std.log() + 0.5 * ((target - mean) / std).square()
    return (likelihood * std.detach() ** (2 * _BETA)).mean()


def reading_loss(reading: Reading, covariance_px2: Tensor, noise_share: Tensor) -> Tensor:
    """Blur ellipse and noise of single frames.

    Args:
        reading: of N tiles.
        covariance_px2: (N, 3), true (xx, yy, xy).
        noise_share: (N,), true noise over the standard deviation of the tile.
    """
    blur = gaussian_loss(reading.blur, reading.blur_std, blur_target(covariance_px2))
    return blur + (reading.noise - noise_share).abs().mean()


def decibels(restored: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image on the scale [0, 1], (N,), dB."""
    return -10 * torch.log10((restored - truth).square().mean(dim=(1, 2, 3)).clamp_min(1e-10))
