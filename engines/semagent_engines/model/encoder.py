"""The shared encoder: a vision transformer over patches and spectra."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from semagent_engines.model.config import ModelConfig
from semagent_engines.model.experts import Experts, Routed
from semagent_engines.model.spectrum import FEATURES, Spectrum


class Encoded(NamedTuple):
    """Result of `Encoder`.

    Attributes:
        summary: (N, scales, D), what became of the tokens that held the spectra.
        patches: (N, T, D), one token for each patch, row by row.
        shares: (N, E), share of the tokens for each expert, mean over the blocks with experts.
        imbalance: scalar, mean load-balancing loss; 1 is balanced.
    """

    summary: Tensor
    patches: Tensor
    shares: Tensor
    imbalance: Tensor


class Rotary(nn.Module):
    """Rotary positions in two dimensions (RoFormer, axial): attention sees only distances.

    A tile therefore gives the same result wherever it lies in the frame, and any number of
    patches works. The spectrum tokens lie at the origin.
    """

    rates: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        quarter = head_dim // 4
        rates = 1.0 / 100.0 ** (torch.arange(quarter, dtype=torch.float32) / quarter)
        self.register_buffer("rates", rates, persistent=False)

    def angles(self, rows: int, columns: int, extra: int) -> Tensor:
        """(extra + rows * columns, head_dim / 2)."""
        device = self.rates.device
        y = torch.arange(rows, device=device, dtype=torch.float32)[:, None] * self.rates
        x = torch.arange(columns, device=device, dtype=torch.float32)[:, None] * self.rates
        quarter = self.rates.shape[0]
        grid = torch.cat(
            [
                y[:, None, :].expand(rows, columns, quarter),
                x[None, :, :].expand(rows, columns, quarter),
            ],
            dim=-1,
        )
        grid = grid.reshape(rows * columns, 2 * quarter)
        return torch.cat([grid.new_zeros(extra, 2 * quarter), grid])

    @staticmethod
    def rotate(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Rotate (N, heads, T, head_dim) by angles of shape (N or 1, 1, T, head_dim / 2)."""
        first, second = vectors.chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


class Block(nn.Module):
    """A pre-norm transformer block; its feed-forward layer may be a mixture of experts."""

    def __init__(self, dim: int, heads: int, mlp: nn.Module) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = mlp

    def forward(self, tokens: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Routed | None]:
        """(N, T, D) tokens to the same, and how experts were chosen if there are any."""
        tokens = tokens + self._attention(tokens, cosine, sine)
        update = self.mlp(self.mlp_norm(tokens))
        if isinstance(update, Routed):
            return tokens + update.tokens, update
        return tokens + update, None

    def _attention(self, tokens: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        count, length, dim = tokens.shape
        qkv = self.qkv(self.attention_norm(tokens))
        qkv = qkv.reshape(count, length, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(
            Rotary.rotate(query, cosine, sine), Rotary.rotate(key, cosine, sine), value
        )
        projected: Tensor = self.project(mixed.transpose(1, 2).reshape(count, length, dim))
        return projected


def feed_forward(dim: int, ratio: float) -> nn.Module:
    """The usual two-layer perceptron."""
    hidden = int(dim * ratio)
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class Encoder(nn.Module):
    """Patches and spectra to tokens, through attention and experts."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch_px = config.patch_px
        self.scales = config.scales
        self.spectrum = Spectrum(config.scales)
        self.embed_patch = nn.Conv2d(1, config.dim, config.patch_px, stride=config.patch_px)
        self.embed_spectrum = nn.Linear(FEATURES, config.dim)
        self.scale_token = nn.Parameter(torch.randn(config.scales, config.dim) * 0.02)
        self.rotary = Rotary(config.dim // config.heads)
        first_expert = config.depth - config.expert_blocks
        self.blocks = nn.ModuleList(
            Block(
                config.dim,
                config.heads,
                feed_forward(config.dim, config.mlp_ratio)
                if index < first_expert
                else Experts(config.dim, int(config.dim * config.expert_ratio), config.experts),
            )
            for index in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.dim)

    def forward(
        self, image: Tensor, *, keep: Tensor | None = None, spectra: Tensor | None = None
    ) -> Encoded:
        """Encode normalised images.

        Args:
            image: (N, 1, H, W), both a multiple of the patch.
            keep: (N, K) indices of the patches to see; the others are dropped before the first
                block, as in masked-autoencoder pretraining. ``None`` keeps all.
            spectra: of ``image``, where they are known already.
        """
        if spectra is None:
            spectra = self.spectrum(image)
        # About -14 to 3 by construction; this brings it to the size of the patches' embedding.
        summary = self.embed_spectrum(spectra * 0.25) + self.scale_token
        grid = self.embed_patch(image)
        angles = self.rotary.angles(grid.shape[-2], grid.shape[-1], self.scales)[None]
        patches = grid.flatten(2).transpose(1, 2)
        if keep is not None:
            patches = torch.take_along_dim(patches, keep[..., None], dim=1)
            kept = torch.take_along_dim(angles[:, self.scales :], keep[..., None], dim=1)
            head = angles[:, : self.scales].expand(kept.shape[0], -1, -1)
            angles = torch.cat([head, kept], dim=1)
        cosine, sine = angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)
        tokens = torch.cat([summary, patches], dim=1)
        shares, imbalance = [], []
        for block in self.blocks:
            tokens, routed = block(tokens, cosine, sine)
            if routed is not None:
                shares.append(routed.shares)
                imbalance.append(routed.imbalance)
        tokens = self.norm(tokens)
        return Encoded(
            tokens[:, : self.scales],
            tokens[:, self.scales :],
            torch.stack(shares).mean(dim=0) if shares else tokens.new_ones(tokens.shape[0], 1),
            torch.stack(imbalance).mean() if imbalance else tokens.new_ones(()),
        )
