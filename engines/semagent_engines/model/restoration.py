"""The restoration decoder: a light convolutional path that the encoder's tokens inform."""

from torch import Tensor, nn
from torch.nn import functional

from semagent_engines.model.config import ModelConfig

_FOLD = 4


class Residual(nn.Module):
    """Two convolutions around a rectifier, added to the input.

    Without normalisation, since grey values count.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        update: Tensor = self.second(functional.relu(self.first(features)))
        return features + update


class Restorer(nn.Module):
    """The residual between a tile and its restored version.

    Full resolution is folded into channels (pixel unshuffle by 4), so that every convolution
    runs on a sixteenth or less of the pixels. Half way the encoder's patch tokens come in, and
    its spectrum tokens, which know blur and noise, as a bias for each channel.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        fine, coarse = config.stem_channels, 2 * config.stem_channels
        before, middle, after = config.decoder_blocks
        self.patch_stretch = config.patch_px // (2 * _FOLD)
        self.stem = nn.Conv2d(_FOLD**2, fine, 3, padding=1)
        self.before = nn.Sequential(*(Residual(fine) for _ in range(before)))
        self.down = nn.Conv2d(fine, coarse, 2, stride=2)
        self.from_patches = nn.Conv2d(config.dim, coarse, 1)
        self.from_summary = nn.Linear(config.scales * config.dim, coarse)
        self.middle = nn.Sequential(*(Residual(coarse) for _ in range(middle)))
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.after = nn.Sequential(*(Residual(fine) for _ in range(after)))
        self.out = nn.Conv2d(fine, _FOLD**2, 3, padding=1)
        # A new model changes nothing.
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, image: Tensor, summary: Tensor, patches: Tensor) -> Tensor:
        """Residual of shape (N, 1, H, W) for a normalised image."""
        fine = self.before(self.stem(functional.pixel_unshuffle(image, _FOLD)))
        coarse = self.down(fine)
        stretch = self.patch_stretch
        rows, columns = coarse.shape[-2] // stretch, coarse.shape[-1] // stretch
        grid = patches.transpose(1, 2).reshape(patches.shape[0], -1, rows, columns)
        context = functional.interpolate(
            self.from_patches(grid), scale_factor=float(stretch), mode="bilinear"
        )
        bias = self.from_summary(summary.flatten(1))[:, :, None, None]
        coarse = self.middle(coarse + context + bias)
        fine = self.after(fine + functional.pixel_shuffle(self.up(coarse), 2))
        return functional.pixel_shuffle(self.out(fine), _FOLD)
