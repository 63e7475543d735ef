"""Sizes of the model. One definition, three presets."""

from dataclasses import asdict, dataclass
from typing import Any

from semagent.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that decides the shape of the weights.

    Attributes:
        name: name of the preset.
        dim: width of the encoder.
        depth: blocks of the encoder.
        heads: attention heads; ``dim / heads`` must be a multiple of 4.
        mlp_ratio: width of the feed-forward layers over ``dim``.
        expert_blocks: how many of the last blocks have experts instead of one feed-forward layer.
        experts: experts in such a block.
        expert_ratio: width of one expert over ``dim``.
        patch_px: edge of a token's patch.
        scales: levels of the pyramid whose spectra are measured, each half the size of the last.
        head_dim: width of the hidden layers of the reading heads.
        head_dropout: share of their hidden units that training leaves out.
        stem_channels: channels of the restoration at a quarter of the resolution; twice as many
            at an eighth.
        decoder_blocks: residual blocks before, at, and after the coarsest level.
        mask_dim: width of the decoder of the pretraining.
        mask_depth: its blocks.

    Raises:
        ConfigError: sizes do not go together.
    """

    name: str
    dim: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    expert_blocks: int = 2
    experts: int = 4
    expert_ratio: float = 4.0
    patch_px: int = 16
    scales: int = 4
    head_dim: int = 256
    head_dropout: float = 0.2
    stem_channels: int = 48
    decoder_blocks: tuple[int, int, int] = (2, 4, 2)
    mask_dim: int = 512
    mask_depth: int = 8

    def __post_init__(self) -> None:
        if self.dim % self.heads or (self.dim // self.heads) % 4:
            raise ConfigError(f"dim {self.dim} over heads {self.heads} is not a multiple of 4")
        if not 0 <= self.expert_blocks <= self.depth:
            raise ConfigError(
                f"expert_blocks {self.expert_blocks} is not in 0 to depth {self.depth}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint or a manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The inverse of `as_dict`.

        Raises:
            ConfigError: a key is unknown or missing.
        """
        try:
            return cls(**{**values, "decoder_blocks": tuple(values["decoder_blocks"])})
        except (KeyError, TypeError) as error:
            raise ConfigError(f"not a model configuration: {error}") from error


PRESETS = {
    preset.name: preset
    for preset in (
        # As large as two CPU cores can score in 25 ms and restore in 250 ms at 1024 x 768.
        ModelConfig(
            name="tiny",
            dim=128,
            depth=4,
            heads=4,
            expert_ratio=2.0,
            decoder_blocks=(2, 5, 3),
            mask_dim=96,
            mask_depth=2,
        ),
        ModelConfig(
            name="base",
            dim=768,
            depth=12,
            heads=12,
            head_dim=512,
            stem_channels=96,
            decoder_blocks=(4, 6, 4),
        ),
        # The encoder of ViT-MAE-Large, the backbone of arXiv 2604.05960.
        ModelConfig(
            name="large",
            dim=1024,
            depth=24,
            heads=16,
            head_dim=512,
            stem_channels=128,
            decoder_blocks=(4, 8, 4),
        ),
    )
}


def preset(name: str) -> ModelConfig:
    """The preset with this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PRESETS:
        raise ConfigError(f"model preset {name!r} does not exist; there are {', '.join(PRESETS)}")
    return PRESETS[name]
