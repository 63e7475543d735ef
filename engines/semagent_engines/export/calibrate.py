"""Bringing predicted standard deviations to the errors seen on validation sources."""

import torch
from torch import Tensor

from semagent_engines.data.batches import BatchSource
from semagent_engines.export.graphs import Calibration
from semagent_engines.model.heads import blur_target, pair_target
from semagent_engines.model.network import SemModel
from semagent_engines.runtime.readings import Z90

_TILE_PX = 384
_BATCHES, _PAIRS = 40, 3  # how many, of how many pairs each


@torch.no_grad()
def calibrate(model: SemModel, validation: BatchSource) -> Calibration:
    """Factors with which the 90 % intervals hold 90 % of the truths of the validation sources.

    Args:
        model: the model, in evaluation mode.
        validation: batches of sources that were not trained on.
    """
    blur, pair = [], []
    for step in range(_BATCHES):
        pairs = validation.pairs(1000 + step, _PAIRS, _TILE_PX)
        first = model(pairs.first.pixels, restore=False)
        second = model(pairs.second.pixels, restore=False)
        for seen, views in ((first, pairs.first), (second, pairs.second)):
            error = seen.reading.blur - blur_target(views.covariance)
            blur.append(error / seen.reading.blur_std)
        mean, std = model.compare(first.signature, second.signature)
        pair.append((mean - pair_target(pairs.first.covariance, pairs.second.covariance)) / std)
    return Calibration(blur=_factor(torch.cat(blur)), pair=_factor(torch.cat(pair)))


def _factor(scores: Tensor) -> float:
    return float(scores.abs().flatten().quantile(0.9)) / Z90
