"""Checkpoints: everything needed to go on, or to use the model."""

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - torch.load raises it
from typing import Any

import torch
from torch import Tensor

from semagent.errors import InputFileError

_FORMAT = 1

# What torch raises on a file that is cut short, damaged or something else; it documents none.
_DAMAGE = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    UnpicklingError,
)


@dataclass(frozen=True)
class Checkpoint:
    """A state of training.

    Attributes:
        config: `ModelConfig.as_dict`.
        weights: state dict of the objective as trained.
        average: exponential moving average of the weights, which is what should be used.
        optimizer: state dict of the optimiser.
        step: optimiser steps so far.
        elapsed_s: training time so far.
        record: how it was trained: sources, seed, metrics; plain values.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    step: int
    elapsed_s: float
    record: dict[str, Any]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write so that an interrupted write never leaves a broken checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save({"format": _FORMAT, **vars(checkpoint)}, partial)
    partial.replace(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Only tensors and plain values are loaded, no code.

    Raises:
        InputFileError: there is none, or it is something else.
    """
    if not path.is_file():
        raise InputFileError(f"{path}: no such checkpoint")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        if values.pop("format") != _FORMAT:
            raise InputFileError(f"{path}: checkpoint of another format than {_FORMAT}")
        return Checkpoint(**values)
    except _DAMAGE as error:
        raise InputFileError(f"{path}: not a checkpoint of semagent: {error}") from error
