"""A tile scan as a user starts it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from semagent.session import verify

Run = Callable[..., Any]
LIMITS = {"min": -1e-3, "max": 1e-3, "max_step": 4e-4, "max_travel": 1e-2}


@pytest.fixture
def config(simulated_config: Callable[..., Path]) -> Path:
    path = simulated_config(
        speed=0,
        specimen={"mount_tilt_x_deg": 3.0, "mount_tilt_y_deg": -2.0},
        column={"working_distance_mm": 5.004},
        drift={"z_nm_per_s": 5},
    )
    plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    plain["safety"] |= {"stage_x_m": LIMITS, "stage_y_m": LIMITS}
    plain["record"] = {"sync": False}
    plain["scan"] = {"grid": {"rows": 2, "columns": 3, "pitch_m": [1e-4, 1e-4]}, "focus_at": 4}
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    return path


def test_a_grid_with_its_map_its_picture_and_its_replay(
    semagent: Run, config: Path, tmp_path: Path
) -> None:
    record = tmp_path / "session"
    run = semagent("run", config, "--positions", "grid", "--arm", "--record", record, "--json")
    assert run.code == 0, run.err
    *records, summary = run.records
    visits = [each for each in records if each["event"] == "position"]
    assert [visit["index"] for visit in visits] == list(range(6))
    assert summary["event"] == "summary"
    assert summary["positions"] == 6
    assert summary["map"]["tilt"] == pytest.approx([-0.0524, 0.0349], abs=0.012)
    assert "focus changes by" in run.err

    with (record / "positions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["x_um"]) for row in rows] == pytest.approx([-100, 0, 100, 100, 0, -100])
    assert all(float(row["focus_score"]) > 0.7 for row in rows)
    assert json.loads((record / "focus-map.json").read_text())["tilt"] == summary["map"]["tilt"]
    assert (record / "focus-map.png").read_bytes().startswith(b"\x89PNG")
    assert verify(record) == []

    again = semagent("replay", record, "--compare", "--json")
    assert again.code == 0, again.err
    assert again.records[-1]["differences"] == 0


def test_a_list(semagent: Run, config: Path, tmp_path: Path) -> None:
    places = tmp_path / "places.csv"
    places.write_text("x_um,y_um\n0,0\n50,0\n50,50\n")
    record = tmp_path / "session"
    run = semagent("run", config, "--positions", places, "--arm", "--record", record, "--json")
    assert run.code == 0, run.err
    assert run.records[-1]["positions"] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--positions", "grid"), 2, "--record"),
        (("--positions", "grid", "--record", "x"), 5, "--arm"),
        (("--positions", "nowhere.csv", "--arm", "--record", "x"), 2, "nowhere.csv"),
        (("--positions", "grid", "--arm", "--record", "x", "--frames", "3"), 2, "--frames"),
    ],
)
def test_what_is_missing_is_said(
    semagent: Run, config: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    run = semagent("run", config, *arguments)
    assert run.code == code
    assert message in run.err
