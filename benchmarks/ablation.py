"""What each part of the restoration's recipe is worth, and two other networks of equal cost.

    python benchmarks/ablation.py --data DATA --results runs/ablation

Every variant is trained from scratch on the same batches for the same number of steps and judged
on the same views of the validation sources, so that differences are paired. The budget is far
smaller than that of the shipped weights: what pays early need not pay late. Finished variants in
the results folder are not trained again.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import torch
from restoration_networks import NafNet, Residual, UNet
from torch import Tensor, nn

from semagent_engines.data.batches import BatchSource, Views
from semagent_engines.data.sources import Source, read_sources, split_sources
from semagent_engines.export.weights import model_of_artefact
from semagent_engines.model.config import preset
from semagent_engines.model.network import Restoration, build, load_part, normalise
from semagent_engines.model.summary import multiply_adds
from semagent_engines.runtime.artefact import DEFAULT, open_artefact
from semagent_engines.train.checkpoint import load_checkpoint
from semagent_engines.train.distributed import Place
from semagent_engines.train.finetune import Objective
from semagent_engines.train.loop import Settings, train
from semagent_engines.train.losses import decibels
from semagent_engines.train.pretrain import Pretraining
from semagent_engines.train.schedule import Budget

TINY = preset("tiny")
COUNT, EDGE_PX = 8, 128
TILE_PX = 256
VALIDATION_BATCHES = 24
CURVE_BATCHES = 6
FREQUENCY_WEIGHT = 0.1
PRETRAINING = "pretraining"


@dataclass(frozen=True)
class Variant:
    """How one row of the table is trained.

    Attributes:
        network: makes the network.
        pretrained: whether its encoder starts from masked pretraining.
        procedural_share: share of procedural specimens among the crops.
        frequency: whether the spectra of restored and true image are compared too.
        distilled: whether the shipped model teaches.
        seed: of weights and batches.
    """

    network: Callable[[], nn.Module] = lambda: build(TINY)
    pretrained: bool = True
    procedural_share: float = 0.3
    frequency: bool = False
    distilled: bool = False
    seed: int = 0


class WithoutTransformer(nn.Module):
    """The convolutional restoration alone: neither patches nor spectra inform it."""

    def __init__(self) -> None:
        super().__init__()
        self.restorer = build(TINY).restorer

    def forward(self, image: Tensor) -> Tensor:
        """Residual of (N, 1, H, W)."""
        count, patches = len(image), image[0].numel() // TINY.patch_px**2
        summary = image.new_zeros(count, TINY.scales, TINY.dim)
        residual: Tensor = self.restorer(image, summary, image.new_zeros(count, patches, TINY.dim))
        return residual


VARIANTS: Mapping[str, Variant] = {
    "the recipe": Variant(),
    "another seed": Variant(seed=1),
    "no pretraining": Variant(pretrained=False),
    "one expert, as wide as one": Variant(
        lambda: build(replace(TINY, experts=1)), pretrained=False
    ),
    "one expert, as wide as all four": Variant(
        lambda: build(replace(TINY, experts=1, expert_ratio=4 * TINY.expert_ratio)),
        pretrained=False,
    ),
    "no transformer": Variant(lambda: Residual(WithoutTransformer()), pretrained=False),
    "no procedural specimens": Variant(procedural_share=0.0),
    "frequency loss": Variant(frequency=True),
    "distillation from the shipped model": Variant(distilled=True),
    "twice as wide a restoration": Variant(
        lambda: build(replace(TINY, stem_channels=2 * TINY.stem_channels))
    ),
    "U-Net": Variant(lambda: Residual(UNet()), pretrained=False),
    "NAFNet": Variant(lambda: Residual(NafNet()), pretrained=False),
}


class VariantObjective(Objective):
    """The losses of a variant."""

    def __init__(self, variant: Variant) -> None:
        shipped = model_of_artefact(open_artefact(DEFAULT)) if variant.distilled else None
        super().__init__(variant.network(), shipped)
        self.variant = variant

    def loss(self, restored: Restoration, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, and its parts that all variants share."""
        loss, parts = super().loss(restored, views)
        if self.variant.frequency:
            std = normalise(views.pixels).std
            loss = loss + FREQUENCY_WEIGHT * frequency_loss(restored.tiles, views.truth, std)
        return loss, parts


def frequency_loss(restored: Tensor, truth: Tensor, std: Tensor) -> Tensor:
    """Mean absolute difference of the spectra, as L. Jiang et al. (ICCV 2021) without weights."""
    spectrum = torch.fft.rfft2((restored - truth) / std, norm="ortho")
    return spectrum.abs().mean()


class Training:
    """The `Task` of a variant; remembers its curve."""

    def __init__(self, variant: Variant, training: BatchSource, views: list[Views]) -> None:
        self.objective = VariantObjective(variant)
        self._training, self._views = training, views
        self._step = 0
        self.curve: list[tuple[int, float]] = []

    def batch(self, step: int, device: torch.device) -> tuple[Any, ...]:
        """The views of this step."""
        self._step = step + 1
        return (self._training.views(step, COUNT, EDGE_PX).to(device),)

    def validate(self) -> Mapping[str, float]:
        """PSNR on some of the validation views, dB."""
        psnr = float(judge(self.objective.model, self._views[:CURVE_BATCHES]).mean())
        self.curve.append((self._step, psnr))
        return {"psnr": psnr}


