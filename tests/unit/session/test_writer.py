"""Recording a session."""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile

from semagent.clock import ManualClock, SystemClock
from semagent.errors import RecordError, UsageError
from semagent.session import EngineRecord, SessionWriter, verify
from semagent.session.layout import configuration_sha256
from semagent.session.storage import RESERVE_BYTES
from semagent.session.writer import _packages
from semagent.types import Event, Frame, FrameAnalysis, FrameHeader, Note

MakeFrame = Callable[..., Frame]
OpenWriter = Callable[..., SessionWriter]
MakeFigures = Callable[[FrameHeader], FrameAnalysis]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def manifest(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return read


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("sync", [True, False])
def test_a_plain_user_opens_the_frames(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame, dtype: Any, sync: bool
) -> None:
    frames = [make_frame(n, dtype=dtype, shape=(17, 23)) for n in range(1, 13)]
    with open_writer(sync=sync) as writer:
        paths = [writer.write_frame(frame) for frame in frames]

    stack = tifffile.imread(str(folder / "frames" / "*.ome.tif"))

    assert stack.dtype == dtype
    assert np.array_equal(stack, np.stack([frame.pixels for frame in frames]))
    assert paths[0] == folder / "frames" / "frame-00000001.ome.tif"
    assert paths[-1] == folder / "frames" / "frame-00000012.ome.tif"


def test_a_frame_is_safe_when_it_is_acknowledged(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame
) -> None:
    with open_writer() as writer:
        frame = make_frame()
        path = writer.write_frame(frame)

        assert np.array_equal(tifffile.imread(path), frame.pixels)
        line = lines(folder)[-1]
        assert line["channel"] == "frame"
        assert line["monotonic_ns"] == frame.header.monotonic_ns
        assert line["value"]["file"] == "frames/frame-00000001.ome.tif"
        assert line["value"]["header"]["optics"]["working_distance_m"] == 5.2e-3
        assert manifest(folder)["complete"] is False


def test_the_manifest_says_what_was_run(folder: Path, open_writer: OpenWriter) -> None:
    clock = ManualClock(start_ns=1_760_000_000_000_000_007)
    configuration = {"b": [1, None], "a": {"x": 0.5}}

    writer = open_writer(configuration=configuration, clock=clock)
    begun = manifest(folder)
    clock.advance(2.0)
    writer.close({"status": "focused"})
    ended = manifest(folder)

    assert begun["format"] == "semagent-session"
    assert begun["format_version"] == 1
    assert begun["started_wall_ns"] == 1_760_000_000_000_000_007
    assert begun["started"] == "2025-10-09T08:53:20+00:00"
    assert begun["configuration"] == configuration
    assert begun["capabilities"]["microscope"] == "test bench"
    assert begun["engine"] == {
        "name": "restorer/v1",
        "parameters": {"strength": 0.5},
    }
    assert begun["packages"]["numpy"] == np.__version__
    assert {"system", "machine", "python"} == begun["platform"].keys()
    assert (begun["complete"], begun["ended"], begun["frames"]) == (False, None, None)
    assert (ended["complete"], ended["frames"], ended["failure"]) == (True, 0, None)
    assert ended["ended_wall_ns"] == 1_760_000_002_000_000_007
    assert ended["lasted_ns"] == 2_000_000_000
    assert ended["summary"] == {"status": "focused"}


def test_the_manifest_gives_the_time_of_day_and_how_long_it_was(
    folder: Path, open_writer: OpenWriter
) -> None:
    before_ns = time.time_ns()
    open_writer(clock=SystemClock()).close()
    said = manifest(folder)
    assert before_ns <= said["started_wall_ns"] <= said["ended_wall_ns"] <= time.time_ns()
    assert 0 <= said["lasted_ns"] < 60e9


def test_the_configuration_hash_ignores_only_the_order_of_keys() -> None:
    one = configuration_sha256({"a": 1, "b": {"c": 2.0, "d": None}})

    assert one == configuration_sha256({"b": {"d": None, "c": 2.0}, "a": 1})
    assert one != configuration_sha256({"a": 1, "b": {"c": 2.5, "d": None}})


def test_values_go_to_the_events_in_order(folder: Path, open_writer: OpenWriter) -> None:
    event = Event(
        kind="k", role="control", message="m", monotonic_ns=5, wall_ns=6, data={"x": float("nan")}
    )
    with open_writer() as writer:
        writer.write_value("request", Note(text="grüße\n"), 2**62 + 1)
        writer.write_value("event", event, 5)

    first, second = lines(folder)
    assert first == {
        "channel": "request",
        "monotonic_ns": 2**62 + 1,
        "value": {"type": "note", "text": "grüße\n"},
    }
    assert second["value"]["data"] == {"x": {"$float": "NaN"}}


@pytest.mark.parametrize("received", [1, 2, 4, 5, 1000])
def test_a_gap_is_an_error_and_recorded(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame, received: int
) -> None:
    with open_writer() as writer:
        writer.write_frame(make_frame(1))
        writer.write_frame(make_frame(2))
        with pytest.raises(RecordError, match=rf"frame {received} came where frame 3 was due"):
            writer.write_frame(make_frame(received))
        with pytest.raises(RecordError, match="no more frames are taken"):
            writer.write_frame(make_frame(3))
        writer.write_value("request", Note(text="values still go in"), 1)

    channels = [line["channel"] for line in lines(folder)]
    assert channels == ["frame", "frame", "event", "request"]
    event = lines(folder)[2]["value"]
    assert (event["kind"], event["level"]) == ("record_failed", "error")
    assert event["data"] == {"sequence": received}
    assert len(list((folder / "frames").iterdir())) == 2
    assert manifest(folder)["complete"] is False
    assert "was due" in manifest(folder)["failure"]
    assert manifest(folder)["frames"] == 2


@pytest.mark.parametrize("what", ["a session", "a file in it", "a file of that name"])
def test_nothing_is_ever_overwritten(folder: Path, open_writer: OpenWriter, what: str) -> None:
    if what == "a session":
        open_writer().close()
    elif what == "a file in it":
        folder.mkdir()
        (folder / "notes.txt").write_text("precious")
    else:
        folder.write_text("precious")
    before = {p: p.read_bytes() for p in [folder, *folder.rglob("*")] if p.is_file()}

    with pytest.raises(UsageError, match="never overwrites; name a new folder") as caught:
        open_writer()

    assert str(folder) in str(caught.value)
    assert {p: p.read_bytes() for p in [folder, *folder.rglob("*")] if p.is_file()} == before


def test_an_empty_folder_may_be_there_and_parents_need_not(
    tmp_path: Path, open_writer: OpenWriter
) -> None:
    (tmp_path / "empty").mkdir()

    open_writer(folder=tmp_path / "empty").close()
    open_writer(folder=tmp_path / "a" / "b" / "c").close()

    assert verify(tmp_path / "empty") == verify(tmp_path / "a" / "b" / "c") == []


@pytest.mark.skipif(os.name != "posix", reason="only POSIX synchronises folders")
@pytest.mark.parametrize("sync", [True, False])
def test_the_names_of_new_folders_outlive_the_machine_too(
    tmp_path: Path, open_writer: OpenWriter, monkeypatch: pytest.MonkeyPatch, sync: bool
) -> None:
    synced: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
    open_writer(folder=tmp_path / "a" / "b", sync=sync).close()
    for parent in (tmp_path, tmp_path / "a", tmp_path / "a" / "b"):
        assert (parent.stat().st_ino in synced) is sync


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, open_writer: OpenWriter) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError) as caught:
        open_writer(folder=tmp_path / "file" / "session")

    assert f"{tmp_path / 'file'} is a file, not a folder" in str(caught.value)


