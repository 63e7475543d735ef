"""The settings under which a recorded stack is focused, however finely it is stepped."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from semagent import registry
from semagent.cli import main
from semagent.clock import ManualClock
from semagent.config import Part
from semagent.control import ControlOptions, SpectralEstimator
from semagent.control.options import AutofocusOptions, EstimatorOptions
from semagent.session import SessionReader
from semagent.signature import with_signature
from semagent.stack import config_for_stack
from semagent.testing.engines import without_angle
from semagent.types import Capabilities, FrameAnalysis, SetWorkingDistance
from semagent_drivers.simulated.stack import StackOptions, write_stack

FOCUS_M = 5e-3
UNIT_M = 2e-6  # 10 nm pixels at 5 mrad
SCAN = {"width_px": 384, "height_px": 288, "pixel_size_nm": 10, "dwell_us": 0.5}


def control(step_m: float, reach_m: float, pixel_size_m: float | None = 10e-9) -> ControlOptions:
    """The options for a stack around focus."""
    count = round(2 * reach_m / step_m) + 1
    places_m = FOCUS_M + np.linspace(-reach_m, reach_m, count)
    entries = [SimpleNamespace(working_distance_m=place_m) for place_m in places_m.tolist()]
    state = SimpleNamespace(
        scan=SimpleNamespace(pixel_size_m=pixel_size_m),
        optics=SimpleNamespace(convergence_angle_rad=None),
    )
    recorded: Any = SimpleNamespace(
        stack=SimpleNamespace(entries=entries),
        capabilities=Capabilities(
            driver="recorded", microscope="stack", verified_on=None, simulated=True
        ),
        read_state=lambda: state,
    )
    return config_for_stack(recorded, Part(name="sharpness")).control


def seen(seed: int, *places_um: float) -> list[FrameAnalysis]:
    """Frames so far from focus, which do not carry their convergence angle."""
    options = {"seed": seed, "scan": SCAN, "specimen": {"kind": "particles"}}
    microscope = registry.open_microscope("simulated", options, clock=ManualClock())
    engine = registry.open_engine("sharpness", {})
    analyses = []
    for place_um in places_um:
        place_m = FOCUS_M + place_um * 1e-6
        microscope.apply(SetWorkingDistance(working_distance_m=place_m))
        frame = microscope.acquire(10.0)
        figures = with_signature(engine.analyse(frame), frame).figures
        analyses.append(without_angle(figures))
    return analyses


@pytest.mark.parametrize("pixel_size_m", [10e-9, None])
@pytest.mark.parametrize("step_m", [0.1e-6, 0.25e-6, 1e-6])
def test_the_interval_holds_focus_however_fine_the_steps_are(
    step_m: float, pixel_size_m: float | None
) -> None:
    options = control(step_m, 15e-6, pixel_size_m)
    for seed in range(2):
        estimator = SpectralEstimator(options.estimator, options.scale)
        for analysis in seen(seed, -15.0, -7.5):
            belief = estimator.update(analysis)
        assert belief.interval90_m is not None
        low_m, high_m = belief.interval90_m
        assert low_m <= FOCUS_M <= high_m


def test_the_depth_of_field_is_that_of_the_frames() -> None:
    for step_m in (0.1e-6, 2e-6, 20e-6):
        assert control(step_m, 20e-6).scale.half_depth_m == pytest.approx(UNIT_M)
    coarse = control(4e-6, 20e-6, None)
    assert coarse.scale.half_depth_m == pytest.approx(4e-6)
    assert coarse.estimator == EstimatorOptions()
    assert coarse.autofocus == AutofocusOptions()


@pytest.mark.parametrize("step", [0.2, 1, 2, 10])
def test_focus_is_expected_and_looked_for_by_the_step_of_the_stack(step: float) -> None:
    """In half depths of field, up to forty steps long."""
    usual, options = AutofocusOptions(), control(step * UNIT_M, 20 * step * UNIT_M)
    assert options.estimator.prior_half_range == pytest.approx(step * 40.0)
    assert options.autofocus.range_half_depths == pytest.approx(
        usual.range_half_depths * max(1, step)
    )
    fine_step = {0.2: 0.2 * usual.fine_step, 10: 10.0}.get(step, usual.fine_step)
    assert options.autofocus.fine_step == pytest.approx(fine_step)


@pytest.mark.parametrize(
    "places_um",
    [(5030, 4980, 4996, 5000), (5030, 4980, 5000), (5030, 4970, 5000), (5020, 4980, 5000)],
)
def test_a_stack_of_the_places_of_one_search_is_focused_from_each_end(
    places_um: tuple[float, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its steps are many depths of field, and both ends may be blurred alike."""
    specimen = {"kind": "particles", "tile_px": 512, "working_distance_mm": 5.0}
    stack = tmp_path / "sparse"
    places_m = [place_um * 1e-6 for place_um in places_um]
    write_stack(stack, places_m, msgspec.convert({"specimen": specimen}, StackOptions))
    for start_um in places_um[:2]:
        arguments = [str(stack), f"--start-um={start_um}", "--engine=sharpness", "--json"]
        assert main(["simulate", *arguments]) == 0
        *_, result = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert result["final_working_distance_m"] == pytest.approx(FOCUS_M, abs=1e-9)


