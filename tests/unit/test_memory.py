"""The instrument memory: what is written is read, and the entry that fits is found."""

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from semagent.config import find_config, load_config, memory_file, save_memory
from semagent.control.options import ScaleOptions
from semagent.errors import ConfigError
from semagent.memory import (
    Calibration,
    Entry,
    Learned,
    Matrix,
    Measure,
    Memory,
    Settings,
    Vector,
    date_of,
    load_memory,
)
from semagent.testing.engines import frame_of
from semagent.types import FrameHeader

DATE = "2026-11-25T20:00:00Z"
SETTINGS = Settings(
    accelerating_voltage_v=5000,
    convergence_angle_rad=5e-3,
    beam_current_a=100e-12,
    working_distance_m=5e-3,
    magnification=12000,
    pixel_size_m=10e-9,
)
CALIBRATION = Calibration(
    date=DATE,
    frames=40,
    blur_per_focus=Measure(value=2.5e-3, sigma=2e-5),
    image_shift_per_focus=Vector(x=2e-3, y=-1e-3, sigma=1e-5),
    astigmatism_per_stigmator=Matrix(xx=2e-5, xy=0, yx=0, yy=2e-5, sigma=1e-7),
)
LEARNED = """\
entries:
- settings: {{}}
  learned: {{date: x, focusings: 1, blur_per_focus: {blur}}}
"""
CALIBRATED = """\
entries:
- settings: {{}}
  calibration: {{date: x, frames: 1, blur_per_focus: {blur}}}
"""


def header(**changes: float | None) -> FrameHeader:
    plain = frame_of(np.zeros((64, 64), np.uint8)).header
    values = {**msgspec.structs.asdict(SETTINGS), **changes}
    scan = msgspec.structs.replace(plain.scan, pixel_size_m=values.pop("pixel_size_m"))
    optics = msgspec.structs.replace(plain.optics, **values)
    return msgspec.structs.replace(plain, scan=scan, optics=optics)


def memory(*entries: Entry) -> Memory:
    return Memory(instrument="test", entries=entries)


def test_what_is_written_is_read(tmp_path: Path):
    path = tmp_path / "deep" / "sem.memory.yaml"
    learned = Learned(
        date=DATE,
        focusings=1,
        blur_per_focus=Measure(value=2.6e-3, sigma=1e-4),
    )
    written = memory(Entry(settings=SETTINGS, calibration=CALIBRATION, learned=learned))
    save_memory(path, written)
    assert load_memory(path) == written
    text = path.read_text(encoding="utf-8")
    assert "image_shift_per_focus:\n" in text
    assert "null" not in text
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_does_not_exist_is_an_empty_memory(tmp_path: Path):
    assert load_memory(tmp_path / "none.yaml") == Memory()


def test_a_device_may_have_no_end():
    with pytest.raises(ConfigError, match="is no file"):
        load_memory(Path(os.devnull))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("semagent_memory: 2", "format"),
        ("instruments: x", "instruments"),
        ("entries: [{settings: {accelerating_voltage_v: -5}}]", ":1: .*accelerating_voltage_v"),
        ("entries:\n- settings: {}\n  calibration: {date: x}", "frames"),
        (LEARNED.format(blur="{value: -0.0025, sigma: 1.0e-4}"), "blur_per_focus.value is -0.0025"),
        (LEARNED.format(blur="{value: 0, sigma: 1.0e-4}"), "blur_per_focus.value is 0"),
        (CALIBRATED.format(blur="{value: 0, sigma: 1.0e-4}"), "blur_per_focus.value is 0"),
        (LEARNED.format(blur="{value: .nan, sigma: 1.0e-4}"), ":3: .*value is nan"),
        (LEARNED.format(blur="{value: 0.0025, sigma: .inf}"), ":3: .*sigma: inf: Expected .* <= "),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str):
    path = tmp_path / "memory.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=says) as raised:
        load_memory(path)
    assert str(path) in str(raised.value)