def test_a_drive_that_is_not_there_is_wrong_usage(
    folder: Path, open_writer: OpenWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(path: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, "no such drive", path)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(UsageError, match="check that the disk or network share") as caught:
        open_writer()
    assert str(folder) in str(caught.value)


def test_a_restored_frame_is_kept_apart(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame, make_figures: MakeFigures
) -> None:
    frame = make_frame()
    restored = frame.pixels // 2
    with open_writer() as writer:
        writer.write_frame(frame)
        path = writer.write_derived(frame.header, restored, make_figures(frame.header), {})

    assert path == folder / "derived" / "frame-00000001-restored.ome.tif"
    assert np.array_equal(tifffile.imread(path), restored)
    assert len(list((folder / "frames").iterdir())) == 1
    value = lines(folder)[-1]["value"]
    assert value.pop("sha256")
    assert value == {
        "file": "derived/frame-00000001-restored.ome.tif",
        "raw_file": "frames/frame-00000001.ome.tif",
        "sequence": 1,
        "engine": "restorer/v1",
    }
    assert verify(folder) == []


def test_a_restored_frame_needs_its_raw_one_and_comes_once(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame, make_figures: MakeFigures
) -> None:
    frame = make_frame()
    figures = make_figures(frame.header)
    missing = pytest.raises(RecordError, match="raw frame 1 has not been recorded")
    with open_writer() as writer, missing:
        writer.write_derived(frame.header, frame.pixels, figures, {})
    shutil.rmtree(folder)
    with open_writer() as writer:
        writer.write_frame(frame)
        path = writer.write_derived(frame.header, frame.pixels, figures, {})
        with pytest.raises(RecordError, match="nothing is ever overwritten"):
            writer.write_derived(frame.header, frame.pixels * 0, figures, {})

    assert np.array_equal(tifffile.imread(path), frame.pixels)


@pytest.mark.parametrize("channel", ["frame", "derived"])
def test_channels_with_pixels_have_their_own_methods(open_writer: OpenWriter, channel: str) -> None:
    with open_writer() as writer, pytest.raises(ValueError, match=f"use write_{channel}"):
        writer.write_value(channel, Note(text=""), 1)


def test_a_value_json_cannot_hold_ends_the_record(folder: Path, open_writer: OpenWriter) -> None:
    event = Event(kind="k", role="r", message="m", monotonic_ns=1, wall_ns=1, data={"x": object()})
    with open_writer() as writer, pytest.raises(RecordError, match="cannot be recorded"):
        writer.write_value("event", event, 1)

    assert [line["value"]["kind"] for line in lines(folder)] == ["record_failed"]
    assert manifest(folder)["complete"] is False


@pytest.mark.parametrize(
    "changes",
    [
        {"configuration": {"path": Path("x").stat}},
        {"engine": EngineRecord(name="e", parameters={"x": {"$float": 1}})},
    ],
)
def test_a_manifest_json_cannot_hold_is_refused(
    open_writer: OpenWriter, changes: dict[str, Any]
) -> None:
    with pytest.raises(RecordError, match="cannot be recorded as JSON"):
        open_writer(**changes)


def test_room_is_checked_before_anything_is_made(
    folder: Path, open_writer: OpenWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=RESERVE_BYTES - 1))

    with pytest.raises(RecordError, match="kept in reserve"):
        open_writer()

    assert not folder.exists()


