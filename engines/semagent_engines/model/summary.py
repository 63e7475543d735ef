"""Sizes and costs of the presets: ``python -m semagent_engines.model.summary``."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from semagent_engines.model.config import PRESETS, ModelConfig
from semagent_engines.model.network import SemModel


@dataclass(frozen=True)
class Summary:
    """Parameters, and multiply-adds for a pixel of a 256 px tile as exported.

    Attributes:
        parameters: of the whole model, and of its encoder.
        encoder_parameters: of the encoder.
        encoder_macs: multiply-adds a pixel of the encoder.
        score_macs: multiply-adds a pixel for all readings.
        restore_macs: the same with restoration.
    """

    parameters: int
    encoder_parameters: int
    encoder_macs: float
    score_macs: float
    restore_macs: float


def summarise(config: ModelConfig) -> Summary:
    """Count without allocating the weights; every expert counts, as in the exported graph."""
    with torch.device("meta"):
        model = SemModel(config)
        pixels = torch.zeros(1, 1, 256, 256)
    model.set_dense(True)
    macs = [multiply_adds(partial(model, restore=restore), pixels) for restore in (False, True)]
    return Summary(
        parameters=sum(value.numel() for value in model.parameters()),
        encoder_parameters=sum(value.numel() for value in model.encoder.parameters()),
        encoder_macs=multiply_adds(model.encoder, pixels),
        score_macs=macs[0],
        restore_macs=macs[1],
    )


def multiply_adds(run: Callable[[Tensor], object], pixels: Tensor) -> float:
    """Multiply-adds for each of the pixels of some tiles."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run(pixels)
    return float(counter.get_total_flops()) / 2 / pixels.numel()


def main() -> None:
    """Print a Markdown table of all presets beside the published model's backbone."""
    print("| preset | parameters | encoder | multiply-adds a pixel: encoder | score | restore |")
    print("|---|---|---|---|---|---|")
    for name, config in PRESETS.items():
        found = summarise(config)
        print(
            f"| {name} | {found.parameters / 1e6:.1f} M | {found.encoder_parameters / 1e6:.1f} M "
            f"| {found.encoder_macs / 1e3:.1f} k "
            f"| {found.score_macs / 1e3:.1f} k | {found.restore_macs / 1e3:.1f} k |"
        )
    backbone = summarise(replace(PRESETS["large"], experts=1))
    print(
        f"| ViT-MAE-Large, backbone of arXiv 2604.05960 | | "
        f"{backbone.encoder_parameters / 1e6:.1f} M | {backbone.encoder_macs / 1e3:.1f} k | | |"
    )


if __name__ == "__main__":
    main()
