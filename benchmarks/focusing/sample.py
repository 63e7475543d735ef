"""Searches of semagent from the first states of ``benchmarks/autofocus.py``."""

import argparse
from pathlib import Path

from focusing.ours import Ours
from focusing.outcome import Outcome
from focusing.trials import Fields, make_trial


class Sample:
    """The trials that the command line of a benchmark asks for.

    Args:
        description: what ``--help`` says.
    """

    def __init__(self, description: str) -> None:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
        parser.add_argument("--split", choices=("test", "train"), default="train")
        parser.add_argument("--trials", type=int, default=60)
        parser.add_argument("--cache", type=Path, default=Path("build/autofocus-fields"))
        arguments = parser.parse_args()
        fields = Fields(arguments.data, arguments.split, arguments.cache)
        self._trials = [make_trial("focus", i, fields, 1) for i in range(arguments.trials)]
        self._ours = Ours("semagent", "sharpness", {})

    def outcomes(self) -> list[Outcome]:
        """What becomes of a search in every trial, with the microscope as it is now."""
        return [self._ours(trial) for trial in self._trials]
