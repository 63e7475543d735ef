"""``semagent engine export``: its arguments, and what they start."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from semagent.errors import InputFileError
from semagent_engines.data.batches import BatchSource
from semagent_engines.data.sources import read_sources, split_sources
from semagent_engines.export.artefact import model_of, write_artefact
from semagent_engines.export.calibrate import calibrate
from semagent_engines.train.checkpoint import load_checkpoint

_JUDGED_BATCHES = 10
_STAGES = ("measure", "adapt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``export``."""
    parser.add_argument(
        "checkpoint", type=Path, help="checkpoint of `train measure` or `train adapt`"
    )
    parser.add_argument("output", type=Path, help="folder of the artefact")
    parser.add_argument(
        "--data", type=Path, required=True, help="the training data: ranges and calibration"
    )


def run(arguments: argparse.Namespace) -> None:
    """Calibrate on the sources the checkpoint was not trained on, and export.

    Raises:
        UsageError: the checkpoint or the data cannot be used.
    """
    checkpoint = load_checkpoint(arguments.checkpoint)
    stage = checkpoint.record.get("stage")
    if stage not in _STAGES:
        raise InputFileError(
            f"{arguments.checkpoint}: of the stage {stage}, in which the heads that read blur have "
            f"not learned; give a checkpoint of {' or '.join(_STAGES)}"
        )
    names = list(checkpoint.record["validation"])
    trained, held_out = split_sources(read_sources(arguments.data), names)
    validation = BatchSource(held_out, seed=2, procedural_share=0.0, flat_share=0.0)
    model = model_of(checkpoint)
    calibration = calibrate(model, validation)
    manifest = write_artefact(
        checkpoint,
        arguments.output,
        calibration=calibration,
        ranges=BatchSource(trained, seed=3),
        judged=[validation.views(step, 8, 128) for step in range(_JUDGED_BATCHES)],
    )
    print(f"{arguments.output}: {manifest.name}, {calibration}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point for ``python -m semagent_engines.export.cli``."""
    parser = argparse.ArgumentParser(
        prog="semagent engine export", description="export a checkpoint as an artefact"
    )
    add_arguments(parser)
    run(parser.parse_args(argv))


if __name__ == "__main__":
    main()
