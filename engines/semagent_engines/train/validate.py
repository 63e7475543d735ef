"""Figures of merit on held-out sources."""

from collections.abc import Sequence

import torch
from torch import Tensor

from semagent_engines.data.batches import Pairs, Views
from semagent_engines.model.heads import blur_target, pair_target
from semagent_engines.model.network import SemModel
from semagent_engines.runtime.readings import Z90
from semagent_engines.train.losses import decibels


def judge_views(model: SemModel, batches: Sequence[Views]) -> dict[str, float]:
    """Restoration: mean PSNR before and after, dB, on fields that have structure."""
    before, after = [], []
    for views in batches:
        restored = model.restore(views.pixels).tiles
        structured = views.truth.std(dim=(1, 2, 3)) > 0.01
        before.append(decibels(views.pixels, views.truth)[structured])
        after.append(decibels(restored, views.truth)[structured])
    raw, done = torch.cat(before).mean(), torch.cat(after).mean()
    return {"psnr_raw": float(raw), "psnr": float(done), "gain_db": float(done - raw)}


def judge_pairs(model: SemModel, batches: Sequence[Pairs]) -> dict[str, float]:
    """Blur reading of single frames with 1 px ≤ σ ≤ 15 px, and of pairs.

    Medians of the absolute errors, and the share of truths inside the 90 % intervals.
    """
    single, single_std, truth = [], [], []
    pair, pair_std, pair_truth = [], [], []
    for batch in batches:
        first = model(batch.first.pixels, restore=False)
        second = model(batch.second.pixels, restore=False)
        for seen, views in ((first, batch.first), (second, batch.second)):
            single.append(seen.reading.blur)
            single_std.append(seen.reading.blur_std)
            truth.append(blur_target(views.covariance))
        mean, std = model.compare(first.signature, second.signature)
        pair.append(mean)
        pair_std.append(std)
        pair_truth.append(pair_target(batch.first.covariance, batch.second.covariance))
    target = torch.cat(truth)
    error = torch.cat(single) - target
    deviation = torch.cat(single_std)
    inside = (target[:, 0] > 0.0) & (target[:, 0] < 2.71)
    pair_error = torch.cat(pair) - torch.cat(pair_truth)
    pair_deviation = torch.cat(pair_std)
    visible = torch.cat(pair_truth)[:, 0].abs() > 1.4
    wrong = torch.sign(torch.cat(pair)[:, 0]) != torch.sign(torch.cat(pair_truth)[:, 0])
    return {
        "log_sigma": _median(error[inside, 0]),
        "astigmatism": _median(error[inside, 1:]),
        "coverage": _coverage(error[inside], deviation[inside]),
        "pair": _median(pair_error[:, 0]),
        "pair_astigmatism": _median(pair_error[:, 1:]),
        "pair_coverage": _coverage(pair_error, pair_deviation),
        "pair_wrong_sign": float(wrong[visible].float().mean()),
    }


def _median(values: Tensor) -> float:
    return float(values.abs().median())


def _coverage(error: Tensor, std: Tensor) -> float:
    return float((error.abs() < Z90 * std).float().mean())
