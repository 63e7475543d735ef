"""Exports of a session, read back with other people's readers."""

import errno
import math
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import ome_types
import pytest
import tifffile
import zarr
from ome_zarr_models.v04.bioformats2raw import BioFormats2RawAttrs
from ome_zarr_models.v04.image import ImageAttrs
from rsciio.tiff import file_reader as hyperspy_reader

from semagent.cli import main
from semagent.clock import ManualClock
from semagent.errors import InputFileError, UsageError
from semagent.export import Target, export_session
from semagent.session import EngineRecord, SessionReader, SessionWriter
from semagent.session.jsontext import from_json
from semagent.session.omexml import read_notes
from semagent.session.storage import RESERVE_BYTES
from semagent.testing.engines import figures_of
from semagent.types import (
    Capabilities,
    Frame,
    FrameHeader,
    Optics,
    Scan,
    StagePosition,
)

SHAPE = (6, 8)
S = 1_000_000_000


def frame(sequence: int, **changes: Any) -> Frame:
    shape = changes.pop("shape", SHAPE)
    dtype = changes.pop("dtype", np.uint16)
    pixels = np.random.default_rng(sequence).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
    known: dict[str, Any] = {
        "sequence": sequence,
        "monotonic_ns": 40 * S + sequence * S // 2,
        "wall_ns": 1_760_000_000_000_000_000 + sequence * S // 2,
        "detector": "In-lens <µ>",
        "scan": Scan(
            width_px=shape[1],
            height_px=shape[0],
            bit_depth=8 * np.dtype(dtype).itemsize,
            pixel_size_m=4e-9,
            dwell_s=1e-6,
        ),
        "optics": Optics(working_distance_m=5e-3 + sequence * 1e-6, beam_current_a=1e-10),
        "stage": StagePosition(x_m=1e-3, y_m=-2e-3),
        "settings_rev": 1,
    }
    return Frame(FrameHeader(**(known | changes)), pixels)


FRAMES = [
    frame(1),
    frame(2),
    frame(3, dtype=np.uint8, shape=(5, 7), detector="BSE"),
    frame(4),
]


