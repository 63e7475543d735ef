"""A hand at the microscope's own console, as whoever started the command sees it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
Config = Callable[..., Path]

CHANGE = "the settings were changed: dwell from 0.2 µs to 0.4 µs; left as it is"


@pytest.fixture
def touched_config(
    simulated_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Config:
    """Writes a configuration for the driver beside this file, which it installs."""
    folder = tmp_path / "installed"
    installed = folder / "touched-1.dist-info"
    installed.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("touched.py"), folder)
    (installed / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: touched\nVersion: 1\n", encoding="utf-8"
    )
    (installed / "entry_points.txt").write_text(
        "[semagent.drivers]\ntouched = touched:open_microscope\n", encoding="utf-8"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)

    def write(after_moves: int) -> Path:
        return simulated_config(speed=0, after_moves=after_moves, _driver={"name": "touched"})

    return write


@pytest.mark.parametrize("after_moves", [1, 3], ids=["on the way", "before the last move"])
def test_settings_changed_by_hand_end_an_autofocus_and_are_said_once(
    semagent: Run, touched_config: Config, after_moves: int
):
    run = semagent("autofocus", touched_config(after_moves), "--arm", "--json")
    assert run.code == 3
    *frames, result = run.records
    assert (result["status"], result["reason"]) == ("failed", CHANGE)
    assert result["frames_used"] == len(frames)
    assert result["final_working_distance_m"] == frames[-1]["working_distance_m"]
    assert run.err.count("changed") == 1
    read = semagent("autofocus", touched_config(after_moves), "--arm")
    assert read.code == 3
    assert (read.out + read.err).count("changed") == 1


@pytest.mark.parametrize("after_moves", [1, 12], ids=["in a search", "while it follows"])
def test_settings_changed_by_hand_pause_hold_and_are_said_once(
    semagent: Run, touched_config: Config, after_moves: int
):
    config = touched_config(after_moves)
    run = semagent("run", "--no-console", config, "--arm", "--mode", "hold", "--frames", 120)
    assert run.code == 0, run.err
    assert "120 frames, 0 unusable" in run.out
    assert CHANGE in run.err
    assert (run.out + run.err).count("changed") == 1
    assert "could not" not in run.err
