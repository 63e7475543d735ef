"""From the blurred specimen to grey values: scan, shot noise, detector and digitisation."""

from dataclasses import dataclass

import torch
from torch import Tensor

_TAIL_PX = 40.0  # length over which charge leaks away


@dataclass(frozen=True)
class Detection:
    """How each image of a batch is detected; every tensor has shape (B,).

    Attributes:
        dose: electrons a pixel where the specimen is brightest (grey value 1).
        excess: variance of the secondary yield of one electron over its squared mean, so that
            the shot noise has ``(1 + excess)`` times the variance of the primaries' Poisson noise.
        read_noise: standard deviation of the read noise, fraction of full scale.
        line_noise: standard deviation of the offset of each line, fraction of full scale.
        smear: share of a pixel's signal that arrives with the next pixel (detector bandwidth).
        jitter_px: standard deviation of the displacement of each line along the scan, pixels.
        charging: strength of the dark streaks behind bright parts.
        gain: factor of the detector contrast.
        offset: detector brightness, fraction of full scale.
        levels: grey levels, 255 or 65535.
    """

    dose: Tensor
    excess: Tensor
    read_noise: Tensor
    line_noise: Tensor
    smear: Tensor
    jitter_px: Tensor
    charging: Tensor
    gain: Tensor
    offset: Tensor
    levels: Tensor

    def to(self, device: torch.device) -> "Detection":
        """The same on another device."""
        return Detection(*(value.to(device) for value in vars(self).values()))


def charge(specimens: Tensor, strength: Tensor) -> Tensor:
    """Specimens with a dark streak behind their bright parts, along the fast scan axis.

    Charging changes the yield, not the beam, so it belongs to the specimen and is applied
    before the blur.

    Args:
        specimens: (B, H, W) in [0, 1].
        strength: (B,), depth of the streak relative to the brightness that causes it.
    """
    width = specimens.shape[-1]
    k = 2 * torch.pi * torch.fft.rfftfreq(width, device=specimens.device)
    leak = 1.0 / (1.0 + 1j * k * _TAIL_PX)
    cause = specimens - specimens.mean(dim=(-2, -1), keepdim=True)
    streak = torch.fft.irfft(torch.fft.rfft(cause) * leak, n=width)
    charged: Tensor = (specimens - strength[:, None, None] * streak).clamp(0.0, 1.0)
    return charged


def shear(images: Tensor, slope: Tensor) -> Tensor:
    """Images as scanned while they drift along the lines: each line is displaced a bit more.

    Drift across the lines only stretches a frame, as another pixel size would, and is left out.

    Args:
        images: (B, H, W); what leaves a line at one end comes in at the other.
        slope: (B,), displacement from one line to the next, pixels. The middle line stays.
    """
    height, width = images.shape[-2:]
    line = torch.arange(height, device=images.device) - (height - 1) / 2
    k = 2 * torch.pi * torch.fft.rfftfreq(width, device=images.device)
    phase = slope[:, None, None] * line[:, None] * k
    moved = torch.fft.rfft(images) * torch.polar(torch.ones_like(phase), -phase)
    sheared: Tensor = torch.fft.irfft(moved, n=width)
    return sheared


def sheared_covariance(covariance: Tensor, slope: Tensor) -> Tensor:
    """The blur (xx, yy, xy), (B, 3), of an image after `shear`."""
    xx, yy, xy = covariance.unbind(-1)
    return torch.stack([xx + 2 * slope * xy + slope**2 * yy, yy, xy + slope * yy], dim=-1)


def detect(blurred: Tensor, how: Detection, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Detect blurred specimens.

    Order: line jitter, shot noise, bandwidth, read and line noise, contrast and brightness,
    saturation, quantisation.

    Args:
        blurred: (B, H, W), mostly in [0, 1].
        how: one detection per image.
        generator: source of all randomness, on the images' device.

    Returns:
        Grey values in [0, 1] of shape (B, H, W), and (B,) the standard deviation of the noise
        without that of whole lines, as a fraction of full scale.
    """

    def each(values: Tensor) -> Tensor:
        return values[:, None, None]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=blurred.device)

    count, height, width = blurred.shape
    slope = torch.gradient(blurred, dim=-1)[0]
    signal = blurred + each(how.jitter_px) * normal(count, height, 1) * slope
    signal = signal.clamp_min(0.0)
    electrons = torch.poisson(signal * each(how.dose), generator=generator)
    yielded = electrons + (each(how.excess) * electrons).sqrt() * normal(count, height, width)
    image = yielded / each(how.dose)
    share = each(how.smear)
    image = (1 - share) * image + share * torch.roll(image, 1, dims=-1)
    image = image + each(how.read_noise) * normal(count, height, width)
    image = image + each(how.line_noise) * normal(count, height, 1)
    image = (each(how.gain) * image + each(how.offset)).clamp(0.0, 1.0)
    image = (image * each(how.levels)).round() / each(how.levels)

    shot = signal.mean(dim=(-2, -1)) * (1 + how.excess) / how.dose
    filtered = (1 - how.smear) ** 2 + how.smear**2
    variance = how.gain**2 * (shot * filtered + how.read_noise**2) + 1 / (12 * how.levels**2)
    return image, variance.sqrt()