def test_a_disk_that_fills_up_ends_the_record_at_a_frame_boundary(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_writer() as writer:
        writer.write_frame(make_frame(1))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=RESERVE_BYTES))
        with pytest.raises(RecordError, match="kept in reserve"):
            writer.write_frame(make_frame(2))

    assert manifest(folder)["complete"] is False
    assert lines(folder)[-1]["value"]["kind"] == "record_failed"
    assert [problem.kind for problem in verify(folder)] == ["not_closed"]


def test_of_several_failures_the_manifest_names_the_first(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame, make_figures: MakeFigures
) -> None:
    frame = make_frame(2)
    writer = open_writer()
    with pytest.raises(RecordError, match="was due"):
        writer.write_frame(frame)
    with pytest.raises(RecordError, match="has not been recorded"):
        writer.write_derived(frame.header, frame.pixels, make_figures(frame.header), {})
    writer.close(failure="messages were lost")

    assert "was due" in manifest(folder)["failure"]


def test_a_frame_without_pixels_ends_the_record(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame
) -> None:
    with open_writer() as writer, pytest.raises(RecordError, match="has no pixels"):
        writer.write_frame(make_frame(shape=(0, 8)))

    assert list((folder / "frames").iterdir()) == []


def test_when_even_the_failure_cannot_be_recorded_the_first_error_comes_through(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "device gone")

    writer = open_writer(sync=True)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RecordError, match=r"frame-00000001\.ome\.tif: device gone"):
        writer.write_frame(make_frame())
    monkeypatch.undo()
    writer.close()

    assert lines(folder) == []
    assert "device gone" in manifest(folder)["failure"]


@pytest.mark.skipif(os.name != "posix", reason="Windows takes no file away that is open")
def test_a_record_whose_lines_were_taken_away_goes_no_further_and_is_not_complete(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame
) -> None:
    writer = open_writer()
    writer.write_frame(make_frame(1))
    (folder / "events.jsonl").rename(folder / "elsewhere")

    with pytest.raises(RecordError, match=r"events\.jsonl: No such file"):
        writer.write_frame(make_frame(2))
    with pytest.raises(RecordError, match=r"events\.jsonl: No such file"):
        writer.close()
    assert manifest(folder)["complete"] is False


def test_a_run_that_fails_leaves_a_complete_record_that_says_so(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame
) -> None:
    def run() -> None:
        with open_writer() as writer:
            writer.write_frame(make_frame())
            raise RuntimeError("beam off")

    with pytest.raises(RuntimeError, match="beam off"):
        run()

    assert manifest(folder)["complete"] is True
    assert manifest(folder)["summary"] == {"error": "RuntimeError: beam off"}


def test_closing_twice_is_closing_once_and_ends_everything(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame, make_figures: MakeFigures
) -> None:
    writer = open_writer()
    writer.close({"n": 1})
    writer.close({"n": 2})
    frame = make_frame()

    assert manifest(folder)["summary"] == {"n": 1}
    for call in (
        lambda: writer.write_frame(frame),
        lambda: writer.write_value("request", Note(text=""), 1),
        lambda: writer.write_derived(frame.header, frame.pixels, make_figures(frame.header), {}),
    ):
        with pytest.raises(RecordError, match="the session is closed"):
            call()


@pytest.mark.parametrize("backport", [False, True])
def test_a_package_that_was_half_removed_is_no_reason_not_to_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, backport: bool
) -> None:
    if backport:  # once it is imported, packages are found by it
        pytest.importorskip("importlib_metadata")
    (tmp_path / "~umpy-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert _packages.__wrapped__()["numpy"] == np.__version__
