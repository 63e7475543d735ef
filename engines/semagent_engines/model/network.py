"""The whole model."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from semagent_engines.model.config import ModelConfig
from semagent_engines.model.encoder import Encoder
from semagent_engines.model.experts import Experts
from semagent_engines.model.heads import (
    BlurHead,
    PairHead,
    Reading,
    Signature,
    focus_score,
)
from semagent_engines.model.restoration import Restorer


class Normalised(NamedTuple):
    """Tiles with mean 0 and standard deviation 1, and what it takes to go back."""

    tiles: Tensor
    mean: Tensor
    std: Tensor


class Seen(NamedTuple):
    """Everything the model says of a batch of tiles.

    Attributes:
        reading: blur and noise.
        score: (N,), focus score.
        signature: for `SemModel.compare`.
        noise_grey: (N,), standard deviation of the noise in the tiles' grey values.
        restoration: restored tiles, if asked for.
    """

    reading: Reading
    score: Tensor
    signature: Signature
    noise_grey: Tensor
    restoration: "Restoration | None"


class Restoration(NamedTuple):
    """What encoder and decoder make of a batch of tiles.

    Attributes:
        tiles: (N, 1, H, W) in the grey values of the raw tiles.
        shares: (N, E), share of the tokens that each expert got.
        imbalance: load-balancing loss; 1 is balanced.
    """

    tiles: Tensor
    shares: Tensor
    imbalance: Tensor


class SemModel(nn.Module):
    """Scores, measures and restores tiles of micrographs in their own grey values.

    Tiles are (N, 1, H, W), float32, H and W multiples of 16 and at least 128, in any linear grey
    scale: each is normalised by its own mean and standard deviation inside the model, so 8 and
    16 bit give the same result and no runtime can normalise differently.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.blur_head = BlurHead(config)
        self.pair_head = PairHead(config)
        self.restorer = Restorer(config)

    def forward(self, pixels: Tensor, restore: bool = True) -> Seen:
        """Read, and optionally restore, raw tiles."""
        normal = normalise(pixels)
        spectra = self.encoder.spectrum(normal.tiles)
        reading: Reading = self.blur_head(spectra)
        return Seen(
            reading=reading,
            score=focus_score(reading.blur[:, 0]),
            signature=Signature(spectra, reading.blur, reading.blur_std),
            noise_grey=reading.noise * normal.std.flatten(),
            restoration=self._restore(normal, spectra) if restore else None,
        )

    def restore(self, pixels: Tensor) -> Restoration:
        """Restore raw tiles, without reading them."""
        normal = normalise(pixels)
        return self._restore(normal, self.encoder.spectrum(normal.tiles))

    def _restore(self, normal: Normalised, spectra: Tensor) -> Restoration:
        encoded = self.encoder(normal.tiles, spectra=spectra)
        residual = self.restorer(normal.tiles, encoded.summary, encoded.patches)
        tiles = (normal.tiles + residual) * normal.std + normal.mean
        return Restoration(tiles, encoded.shares, encoded.imbalance)

    def compare(self, first: Signature, second: Signature) -> tuple[Tensor, Tensor]:
        """Difference of the blur covariances of two frames; see `PairHead`."""
        difference: tuple[Tensor, Tensor] = self.pair_head(first, second)
        return difference

    def set_dense(self, dense: bool) -> None:
        """Choose the dispatch of all experts; dense is what exports."""
        for module in self.modules():
            if isinstance(module, Experts):
                module.dense = dense


def normalise(pixels: Tensor) -> Normalised:
    """Bring every tile to mean 0 and standard deviation 1.

    A tile without any variation becomes 0. The floor of the deviation is relative to the mean,
    since 16-bit and 8-bit values differ in size; the constant is for black tiles, and large
    enough to survive a runtime that stores constants in half precision.
    """
    mean = pixels.mean(dim=(-3, -2, -1), keepdim=True)
    centred = pixels - mean
    variance = centred.square().mean(dim=(-3, -2, -1), keepdim=True)
    std = (variance + (1e-4 * mean).square() + 1e-7).sqrt()
    return Normalised(centred / std, mean, std)


def load_part(model: SemModel, weights: Mapping[str, Tensor]) -> None:
    """Load some of the weights and leave the others as they are.

    Raises:
        ValueError: a name or a shape is not one of this model's.
    """
    own = model.state_dict()
    for name, value in weights.items():
        if name not in own or own[name].shape != value.shape:
            raise ValueError(f"the model has no weight {name} of shape {tuple(value.shape)}")
    model.load_state_dict({**own, **weights})


def build(config: ModelConfig) -> SemModel:
    """A new model with convolutions stored channels-last, which CPUs prefer."""
    model = SemModel(config)
    for layer in model.restorer.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    return model
