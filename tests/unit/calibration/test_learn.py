"""What the frames of a focusing teach, on a simulated microscope whose slope is known."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from semagent import registry
from semagent.calibration.blur import fit_blur
from semagent.calibration.learn import learn
from semagent.calibration.shifts import Shot
from semagent.cli import main
from semagent.clock import ManualClock
from semagent.config import find_config
from semagent.control.options import ScaleOptions
from semagent.memory import Measure, Memory, Settings, date_of, load_memory
from semagent.signature import with_signature
from semagent.testing.engines import without_angle
from semagent.types import FrameAnalysis, SetWorkingDistance

BLUR_PER_FOCUS = 0.002  # half of 4 mrad
UNIT_M = 2.5e-6
FOCUS_M = 5e-3
OPTIONS: dict[str, Any] = {
    "scan": {"width_px": 384, "height_px": 288, "dwell_us": 0.3},
    "column": {"working_distance_mm": 5.015, "convergence_mrad": 4.0},
    "specimen": {"kind": "grains", "tile_px": 1024, "working_distance_mm": 5.0},
}
PLACES = (6.0, -2.0, 2.5, -4.0, 0.3)
SCALE = ScaleOptions()
NOTHING = Memory()


def frames(
    seed: int, places: Sequence[float] = PLACES, **changes: dict[str, Any]
) -> list[FrameAnalysis]:
    """Frames so many half depths of field from focus; some options of the microscope changed."""
    changed = {name: {**OPTIONS[name], **options} for name, options in changes.items()}
    microscope = registry.open_microscope(
        "simulated", {**OPTIONS, **changed, "seed": seed}, clock=ManualClock()
    )
    engine = registry.open_engine("sharpness", {})
    analyses = []
    for place in places:
        microscope.apply(SetWorkingDistance(working_distance_m=FOCUS_M + place * UNIT_M))
        frame = microscope.acquire(10.0)
        analyses.append(with_signature(engine.analyse(frame), frame).figures)
    microscope.close()
    engine.close()
    return analyses


@pytest.mark.parametrize("seed", range(4))
def test_the_slope_is_learned(seed: int) -> None:
    memory = learn(NOTHING, frames(seed), FOCUS_M, SCALE)
    assert memory is not None
    learned = memory.entries[0].learned
    assert learned is not None
    assert learned.blur_per_focus.value == pytest.approx(BLUR_PER_FOCUS, rel=0.05)
    assert learned.focusings == 1


def test_frames_that_do_not_carry_their_angle_are_measured_by_the_one_that_is_known() -> None:
    seen = [without_angle(each) for each in frames(0)]
    shallow = ScaleOptions(assumed_convergence_angle_rad=1e-3)
    assert learn(NOTHING, seen, FOCUS_M, shallow) is None  # too near to each other, it seems
    settings = Settings.of(seen[0].header)
    known = NOTHING.with_focusing(settings, Measure(value=BLUR_PER_FOCUS, sigma=1e-4), "")
    memory = learn(known, seen, FOCUS_M, shallow)
    assert memory is not None
    (entry,) = memory.entries
    assert entry.settings.convergence_angle_rad is None
    assert entry.learned is not None
    assert entry.learned.focusings == 2


def test_a_half_depth_of_field_that_is_given_comes_before_an_assumed_angle() -> None:
    seen = [without_angle(each) for each in frames(0)]
    given = ScaleOptions(half_depth_m=UNIT_M, assumed_convergence_angle_rad=4e-6)
    memory = learn(NOTHING, seen, FOCUS_M, given)
    assert memory is not None
    learned = memory.entries[0].learned
    assert learned is not None
    assert learned.blur_per_focus.value == pytest.approx(BLUR_PER_FOCUS, rel=0.05)


def test_what_the_frames_do_not_depend_on_is_not_known() -> None:
    """In units in which all frames were taken at one place, none is more blurred than another."""
    seen = frames(0)
    shots = [Shot(each.header, each.shift) for each in seen]
    signatures = [each.signature for each in seen if each.signature is not None]
    fit = fit_blur(shots, signatures, unit_m=1e6 * UNIT_M)
    slope, sigma = fit.slope_px_per_m
    assert sigma > slope


def test_another_focusing_makes_it_more_certain() -> None:
    once = learn(NOTHING, frames(0), FOCUS_M, SCALE)
    assert once is not None
    twice = learn(once, frames(1), FOCUS_M, SCALE)
    assert twice is not None
    (before,), (after,) = once.entries, twice.entries
    assert before.learned is not None
    assert after.learned is not None
    assert after.learned.focusings == 2
    assert after.learned.blur_per_focus.sigma < before.learned.blur_per_focus.sigma


@pytest.mark.parametrize(
    "places", [(), (3.0,), (3.0, -3.0, 3.0), (0.1, 0.2, 0.3, 0.4), (2.5, -2.0, 0.3)]
)
def test_frames_at_too_few_places_teach_nothing(places: Sequence[float]) -> None:
    assert learn(NOTHING, frames(0, places), FOCUS_M, SCALE) is None


def test_frames_at_two_places_teach_nothing_however_many_there_are() -> None:
    """They would give a slope that is a tenth too small, and four hundredths uncertain."""
    seen = frames(0, 6 * (4.0, -4.0), scan={"dwell_us": 3.0}, column={"astigmatism_um": [4.0, 2.0]})
    assert learn(NOTHING, seen, FOCUS_M, SCALE) is None


def test_a_fit_that_puts_focus_elsewhere_teaches_nothing() -> None:
    assert learn(NOTHING, frames(0), FOCUS_M + 2 * UNIT_M, SCALE) is None


def test_where_blur_is_not_that_of_a_beam_nothing_is_learned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("semagent.calibration.learn.MOST_RESIDUAL", 0.01)
    assert learn(NOTHING, frames(0), FOCUS_M, SCALE) is None


def test_frames_from_before_the_settings_were_changed_teach_nothing() -> None:
    seen = frames(0, (1.0, *PLACES))
    earlier = msgspec.structs.replace(seen[0].header, settings_rev=0)
    seen[0] = msgspec.structs.replace(seen[0], header=earlier)
    learned = learn(NOTHING, seen, FOCUS_M, SCALE)
    assert learned is not None
    assert learned == learn(NOTHING, seen[1:], FOCUS_M, SCALE)


def test_spectra_of_different_tiles_teach_nothing() -> None:
    seen = frames(0)
    assert seen[0].signature is not None
    other = msgspec.structs.replace(seen[0].signature, tile_px=seen[0].signature.tile_px // 2)
    seen[0] = msgspec.structs.replace(seen[0], signature=other)
    assert learn(NOTHING, seen, FOCUS_M, SCALE) is None


def test_without_a_pixel_size_nothing_can_be_remembered() -> None:
    analyses = frames(0)
    header = analyses[-1].header
    bare = msgspec.structs.replace(
        header, scan=msgspec.structs.replace(header.scan, pixel_size_m=None)
    )
    analyses[-1] = msgspec.structs.replace(analyses[-1], header=bare)
    assert learn(NOTHING, analyses, FOCUS_M, SCALE) is None


def test_the_command_remembers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = yaml.safe_load(find_config("simulated").read_text(encoding="utf-8"))
    plain["driver"]["options"] = {
        **OPTIONS,
        "scan": {**OPTIONS["scan"], "dwell_us": 3.0},
        # A round beam is focused in three frames, which rarely fix a slope.
        "column": {**OPTIONS["column"], "astigmatism_um": [4.0, 2.0]},
        "speed": 0,
        "seed": 0,
    }
    path = tmp_path / "sem.yaml"
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    begun = date_of(time.time_ns())
    for _ in range(6):
        assert main(["autofocus", str(path), "--arm", "--json"]) == 0
        plain["driver"]["options"]["seed"] += 1
        path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    capsys.readouterr()
    memory = load_memory(tmp_path / "sem.memory.yaml")
    assert memory.instrument == "Simulated SEM"
    learned = memory.entries[0].learned
    assert learned is not None
    assert learned.focusings > 3  # one may teach nothing
    assert begun <= learned.date <= date_of(time.time_ns())
    known = learned.blur_per_focus
    assert known.value == pytest.approx(BLUR_PER_FOCUS, rel=0.05)
    # Searches share an error that no number of them averages out.
    assert known.value == pytest.approx(BLUR_PER_FOCUS, abs=2 * known.sigma)
    assert 0.04 < known.sigma / known.value < 0.05
