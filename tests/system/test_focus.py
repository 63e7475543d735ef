"""Focus found on stacks and on microscopes: `semagent simulate` and `autofocus`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

Run = Callable[..., Any]
Config = Callable[..., Path]
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


def test_simulate_keeps_to_its_frames(semagent: Run, drawn_stack: Path):
    run = semagent("simulate", drawn_stack, "--start-um", 4972, "--max-frames", 2, "--json")
    result = run.records[-1]
    assert (run.code, result["status"], result["frames_used"]) == (4, "held", 2)
    assert result["final_working_distance_m"] == result["start_working_distance_m"]


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
