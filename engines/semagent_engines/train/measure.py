"""Training the heads that read blur, from spectra alone and over the whole range of blur.

The heads are small and spectra cost next to nothing, so some thousand frame pairs are measured
once and the heads see them many times. Trained together with the restoration they would learn far
more slowly: most of the time would go into encoder and decoder.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semagent_engines.data.ahead import Ahead, PairDrafts
from semagent_engines.data.batches import BatchSource, Views
from semagent_engines.model.config import ModelConfig
from semagent_engines.model.heads import Reading, Signature, pair_target
from semagent_engines.model.network import SemModel, build, normalise
from semagent_engines.train.losses import gaussian_loss, reading_loss
from semagent_engines.train.validate import judge_pairs

PAIR_PX = 384
_PER_BATCH = 4
_VALIDATION_BATCHES = 12
_JITTER = 0.05
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Measured:
    """One side of N frame pairs, measured.

    Attributes:
        spectra: (N, scales, FEATURES).
        covariance: (N, 3), true (xx, yy, xy), px².
        noise_share: (N,), true noise over the deviation of the tile.
    """

    spectra: Tensor
    covariance: Tensor
    noise_share: Tensor

    def to(self, device: torch.device) -> "Measured":
        """The same on another device."""
        return Measured(*(part.to(device) for part in vars(self).values()))


class HeadObjective(nn.Module):
    """Both heads and their losses; the rest of the model is frozen.

    Args:
        tuned: state dict of a fine-tuned `SemModel`, for encoder and restoration.
    """

    def __init__(self, config: ModelConfig, tuned: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.model = build(config)
        for name in ("encoder", "restorer"):
            self.model.get_submodule(name).load_state_dict(_below(tuned, f"{name}."))
        self.model.requires_grad_(False)
        self.model.blur_head.requires_grad_(True)
        self.model.pair_head.requires_grad_(True)

    def forward(self, first: Measured, second: Measured) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its parts for both sides of a batch of pairs."""
        sides, losses = [], []
        for side in (first, second):
            reading: Reading = self.model.blur_head(side.spectra)
            losses.append(reading_loss(reading, side.covariance, side.noise_share))
            # The pair head starts from the single readings but must not bend them to its needs.
            sides.append(Signature(side.spectra, reading.blur.detach(), reading.blur_std.detach()))
        mean, std = self.model.compare(*sides)
        pair = gaussian_loss(mean, std, pair_target(first.covariance, second.covariance))
        single = 0.5 * (losses[0] + losses[1])
        return single + pair, {"single": single, "pair": pair}


class Measuring:
    """The `Task` of training the heads.

    Args:
        tuned: state dict of a fine-tuned `SemModel`.
        pairs: how many frame pairs to measure before training begins.
        per_batch: pairs in a batch.
        seed: of which pairs a batch has, and of its noise.
        batch: factor of what is measured or learned from at once; a GPU wants more than a CPU.
        device: where pairs are measured.
        processes: how many draw them ahead; see `Ahead`.
    """

    def __init__(
        self,
        config: ModelConfig,
        training: BatchSource,
        validation: BatchSource,
        tuned: Mapping[str, Tensor],
        *,
        pairs: int = 8000,
        per_batch: int = 96,
        seed: int = 0,
        batch: int = 1,
        device: torch.device = _CPU,
        processes: int = 0,
        report: Callable[[str], None],
    ) -> None:
        self.objective = HeadObjective(config, tuned)
        model = self.objective.model.to(device)
        self._validation, self._per_batch = validation, batch * per_batch
        self._seed = seed
        sides: tuple[list[Measured], list[Measured]] = ([], [])
        at_once = batch * _PER_BATCH
        drafts = Ahead(PairDrafts(training, at_once, PAIR_PX), processes)
        for step in range(-(-pairs // at_once)):
            made = drafts[step].to(device).acquire()
            for side, views in zip(sides, (made.first, made.second), strict=True):
                side.append(measure(model, views).to(_CPU))
            if step % 250 == 249:
                report(f"measured {(step + 1) * at_once} of {pairs} pairs")
        self._first, self._second = (_joined(side) for side in sides)
        model.to(_CPU)
        every = torch.cat([self._first.spectra, self._second.spectra]).flatten(1)
        model.blur_head.standardise.fit(every)
        model.pair_head.standardise.fit(every)
        self._jitter = _JITTER * every.std(dim=0).view(self._first.spectra.shape[1:])

    def batch(self, step: int, device: torch.device) -> tuple[Any, ...]:
        """Both sides of some pairs, either way round."""
        rng = np.random.default_rng([self._seed, 11, step])
        index = torch.from_numpy(rng.integers(len(self._first.spectra), size=self._per_batch))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        picked = []
        for side in (self._first, self._second):
            spectra = side.spectra[index]
            # The same pair comes up many times; a little noise keeps it from being learned.
            spectra = spectra + self._jitter * torch.randn(spectra.shape, generator=generator)
            part = Measured(spectra, side.covariance[index], side.noise_share[index])
            picked.append(part.to(device))
        return tuple(picked if step % 2 else picked[::-1])

    def validate(self) -> Mapping[str, float]:
        """Readings on the validation sources; see `judge_pairs`."""
        device = next(self.objective.parameters()).device
        pairs = [
            self._validation.pairs(step, _PER_BATCH, PAIR_PX).to(device)
            for step in range(_VALIDATION_BATCHES)
        ]
        return judge_pairs(self.objective.model, pairs)


@torch.no_grad()
def measure(model: SemModel, views: Views) -> Measured:
    """Spectra of some views, with their truth."""
    tiles = normalise(views.pixels)
    spectra = model.encoder.spectrum(tiles.tiles)
    return Measured(spectra, views.covariance, views.noise / tiles.std.flatten())


def _joined(parts: list[Measured]) -> Measured:
    return Measured(
        torch.cat([part.spectra for part in parts]),
        torch.cat([part.covariance for part in parts]),
        torch.cat([part.noise_share for part in parts]),
    )


def _below(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
