import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from msgspec import structs

from semagent.errors import ConfigError
from semagent_drivers.simulated.options import DetectorOptions, SpecimenOptions
from semagent_drivers.simulated.stack import StackOptions, main, through_focus, write_stack

SPECIMEN = SpecimenOptions(kind="porous", tile_px=128, feature_size_nm=200.0)
QUIET = DetectorOptions(read_noise=0.0, line_noise=0.0)


def test_frames_get_the_blur_and_shift_the_truth_says(tmp_path: Path) -> None:
    options = StackOptions(
        specimen=SPECIMEN,
        detector=QUIET,
        astigmatism_um=(1.0, 0.5),
        focus_shift_px_per_um=(0.5, -0.25),
        beam_current_pa=1e6,
    )
    frames = write_stack(tmp_path, [4.99e-3, 5.0e-3, 5.01e-3], options)
    assert [frame.defocus_m for frame in frames] == pytest.approx([-10e-6, 0, 10e-6])
    assert frames[0].shift_px == pytest.approx((-5.0, 2.5))
    assert frames[2].blur == options.beam().covariance(frames[2].defocus_m)
    detail = [np.diff(frame.pixels.astype(float), axis=1).std() for frame in frames]
    assert detail[0] < 0.7 * detail[1] > detail[2]


def test_the_folder_holds_table_frames_and_truth(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "stack"
    frames = write_stack(folder, [4.995e-3, 5.0e-3], StackOptions(specimen=SPECIMEN))
    with (folder / "stack.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["working_distance_um"]) for row in rows] == [4995.0, 5000.0]
    assert rows[0]["pixel_size_nm"] == "10.0"
    assert rows[0]["dwell_ns"] == "500.0"
    for row, frame in zip(rows, frames, strict=True):
        data = np.frombuffer((folder / row["file"]).read_bytes(), np.uint8)
        decoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(decoded, frame.pixels)
    truth = json.loads((folder / "truth.json").read_text())
    assert truth["focus_working_distance_m"] == 5e-3
    assert truth["frames"][0]["blur_covariance_px2"] == pytest.approx(list(frames[0].blur))


def test_a_stack_is_never_written_over_another(tmp_path: Path) -> None:
    write_stack(tmp_path, [5e-3, 5.001e-3], StackOptions(specimen=SPECIMEN))
    before = (tmp_path / "frame_0000.png").read_bytes()
    with pytest.raises(FileExistsError):
        write_stack(tmp_path, [4e-3, 6e-3], StackOptions(specimen=SPECIMEN, seed=5))
    assert (tmp_path / "frame_0000.png").read_bytes() == before


def test_brightness_contrast_and_position_drift_between_frames() -> None:
    image = np.random.default_rng(0).random((96, 96), np.float32)
    drifting = structs.replace(QUIET, brightness_drift=0.02, contrast_drift=0.1)
    options = StackOptions(detector=drifting, creep_px=2.0, seed=4)
    frames = list(through_focus(image, [5e-3] * 6, options))
    means = np.array([frame.pixels.mean() for frame in frames])
    spreads = np.array([frame.pixels.std() for frame in frames])
    assert means.std() > 1
    assert spreads.std() > 0.5
    assert frames[0].shift_px == (0.0, 0.0)
    assert len({frame.shift_px for frame in frames}) == 6


def test_stacks_are_seeded() -> None:
    image = np.random.default_rng(0).random((64, 64), np.float32)
    first, again, other = (
        next(through_focus(image, [5e-3], StackOptions(seed=seed))).pixels for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_command_line_writes_a_stack(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "s"), "--kind", "grains", "--tile-px", "128", "--frames", "3"]
    assert main([*arguments, "--focus-um", "6000", "--span-um", "10", "--offset-um", "2"]) == 0
    table = (tmp_path / "s" / "stack.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in table[1:]] == ["5992.0", "6002.0", "6012.0"]
    truth = json.loads((tmp_path / "s" / "truth.json").read_text())
    assert truth["focus_working_distance_m"] == pytest.approx(6e-3)


def test_command_line_lets_brightness_drift(tmp_path: Path) -> None:
    arguments = ["--kind", "flat", "--tile-px", "128", "--frames", "3", "--span-um", "1"]
    assert main([str(tmp_path), *arguments, "--brightness-drift", "0.05"]) == 0
    frames = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in tmp_path.glob("*.png")]
    assert np.std([frame.mean() for frame in frames]) > 2


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--kind", "cheese"], "cheese"),
        (["--frames", "1"], "--frames: 1"),
        (["--image", "absent.png"], "absent.png"),
        (["--dwell-us", "nan"], "dwell_us"),
        (["--span-um", "nan"], "--span-um: nan"),
        (["--span-um", "1e9"], "--span-um: 1000000000.0"),
        (["--offset-um", "inf"], "--offset-um: inf"),
    ],
)
def test_command_line_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], said: str
) -> None:
    assert main([str(tmp_path / "s"), *extra]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_second_stack_in_a_folder_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tmp_path), "--frames", "2", "--tile-px", "128"]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        f"{tmp_path}: there is a stack here already; name a new folder\n"
    )


def test_a_folder_that_cannot_be_made_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main([str(tmp_path / "file" / "s"), "--frames", "2", "--tile-px", "256"]) == 2
    assert "file" in capsys.readouterr().err


def test_missing_image_is_a_configuration_error(tmp_path: Path) -> None:
    options = StackOptions(specimen=SpecimenOptions(kind="image", path=str(tmp_path / "no.png")))
    with pytest.raises(ConfigError, match=r"no\.png"):
        write_stack(tmp_path / "s", [5e-3, 6e-3], options)
