"""Networks of other designs for the same task, as large as the model's restoration.

Both take and return tiles in their own grey values, normalised inside as the model does, and
predict the residual.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from semagent_engines.model.network import Restoration, normalise


class Residual(nn.Module):
    """A network that restores normalised tiles, wrapped to restore raw ones."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def restore(self, pixels: Tensor) -> Restoration:
        """Restore (N, 1, H, W) tiles, H and W multiples of 16."""
        normal = normalise(pixels)
        tiles = (normal.tiles + self.network(normal.tiles)) * normal.std + normal.mean
        return Restoration(tiles, tiles.new_ones(len(tiles), 1), tiles.new_ones(()))


def _convolutions(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """The U-Net of Ronneberger, Fischer and Brox (MICCAI 2015), padded, with few channels."""

    def __init__(self, channels: int = 15, levels: int = 4) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(levels)]
        self.down = nn.ModuleList(
            _convolutions(before, width)
            for before, width in zip([1, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[:-1]
        )
        self.join = nn.ModuleList(_convolutions(2 * width, width) for width in widths[:-1])
        self.out = nn.Conv2d(channels, 1, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, image: Tensor) -> Tensor:
        """Residual of (N, 1, H, W)."""
        seen = [self.down[0](image)]
        for level in self.down[1:]:
            seen.append(level(functional.max_pool2d(seen[-1], 2)))
        features = seen.pop()
        for up, join in zip(reversed(self.up), reversed(self.join), strict=True):
            features = join(torch.cat([up(features), seen.pop()], dim=1))
        residual: Tensor = self.out(features)
        return residual


class _Gate(nn.Module):
    """SimpleGate: one half of the channels times the other."""

    def forward(self, features: Tensor) -> Tensor:
        first, second = features.chunk(2, dim=1)
        return first * second


class _ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Attention(nn.Module):
    """Simplified channel attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        weights: Tensor = self.weigh(features.mean(dim=(2, 3), keepdim=True))
        return features * weights


class _NafBlock(nn.Module):
    """The block of NAFNet: gates and multiplications instead of activation functions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            _ChannelNorm(channels),
            nn.Conv2d(channels, 2 * channels, 1),
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels),
            _Gate(),
            _Attention(channels),
            nn.Conv2d(channels, channels, 1),
        )
        self.feed = nn.Sequential(
            _ChannelNorm(channels),
            nn.Conv2d(channels, 2 * channels, 1),
            _Gate(),
            nn.Conv2d(channels, channels, 1),
        )
        self.mix_gain = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.feed_gain = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        features = features + self.mix_gain * self.mix(features)
        return features + self.feed_gain * self.feed(features)


class NafNet(nn.Module):
    """NAFNet (Chen, Chu, Zhang, Sun, ECCV 2022), narrower and shallower than published."""

    def __init__(
        self,
        channels: int = 16,
        encoder: tuple[int, ...] = (1, 1, 2, 3),
        middle: int = 4,
        decoder: tuple[int, ...] = (2, 1, 1, 1),
    ) -> None:
        super().__init__()

        def blocks(count: int, width: int) -> nn.Sequential:
            return nn.Sequential(*(_NafBlock(width) for _ in range(count)))

        widths = [channels * 2**level for level in range(len(encoder))]
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.encoder = nn.ModuleList(
            blocks(count, width) for count, width in zip(encoder, widths, strict=True)
        )
        self.down = nn.ModuleList(nn.Conv2d(width, 2 * width, 2, stride=2) for width in widths)
        self.middle = blocks(middle, 2 * widths[-1])
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * width, 4 * width, 1, bias=False), nn.PixelShuffle(2))
            for width in reversed(widths)
        )
        self.decoder = nn.ModuleList(
            blocks(count, width) for count, width in zip(decoder, reversed(widths), strict=True)
        )
        self.out = nn.Conv2d(channels, 1, 3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, image: Tensor) -> Tensor:
        """Residual of (N, 1, H, W)."""
        features = self.stem(image)
        seen = []
        for level, down in zip(self.encoder, self.down, strict=True):
            features = level(features)
            seen.append(features)
            features = down(features)
        features = self.middle(features)
        for up, level in zip(self.up, self.decoder, strict=True):
            features = level(up(features) + seen.pop())
        residual: Tensor = self.out(features)
        return residual