def test_the_entry_of_this_beam_and_the_nearest_magnification_is_found():
    near = msgspec.structs.replace(SETTINGS, magnification=20000)
    far = msgspec.structs.replace(SETTINGS, magnification=6000)
    kept = memory(Entry(settings=far), Entry(settings=near))
    found = kept.at(header())
    assert found is not None
    assert found.settings == near


def test_what_was_learned_nearby_does_not_hide_a_calibration():
    near = msgspec.structs.replace(SETTINGS, magnification=18000)
    kept = memory(Entry(settings=near, calibration=CALIBRATION)).with_focusing(
        SETTINGS, Measure(value=2.6e-3, sigma=1e-4), "2026-01-01"
    )
    found = kept.at(header())
    assert found is not None
    assert found.settings == SETTINGS
    assert found.calibration == CALIBRATION
    assert found.learned is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"accelerating_voltage_v": 6000},
        {"convergence_angle_rad": 8e-3},
        {"magnification": 12000 * 5},
        {"convergence_angle_rad": None, "beam_current_a": 400e-12},
        {"convergence_angle_rad": None, "working_distance_m": 10e-3},
        {"magnification": None, "pixel_size_m": 50e-9},
    ],
)
def test_another_beam_or_a_far_magnification_is_not_taken(changes: dict[str, float | None]):
    assert memory(Entry(settings=SETTINGS)).at(header(**changes)) is None
    assert memory(Entry(settings=Settings.of(header(**changes)))).at(header()) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"accelerating_voltage_v": 5100},
        {"convergence_angle_rad": 5.3e-3, "beam_current_a": 400e-12},
        {"convergence_angle_rad": None, "beam_current_a": None},
        {"convergence_angle_rad": None, "working_distance_m": 5.5e-3},
        {"working_distance_m": 10e-3},
        {"magnification": None, "pixel_size_m": 20e-9},
        {"magnification": None, "pixel_size_m": None},
    ],
)
def test_small_differences_and_what_is_not_reported_agree(changes: dict[str, float | None]):
    assert memory(Entry(settings=SETTINGS)).at(header(**changes)) is not None


def test_what_is_reported_as_nothing_is_not_known_and_can_be_read_again(tmp_path: Path):
    nothing = header(**dict.fromkeys(msgspec.structs.asdict(SETTINGS), 0.0))
    below = msgspec.structs.replace(nothing.optics, working_distance_m=-5e-3)
    for frame in (nothing, msgspec.structs.replace(nothing, optics=below)):
        assert Settings.of(frame) == Settings()
    save_memory(tmp_path / "memory.yaml", memory(Entry(settings=Settings.of(nothing))))
    load_memory(tmp_path / "memory.yaml")


def test_blur_is_given_in_pixels_of_the_frame_that_asks():
    entry = Entry(settings=SETTINGS, calibration=CALIBRATION)
    slope = entry.slope_px_per_m(header(pixel_size_m=20e-9))
    assert slope is not None
    assert slope.value == pytest.approx(2.5e-3 / 20e-9)
    assert entry.slope_px_per_m(header(pixel_size_m=None)) is None


def test_the_more_certain_of_measured_and_learned_is_believed():
    kept = memory(Entry(settings=SETTINGS, calibration=CALIBRATION)).with_focusing(
        SETTINGS, Measure(value=4e-3, sigma=1e-3), DATE
    )
    slope = kept.entries[0].slope_px_per_m(header())
    assert slope is not None
    assert slope.value == pytest.approx(2.5e-3 / 10e-9)


def test_focusings_are_averaged_and_old_ones_do_not_weigh_for_ever():
    kept = memory()
    for _ in range(30):
        kept = kept.with_focusing(SETTINGS, Measure(value=2e-3, sigma=2e-4), DATE)
    assert len(kept.entries) == 1
    learned = kept.entries[0].learned
    assert learned is not None
    assert learned.focusings == 30
    assert learned.blur_per_focus.value == pytest.approx(2e-3)
    assert learned.blur_per_focus.sigma < 1e-4
    for _ in range(60):
        kept = kept.with_focusing(SETTINGS, Measure(value=4e-3, sigma=4e-4), DATE)
    learned = kept.entries[0].learned
    assert learned is not None
    assert learned.blur_per_focus.value == pytest.approx(4e-3, rel=0.1)


