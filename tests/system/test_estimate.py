"""Where focus is in images of one field: `semagent estimate`."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from semagent.session import verify

from .frames import flat, stack_of

Run = Callable[..., Any]


def test_estimate_says_where_focus_is(semagent: Run, drawn_stack: Path):
    run = semagent("estimate", drawn_stack, "--json")
    assert run.code == 0, run.err
    (record,) = run.records
    assert set(record) == {
        "focus_working_distance_m",
        "sigma_m",
        "interval90_m",
        "stigmator_correction",
        "frames",
        "engine",
    }
    low_m, high_m = record["interval90_m"]
    assert low_m < record["focus_working_distance_m"] < high_m
    assert abs(record["focus_working_distance_m"] - 5.003e-3) < 2e-6
    assert len(record["frames"]) == 33


def test_estimate_from_some_frames(semagent: Run, drawn_stack: Path):
    run = semagent("estimate", drawn_stack, "--frames", "4,10,16,22,28", "--json")
    assert run.code == 0, run.err
    assert len(run.records[0]["frames"]) == 5


def test_an_estimate_that_is_recorded_makes_a_report(
    semagent: Run, drawn_stack: Path, tmp_path: Path
):
    folder = tmp_path / "estimate"
    run = semagent("estimate", drawn_stack, "--frames", "4,16,22", "--record", folder)
    assert run.code == 0, run.err
    assert run.out.startswith("focus at")
    assert verify(folder) == []
    assert semagent("report", folder).code == 0
    page = (tmp_path / "estimate.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2  # over time, and frame by frame
    assert "from 3 frames</p>" in page
    assert "3 frames in figures" in page
    assert (tmp_path / "estimate.png").stat().st_size > 10_000
    again = semagent("estimate", drawn_stack, "--record", folder)
    assert again.code == 2
    assert "never overwrites" in again.err


def test_the_report_of_an_estimate_that_held_says_so(semagent: Run, tmp_path: Path):
    folder = tmp_path / "estimate"
    black = stack_of(tmp_path / "stack", flat(0, 0))
    assert semagent("estimate", black, "--record", folder).code == 4
    assert verify(folder) == []
    assert semagent("report", folder).code == 0
    page = (tmp_path / "estimate.html").read_text(encoding="utf-8")
    assert "held: these frames do not say where focus is: 0 frames can be used" in page
    assert "saturated" in page


@pytest.mark.parametrize("frames", ["3", "0,99", "0,-1", "4,16,4"])
def test_estimate_refuses_frames_that_are_not_there_or_are_there_twice(
    semagent: Run, drawn_stack: Path, frames: str
):
    run = semagent("estimate", drawn_stack, f"--frames={frames}", "--json")
    assert run.code == 2
    assert run.out == ""
    assert "--frames" in run.err


@pytest.mark.parametrize(
    ("frames", "used"),
    [(flat(0, 0), 0), (flat(255, 0), 0), (flat(120, 12), 3)],
    ids=["black", "saturated", "empty"],
)
def test_estimate_claims_no_focus_where_there_is_nothing_to_see(
    semagent: Run, tmp_path: Path, frames: list[np.ndarray], used: int
):
    run = semagent("estimate", stack_of(tmp_path / "stack", frames), "--json")
    assert run.code == 4
    (record,) = run.records
    assert record["focus_working_distance_m"] is None
    assert record["interval90_m"] is None
    assert len(record["frames"]) == used
    assert run.err.count("not fit for use: saturated, blank") == 3 - used
    assert "give pixel_size_nm in stack.csv, or PhysicalSizeX in an OME-TIFF" in run.err


def test_estimate_leaves_out_what_is_not_fit_for_use(
    semagent: Run, drawn_stack: Path, tmp_path: Path
):
    spoilt = shutil.copytree(drawn_stack, tmp_path / "spoilt")
    frames = sorted(spoilt.glob("*.png"))
    cv2.imwrite(str(frames[3]), np.zeros_like(cv2.imread(str(frames[3]), cv2.IMREAD_UNCHANGED)))
    run = semagent("estimate", spoilt, "--json")
    assert run.code == 0, run.err
    (record,) = run.records
    assert len(record["frames"]) == 32
    assert str(frames[3]) not in record["frames"]
    assert abs(record["focus_working_distance_m"] - 5.003e-3) < 2e-6


def test_estimate_holds_where_focus_may_be_anywhere_in_the_stack(semagent: Run, drawn_stack: Path):
    run = semagent("estimate", drawn_stack, "--frames", "0,1,2", "--json")
    assert run.code == 4
    assert run.records[0]["sigma_m"] is None


@pytest.mark.parametrize(("wrong_nm", "half_depth"), [(0.01, "2.0 nm"), (10000.0, "2.00 mm")])
def test_estimate_holds_where_a_pixel_size_cannot_be(
    semagent: Run, drawn_stack: Path, tmp_path: Path, wrong_nm: float, half_depth: str
):
    """A thousand times too small, or too large."""
    stack = shutil.copytree(drawn_stack, tmp_path / "stack")
    table = (stack / "stack.csv").read_text(encoding="utf-8")
    wrong = table.replace(",10.0,", f",{wrong_nm},")
    assert wrong != table
    (stack / "stack.csv").write_text(wrong, encoding="utf-8")
    run = semagent("estimate", stack, "--frames", "4,16,22")
    assert run.code == 4, run.out
    scale = f"by their pixel size of {wrong_nm:g} nm half a depth of field is {half_depth}"
    assert f"{scale}: is that right?" in run.out.replace("\n", " ")
