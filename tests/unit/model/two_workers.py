"""Run by ``torchrun`` with two workers: both must hold the same weights, resumed or not."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from torch import distributed

from semagent.errors import UsageError
from semagent_engines.data.batches import BatchSource
from semagent_engines.train.checkpoint import Checkpoint, load_checkpoint
from semagent_engines.train.distributed import Place, join
from semagent_engines.train.finetune import Finetuning
from semagent_engines.train.loop import Settings, train
from semagent_engines.train.schedule import Budget

STEPS = 4


class Interrupted(Finetuning):
    """Ends after half of the steps, as if the machine had been switched off."""

    def batch(self, step: int, device: torch.device) -> tuple[Any, ...]:
        if step == STEPS // 2:
            raise InterruptedError
        return super().batch(step, device)


def run(kind: type[Finetuning], folder: Path, how: str, place: Place) -> Checkpoint:
    torch.manual_seed(0)
    source = BatchSource([], seed=0, rank=place.rank, procedural_count=2, procedural_px=256)
    task = kind(SMALL, source, source, views=((1, 128),))
    centre = task.objective.model.blur_head.standardise.centre.fill_(place.rank)
    assert how in ("replicate", "shard")
    spread = "shard" if how == "shard" else "replicate"
    settings = Settings(Budget(steps=STEPS), folder, save_s=0.0, spread=spread)
    try:
        train(task, settings, place, config=SMALL.as_dict(), record={}, report=print)
    except InterruptedError:
        assert kind is Interrupted
    weight = task.objective.model.encoder.embed_spectrum.weight.detach()
    for each in (weight, centre):
        full = each.full_tensor() if hasattr(each, "full_tensor") else each
        others = [torch.zeros_like(full) for _ in range(place.world)]
        distributed.all_gather(others, full)
        assert torch.equal(others[0], others[1])
    distributed.barrier()
    return load_checkpoint(folder / "checkpoint.pt")


def main(folder: Path, how: str) -> None:
    with join() as place:
        straight = run(Finetuning, folder / "straight", how, place)
        half = run(Interrupted, folder / "resumed", how, place)
        resumed = run(Finetuning, folder / "resumed", how, place)
        assert (straight.step, half.step, resumed.step) == (STEPS, STEPS // 2, STEPS)
        for name, value in straight.weights.items():
            torch.testing.assert_close(resumed.weights[name], value, rtol=0.0, atol=1e-7)
        for name, value in straight.average.items():
            torch.testing.assert_close(resumed.average[name], value, rtol=0.0, atol=1e-7)
        apart = folder / f"apart-{place.rank}"
        if place.leads:
            shutil.copytree(folder / "straight", apart)
        with pytest.raises(UsageError, match="steps 0 to 4, as they do not see the same"):
            run(Finetuning, apart, how, place)
        print("same weights", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