def judge(model: nn.Module | None, batches: list[Views]) -> npt.NDArray[np.float32]:
    """PSNR of every view with structure, dB; without a model, of what was acquired."""
    found = []
    with torch.no_grad():
        for views in batches:
            tiles = model.restore(views.pixels).tiles if model else views.pixels
            structured = views.truth.std(dim=(1, 2, 3)) > 0.01
            found.append(decibels(tiles, views.truth)[structured].numpy())
    return np.concatenate(found)


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/")
    parser.add_argument("--results", type=Path, required=True, help="folder of the results")
    parser.add_argument("--validation", nargs="+", default=["axons", "bacterial-cellulose"])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--pretraining-steps", type=int, default=200)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--plot", type=Path, help="PNG of the curves")
    options = parser.parse_args()

    chosen, held_out = split_sources(read_sources(options.data / "train"), options.validation)
    validation = BatchSource(held_out, seed=1, procedural_share=0.0, flat_share=0.0)
    views = [validation.views(step, COUNT, EDGE_PX) for step in range(VALIDATION_BATCHES)]
    encoder = pretrain(options, chosen, validation)
    for name in options.variants:
        if not result_file(options, name).exists():
            run(name, options, chosen, views, encoder)
    results = {
        name: json.loads(result_file(options, name).read_text())
        for name in VARIANTS
        if result_file(options, name).exists()
    }
    print(table(results))
    shipped = model_of_artefact(open_artefact(DEFAULT))
    print(
        f"As acquired: {judge(None, views).mean():.2f} dB; "
        f"the shipped model, trained for hours: {judge(shipped, views).mean():.2f} dB."
    )
    if options.plot:
        plot(results, options.plot)


def result_file(options: argparse.Namespace, name: str) -> Path:
    """Where the result of a variant is kept."""
    return Path(options.results) / f"{name.replace(' ', '-').replace(',', '')}.json"


def settings(options: argparse.Namespace, folder: Path, steps: int) -> Settings:
    """The same for every variant but for the steps."""
    return Settings(
        Budget(steps=steps), folder, peak_rate=options.rate, average_decay=0.99, validate_s=60.0
    )


def alone() -> Place:
    """This process."""
    return Place(rank=0, world=1, device=torch.device("cpu"))


def pretrain(
    options: argparse.Namespace, chosen: list[Source], validation: BatchSource
) -> dict[str, Tensor]:
    """Weights of the encoder after masked pretraining."""
    folder = options.results / PRETRAINING
    torch.manual_seed(0)
    path = train(
        Pretraining(TINY, BatchSource(chosen, seed=0), validation),
        settings(options, folder, options.pretraining_steps),
        alone(),
        config=TINY.as_dict(),
        record={},
        report=lambda line: print(f"{PRETRAINING}: {line}", flush=True),
    )
    return {
        name: value
        for name, value in load_checkpoint(path).average.items()
        if name.startswith("encoder.")
    }


def run(
    name: str,
    options: argparse.Namespace,
    chosen: list[Source],
    views: list[Views],
    encoder: dict[str, Tensor],
) -> None:
    """Train and judge one variant."""
    variant = VARIANTS[name]
    torch.manual_seed(variant.seed)
    source = BatchSource(chosen, seed=variant.seed, procedural_share=variant.procedural_share)
    task = Training(variant, source, views)
    model = task.objective.model
    if variant.pretrained:
        load_part(model, encoder)
    began = time.process_time()
    folder = result_file(options, name).with_suffix("")
    path = train(
        task,
        settings(options, folder, options.steps),
        alone(),
        config=TINY.as_dict(),
        record={},
        report=lambda line: print(f"{name}: {line}", flush=True),
    )
    spent = time.process_time() - began
    task.objective.load_state_dict(load_checkpoint(path).average)
    task.objective.eval()
    result = {
        "psnr_db": judge(model, views).tolist(),
        "parameters": sum(v.numel() for v in model.parameters() if v.requires_grad),
        "multiply_adds": multiply_adds(model.restore, torch.zeros(1, 1, TILE_PX, TILE_PX)),
        "cpu_s_per_step": spent / options.steps,
        "steps": options.steps,
        "curve": task.curve,
    }
    result_file(options, name).write_text(json.dumps(result))


def table(results: Mapping[str, Any]) -> str:
    """Every variant beside the first, in pairs."""
    first = np.array(next(iter(results.values()))["psnr_db"])
    rows = [
        "| restoration trained with | PSNR dB | beside | parameters | multiply-adds | s a step |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        psnr = np.array(result["psnr_db"])
        change = psnr - first
        error = change.std(ddof=1) / np.sqrt(len(change))
        beside = f"{change.mean():+.2f} ± {error:.2f}" if change.any() else ""
        rows.append(
            f"| {name} | {psnr.mean():.2f} | {beside} | {result['parameters'] / 1e6:.2f} M "
            f"| {result['multiply_adds'] / 1e3:.1f} k | {result['cpu_s_per_step']:.2f} |"
        )
    some = next(iter(results.values()))
    rows.append(f"\n{some['steps']} steps of {COUNT} crops of {EDGE_PX}² px; {len(first)} views.")
    return "\n".join(rows)


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Validation PSNR over steps."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.set_prop_cycle(color=plt.get_cmap("tab20").colors)
    for name, result in results.items():
        steps, psnr = zip(*result["curve"], strict=True)
        axes.plot(steps, psnr, label=name)
    axes.set(xlabel="step", ylabel="PSNR of the validation sources, dB")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
