"""``run --positions`` in this process: what it refuses, and what it leaves behind when it ends."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from semagent.cli import main, survey
from semagent.config import find_config
from semagent.errors import CommandRefusedError, GateRefusedError, MicroscopeError
from semagent.session import verify
from semagent.survey import Survey

LIMITS = {"min": -60e-6, "max": 60e-6, "max_step": 50e-6, "max_travel": 1e-2}


def configuration(folder: Path, pitch_m: float = 40e-6, **options: Any) -> Path:
    plain = yaml.safe_load(find_config("simulated").read_text(encoding="utf-8"))
    plain["driver"]["options"] = {
        "speed": 0,
        "scan": {"width_px": 256, "height_px": 192, "pixel_size_nm": 10, "dwell_us": 0.5},
        "column": {"working_distance_mm": 5.004},
        "specimen": {"kind": "particles", "working_distance_mm": 5.0, "tile_px": 1024},
        **options,
    }
    plain["engine"] = {"name": "sharpness"}
    plain["record"] = {"sync": False}
    plain["safety"] |= {"stage_x_m": LIMITS, "stage_y_m": LIMITS}
    grid = {"rows": 2, "columns": 2, "pitch_m": [40e-6, pitch_m]}
    plain["scan"] = {"grid": grid, "focus_at": 2}
    path = folder / "sem.yaml"
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    return path


def scan(config: Path, positions: Any = "grid") -> tuple[int, Path]:
    record = config.parent / "session"
    arguments = ["run", config, "--positions", positions, "--arm", "--record", record, "--json"]
    return main(list(map(str, arguments))), record


def test_a_list_beyond_the_limits_is_refused_before_the_microscope_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = tmp_path / "places.csv"
    places.write_text("x_um,y_um\n0,0\n20,-20\n61,5\n", encoding="utf-8")
    code, record = scan(configuration(tmp_path), places)
    assert code == 2
    said = capsys.readouterr().err
    assert f"{places}, position 3 of 3: stage x 61 µm is outside -60 µm to 60 µm" in said
    assert "stage_x_m" in said
    assert not record.exists()


def test_a_grid_beyond_the_limits_is_refused_before_anything_moves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, record = scan(configuration(tmp_path, pitch_m=140e-6))
    assert code == 2
    captured = capsys.readouterr()
    assert "scan.grid, position 1 of 4: stage y -70 µm is outside -60 µm to 60 µm" in captured.err
    assert captured.out == ""
    assert not (record / "positions.csv").exists()


def test_without_a_first_frame_that_can_be_used_nothing_moves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = scan(configuration(tmp_path, faults={"saturated": {"at": list(range(1, 9))}}))
    assert code == 3
    captured = capsys.readouterr()
    assert "the first frames cannot be used: " in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 130, "interrupted; stage and focus were put back"),
        (GateRefusedError("no travel left"), 5, "no travel left"),
        (CommandRefusedError("the stage is locked"), 3, "the stage is locked"),
        (MicroscopeError("the link is gone"), 3, "the link is gone"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_however_it_ends_what_was_visited_is_kept(
    error: BaseException | None,
    code: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    visited = survey._Bar.visited

    def ends(bar: Any, visit: Any) -> None:
        visited(bar, visit)
        if visit.index == 1 and error is None:
            signal.raise_signal(signal.SIGINT)
        elif visit.index == 1 and error is not None:
            raise error

    monkeypatch.setattr(survey._Bar, "visited", ends)
    ended, record = scan(configuration(tmp_path))
    captured = capsys.readouterr()
    assert ended == code
    assert said in captured.err
    assert f"wrote {record / 'positions.csv'}" in captured.err
    summary = json.loads(captured.out.splitlines()[-1])
    assert (summary["event"], summary["positions"], summary["planned"]) == ("summary", 2, 4)
    with (record / "positions.csv").open(encoding="utf-8", newline="") as file:
        assert [row["index"] for row in csv.DictReader(file)] == ["0", "1"]
    assert json.loads((record / "focus-map.json").read_text()) == summary["map"]
    assert verify(record) == []


def test_positions_at_which_focus_is_not_found_are_named_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    focus = Survey._focus

    def finds(survey: Survey, index: int) -> str:
        return "too faint" if index == 1 else focus(survey, index)

    monkeypatch.setattr(Survey, "_focus", finds)
    code, record = scan(configuration(tmp_path))
    assert code == 0
    captured = capsys.readouterr()
    assert (
        "1 positions may be out of focus, as it was looked for there and not found: 1\n"
        in captured.err
    )
    *records, summary = map(json.loads, captured.out.splitlines())
    (visit,) = [each for each in records if each.get("how") == "held"]
    assert (visit["index"], visit["reason"]) == (1, "too faint")
    assert summary["held"] == 1
    with (record / "positions.csv").open(encoding="utf-8", newline="") as file:
        assert [row["reason"] for row in csv.DictReader(file)] == ["", "too faint", "", ""]


def test_files_that_cannot_be_written_do_not_hide_why_it_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(_bar: Any, _visit: Any) -> None:
        (tmp_path / "session" / "positions.csv").mkdir()
        raise MicroscopeError("the link is gone")

    monkeypatch.setattr(survey._Bar, "visited", ends)
    code, _ = scan(configuration(tmp_path))
    said = capsys.readouterr().err
    assert code == 3
    assert "positions.csv" in said
    assert "the link is gone" in said


def test_a_program_that_dies_leaves_table_and_map_of_what_was_visited(tmp_path: Path) -> None:
    """The process ends in the middle of the scan, as after a power cut."""
    config, record = configuration(tmp_path), tmp_path / "session"
    dies = (
        "import os, sys; from semagent.cli import main, survey\n"
        "step, visits = survey._Bar.step, []\n"
        "survey._Bar.visited = lambda bar, visit: visits.append(visit)\n"
        "survey._Bar.step = lambda bar, header: os._exit(9) if len(visits) == 2 else None\n"
        "main(sys.argv[1:])"
    )
    scan = ["run", config, "--positions", "grid", "--arm", "--record", record, "--json"]
    ended = subprocess.run([sys.executable, "-c", dies, *map(str, scan)], check=False)
    assert ended.returncode == 9
    with (record / "positions.csv").open(encoding="utf-8", newline="") as file:
        assert [row["index"] for row in csv.DictReader(file)] == ["0", "1"]
    assert json.loads((record / "focus-map.json").read_text())["focused"]


def test_a_table_that_another_program_holds_does_not_end_the_scan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    visited, table = survey._Bar.visited, tmp_path / "session" / "positions.csv"

    def held(bar: Any, visit: Any) -> None:
        visited(bar, visit)
        if visit.index == 1:
            table.unlink()
            table.mkdir()
        elif visit.index == 3:
            table.rmdir()

    monkeypatch.setattr(survey._Bar, "visited", held)
    code, _ = scan(configuration(tmp_path))
    assert code == 0
    assert capsys.readouterr().err.count("it is written when the scan ends") == 1
    with table.open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4


def test_results_that_another_program_holds_to_the_end_are_written_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    visited, table = survey._Bar.visited, tmp_path / "session" / "positions.csv"

    def held(bar: Any, visit: Any) -> None:
        visited(bar, visit)
        table.mkdir(exist_ok=True)

    monkeypatch.setattr(survey._Bar, "visited", held)
    code, record = scan(configuration(tmp_path))
    said = capsys.readouterr()
    assert code == 0
    assert f"all results are in {record / 'results'} instead" in said.err
    with (record / "results" / "positions.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
    summary = json.loads(said.out.splitlines()[-1])
    assert json.loads((record / "results" / "focus-map.json").read_text()) == summary["map"]
