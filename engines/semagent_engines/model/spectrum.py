"""Local power spectra at several scales: what blur does to an image, nearly without the specimen.

Blur multiplies the power spectrum by the squared transfer function, so in the logarithm it is a
sum, and between two frames of one field the specimen cancels. A window of 16 pixels at full,
half, quarter and eighth size measures blurs from 0.3 to 20 pixels with one resolution per
octave, without a switch between scales.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

WINDOW_PX = 16
RADII = (0.07, 0.12, 0.17, 0.23, 0.29, 0.36, 0.44)
ANGLES = 8
FEATURES = 2 * len(RADII) * ANGLES
_FLOOR = 1e-6


class Spectrum(nn.Module):
    """Welch spectra on a polar grid of frequencies, as one strided convolution.

    The kernels are Hann-windowed complex exponentials (short-time Fourier transform), fixed, so
    the exported graph holds nothing but a convolution.

    Args:
        scales: levels of the pyramid.
    """

    kernels: Tensor

    def __init__(self, scales: int) -> None:
        super().__init__()
        self.scales = scales
        self.register_buffer("kernels", _kernels(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Log power spectra.

        Args:
            image: (N, 1, H, W), normalised; H and W at least 16 pixels at the coarsest scale.

        Returns:
            (N, scales, FEATURES): for each scale the logarithm of the mean power, and the mean of
            the logarithm, over the windows. Their difference tells sparse edges from texture.
        """
        levels = []
        for level in range(self.scales):
            if level:
                image = functional.avg_pool2d(image, 2)
            waves = functional.conv2d(image, self.kernels, stride=WINDOW_PX // 2)
            real, imaginary = waves.chunk(2, dim=1)
            power = real.square() + imaginary.square() + _FLOOR
            mean = power.mean(dim=(-2, -1)).log()
            levels.append(torch.cat([mean, power.log().mean(dim=(-2, -1))], dim=-1))
        return torch.stack(levels, dim=1)


def _kernels() -> Tensor:
    """(2 * RADII * ANGLES, 1, WINDOW_PX, WINDOW_PX): real parts, then imaginary parts."""
    axis = torch.arange(WINDOW_PX, dtype=torch.float64)
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * (axis + 0.5) / WINDOW_PX)
    taper = hann[:, None] * hann[None, :]
    taper = taper / taper.square().sum().sqrt()
    real: list[Tensor] = []
    imaginary: list[Tensor] = []
    for radius in RADII:
        for step in range(ANGLES):
            angle = math.pi * step / ANGLES
            kx = 2 * math.pi * radius * math.cos(angle)
            ky = 2 * math.pi * radius * math.sin(angle)
            phase = ky * axis[:, None] + kx * axis[None, :]
            for parts, wave in ((real, phase.cos()), (imaginary, phase.sin())):
                kernel = wave * taper
                # No response to the mean, which would leak into the lowest frequencies.
                parts.append(kernel - taper * kernel.sum() / taper.sum())
    return torch.stack(real + imaginary)[:, None].float()
