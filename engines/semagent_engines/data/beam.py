"""The beam: optical transfer functions of defocus and astigmatism.

Geometry (half-angle α, defocus Δz, pixel size p): a uniform disc has the standard deviation
``α|Δz| / (2p)`` along each axis. With ``z = αΔz/(2p)`` and the astigmatism matrix
``A = [[a1, a2], [a2, -a1]]`` in the same unit, the blur covariance is ``(z I + A)² + σ0² I``.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

PROFILES = ("gaussian", "disc", "airy3", "airy4")
_STEP = 0.03
_POINTS = 3200


@dataclass(frozen=True)
class Beam:
    """Beams of a batch; every tensor has shape (B,), float32.

    Attributes:
        defocus_px: ``z = αΔz/(2p)``, signed: the standard deviation that defocus alone gives.
        astigmatism_px: (B, 2), components on the axes and at 45 degrees, unit as ``defocus_px``.
        floor_px: ``σ0``, standard deviation of the round Gaussian that is always there.
        profile: index into `PROFILES`, int64.
    """

    defocus_px: Tensor
    astigmatism_px: Tensor
    floor_px: Tensor
    profile: Tensor

    def to(self, device: torch.device) -> "Beam":
        """The same on another device."""
        return Beam(*(value.to(device) for value in vars(self).values()))

    def defocus_covariance(self) -> Tensor:
        """``(z I + A)²`` as (xx, yy, xy), (B, 3), px²."""
        z = self.defocus_px
        a1, a2 = self.astigmatism_px.unbind(-1)
        round_part = z**2 + a1**2 + a2**2
        return torch.stack([round_part + 2 * z * a1, round_part - 2 * z * a1, 2 * z * a2], dim=-1)

    def covariance(self) -> Tensor:
        """Covariance of the whole blur as (xx, yy, xy), (B, 3), px²."""
        floor = self.floor_px**2
        return self.defocus_covariance() + torch.stack([floor, floor, 0 * floor], dim=-1)


def blur(images: Tensor, beam: Beam, shift_px: Tensor | None = None) -> Tensor:
    """Blur each image with its beam, in the Fourier domain and so with wrapped edges.

    Args:
        images: (B, H, W).
        beam: one beam per image.
        shift_px: (B, 2), image shift (x, y) in pixels, not necessarily whole ones.

    Returns:
        (B, H, W); crop a margin of a few blur radii, where the edges wrapped.
    """
    height, width = images.shape[-2:]
    transfer = transfer_function(beam, height, width)
    spectrum = torch.fft.rfft2(images) * transfer
    if shift_px is not None:
        ky, kx = _frequencies(height, width, images.device)
        phase = kx * shift_px[:, 0, None, None] + ky * shift_px[:, 1, None, None]
        spectrum = spectrum * torch.polar(torch.ones_like(phase), -phase)
    blurred: Tensor = torch.fft.irfft2(spectrum, s=(height, width))
    return blurred


def transfer_function(beam: Beam, height: int, width: int) -> Tensor:
    """Real optical transfer functions on the grid of ``rfft2``, (B, height, width // 2 + 1)."""
    device = beam.defocus_px.device
    ky, kx = _frequencies(height, width, device)
    xx, yy, xy = beam.defocus_covariance()[:, :, None, None].unbind(1)
    kappa = (xx * kx**2 + yy * ky**2 + 2 * xy * kx * ky).clamp_min(0).sqrt()
    place = (kappa / _STEP).clamp(max=_POINTS - 1.001)
    index = place.long()
    table = profile_table().to(device)
    start = beam.profile[:, None, None] * _POINTS + index
    value = torch.lerp(table.take(start), table.take(start + 1), place - index)
    floor = beam.floor_px[:, None, None]
    return value * torch.exp(-0.5 * floor**2 * (kx**2 + ky**2))


def _frequencies(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    ky = 2 * torch.pi * torch.fft.fftfreq(height, device=device)[:, None]
    kx = 2 * torch.pi * torch.fft.rfftfreq(width, device=device)[None, :]
    return ky, kx


@cache
def profile_table() -> Tensor:
    """Transfer functions of kernels with unit standard deviation per axis.

    Row p holds profile p at arguments 0, 0.03, 0.06, ...: the Gaussian ``exp(-κ²/2)``, the disc
    ``J1(2κ)/κ``, and the radial kernels ``|2 J1(πr)/(πr)|^β`` with β = 3 and 4, transformed
    numerically. β below 8/3 has no second moment and is left out.

    Returns:
        (4, 3200), float32.
    """
    kappa = torch.arange(_POINTS, dtype=torch.float64) * _STEP
    disc = torch.ones_like(kappa)
    disc[1:] = torch.special.bessel_j1(2 * kappa[1:]) / kappa[1:]
    rows = [torch.exp(-0.5 * kappa**2), disc]
    rows.extend(_airy_power(kappa, beta) for beta in (3.0, 4.0))
    return torch.stack(rows).float()


def _airy_power(kappa: Tensor, beta: float) -> Tensor:
    radius = torch.arange(0.5, 4000.0, dtype=torch.float64) * 0.01
    argument = torch.pi * radius
    weight = (2 * torch.special.bessel_j1(argument) / argument).abs() ** beta * radius
    weight = weight / weight.sum()
    sigma = (0.5 * (weight * radius**2).sum()).sqrt()
    # Band-limited: beyond this argument the transform is below the error of the sum.
    inside = int((kappa <= 12.0).sum())
    transform = torch.zeros_like(kappa)
    for start in range(0, inside, 64):
        part = slice(start, min(start + 64, inside))
        phase = kappa[part, None] / sigma * radius
        transform[part] = torch.special.bessel_j0(phase) @ weight
    return transform
