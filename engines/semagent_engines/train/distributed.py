"""One process or many: what ``torchrun`` sets up, and how the model is spread."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from semagent_engines.model.encoder import Block

Spread = Literal["replicate", "shard"]


@dataclass(frozen=True)
class Place:
    """Where this process stands among its workers."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes logs and checkpoints."""
        return self.rank == 0


@contextmanager
def join() -> Iterator[Place]:
    """Join the other workers if ``torchrun`` started this process, else work alone.

    NCCL on GPUs, gloo on CPUs.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    on_gpu = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        # TensorFloat-32 in matrix products too, as convolutions have it anyway.
        torch.set_float32_matmul_precision("high")
    if world == 1:
        yield Place(0, 1, device)
        return
    if on_gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Place(distributed.get_rank(), world, device)
        # Who leaves while others still exchange something aborts their process.
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def spread(module: nn.Module, place: Place, how: Spread) -> nn.Module:
    """Replicate ``module`` on all workers (DDP), or shard it over them (FSDP 2).

    Sharding is for models whose optimiser state does not fit one device, such as ``large``.
    """
    module.to(place.device)
    if place.world == 1:
        return module
    if how == "replicate":
        ids = [place.device.index] if place.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids)
    for parameter in module.parameters():
        # Sharding splits along the first dimension and knows no channels-last.
        parameter.data = parameter.data.contiguous()
    for buffer in module.buffers():
        # It leaves those alone, which are of the leading worker elsewhere.
        distributed.broadcast(buffer, 0)
    mesh = distributed.device_mesh.init_device_mesh(place.device.type, (place.world,))
    for part in module.modules():
        if isinstance(part, Block):
            fully_shard(part, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module
