"""The command line as scripts use it: exit codes, JSON records, messages."""

import errno
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import yaml

from semagent import cli
from semagent.cli.output import Output
from semagent.config import find_config
from semagent.session import storage, verify
from semagent.testing.engines import specimen
from semagent.types import MicroscopeAction
from semagent_drivers.simulated.microscope import SimulatedMicroscope
from semagent_engines.runtime.artefact import DEFAULT

Run = Callable[..., Any]
Config = Callable[..., Path]

TOO_LONG = "" if os.name == "nt" else "cannot be read"  # there it is the name of nothing
FRAME_KEYS = {"event", "working_distance_m", "focus_score", "belief", "action", "faults"}
RESULT_KEYS = {
    "event",
    "status",
    "reason",
    "astigmatism_open",
    "start_working_distance_m",
    "final_working_distance_m",
    "sigma_m",
    "frames_used",
    "moves",
    "engine",
    "wall_s",
}


@pytest.mark.parametrize("start_um", [4972, 5030])
def test_simulate_ends_focused_from_both_sides(semagent: Run, drawn_stack: Path, start_um: int):
    run = semagent("simulate", drawn_stack, "--start-um", start_um, "--json")
    assert run.code == 0, run.err
    *frames, result = run.records
    assert all(set(frame) == FRAME_KEYS for frame in frames)
    assert set(result) == RESULT_KEYS
    assert result["status"] == "focused"
    assert abs(result["start_working_distance_m"] - start_um * 1e-6) <= 1.25e-6
    truth = json.loads((drawn_stack / "truth.json").read_text(encoding="utf-8"))
    error_m = result["final_working_distance_m"] - truth["focus_working_distance_m"]
    assert abs(error_m) <= 2.6e-6  # the stack's own step is 2.5 um
    assert result["frames_used"] == len(frames) <= 16
    assert frames[0]["working_distance_m"] == result["start_working_distance_m"]
    assert frames[0]["action"]["type"] == "set_working_distance"


def test_simulate_is_deterministic_and_a_seed_picks_the_start(semagent: Run, drawn_stack: Path):
    def ending(*arguments: object) -> tuple[float, float, int]:
        result = semagent("simulate", drawn_stack, "--json", *arguments).records[-1]
        return (
            result["start_working_distance_m"],
            result["final_working_distance_m"],
            result["frames_used"],
        )

    assert ending("--seed", 1) == ending("--seed", 1)
    assert ending("--seed", 1)[0] != ending("--seed", 2)[0]


def test_simulate_holds_on_noise_and_nothing_moves(semagent: Run, tmp_path: Path):
    rng = np.random.default_rng(5)
    rows = ["file,working_distance_um"]
    for index in range(9):
        noise = rng.normal(120, 15, (256, 256)).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{index}.png"), noise)
        rows.append(f"{index}.png,{4990 + 2.5 * index}")
    (tmp_path / "stack.csv").write_text("\n".join(rows), encoding="utf-8")
    run = semagent("simulate", tmp_path, "--start-um", 5000, "--json")
    assert run.code == 4
    result = run.records[-1]
    assert result["status"] == "held"
    assert result["moves"] == 0
    assert result["final_working_distance_m"] == result["start_working_distance_m"]


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


def test_simulate_keeps_to_its_frames(semagent: Run, drawn_stack: Path):
    run = semagent("simulate", drawn_stack, "--start-um", 4972, "--max-frames", 2, "--json")
    result = run.records[-1]
    assert (run.code, result["status"], result["frames_used"]) == (4, "held", 2)
    assert result["final_working_distance_m"] == result["start_working_distance_m"]


