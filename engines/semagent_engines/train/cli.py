"""``semagent train``: its arguments."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from semagent.errors import UsageError
from semagent_engines.model.config import PRESETS
from semagent_engines.runtime.artefact import DEFAULT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands, one a stage."""
    commands = parser.add_subparsers(dest="stage", required=True)
    for name, text in (
        ("pretrain", "masked pretraining of the encoder"),
        ("finetune", "train encoder and restoration"),
        ("measure", "train the heads that read blur from one frame and from two"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("data", type=Path, help="folder with one sub-folder per source")
        command.add_argument("--output", type=Path, required=True, help="checkpoint and logs")
        command.add_argument(
            "--validation", nargs="+", required=True, metavar="SOURCE", help="held-out sources"
        )
        command.add_argument("--steps", type=int, help="optimiser steps")
        command.add_argument("--minutes", type=float, help="training time")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
        command.add_argument("--shard", action="store_true", help="FSDP instead of DDP")
        command.add_argument(
            "--batch", type=int, default=1, help="times as many images at once; for a GPU"
        )
        command.add_argument(
            "--processes", type=int, default=0, help="that draw batches ahead; for a GPU"
        )
        if name != "measure":
            command.add_argument("--preset", choices=sorted(PRESETS), default="tiny")
        if name == "finetune":
            command.add_argument(
                "--start", type=Path, help="checkpoint of a pretraining or of a fine-tuning"
            )
            command.add_argument(
                "--teacher", type=Path, help="checkpoint of a fine-tuning to learn from, any preset"
            )
        if name == "measure":
            command.add_argument(
                "--model", type=Path, required=True, help="checkpoint of a fine-tuning"
            )
            command.add_argument("--pairs", type=int, default=8000, help="frame pairs to measure")
    command = commands.add_parser("adapt", help="tune the restoration to one instrument")
    command.add_argument("frames", type=Path, help="a recorded session, or a folder of frames")
    command.add_argument("--output", type=Path, required=True, help="log and new artefact")
    command.add_argument("--artefact", type=Path, default=DEFAULT, help="what to start from")
    command.add_argument(
        "--pairs", type=Path, help="CSV table of real pairs, columns defocused and focused"
    )
    command.add_argument("--steps", type=int, help="optimiser steps")
    command.add_argument("--minutes", type=float, help="training time; 5 if neither is given")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--rate", type=float, default=2e-4, help="peak learning rate")


def _check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that cannot be meant.

    Raises:
        UsageError: one is too small, or neither steps nor minutes are given.
    """
    least = {"--steps": 1, "--seed": 0, "--batch": 1, "--processes": 0}
    if arguments.stage == "measure":
        least["--pairs"] = 1
    for option, smallest in least.items():
        value = getattr(arguments, option[2:], None)
        if value is not None and value < smallest:
            raise UsageError(f"{arguments.stage}: {option} {value} is not {smallest} or more")
    for option in ("--minutes", "--rate"):
        value = getattr(arguments, option[2:])
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{arguments.stage}: {option} {value} is not above 0")
    if arguments.stage != "adapt" and arguments.steps is None and arguments.minutes is None:
        raise UsageError(f"{arguments.stage}: give --steps, or --minutes, or both")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point for ``torchrun -m semagent_engines.train.cli``."""
    parser = argparse.ArgumentParser(prog="semagent train", description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    _check(arguments)
    # PyTorch takes seconds to load, which help and mistakes need not wait for.
    from semagent_engines.train.stages import run  # noqa: PLC0415

    run(arguments)


if __name__ == "__main__":
    main()
