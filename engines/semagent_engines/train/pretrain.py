"""Masked-autoencoder pretraining of the encoder (He et al. 2022)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from semagent_engines.data.ahead import Ahead, ViewDrafts
from semagent_engines.data.batches import BatchSource, Draft, Ranges
from semagent_engines.model.config import ModelConfig
from semagent_engines.model.encoder import Block, Encoder, Rotary, feed_forward
from semagent_engines.model.network import normalise

_RANGES = Ranges(defocus=(0.25, 3.0), astigmatism=(0.1, 1.0), dose=(100.0, 3000.0))
_BALANCE = 0.01
_SEEN = 0.25  # share of the patches


class MaskedAutoencoder(nn.Module):
    """The encoder sees a quarter of the patches; a small decoder paints the others."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        width, heads = config.mask_dim, max(1, config.mask_dim // 32)
        self.rotary = Rotary(width // heads)
        self.narrow = nn.Linear(config.dim, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(
            Block(width, heads, feed_forward(width, 4.0)) for _ in range(config.mask_depth)
        )
        self.norm = nn.LayerNorm(width)
        self.paint = nn.Linear(width, config.patch_px**2)

    def forward(self, pixels: Tensor, order: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss on the hidden patches.

        Args:
            pixels: (N, 1, H, W).
            order: (N, T), a permutation of the patches for each image; the first quarter is seen.
        """
        image = normalise(pixels).tiles
        patch = self.config.patch_px
        target = nn.functional.unfold(image, patch, stride=patch).transpose(1, 2)
        seen = order[:, : max(1, round(order.shape[1] * _SEEN))]
        encoded = self.encoder(image, keep=seen)
        tokens = self.mask_token.expand(*order.shape, -1)
        index = seen[..., None].expand(-1, -1, tokens.shape[-1])
        tokens = tokens.scatter(1, index, self.narrow(encoded.patches))
        tokens = torch.cat([self.narrow(encoded.summary), tokens], dim=1)
        rows, columns = image.shape[-2] // patch, image.shape[-1] // patch
        extra = encoded.summary.shape[1]
        angles = self.rotary.angles(rows, columns, extra)[None, None]
        cosine, sine = angles.cos(), angles.sin()
        for block in self.blocks:
            tokens, _ = block(tokens, cosine, sine)
        painted = self.paint(self.norm(tokens[:, extra:]))
        error = (painted - target).square().mean(dim=-1)
        hidden = torch.ones_like(error).scatter(1, seen, 0.0)
        loss = (error * hidden).sum() / hidden.sum()
        parts = {"masked": loss, "imbalance": encoded.imbalance}
        return loss + _BALANCE * encoded.imbalance, parts


class Pretraining:
    """The `Task` of pretraining.

    Args:
        count: tiles in a batch.
        edge_px: edge of a tile.
        batch: factor of ``count``; a GPU wants more at once than a CPU.
        processes: how many draw batches ahead; see `Ahead`.
    """

    def __init__(
        self,
        config: ModelConfig,
        training: BatchSource,
        validation: BatchSource,
        *,
        count: int = 16,
        edge_px: int = 256,
        batch: int = 1,
        processes: int = 0,
    ) -> None:
        self.objective = MaskedAutoencoder(config)
        self._drafts = Ahead(ViewDrafts(training, ((batch * count, edge_px),), _RANGES), processes)
        self._judged = ViewDrafts(validation, ((count, edge_px),), _RANGES)

    def batch(self, step: int, device: torch.device) -> tuple[Any, ...]:
        """Pixels and the order that decides what is seen."""
        return self._make(self._drafts[step], step, device)

    def validate(self) -> Mapping[str, float]:
        """Error on hidden patches of the validation sources, in units of the tiles' variance."""
        device = next(self.objective.parameters()).device
        losses = [
            float(self.objective(*self._make(self._judged[step], step, device))[1]["masked"])
            for step in range(4)
        ]
        return {"masked": sum(losses) / len(losses)}

    def _make(self, draft: Draft, step: int, device: torch.device) -> tuple[Any, ...]:
        pixels = draft.to(device).acquire().pixels
        patches = pixels.shape[-2] * pixels.shape[-1] // self.objective.config.patch_px**2
        generator = torch.Generator().manual_seed(step)
        order = torch.rand(len(pixels), patches, generator=generator).argsort(dim=1)
        return pixels, order.to(device)
