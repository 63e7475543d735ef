"""Run by ``torchrun`` with two workers: two steps, then both must hold the same weights."""

import sys
from pathlib import Path

import torch
from conftest import SMALL
from torch import distributed

from semagent_engines.data.batches import BatchSource
from semagent_engines.train.distributed import join
from semagent_engines.train.finetune import Finetuning
from semagent_engines.train.loop import Settings, train
from semagent_engines.train.schedule import Budget


def main(folder: Path, how: str) -> None:
    with join() as place:
        source = BatchSource([], seed=0, rank=place.rank, procedural_count=2, procedural_px=256)
        task = Finetuning(SMALL, source, source, views=((1, 128),))
        assert how in ("replicate", "shard")
        settings = Settings(
            Budget(steps=2), folder, spread="shard" if how == "shard" else "replicate"
        )
        train(task, settings, place, config=SMALL.as_dict(), record={}, report=print)
        weight = task.objective.model.encoder.embed_spectrum.weight.detach()
        full = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
        others = [torch.zeros_like(full) for _ in range(place.world)]
        distributed.all_gather(others, full)
        assert torch.equal(others[0], others[1])
        print("same weights", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