def test_without_a_pixel_size_many_steps_leave_open_how_fast_blur_grows() -> None:
    fine = control(0.1e-6, 15e-6, None)
    assert fine.scale.half_depth_m == pytest.approx(0.75e-6)
    assert fine.estimator.unknown_slope_sigma > 1.5


def test_a_stack_of_few_depths_of_field_is_focused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three half depths of field, in sixty steps."""
    places_m = (FOCUS_M + np.linspace(-3e-6, 3e-6, 61)).tolist()
    specimen = {"kind": "particles", "tile_px": 512, "working_distance_mm": 5.0}
    write_stack(tmp_path / "fine", places_m, msgspec.convert({"specimen": specimen}, StackOptions))
    arguments = [str(tmp_path / "fine"), "--start-um=4997.3", "--engine=sharpness", "--json"]
    assert main(["simulate", *arguments]) == 0
    *_, result = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert abs(result["final_working_distance_m"] - FOCUS_M) < UNIT_M


def forget_pixel_size(stack: Path) -> None:
    rows = (stack / "stack.csv").read_text(encoding="utf-8").splitlines()
    kept = "\n".join(",".join(row.split(",")[:2]) for row in rows)
    (stack / "stack.csv").write_text(kept, encoding="utf-8")


@pytest.mark.parametrize("pixel_size", [True, False])
def test_a_stack_of_very_few_frames_is_focused_wherever_it_begins(
    pixel_size: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places_m = [FOCUS_M + offset_m for offset_m in (-2e-6, 0.0, 2e-6, 4e-6)]
    specimen = {"kind": "particles", "tile_px": 512, "working_distance_mm": 5.0}
    stack = tmp_path / "short"
    write_stack(stack, places_m, msgspec.convert({"specimen": specimen}, StackOptions))
    if not pixel_size:
        forget_pixel_size(stack)
    for place_m in places_m:
        arguments = [str(stack), f"--start-um={place_m * 1e6}", "--engine=sharpness", "--json"]
        assert main(["simulate", *arguments]) == 0
        *_, result = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert result["final_working_distance_m"] == pytest.approx(FOCUS_M, abs=1e-9)
        assert result["frames_used"] < 7


@pytest.mark.parametrize(
    "command", [["simulate", "--start-um=4998.5", "--max-frames=4"], ["estimate", "--frames=0,1"]]
)
def test_what_is_held_for_want_of_a_pixel_size_says_so(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places_m = (FOCUS_M + np.linspace(-2e-6, 2e-6, 21)).tolist()
    specimen = {"kind": "particles", "tile_px": 512, "working_distance_mm": 5.0}
    stack = tmp_path / "fine"
    write_stack(stack, places_m, msgspec.convert({"specimen": specimen}, StackOptions))
    name, *options = command
    for lacks in (False, True):
        assert main([name, str(stack), *options, "--engine=sharpness"]) in (0, 4)
        assert ("give pixel_size_nm" in capsys.readouterr().err) is lacks
        forget_pixel_size(stack)


def test_a_stack_too_small_for_the_engine_is_refused_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = tmp_path / "small"
    stack.mkdir()
    for number in range(3):
        cv2.imwrite(str(stack / f"{number}.png"), np.full((100, 200), 80 + number, np.uint8))
    rows = "".join(f"{number}.png,{5000 + number}\n" for number in range(3))
    (stack / "stack.csv").write_text(f"file,working_distance_um\n{rows}", encoding="utf-8")
    assert main(["simulate", str(stack)]) == 2
    assert f"{stack}: frames of 200 x 100 pixels are too small" in capsys.readouterr().err


def test_a_focusing_can_be_recorded_replayed_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack, record = tmp_path / "stack", tmp_path / "record"
    places_m = [FOCUS_M + offset_m for offset_m in (-2e-6, 0.0, 2e-6, 4e-6)]
    specimen = {"kind": "particles", "tile_px": 512, "working_distance_mm": 5.0}
    write_stack(stack, places_m, msgspec.convert({"specimen": specimen}, StackOptions))
    recorded = ["simulate", str(stack), "--engine=sharpness", f"--record={record}", "--json"]
    assert main(recorded) == 0
    *frames, _ = capsys.readouterr().out.splitlines()
    session = SessionReader(record)
    assert session.manifest.complete
    assert len(session.frame_records) == len(frames)
    assert main(["replay", str(record), "--compare"]) == 0
    assert main(["report", str(record)]) == 0
    assert record.with_suffix(".html").exists()
    assert record.with_suffix(".png").exists()
    assert main(recorded) == 2