def test_a_stack_can_be_watched_in_the_console(drawn_stack: Path, press_ctrl_c: Any):
    pytest.importorskip("starlette", reason="the extra 'console' is not installed")
    arguments = ("simulate", str(drawn_stack), "--start-um", "4990", "--console", "--json")
    with subprocess.Popen(
        [sys.executable, "-m", "semagent", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any("/?token=" in line for line in process.stderr)
        for line in process.stdout:
            frame = json.loads(line)
            sigma_m = frame["belief"]["sigma_m"]
            if sigma_m is not None and sigma_m < 1e-6:
                break
        press_ctrl_c(process)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert frame["belief"]["focus_m"] == pytest.approx(5003e-6, abs=2e-6)


def test_autofocus_focuses_a_microscope(semagent: Run, simulated_config: Config):
    config = simulated_config(speed=0)
    run = semagent("autofocus", config, "--arm", "--json")
    assert run.code == 0, run.err
    result = run.records[-1]
    assert result["status"] == "focused"
    assert abs(result["final_working_distance_m"] - 5.0e-3) < 2e-6


def test_autofocus_pauses_between_frames_where_it_is_told_to(
    semagent: Run, simulated_config: Config
):
    interval_s = 0.2
    config = simulated_config(speed=0, _acquire={"frame_interval_s": interval_s})
    run = semagent("autofocus", config, "--arm", "--json")
    assert run.code == 0, run.err
    result = run.records[-1]
    assert result["wall_s"] > (result["frames_used"] - 1) * interval_s


def test_autofocus_without_arming_is_refused_and_no_frame_exposed(
    semagent: Run, simulated_config: Config
):
    run = semagent("autofocus", simulated_config(speed=0), "--json")
    assert run.code == 5
    [result] = run.records
    assert (result["event"], result["frames_used"], result["moves"]) == ("result", 0, 0)
    assert result["final_working_distance_m"] == result["start_working_distance_m"]
    assert run.err.endswith("error: a focusing moves focus and stigmators: give --arm\n")


def test_travel_beyond_the_envelope_is_refused_and_focus_goes_back(
    semagent: Run, simulated_config: Config
):
    tight = {"min": 0.004, "max": 0.006, "max_step": 10e-6, "max_travel": 20e-6}
    config = simulated_config(speed=0, _safety={"working_distance_m": tight})
    run = semagent("autofocus", config, "--arm", "--json")
    assert run.code == 5
    assert run.records[-1]["final_working_distance_m"] == pytest.approx(5.03e-3, abs=1e-9)
    assert "max_travel" in run.err


def test_the_search_stays_within_the_envelope(semagent: Run, simulated_config: Config):
    tight = {"min": 0.00502, "max": 0.00504, "max_step": 0.0002, "max_travel": 0.02}
    config = simulated_config(speed=0, _safety={"working_distance_m": tight})
    run = semagent("autofocus", config, "--arm", "--json")
    *frames, result = run.records
    assert all(0.00502 <= frame["working_distance_m"] <= 0.00504 for frame in frames)
    assert "refused" not in run.err
    assert (run.code, result["status"]) == (4, "held")  # focus is at 5.0000 mm
    assert "beyond the allowed range of 5.0200 to 5.0400 mm" in result["reason"]
    assert result["final_working_distance_m"] == pytest.approx(5.03e-3, abs=1e-9)


@pytest.mark.parametrize(("budget_e_nm2", "frames"), [(3.0, 2), (1.0, 0)])
def test_a_dose_budget_is_kept_and_said_to_be_the_reason(
    semagent: Run, simulated_config: Config, budget_e_nm2: float, frames: int
):
    # 100 pA for 0.2 us on a pixel of 10 nm: 1.25 electrons a square nanometre and frame.
    config = simulated_config(speed=0, _control={"autofocus": {"max_dose_e_nm2": budget_e_nm2}})
    run = semagent("autofocus", config, "--arm", "--json")
    assert run.code == 4, run.err
    *exposed, result = run.records
    assert (result["status"], result["frames_used"], len(exposed)) == ("held", frames, frames)
    assert result["reason"].startswith(f"the dose budget of {budget_e_nm2:g} e/nm²")
    assert result["final_working_distance_m"] == pytest.approx(5.03e-3, abs=1e-9)


def test_a_microscope_that_goes_away_is_exit_3(semagent: Run, simulated_config: Config):
    config = simulated_config(speed=0, faults={"disconnect": {"at": [3]}})
    run = semagent("autofocus", config, "--arm", "--json")
    assert run.code == 3
    assert "error:" in run.err


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


def stack_of(folder: Path, frames: list[np.ndarray]) -> Path:
    """A folder with these frames and the table of where they were taken."""
    folder.mkdir()
    rows = ["file,working_distance_um"]
    for index, pixels in enumerate(frames):
        cv2.imwrite(str(folder / f"{index}.png"), pixels)
        rows.append(f"{index}.png,{5000 + 2.5 * index}")
    (folder / "stack.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder


def flat(grey: float, noise: float) -> list[np.ndarray]:
    """Frames of an empty field."""
    rng = np.random.default_rng(4)
    return [rng.normal(grey, noise, (256, 256)).clip(0, 255).astype(np.uint8) for _ in range(3)]


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


def test_score_gives_no_score_to_what_is_not_fit_for_use(semagent: Run, tmp_path: Path):
    folder = stack_of(
        tmp_path / "frames", [*flat(0, 0)[:1], *flat(120, 12)[:1], specimen(256, 256, blur_px=1.0)]
    )
    run = semagent("score", *sorted(folder.glob("*.png")), "--json")
    assert run.code == 0, run.err
    black, empty, clear = run.records
    assert (black["focus_score"], black["blur"]) == (None, None)
    assert black["faults"] == ["saturated", "blank"]
    assert empty["faults"] == clear["faults"] == []
    assert empty["structure"] < 0.45 < clear["structure"]
    assert empty["focus_score"] < 0.05 < clear["focus_score"]
    black_says, empty_says = run.err.splitlines()
    assert "0.png: no score, not fit for use: saturated, blank" in black_says
    assert "1.png: its score says nothing" in empty_says


def test_restore_does_not_vouch_for_what_shows_nothing(semagent: Run, tmp_path: Path):
    folder = stack_of(
        tmp_path / "frames", [*flat(0, 0)[:1], *flat(120, 12)[:1], specimen(256, 256, blur_px=1.0)]
    )
    run = semagent("restore", *sorted(folder.glob("*.png")), "--output", tmp_path / "out", "--json")
    assert run.code == 0, run.err
    black, empty, clear = run.records
    assert (black["focus_score_before"], black["focus_score_after"]) == (None, None)
    trusted = []
    for record in (black, empty, clear):
        with tifffile.TiffFile(record["output"]) as restored:
            trusted.append(json.loads(restored.pages[0].description)["trustworthy"])
    assert trusted == [False, False, True]
    assert "1.png: do not trust this restoration, there is nothing to focus on" in run.err
    assert "2.png" not in run.err


@pytest.mark.parametrize("command", ["score", "restore", "estimate"])
def test_a_frame_that_is_too_small_is_wrong_input(semagent: Run, tmp_path: Path, command: str):
    frames = [specimen(100, 100, blur_px=blur_px) for blur_px in (1.0, 2.0)]
    folder = stack_of(tmp_path / "small", frames)
    given = [folder] if command == "estimate" else [folder / "0.png"]
    output = ["--output", tmp_path / "restored"] if command == "restore" else []
    run = semagent(command, *given, *output)
    assert run.code == 2
    assert f"{folder / '0.png'}: a frame of 100 x 100 pixels" in run.err
    assert "128 x 128 are needed" in run.err


def test_wildcards_that_the_shell_left_are_filled_in(semagent: Run, tmp_path: Path):
    for name in ("b1.png", "a.png", "b[1].png"):
        cv2.imwrite(str(tmp_path / name), specimen(256, 256, blur_px=1.0))
    run = semagent("score", tmp_path / "b[1].png", tmp_path / "[ab]*.png", "--json")
    assert run.code == 0, run.err
    names = [Path(record["path"]).name for record in run.records]
    assert names == ["b[1].png", "a.png", "b1.png", "b[1].png"]


def test_score_keeps_the_order_given(semagent: Run, tmp_path: Path):
    paths = []
    for index, blur_px in enumerate((6.0, 1.0, 3.0)):
        path = tmp_path / f"{index}.png"
        cv2.imwrite(str(path), specimen(512, 512, blur_px=blur_px))
        paths.append(path)
    run = semagent("score", *paths, "--json")
    assert run.code == 0, run.err
    records = run.records
    assert [record["path"] for record in records] == [str(path) for path in paths]
    assert set(records[0]) == {
        "path",
        "focus_score",
        "blur",
        "noise",
        "structure",
        "faults",
        "engine",
        "latency_ms",
    }
    assert records[1]["focus_score"] > records[2]["focus_score"] > records[0]["focus_score"]
    assert set(records[0]["blur"]) == {"major_px", "minor_px", "angle_rad", "log_sigma"}


def test_restore_writes_a_marked_copy_beside_the_raw_file(semagent: Run, tmp_path: Path):
    path = tmp_path / "raw.png"
    cv2.imwrite(str(path), specimen(320, 400, blur_px=2.0))
    before = path.read_bytes()
    ours = shutil.copytree(DEFAULT, tmp_path / "ours")
    run = semagent("restore", path, "--output", tmp_path / "out", "--artefact", ours, "--json")
    assert run.code == 0, run.err
    (record,) = run.records
    assert set(record) == {
        "path",
        "output",
        "focus_score_before",
        "focus_score_after",
        "consistency",
        "engine",
        "latency_ms",
    }
    assert path.read_bytes() == before
    with tifffile.TiffFile(record["output"]) as restored:
        pixels = restored.asarray()
        about = json.loads(restored.pages[0].description)
    assert (pixels.shape, pixels.dtype) == ((320, 400), np.uint8)
    assert about["derived"] is True
    assert about["source"] == "raw.png"
    again = semagent("restore", path, "--output", tmp_path / "out")
    assert again.code == 2
    assert "overwritten" in again.err


def test_restore_writes_where_the_copy_explains_the_frame(semagent: Run, tmp_path: Path):
    # Half of the field is twice as noisy as the other, which one noise level does not explain.
    clear, noisy = (specimen(320, 416, blur_px=2.0, noise=noise) for noise in (4.0, 16.0))
    clear[:, 208:] = noisy[:, 208:]
    cv2.imwrite(str(tmp_path / "raw.png"), clear)
    folder = tmp_path / "out"
    command = ("restore", tmp_path / "raw.png", "--output", folder, "--consistency-map", "--json")
    run = semagent(*command)
    assert run.code == 0, run.err
    (record,) = run.records
    assert record["consistency_map"] == str(folder / "raw-consistency.tif")
    with tifffile.TiffFile(record["consistency_map"]) as file:
        plane, about = file.asarray(), json.loads(file.pages[0].description)
        assert file.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
    assert (plane.shape, plane.dtype) == (clear.shape, np.float32)
    assert plane.mean() == pytest.approx(record["consistency"], rel=0.3)
    assert plane[:, 208:].mean() > 3 * plane[:, :208].mean()
    assert (about["derived"], about["source"]) == (True, "raw.png")
    Path(record["output"]).unlink()
    assert semagent(*command).code == 2


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A scan of 16 bits that three detectors recorded at once, the last of them noise alone."""
    clear = specimen(320, 400, blur_px=2.0, noise=3.0)
    faint = 255 - specimen(320, 400, blur_px=2.0, noise=12.0)
    noise = np.random.default_rng(0).normal(120, 9, clear.shape).round().astype(np.uint8)
    path = tmp_path / "scan.ome.tif"
    tifffile.imwrite(
        path,
        np.stack([clear, faint, noise]).astype(np.uint16) * 257,
        ome=True,
        photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": ["SE", "BSE", "In-lens"]}},
    )
    return path


def test_score_reads_one_blur_from_the_detectors_of_a_scan(semagent: Run, scan: Path):
    run = semagent("score", scan, "--json")
    assert run.code == 0, run.err
    records = run.records
    assert [record["detector"] for record in records] == ["SE", "BSE", "In-lens"]
    seen = [record["blur"] for record in records]
    assert seen[2] is None
    (joint,) = {tuple(record["scan_blur"].items()) for record in records}
    sizes = [math.hypot(each["major_px"], each["minor_px"]) for each in (*seen[:2], dict(joint))]
    assert min(sizes[:2]) <= sizes[2] <= max(sizes[:2])
    assert dict(joint)["log_sigma"] < min(each["log_sigma"] for each in seen[:2])
    table = semagent("score", scan)
    assert f"together is {dict(joint)['major_px']:.2f} × " in table.out


def test_a_scan_of_noise_has_no_blur(semagent: Run, tmp_path: Path):
    noise = np.random.default_rng(0).normal(120, 9, (2, 256, 256)).round().astype(np.uint8)
    path = tmp_path / "noise.ome.tif"
    tifffile.imwrite(path, noise, ome=True, photometric="minisblack", metadata={"axes": "CYX"})
    run = semagent("score", path, "--json", "--engine", "sharpness")
    assert run.code == 0, run.err
    assert [record["detector"] for record in run.records] == ["channel 1", "channel 2"]
    assert all(record["scan_blur"] is None for record in run.records)


def test_restore_keeps_the_channels_of_a_scan(semagent: Run, scan: Path, tmp_path: Path):
    run = semagent("restore", scan, "--output", tmp_path / "out", "--consistency-map", "--json")
    assert run.code == 0, run.err
    records = run.records
    assert [record["detector"] for record in records] == ["SE", "BSE", "In-lens"]
    (output,) = {record["output"] for record in records}
    (consistency,) = {record["consistency_map"] for record in records}
    assert tifffile.imread(consistency).shape == tifffile.imread(scan).shape
    with tifffile.TiffFile(output) as restored:
        pixels, raw = restored.asarray(), tifffile.imread(scan)
        image = tifffile.xml2dict(restored.ome_metadata or "")["OME"]["Image"]
    assert (pixels.shape, pixels.dtype) == (raw.shape, np.uint16)
    assert not any(np.array_equal(one, other) for one, other in zip(pixels, raw, strict=True))
    # The channels are where they were: each is most like its own raw one.
    like = np.corrcoef(pixels.reshape(3, -1), raw.reshape(3, -1))[:2, 3:]
    assert list(like.argmax(axis=1)) == [0, 1]
    about = json.loads(image["Description"])
    assert about["derived"] is True
    assert about["source"] == scan.name
    assert [each["detector"] for each in about["detectors"]] == ["SE", "BSE", "In-lens"]
    assert [each["consistency"] for each in about["detectors"]] == [
        record["consistency"] for record in records
    ]
    names = [channel["Name"] for channel in image["Pixels"]["Channel"]]
    assert names == ["SE", "BSE", "In-lens"]


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


def test_a_place_where_no_folder_can_be_made_is_exit_2(semagent: Run, tmp_path: Path):
    path, there = tmp_path / "raw.png", tmp_path / "a file"
    cv2.imwrite(str(path), specimen(256, 256, blur_px=2.0))
    there.write_bytes(b"")
    for output in (there, there / "below"):
        run = semagent("restore", path, "--output", output)
        assert run.code == 2
        assert f"--output: {output}: no folder can be made there" in run.err


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


def test_a_restored_copy_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    raw, copies = tmp_path / "raw.png", tmp_path / "copies"
    cv2.imwrite(str(raw), specimen(256, 256, blur_px=2.0))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "rename", full)
    assert cli.main(["restore", str(raw), "--output", str(copies)]) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert list(copies.iterdir()) == []


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


def test_a_start_outside_the_stack_is_refused(semagent: Run, drawn_stack: Path):
    run = semagent("simulate", drawn_stack, "--start-um", 9000, "--json")
    assert run.code == 2
    assert run.err.startswith("error: --start-um: ")
    assert "9000 µm" in run.err


@pytest.mark.parametrize("start_um", [-50, 0, 50])
def test_a_stack_may_count_its_working_distances_from_anywhere(
    semagent: Run, drawn_stack: Path, tmp_path: Path, start_um: int
):
    """As an OME-TIFF does that carries steps or offsets only: all below 0, around it, above it."""
    files = sorted(drawn_stack.glob("*.png"))
    path = tmp_path / "relative.ome.tif"
    first_um = start_um - 30
    tifffile.imwrite(
        path,
        np.stack([cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files]),
        ome=True,
        photometric="minisblack",
        metadata={
            "axes": "ZYX",
            "PhysicalSizeX": 10,
            "PhysicalSizeXUnit": "nm",
            "Plane": {
                "PositionZ": [first_um + 2.5 * index for index in range(len(files))],
                "PositionZUnit": ["µm"] * len(files),
            },
        },
    )
    run = semagent("simulate", path, "--start-um", start_um, "--json")
    assert run.code == 0, run.err
    result = run.records[-1]
    assert result["start_working_distance_m"] == pytest.approx(start_um * 1e-6, abs=1.3e-6)
    truth = json.loads((drawn_stack / "truth.json").read_text(encoding="utf-8"))
    table = (drawn_stack / "stack.csv").read_text(encoding="utf-8").splitlines()
    shift_m = float(table[1].split(",")[1]) * 1e-6 - first_um * 1e-6
    error_m = result["final_working_distance_m"] + shift_m - truth["focus_working_distance_m"]
    assert abs(error_m) <= 2.6e-6


def test_what_is_installed_is_listed(semagent: Run):
    drivers = semagent("drivers", "--json")
    assert {"simulated", "recorded", "remote"} <= {each["name"] for each in drivers.records}
    engines = semagent("engine", "list", "--json")
    assert "sharpness" in {each["name"] for each in engines.records}
    assert semagent("engine", "list", "--jsno").code == 2


def test_what_a_driver_needs_is_said_once_for_what_comes_together(semagent: Run):
    listed = semagent("drivers").out
    (needs,) = [line for line in listed.splitlines() if line.startswith("autoscript needs ")]
    assert "autoscript_core" in needs
    assert needs.count("licence of AutoScript") == 1


def test_doctor_tries_everything_and_moves_nothing(
    simulated_config: Config,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    moves: list[MicroscopeAction] = []
    monkeypatch.setattr(SimulatedMicroscope, "apply", lambda _, action: moves.append(action))
    assert cli.main(["doctor", str(simulated_config(speed=0)), "--json"]) == 0
    checks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(check["ok"] for check in checks)
    details = {check["check"]: check["detail"] for check in checks}
    assert {"driver", "one frame", "engine"} <= set(details)
    assert details["what it reports"] == (
        "working distance 5.0300 mm, field width 5.12 µm, pixel size 10 nm, voltage 5 kV, "
        "stigmators +0.0000 and +0.0000"
    )
    assert moves == []


def test_doctor_waits_for_a_frame_as_long_as_the_configuration_says(
    semagent: Run, simulated_config: Config
):
    config = simulated_config(scan={"dwell_us": 50.0}, _acquire={"frame_timeout_s": 0.1})
    run = semagent("doctor", config, "--json")
    assert run.code == 3
    (frame,) = [check for check in run.records if not check["ok"]]
    assert "0.1 s" in frame["detail"]


def test_doctor_names_what_fails(semagent: Run, simulated_config: Config):
    config = simulated_config(speed=0, faults={"disconnect": {"at": [1]}})
    run = semagent("doctor", config, "--json")
    assert run.code == 3
    assert [check["check"] for check in run.records if not check["ok"]] == ["one frame"]


def test_check_needs_no_microscope(semagent: Run):
    assert semagent("doctor", "autoscript").code == 3
    run = semagent("check", "autoscript", "--json")
    assert run.code == 0, run.err
    (record,) = run.records
    assert record == {
        "path": str(find_config("autoscript")),
        "instrument": "Thermo Fisher SEM",
        "ok": True,
    }


def test_keys_are_made_once(semagent: Run, tmp_path: Path):
    folder = tmp_path / "keys"
    assert semagent("keys", folder).code == 0
    assert any(folder.rglob("*"))
    again = semagent("keys", folder)
    assert again.code == 2
    assert str(folder) in again.err


def test_nan_never_reaches_the_json(capsys: pytest.CaptureFixture[str]):
    Output(json=True).record({"numbers": [math.nan, math.inf, -math.inf, 1.0]})
    assert capsys.readouterr().out == '{"numbers":[null,null,null,1.0]}\n'


@contextmanager
def served(config: Path, *arguments: str) -> Iterator[Path]:
    """Serve a microscope; gives the configuration with which to reach it."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    server = subprocess.Popen(
        [sys.executable, "-m", "semagent", "serve", str(config), "--bind", endpoint, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        assert any("listens on" in line for line in server.stderr)
        raw = yaml.safe_load(config.read_text(encoding="utf-8"))
        raw["driver"] = {"name": "remote", "options": {"endpoint": endpoint}}
        here = config.with_name("here.yaml")
        here.write_text(yaml.safe_dump(raw), encoding="utf-8")
        yield here
    finally:
        server.send_signal(signal.SIGINT if os.name != "nt" else signal.SIGTERM)
        server.communicate(timeout=20)
    assert os.name == "nt" or server.returncode == 0


def test_a_microscope_is_served_and_focused_from_elsewhere(semagent: Run, simulated_config: Config):
    with served(simulated_config(speed=0), "--arm") as here:
        run = semagent("autofocus", here, "--arm", "--json")
    assert run.code == 0, run.err
    assert abs(run.records[-1]["final_working_distance_m"] - 5.0e-3) < 2e-6


def test_what_cannot_be_served_is_exit_2_and_not_said_to_be_served(
    semagent: Run, simulated_config: Config
):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        run = semagent("serve", simulated_config(), "--bind", endpoint)
    assert run.code == 2
    assert run.out == ""
    assert run.err.startswith(f"error: bind: {endpoint} cannot be listened on: ")


@pytest.mark.skipif(os.name == "nt", reason="the shell there cannot close it")
def test_a_microscope_is_served_without_standard_input(simulated_config: Config):
    command = 'exec "$0" -m semagent serve "$1" --bind "tcp://127.0.0.1:*" <&-'
    server = subprocess.Popen(
        ["/bin/sh", "-c", command, sys.executable, simulated_config()],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    said = [server.stderr.readline(), server.stderr.readline()]
    server.terminate()
    said.append(server.communicate(timeout=20)[1])
    assert "listens on" in said[0]
    assert "Traceback" not in "".join(said)
    assert server.returncode == 0


def test_a_refusal_by_the_gate_at_the_microscope_is_one(semagent: Run, simulated_config: Config):
    narrow = {"min": 0.004, "max": 0.006, "max_step": 1e-6, "max_travel": 0.02}
    with served(simulated_config(speed=0, _safety={"working_distance_m": narrow}), "--arm") as here:
        raw = yaml.safe_load(here.read_text(encoding="utf-8"))
        raw["safety"]["working_distance_m"]["max_step"] = 200e-6
        here.write_text(yaml.safe_dump(raw), encoding="utf-8")
        run = semagent("autofocus", here, "--arm", "--json")
    assert run.code == 5
    assert "refused by the safety gate of the microscope PC (step_too_large)" in run.err
    assert run.records[-1]["final_working_distance_m"] == pytest.approx(5.03e-3, abs=1e-9)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_check_names_the_line_of_a_drivers_option(semagent: Run, simulated_config: Config):
    path = simulated_config(scan={"width_px": "wide"})
    run = semagent("check", path)
    line = 1 + path.read_text(encoding="utf-8").splitlines().index("      width_px: wide")
    assert run.code == 2
    assert f"{path}:{line}: driver.options.scan.width_px: 'wide': Expected `int`" in run.err


def test_check_refuses_a_console_that_other_machines_could_listen_in_on(
    semagent: Run, simulated_config: Config
):
    pytest.importorskip("starlette", reason="the extra 'console' is not installed")
    path = simulated_config(_console={"host": "192.0.2.1"})
    run = semagent("check", path)
    assert run.code == 2
    assert f"{path}: console: host: 192.0.2.1 can be reached from other machines" in run.err


def test_check_prints_the_schema_for_editors(semagent: Run):
    run = semagent("check", "--schema")
    assert run.code == 0
    assert json.loads(run.out)["$schema"].startswith("https://json-schema.org/")
    assert semagent("check", "--schema", "--json").records == [json.loads(run.out)]
    assert semagent("check").code == 2