UNREPORTED = header(convergence_angle_rad=None)


@pytest.mark.parametrize("sigma", [2e-5, 2e-4])
def test_a_frame_without_its_angle_gets_the_one_that_is_remembered(sigma: float):
    measured = Measure(value=7e-3, sigma=sigma)
    settings = Settings.of(UNREPORTED)
    calibrated = memory().with_calibration(
        settings, msgspec.structs.replace(CALIBRATION, blur_per_focus=measured)
    )
    learned = memory().with_focusing(settings, measured, DATE)
    for kept in (calibrated, learned):
        known = kept.with_angle(UNREPORTED)
        assert known.optics.convergence_angle_rad == pytest.approx(14e-3)
        plain = msgspec.structs.replace(known.optics, convergence_angle_rad=None)
        assert msgspec.structs.replace(known, optics=plain) == UNREPORTED
    config = msgspec.structs.replace(load_config(find_config("simulated")), remembered=calibrated)
    assert config.half_depth_of(UNREPORTED) == pytest.approx(10e-9 / 14e-3)
    scale = ScaleOptions(half_depth_m=1e-6)
    given = msgspec.structs.replace(config.control, scale=scale)
    assert msgspec.structs.replace(config, control=given).half_depth_of(UNREPORTED) == 1e-6


@pytest.mark.parametrize(
    ("frame", "blur"),
    [
        (header(), Measure(value=7e-3, sigma=2e-5)),
        (UNREPORTED, None),
        (UNREPORTED, Measure(value=7e-3, sigma=1e-3)),
        (header(convergence_angle_rad=None, beam_current_a=400e-12), Measure(value=7e-3, sigma=0)),
    ],
    ids=["reported", "not measured", "uncertain", "another beam"],
)
def test_a_header_is_left_as_it_is(frame: FrameHeader, blur: Measure | None):
    calibration = msgspec.structs.replace(CALIBRATION, blur_per_focus=blur)
    kept = memory(Entry(settings=Settings.of(UNREPORTED), calibration=calibration))
    assert kept.with_angle(frame) == frame


def test_a_new_calibration_takes_the_place_of_the_old_and_keeps_what_was_learned():
    kept = memory().with_focusing(SETTINGS, Measure(value=2e-3, sigma=2e-4), DATE)
    kept = kept.with_calibration(SETTINGS, CALIBRATION)
    again = msgspec.structs.replace(CALIBRATION, frames=50)
    kept = kept.with_calibration(SETTINGS, again)
    assert [entry.calibration for entry in kept.entries] == [again]
    assert kept.entries[0].learned is not None


def test_a_matrix_is_solved():
    matrix = Matrix(xx=1, xy=2, yx=3, yy=4, sigma=0)
    assert matrix.solve(matrix @ (0.5, -2.0)) == pytest.approx((0.5, -2.0))


def test_the_memory_lies_beside_the_configuration_and_is_read_with_it(tmp_path: Path):
    config = tmp_path / "mine.yaml"
    text = find_config("simulated").read_text(encoding="utf-8")
    config.write_text(text, encoding="utf-8")
    assert load_config(config).remembered == Memory()
    kept = memory(Entry(settings=SETTINGS, calibration=CALIBRATION))
    save_memory(tmp_path / "mine.memory.yaml", kept)
    loaded = load_config(config)
    assert loaded.remembered == kept
    assert loaded.memory == str(tmp_path / "mine.memory.yaml")
    config.write_text(f"{text}\nmemory: other.yaml\n", encoding="utf-8")
    assert load_config(config).remembered == Memory()
    assert memory_file(config, "other.yaml") == tmp_path / "other.yaml"


def test_a_configuration_that_ships_keeps_its_memory_in_the_working_directory():
    assert memory_file(find_config("simulated"), None) == Path("simulated.memory.yaml")


def test_dates_are_utc():
    assert date_of(1_700_000_000_123_456_789) == "2023-11-14T22:13:20Z"
