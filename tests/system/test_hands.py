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

    def write(after_moves: int, hand: str = "dwell") -> Path:
        return simulated_config(
            speed=0,
            column={"working_distance_mm": 4.95},  # from here a search ends with a move of its own
            after_moves=after_moves,
            hand=hand,
            _driver={"name": "touched"},
        )

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


@pytest.mark.parametrize("after_moves", [1, 8], ids=["in a search", "while it follows"])
def test_settings_changed_by_hand_pause_hold_and_are_said_once(
    semagent: Run, touched_config: Config, after_moves: int
):
    config = touched_config(after_moves)
    run = semagent("run", "--no-console", config, "--arm", "--mode", "hold", "--frames", 120)
    assert run.code == 0, run.err
    assert "120 frames, 0 unusable" in run.out
    assert CHANGE in run.err
    # On a slow machine the line on how the run stands comes again meanwhile, with why it rests.
    stands = [line for line in run.out.splitlines() if line.startswith("mode hold, ")]
    assert (run.out + run.err).count("changed") - "".join(stands).count("changed") == 1
    assert "could not" not in run.err


@pytest.mark.parametrize(
    ("hand", "after_moves", "words"),
    [
        ("focus", 1, "working distance reads "),
        ("focus", 3, "working distance reads "),
        ("stigmators", 1, "stigmator x reads 0.05 where 0 is expected"),
        ("stage", 1, "stage x reads 5 µm where 0 µm is expected"),
    ],
)
def test_an_axis_moved_by_hand_ends_an_autofocus_which_puts_nothing_back(
    semagent: Run, touched_config: Config, hand: str, after_moves: int, words: str
):
    run = semagent("autofocus", touched_config(after_moves, hand), "--arm", "--json")
    assert run.code == 3
    *frames, result = run.records
    assert result["status"] == "failed"
    assert result["reason"].startswith(f"moved by hand or by the microscope itself: {words}")
    assert result["reason"].endswith("; left as it is")
    turned_m = 20e-6 if hand == "focus" else 0.0
    left_m = frames[-1]["working_distance_m"] + turned_m
    assert result["final_working_distance_m"] == pytest.approx(left_m, abs=1e-12)
    assert "could not" not in run.err
    assert "the command" not in run.err


@pytest.mark.parametrize("after_moves", [1, 8], ids=["in a search", "while it follows"])
def test_focus_turned_by_hand_ends_hold_which_puts_nothing_back(
    semagent: Run, touched_config: Config, after_moves: int
):
    config = touched_config(after_moves, "focus")
    run = semagent("run", "--no-console", config, "--arm", "--mode", "hold", "--frames", 120)
    assert run.code == 0, run.err
    assert "120 frames, 0 unusable" in run.out
    assert "moved by hand or by the microscope itself: working distance reads" in run.err
    assert (run.out + run.err).count("reads") == 1
    assert "could not" not in run.err
    assert "the command" not in run.err


@pytest.mark.parametrize(
    ("hand", "words"),
    [
        ("focus meanwhile", "working distance reads "),
        ("stage meanwhile", "stage x reads 5 µm where 0 µm is expected"),
    ],
)
def test_a_hand_while_a_command_is_carried_out_ends_an_autofocus_which_says_what_it_may_be(
    semagent: Run, touched_config: Config, hand: str, words: str
):
    run = semagent("autofocus", touched_config(1, hand), "--arm", "--json")
    assert run.code == 3
    result = run.records[-1]
    assert result["status"] == "failed"
    assert (
        f"not carried out as commanded, or changed by hand meanwhile: {words}" in result["reason"]
    )
    assert "check it" in result["reason"]
