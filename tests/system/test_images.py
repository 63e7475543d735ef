"""Images scored and restored: `semagent score` and `restore`."""

import errno
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from semagent import cli
from semagent.session import storage
from semagent.testing.engines import specimen
from semagent_engines.runtime.artefact import DEFAULT

from .frames import flat, stack_of

Run = Callable[..., Any]


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


def test_a_place_where_no_folder_can_be_made_is_exit_2(semagent: Run, tmp_path: Path):
    path, there = tmp_path / "raw.png", tmp_path / "a file"
    cv2.imwrite(str(path), specimen(256, 256, blur_px=2.0))
    there.write_bytes(b"")
    for output in (there, there / "below"):
        run = semagent("restore", path, "--output", output)
        assert run.code == 2
        assert f"--output: {output}: no folder can be made there" in run.err


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
