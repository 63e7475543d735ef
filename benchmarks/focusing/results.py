"""Results on disk: a folder of JSON Lines files that a run adds to and never rewrites."""

import re
from pathlib import Path
from typing import Any

import msgspec

from focusing.outcome import Outcome


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all results of one folder share; engine and control are those of semagent."""

    split: str
    seed: int
    engine: str = "sharpness"
    control: dict[str, Any] = {}


class Results:
    """The results in one folder.

    Args:
        folder: made if it does not exist.
        settings: have to be those of what is there already.
        part: (k, n): this process does every n-th trial, from the k-th on.
    """

    def __init__(self, folder: Path, settings: Settings, part: tuple[int, int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._part = folder, part
        note = folder / "settings.json"
        if note.exists():
            found = read_settings(folder)
            if found != settings:
                raise SystemExit(
                    f"{folder} holds results of {found}, not of {settings}; "
                    "name another folder with --results"
                )
        note.write_bytes(msgspec.json.encode(settings))
        self._done = {
            (outcome.experiment, outcome.method, outcome.number) for outcome in read(folder)
        }

    def has(self, experiment: str, method: str, number: int) -> bool:
        """Whether this trial was run with this method."""
        return (experiment, method, number) in self._done

    def add(self, outcome: Outcome) -> None:
        """Write an outcome."""
        self._done.add((outcome.experiment, outcome.method, outcome.number))
        name = f"{outcome.experiment}-{outcome.method}-{self._part[0]}of{self._part[1]}.jsonl"
        with (self._folder / _safe(name)).open("ab") as file:
            file.write(msgspec.json.encode(outcome) + b"\n")


def _safe(name: str) -> str:
    """A name as part of a file name."""
    return re.sub(r"[^\w.-]+", "_", name)


def read_settings(folder: Path) -> Settings:
    """The settings that the results of a folder were made with."""
    return msgspec.json.decode((folder / "settings.json").read_bytes(), type=Settings)


def read(folder: Path) -> list[Outcome]:
    """All outcomes in a folder; a line that a killed process left torn is not one."""
    outcomes = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            try:
                outcome = msgspec.json.decode(line, type=Outcome)
            except msgspec.DecodeError:
                continue
            outcomes[outcome.experiment, outcome.method, outcome.number] = outcome
    return list(outcomes.values())