def opened(folder: Path) -> SessionWriter:
    return SessionWriter(
        folder,
        configuration={},
        capabilities=Capabilities(driver="simulated", microscope="bench", verified_on=None),
        engine=EngineRecord(name="restorer/v1"),
        clock=ManualClock(start_ns=1_760_000_000_000_000_007),
        sync=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three 16-bit frames of one detector, one 8-bit frame of another, and a restored one."""
    writer = opened(tmp_path / "morning")
    for each in FRAMES:
        writer.write_frame(each)
    figures = figures_of(FRAMES[1].header, engine="restorer/v1")
    writer.write_derived(figures.header, FRAMES[1].pixels // 2, figures, {})
    writer.close(summary={})
    return tmp_path / "morning"


Export = Callable[..., Path]


@pytest.fixture
def export(folder: Path, tmp_path: Path) -> Export:
    def do(to: Target, **options: Any) -> Path:
        ending = "ome.tif" if to is Target.OME_TIFF else "ome.zarr"
        output = tmp_path / f"out.{ending}"
        export_session(SessionReader(folder), output, to, **options)
        return output

    return do


def test_ome_tiff_holds_the_pixels_bit_for_bit(export: Export) -> None:
    with tifffile.TiffFile(export(Target.OME_TIFF)) as tiff:
        assert tiff.is_ome
        main_series, other = tiff.series
        assert main_series.dtype == np.uint16
        assert main_series.axes == "TYX"
        assert np.array_equal(main_series.asarray(), [FRAMES[i].pixels for i in (0, 1, 3)])
        assert np.array_equal(other.asarray(), FRAMES[2].pixels)


def test_ome_tiff_says_all_that_is_known(export: Export) -> None:
    path = export(Target.OME_TIFF)
    image, other = ome_types.from_tiff(path, validate=True).images
    third = image.pixels.planes[2]

    assert image.pixels.physical_size_x == pytest.approx(4.0)
    assert image.pixels.physical_size_x_unit.value == "nm"
    assert image.pixels.channels[0].name == "In-lens <µ>"
    assert other.pixels.channels[0].name == "BSE"
    assert third.delta_t == pytest.approx(1.5)
    assert third.position_z == pytest.approx(5.004)
    assert (third.position_x, third.position_y) == pytest.approx((1.0, -2.0))
    assert third.exposure_time == pytest.approx(1e-6 * 48)
    ome = ome_types.from_tiff(path)
    assert ome.structured_annotations is not None
    notes = {note.id: note for note in ome.structured_annotations}
    said = {
        notes[ref.id].namespace: from_json(notes[ref.id].value) for ref in third.annotation_refs
    }
    assert said["semagent/frame-header"]["sequence"] == 4
    charge = 1e-10 * 1e-6 / 1.602176634e-19
    assert said["semagent/dose"]["per_frame_e_nm2"] == pytest.approx(charge / 16)
    assert said["semagent/dose"]["frames"] == 4


def test_restored_frames_come_only_when_asked_for_and_say_so(export: Export) -> None:
    path = export(Target.OME_TIFF, derived=True)

    *raw, restored = ome_types.from_tiff(path, validate=True).images

    assert [image.pixels.size_t for image in raw] == [3, 1]
    assert not any("derived" in str(image.name) for image in raw)
    assert "derived" in str(restored.name)
    assert str(restored.description).startswith("DERIVED DATA")
    assert restored.pixels.planes[0].position_z == pytest.approx(5.002)  # of its raw frame
    with tifffile.TiffFile(path) as tiff:
        assert np.array_equal(tiff.series[0].asarray()[1], FRAMES[1].pixels)
        assert np.array_equal(tiff.series[2].asarray(), FRAMES[1].pixels // 2)
        assert "restorer/v1" in read_notes(tiff.ome_metadata or "")["semagent/derived"]


@pytest.mark.parametrize("largest", [646, 645])
def test_what_a_classic_tiff_cannot_hold_becomes_a_bigtiff(
    export: Export, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    """There is room for as many restored frames: twice 323 bytes."""
    monkeypatch.setattr("semagent.export.tiff._CLASSIC_BYTES", largest)
    with tifffile.TiffFile(export(Target.OME_TIFF)) as tiff:
        assert tiff.is_bigtiff is (largest < 646)


def test_hyperspy_reads_the_ome_tiff(export: Export) -> None:
    signals = hyperspy_reader(str(export(Target.OME_TIFF)), force_read_resolution=True)

    assert np.array_equal(signals[0]["data"], [FRAMES[i].pixels for i in (0, 1, 3)])
    axis = signals[0]["axes"][-1]
    assert (axis["scale"], axis["units"]) == (pytest.approx(4e-3), "µm")


def test_ome_zarr_follows_its_specification(export: Export) -> None:
    path = export(Target.OME_ZARR, derived=True)
    root = zarr.open_group(path, mode="r")

    BioFormats2RawAttrs.model_validate(dict(root.attrs))
    for index in "012":
        ImageAttrs.model_validate(dict(root[index].attrs))
    [scales] = ImageAttrs.model_validate(dict(root["0"].attrs)).multiscales
    [level] = scales.datasets

    assert np.array_equal(root["0/0"][:, 0], [FRAMES[i].pixels for i in (0, 1, 3)])
    assert root["0/0"].dtype == np.uint16
    assert np.array_equal(root["1/0"][0, 0], FRAMES[2].pixels)
    assert [axis.name for axis in scales.axes] == ["t", "c", "y", "x"]
    assert level.coordinateTransformations[0].scale == pytest.approx([0.75, 1.0, 4.0, 4.0])
    [channel] = root["0"].attrs["omero"]["channels"]
    grey = np.array([FRAMES[i].pixels for i in (0, 1, 3)])
    assert channel["label"] == "In-lens <µ>"
    assert (channel["window"]["start"], channel["window"]["end"]) == (grey.min(), grey.max())
    depths = [root[index].attrs["omero"]["channels"][0]["window"]["max"] for index in "012"]
    assert depths == [65535, 255, 65535]
    assert root["OME"].attrs["series"] == ["0", "1", "2"]
    assert "derived" in root["2"].attrs["multiscales"][0]["name"]
    ome = ome_types.from_xml((path / "OME" / "METADATA.ome.xml").read_text(), validate=True)
    assert [image.pixels.size_t for image in ome.images] == [3, 1, 1]
    assert all(image.pixels.metadata_only for image in ome.images)


def test_more_frames_come_than_an_array_has_room_for(
    export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semagent.export.zarr._ROOM", 2)
    root = zarr.open_group(export(Target.OME_ZARR), mode="r")
    assert np.array_equal(root["0/0"][:, 0], [FRAMES[i].pixels for i in (0, 1, 3)])


@pytest.mark.parametrize("size_m", [None, math.nan, 0.0])
def test_without_a_pixel_size_ome_zarr_claims_no_nanometres(
    tmp_path: Path, size_m: float | None
) -> None:
    scan = msgspec.structs.replace(FRAMES[0].header.scan, pixel_size_m=size_m)
    with opened(tmp_path / "session") as writer:
        writer.write_frame(frame(1, scan=scan))
    session = SessionReader(tmp_path / "session")
    export_session(session, tmp_path / "o.ome.zarr", Target.OME_ZARR)

    root = zarr.open_group(tmp_path / "o.ome.zarr", mode="r")
    [scales] = ImageAttrs.model_validate(dict(root["0"].attrs)).multiscales
    assert [axis.unit for axis in scales.axes] == [None] * 4
    assert scales.datasets[0].coordinateTransformations[0].scale == [1.0] * 4


def test_large_frames_have_smaller_ones_beside_them(
    export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semagent.export.zarr._SMALL_PX", 3)
    root = zarr.open_group(export(Target.OME_ZARR), mode="r")

    [scales] = ImageAttrs.model_validate(dict(root["0"].attrs)).multiscales
    assert [level.path for level in scales.datasets] == ["0", "1", "2"]
    assert [root[f"0/{level}"].shape for level in range(3)] == [
        (3, 1, 6, 8),
        (3, 1, 3, 4),
        (3, 1, 1, 2),
    ]
    whole = FRAMES[1].pixels.astype(float)
    corner = whole[4:6, 6:8].mean()
    assert abs(float(root["0/1"][1, 0, 2, 3]) - corner) <= 0.5
    assert abs(float(root["0/2"][1, 0, 0, 1]) - whole[:4, 4:8].mean()) <= 1
    assert root["0/2"].dtype == np.uint16
    scale, moved = scales.datasets[2].coordinateTransformations
    assert scale.scale == pytest.approx([0.75, 1.0, 16.0, 16.0])
    assert moved.translation == pytest.approx([0.0, 0.0, 6.0, 6.0])
    assert root["1/1"].shape == (1, 1, 2, 3)  # of 5 x 7


def test_the_reader_of_napari_opens_the_ome_zarr(export: Export) -> None:
    reason = "ome-zarr, which napari-ome-zarr reads with, pulls in cloud clients; not in this suite"
    reader = pytest.importorskip("ome_zarr.reader", reason=reason)
    io = pytest.importorskip("ome_zarr.io")
    path = export(Target.OME_ZARR)

    [node] = reader.Reader(io.parse_url(str(path / "0")))()

    assert np.array_equal(np.asarray(node.data[0])[:, 0], [FRAMES[i].pixels for i in (0, 1, 3)])
    assert node.metadata["channel_names"] == ["In-lens <µ>"]


def test_frames_go_through_one_at_a_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[Any] = []
    read = SessionReader.frame

    def watched(self: SessionReader, sequence: int, **options: Any) -> Frame:
        frame = read(self, sequence, **options)
        alive[:] = [reference for reference in alive if reference() is not None]
        alive.append(weakref.ref(frame.pixels))
        assert len(alive) <= 2, "this one and the one before, which its sink may still hold"
        return frame

    monkeypatch.setattr(SessionReader, "frame", watched)
    for to, name in ((Target.OME_TIFF, "a.ome.tif"), (Target.OME_ZARR, "a.ome.zarr")):
        export_session(SessionReader(folder), tmp_path / name, to)


def test_a_field_that_follows_the_focus_stays_one_image(tmp_path: Path) -> None:
    scan = FRAMES[0].header.scan
    settings = [(1, 4e-9), (1, 4.01e-9), (1, 3.99e-9), (2, 2e-9)]
    with opened(tmp_path / "session") as writer:
        for sequence, (revision, size_m) in enumerate(settings, start=1):
            sized = msgspec.structs.replace(scan, pixel_size_m=size_m)
            writer.write_frame(frame(sequence, scan=sized, settings_rev=revision))

    session = SessionReader(tmp_path / "session")
    images = export_session(session, tmp_path / "o.ome.tif", Target.OME_TIFF).images

    assert [(each.frames, each.pixel_size_m) for each in images] == [(3, 4e-9), (1, 2e-9)]


def test_frames_of_two_detectors_are_two_images(tmp_path: Path) -> None:
    with opened(tmp_path / "session") as writer:
        for sequence, detector in enumerate(("SE", "BSE", "SE"), start=1):
            writer.write_frame(frame(sequence, detector=detector))

    session = SessionReader(tmp_path / "session")
    images = export_session(session, tmp_path / "o.ome.tif", Target.OME_TIFF).images

    assert [(each.detector, each.frames) for each in images] == [("SE", 2), ("BSE", 1)]


def test_a_damaged_frame_is_left_out_and_named(folder: Path, tmp_path: Path) -> None:
    (folder / "frames" / "frame-00000002.ome.tif").write_bytes(b"torn")

    exported = export_session(SessionReader(folder), tmp_path / "o.ome.tif", Target.OME_TIFF)

    assert exported.frames == 3
    [sentence] = exported.left_out
    assert "frame-00000002" in sentence
    with tifffile.TiffFile(tmp_path / "o.ome.tif") as tiff:
        assert np.array_equal(tiff.series[0].asarray(), [FRAMES[0].pixels, FRAMES[3].pixels])


def test_a_frame_that_is_not_the_one_that_was_recorded_is_left_out(
    folder: Path, tmp_path: Path
) -> None:
    one, two = (folder / "frames" / f"frame-0000000{number}.ome.tif" for number in (1, 2))
    shutil.copy(one, two)

    exported = export_session(SessionReader(folder), tmp_path / "o.ome.tif", Target.OME_TIFF)

    assert exported.frames == 3
    assert "frame-00000002" in exported.left_out[0]


@pytest.mark.parametrize(
    ("to", "derived", "needed"),
    [
        (Target.OME_TIFF, False, 323),
        (Target.OME_TIFF, True, 646),
        (Target.OME_ZARR, False, 431),
    ],
)
def test_the_disk_keeps_room_for_a_run_that_records(
    export: Export, monkeypatch: pytest.MonkeyPatch, to: Target, derived: bool, needed: int
) -> None:
    free = RESERVE_BYTES + needed - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(UsageError, match="are kept in reserve; export to another disk"):
        export(to, derived=derived)
    free += 1
    assert export(to, derived=derived).exists()


@pytest.mark.parametrize("name", ["o.ome.tif", "o.ome.zarr"])
def test_a_session_without_a_readable_frame_leaves_nothing_behind(
    folder: Path, tmp_path: Path, name: str
) -> None:
    shutil.rmtree(folder / "frames")
    (folder / "frames").mkdir()
    to = Target.OME_TIFF if name.endswith("tif") else Target.OME_ZARR

    with pytest.raises(InputFileError, match="none of its 4 frames can be read"):
        export_session(SessionReader(folder), tmp_path / name, to)

    assert [path.name for path in tmp_path.iterdir()] == ["morning"]


def test_what_an_export_that_was_killed_has_left_is_in_nobodys_way(
    export: Export, tmp_path: Path
) -> None:
    zarr.open_group(tmp_path / "out.ome.zarr.partial", mode="w-", zarr_format=2)
    assert export(Target.OME_ZARR).is_dir()


def test_an_export_that_somebody_looks_into_is_not_thrown_away(
    export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    replace = Path.replace

    def refuse_once(partial: Path, path: Path) -> Path:
        looked.append(partial)
        if len(looked) == 1:
            raise PermissionError(errno.EACCES, "used by another process")  # as on Windows
        return replace(partial, path)

    monkeypatch.setattr(Path, "replace", refuse_once)
    assert export(Target.OME_TIFF).is_file()


def test_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.ome.tif"
    there.write_bytes(b"precious")

    with pytest.raises(UsageError, match="is there already"):
        export_session(SessionReader(folder), there, Target.OME_TIFF)
    with pytest.raises(UsageError, match=r"does not end in \.zarr"):
        export_session(SessionReader(folder), tmp_path / "a.tif", Target.OME_ZARR)

    assert there.read_bytes() == b"precious"


def test_the_command_says_what_it_wrote(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "x.ome.tif"

    assert main(["export", str(folder), "--to", "ome-tiff", str(target), "--json"]) == 0

    said = from_json(capsys.readouterr().out)
    assert said["event"] == "export"
    assert said["output"] == str(target)
    assert [(image["detector"], image["frames"]) for image in said["images"]] == [
        ("In-lens <µ>", 3),
        ("BSE", 1),
    ]
    assert main(["export", str(folder), "--to", "ome-tiff", str(target)]) == 2
