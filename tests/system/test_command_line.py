"""What holds for every command: exit codes, JSON records, messages."""

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from semagent import cli
from semagent.cli.output import Output
from semagent.config import find_config
from semagent.session import verify
from semagent.testing.engines import specimen

Run = Callable[..., Any]
Config = Callable[..., Path]
TOO_LONG = "" if os.name == "nt" else "cannot be read"  # there it is the name of nothing


def test_an_output_that_knows_few_signs_does_not_end_a_run(
    semagent: Run, drawn_stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As a log file on Windows, in the code page of the country."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    run = semagent("simulate", drawn_stack, "--start-um", 4990)
    assert run.code == 0, run.err
    assert "mm -> 5.00" in run.out
    assert " mm +/- " in run.out
    config = tmp_path / "größe µ.yaml"
    config.write_bytes(find_config("simulated").read_bytes())
    check = semagent("check", config, "--json")
    assert check.out.isascii()
    assert check.records[0]["path"] == str(config)


def test_the_tables_are_for_people(semagent: Run, tmp_path: Path):
    path = tmp_path / "sharp.png"
    cv2.imwrite(str(path), specimen(256, 256, blur_px=1.0))
    run = semagent("score", path)
    assert run.code == 0
    assert "sharp.png" in run.out
    assert not run.out.startswith("{")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode there")
def test_names_that_are_no_unicode_are_printed_recorded_and_reported(
    semagent: Run, drawn_stack: Path, tmp_path: Path
):
    odd = tmp_path / os.fsdecode(b"10\xb5m")  # as a zip of Windows may leave it
    shutil.copytree(drawn_stack, odd)
    options = ["--engine", "sharpness", "--json"]
    run = semagent("score", odd / "frame_0000.png", *options)
    assert run.code == 0, run.err
    assert run.records[0]["path"] == str(odd / "frame_0000.png")
    session = tmp_path / os.fsdecode(b"session \xb5")
    run = semagent("estimate", odd, *options, "--record", session)
    assert run.code == 0, run.err
    assert verify(session) == []
    run = semagent("report", session)
    assert run.code == 0, run.err


def test_long_names_are_whole_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "40")
    rows = [[f"a-long-folder/frame_{number:04}.png", "0.5", "1.2 px"] for number in (1, 2)]
    Output(json=False).table("scores", ["image", "score", "blur"], rows)
    assert "…" not in capsys.readouterr().out


def test_scores_leave_room_for_names_in_the_usual_terminal(
    semagent: Run, drawn_stack: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(drawn_stack)
    run = semagent("score", *[f"frame_000{number}.png" for number in range(3)])
    assert run.out.lstrip().startswith("focus scores (")
    _, _, table = run.out.partition("│ frame")  # without a heading
    rows = [line for line in f"│ frame{table}".splitlines() if line.startswith("│")]
    assert len(rows) == 3  # a line each
    assert all(re.search(r"frame_000\d.png .* \d+\.\d\d × \d+\.\d\d ", row) for row in rows)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("simulate", "no-such-folder", "--json"), "no-such-folder"),
        (("score", "no-such-image.png", "--json"), "no-such-image.png"),
        (("run", "no-such-config"), "no-such-config"),
        (("check", "no-such-config"), "no-such-config"),
        (("replay", "no-such-session"), "no-such-session"),
        (("score", "x.png", "--engine", "no-such-engine"), "no-such-engine"),
        (("autofocus", "simulated", "--max-frames", "0"), "at least 1"),
        (("run", "simulated", "--mode", "autopilot"), "autopilot"),
        (("simulate", "no-such-folder", "--start-um", "nan"), "nan: a finite number"),
        (("run", "simulated", "--frames", "99999999999999999999"), "at most 1000000000"),
        (("estimate", "a" * 300), f"{'a' * 300}: {TOO_LONG}"),
        (("check", "a" * 300), f"{'a' * 300}: {TOO_LONG}"),
        (("browse", "a" * 300), f"{'a' * 300}: {TOO_LONG}"),
        (("restore", "x.png", "--output", "out", "--engine", "sharpness"), "needs a model"),
        (("restore", "x.png", "--output", "out"), "x.png"),
        (("restore", "x.png", "--output", "out", "--artefact", "none"), "not an artefact"),
        (("train", "finetune"), "data"),
        (("train", "pretrain", "x", "--output", "o", "--validation", "y"), "--minutes"),
        (("train", "adapt"), "adapt"),
        (("engine", "polish"), "polish"),
        ((), "COMMAND"),
    ],
)
def test_wrong_usage_is_exit_2_and_says_what(semagent: Run, arguments: tuple[str, ...], says: str):
    run = semagent(*arguments)
    assert run.code == 2
    assert says in run.err
    assert run.out == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("drivers", "--json"), 3),
        (("engine", "list"), 3),
        (("check", "--schema"), 3),
        (("autofocus", "CONFIG", "--arm", "--json"), 130),
    ],
)
def test_output_that_a_full_disk_does_not_take_is_said_to_be_lost(
    simulated_config: Config, arguments: tuple[str, ...], code: int
):
    """Not exit code 0: a script would take what it has for all there is."""
    named = [str(simulated_config()) if each == "CONFIG" else each for each in arguments]
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "semagent", *named],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert run.returncode == code
    assert "the output cannot be written: No space left on device" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.skipif(os.name == "nt", reason="by a shell")
def test_closed_output_is_read_by_nobody(tmp_path: Path):
    path = tmp_path / "raw.png"
    cv2.imwrite(str(path), specimen(256, 256, blur_px=2.0))
    score = f"'{sys.executable}' -m semagent score"
    for command, code, said in (
        (f"{score} '{path}' >&-", 0, ""),
        (f"{score} '{path}' --json >&-", 0, ""),
        (f"{score} no.png 2>&-", 2, ""),
        (f"{score} '{path}' >&- 2>&-", 0, ""),
        (f"{score} no.png >&-", 2, "error: no.png: no such file\n"),
    ):
        run = subprocess.run(
            ["/bin/sh", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert (run.returncode, run.stdout, run.stderr) == (code, "", said), command


def test_a_path_that_nobody_has_thought_of_is_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def forgetful(*_: object) -> int:
        return len((tmp_path / "gone").read_bytes())

    monkeypatch.setattr(cli, "_drivers", forgetful)
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["drivers"]) == 2
    assert f"{tmp_path / 'gone'}: cannot be used (" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_to_itself_is_exit_2(semagent: Run, tmp_path: Path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for command in ("browse", "estimate", "check"):
        run = semagent(command, loop)
        assert run.code == 2
        assert str(loop) in run.err


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="whoever runs this may read everything"
)
def test_a_folder_that_may_not_be_read_is_exit_2(semagent: Run, tmp_path: Path):
    shut = tmp_path / "shut"
    shut.mkdir(mode=0)
    for command, given in (("browse", shut), ("estimate", shut), ("check", shut / "file.yaml")):
        run = semagent(command, given)
        assert run.code == 2
        assert f"{given}: cannot be read" in run.err


def test_nan_never_reaches_the_json(capsys: pytest.CaptureFixture[str]):
    Output(json=True).record({"numbers": [math.nan, math.inf, -math.inf, 1.0]})
    assert capsys.readouterr().out == '{"numbers":[null,null,null,1.0]}\n'
