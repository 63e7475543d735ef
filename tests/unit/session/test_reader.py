"""Reading a session back, and checking it."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tifffile

from semagent.channels import CHANNELS
from semagent.errors import InputFileError
from semagent.session import (
    DerivedRecord,
    FrameRecord,
    ProblemKind,
    SessionReader,
    SessionWriter,
    is_session,
    session_stack,
    verify,
)
from semagent.session.jsontext import to_json
from semagent.types import (
    Arm,
    Basis,
    Cancel,
    Command,
    Event,
    FocusBelief,
    FocusResult,
    Frame,
    FrameAnalysis,
    FrameFault,
    FrameHeader,
    GateStatus,
    Issuer,
    MicroscopeState,
    Mode,
    Note,
    Optics,
    Outcome,
    Reply,
    SetMode,
    SetStigmator,
    SetWorkingDistance,
    StartAutofocus,
)

MakeFrame = Callable[..., Frame]
OpenWriter = Callable[..., SessionWriter]
MakeFigures = Callable[[FrameHeader], FrameAnalysis]

TYPES = {name: channel.type for name, channel in CHANNELS.items()}


@pytest.fixture
def recorded(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame, make_figures: MakeFigures
) -> Path:
    """Three frames, the second restored, with a value after each."""
    with open_writer() as writer:
        for number in (1, 2, 3):
            frame = make_frame(number)
            writer.write_frame(frame)
            writer.write_value("request", Note(text=f"after {number}"), number)
            if number == 2:
                writer.write_derived(
                    frame.header, frame.pixels // 2, make_figures(frame.header), {}
                )
    return folder


def kinds(folder: Path) -> list[str]:
    return [problem.kind.value for problem in verify(folder)]


def test_frames_come_back_lazily_and_bit_for_bit(recorded: Path, make_frame: MakeFrame) -> None:
    reader = SessionReader(recorded)

    assert len(reader) == 3
    assert reader.problems == []
    assert [record.header for record in reader.frame_records] == [
        make_frame(n).header for n in (1, 2, 3)
    ]
    frames = reader.frames(verify=True)
    (recorded / "frames" / "frame-00000003.ome.tif").unlink()
    for number in (1, 2):
        frame = next(frames)
        assert frame.header == make_frame(number).header
        assert np.array_equal(frame.pixels, make_frame(number).pixels)
        assert not frame.pixels.flags.writeable
    with pytest.raises(InputFileError, match=r"frame-00000003\.ome\.tif"):
        next(frames)


def test_a_frame_that_is_not_there_is_named(recorded: Path) -> None:
    with pytest.raises(InputFileError, match="no frame 4 among its 3 frames"):
        SessionReader(recorded).frame(4)


def test_every_channel_comes_back_as_its_type(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame
) -> None:
    header = make_frame().header
    command = Command(
        id="c1",
        issuer=Issuer.AGENT,
        action=SetWorkingDistance(working_distance_m=5e-3),
        basis=Basis(sequence=1, settings_rev=1),
        expires_ns=2**60 + 1,
    )
    state = MicroscopeState(
        scan=header.scan, optics=header.optics, stage=header.stage, settings_rev=1
    )
    values: list[tuple[str, Any]] = [
        ("belief", FocusBelief(sequence=1, settings_rev=1, frames=1, interval90_m=(1e-3, 2e-3))),
        ("command", command),
        ("command", msgspec.structs.replace(command, action=SetStigmator(x=0.0, y=-0.0))),
        ("command", Command(id="c2", issuer=Issuer.OPERATOR, action=Arm())),
        (
            "reply",
            Reply(
                command=command,
                outcome=Outcome.APPLIED,
                monotonic_ns=7,
                next_sequence=2,
                state=state,
            ),
        ),
        ("gate", GateStatus(armed=True, reason="armed by the operator", monotonic_ns=3)),
        ("request", SetMode(mode=Mode.HOLD)),
        ("request", StartAutofocus(max_frames=12)),
        ("request", Cancel()),
        (
            "result",
            FocusResult(
                status="held",
                reason="noise",
                start_working_distance_m=5e-3,
                final_working_distance_m=5e-3,
                sigma_m=None,
                frames_used=3,
                moves=0,
                engine="e",
            ),
        ),
        (
            "event",
            Event(kind="k", role="r", message="m", monotonic_ns=1, wall_ns=2, data={"n": [1]}),
        ),
    ]
    with open_writer() as writer:
        for number, (channel, value) in enumerate(values):
            writer.write_value(channel, value, number)

    entries = list(SessionReader(folder).events(TYPES))

    assert [(entry.channel, entry.value) for entry in entries] == values
    assert [entry.monotonic_ns for entry in entries] == list(range(len(values)))


def test_figures_that_are_not_finite_come_back(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame, make_figures: MakeFigures
) -> None:
    figures = make_figures(make_frame().header)
    with open_writer() as writer:
        writer.write_value("analysis", figures, 1)

    (entry,) = SessionReader(folder).events(TYPES)

    assert isinstance(entry.value, FrameAnalysis)
    assert to_json(entry.value) == to_json(figures)
    assert np.isnan(entry.value.sharpness_sigma)
    assert entry.value.sharpness == -np.inf


def test_frames_stand_in_the_events_by_name(recorded: Path) -> None:
    values = [entry.value for entry in SessionReader(recorded).events(TYPES)]

    assert [type(value) for value in values] == [
        FrameRecord,
        Note,
        FrameRecord,
        Note,
        DerivedRecord,
        FrameRecord,
        Note,
    ]


def test_an_unknown_channel_or_a_wrong_value_is_an_error(recorded: Path) -> None:
    reader = SessionReader(recorded)

    with pytest.raises(InputFileError, match=r"line 2: channel 'request' is unknown; known are"):
        list(reader.events({}))
    with pytest.raises(InputFileError, match=r"line 2 \(request\)"):
        list(reader.events({"request": GateStatus}))


def test_a_session_cut_at_any_byte_of_its_events_can_be_read(recorded: Path) -> None:
    path = recorded / "events.jsonl"
    whole = path.read_bytes()
    manifest = json.loads((recorded / "manifest.json").read_text())
    (recorded / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    for length in range(0, len(whole) + 1, 13):
        path.write_bytes(whole[:length])
        ends = whole[:length].count(b"\n")
        torn = not whole[:length].endswith(b"\n") and length > 0

        reader = SessionReader(recorded)

        assert len(list(reader.events(TYPES))) == ends
        frame_lines = sum(
            line.startswith(b'{"channel": "frame"') for line in whole.splitlines()[:ends]
        )
        assert len(list(reader.frames(verify=True))) == frame_lines
        found = [problem.kind for problem in reader.problems]
        assert (ProblemKind.TORN_LINE in found) is torn
        assert found.count(ProblemKind.UNACKNOWLEDGED) == 3 - len(reader)


def test_what_a_crash_leaves_is_reported(recorded: Path) -> None:
    frames = recorded / "frames"
    shutil.copy(frames / "frame-00000003.ome.tif", frames / "frame-00000004.ome.tif")
    (frames / "frame-00000005.ome.tif.partial").write_bytes(b"II*")
    with (recorded / "events.jsonl").open("ab") as file:
        file.write(b'{"channel": "req')

    reader = SessionReader(recorded)

    assert {(problem.kind.value, problem.file) for problem in reader.problems} == {
        ("torn_line", "events.jsonl"),
        ("unacknowledged", "frames/frame-00000004.ome.tif"),
        ("leftover", "frames/frame-00000005.ome.tif.partial"),
    }
    assert set(verify(recorded)) == set(reader.problems)
    assert len(reader) == 3


@pytest.mark.parametrize("damage", [bytes(20), b'{"channel": "\xff"}'], ids=["zeros", "no text"])
def test_damage_in_the_middle_is_an_error_and_found_by_the_check(
    recorded: Path, damage: bytes
) -> None:
    path = recorded / "events.jsonl"
    damaged = path.read_bytes().split(b"\n")
    damaged[1] = damage
    path.write_bytes(b"\n".join(damaged))

    with pytest.raises(InputFileError, match="line 2: damaged"):
        SessionReader(recorded)
    (problem,) = verify(recorded)
    assert (problem.kind, problem.message) == (ProblemKind.DAMAGED_LINE, "line 2 cannot be read")


def test_a_line_that_points_out_of_the_session_is_refused(recorded: Path) -> None:
    path = recorded / "events.jsonl"
    path.write_text(path.read_text().replace("frames/frame-00000001", "../frame-00000001", 1))

    with pytest.raises(InputFileError, match=r"names the file '\.\./frame-00000001\.ome\.tif'"):
        SessionReader(recorded)
    assert "damaged_line" in kinds(recorded)


@pytest.mark.parametrize("missing", ["manifest.json", "events.jsonl"])
def test_a_folder_that_is_no_session_is_refused(recorded: Path, missing: str) -> None:
    assert is_session(recorded)
    (recorded / missing).unlink()

    assert not is_session(recorded)
    for read in (SessionReader, verify, session_stack):
        with pytest.raises(InputFileError, match=f"no recorded session: {missing}"):
            read(recorded)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[1]", "not a recorded session"),
        ('{"format": "other"}', "not a recorded session"),
        ('{"format": "semagent-session", "format_version": 2, "semagent_version": "9.1"}', "9.1"),
        ('{"format": "semagent-session", "format_version": "one"}', "manifest.json"),
        ('{"format": "semagent-session", "format_version": 1}', "missing required field"),
    ],
)
def test_a_manifest_that_is_none_is_refused(recorded: Path, text: str, message: str) -> None:
    (recorded / "manifest.json").write_text(text)

    with pytest.raises(InputFileError, match=message):
        SessionReader(recorded)


def test_fields_of_a_later_release_do_not_disturb(recorded: Path) -> None:
    path = recorded / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"later": {"x": 1}}))

    assert SessionReader(recorded).manifest.frames == 3


# -- checking ---------------------------------------------------------------------------------


def test_a_sound_session_has_no_problem(recorded: Path) -> None:
    assert verify(recorded) == []


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the pixels of a file and keep its description."""
    with tifffile.TiffFile(path) as tiff:
        pixels, text = tiff.asarray(), tiff.pages.first.description
    tifffile.imwrite(path, change(pixels), description=text, metadata=None)


@pytest.mark.parametrize(
    "name", ["frames/frame-00000002.ome.tif", "derived/frame-00000002-restored.ome.tif"]
)
@pytest.mark.parametrize("damage", ["one grey value", "cut", "gone"])
def test_damaged_files_are_found(recorded: Path, name: str, damage: str) -> None:
    path = recorded / name
    if damage == "one grey value":
        rewrite(path, lambda pixels: pixels ^ (np.indices(pixels.shape).sum(0) == 0))
        expected = "hash_mismatch"
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
        expected = "unreadable"
    else:
        path.unlink()
        expected = "missing_file"

    (problem,) = verify(recorded)

    assert (problem.kind.value, problem.file) == (expected, name)
    if name.startswith("frames"):
        with pytest.raises(InputFileError, match=r"frame-00000002"):
            SessionReader(recorded).frame(2, verify=True)


def test_two_frames_swapped_are_found(recorded: Path) -> None:
    one, two = (recorded / "frames" / f"frame-0000000{n}.ome.tif" for n in (1, 2))
    held = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(held)

    assert kinds(recorded) == ["hash_mismatch", "header_mismatch"] * 2


def test_a_hole_is_found(recorded: Path) -> None:
    path = recorded / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b"frame-00000002.ome" not in line))

    assert kinds(recorded) == [
        "manifest_mismatch",
        "gap",
        "unacknowledged",
        "unacknowledged",
    ]


def test_a_changed_configuration_is_found(recorded: Path) -> None:
    path = recorded / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 4'))

    assert kinds(recorded) == ["manifest_mismatch"]


def test_a_raw_frame_replaced_by_a_restored_one_is_found(recorded: Path) -> None:
    shutil.copy(
        recorded / "derived" / "frame-00000002-restored.ome.tif",
        recorded / "frames" / "frame-00000002.ome.tif",
    )

    assert kinds(recorded) == ["unreadable"]


def test_a_frame_replaced_by_a_colour_image_is_refused(recorded: Path) -> None:
    rewrite(recorded / "frames" / "frame-00000002.ome.tif", lambda p: np.stack([p] * 3, axis=-1))

    with pytest.raises(InputFileError, match=r"frame-00000002\.ome\.tif: no frame"):
        SessionReader(recorded).frame(2)
    assert kinds(recorded) == ["unreadable"]


def test_a_session_without_its_derived_frames_is_still_read(recorded: Path) -> None:
    shutil.rmtree(recorded / "derived")

    assert len(list(SessionReader(recorded).frames(verify=True))) == 3
    assert kinds(recorded) == ["missing_file"]


# -- a session as a stack ---------------------------------------------------------------------


def test_frames_that_cannot_serve_are_left_out_of_a_stack(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame
) -> None:
    with open_writer() as writer:
        writer.write_frame(make_frame(1))
        writer.write_frame(make_frame(2, faults=(FrameFault.INCOMPLETE,)))
        writer.write_frame(make_frame(3))
        writer.write_frame(make_frame(4, optics=Optics(working_distance_m=math.nan)))

    entries = session_stack(folder)

    assert [entry.header for entry in entries] == [make_frame(1).header, make_frame(3).header]
    assert [entry.file for entry in entries] == [
        folder / "frames" / f"frame-0000000{n}.ome.tif" for n in (1, 3)
    ]


def test_a_session_without_a_good_frame_is_no_stack(
    folder: Path, open_writer: OpenWriter, make_frame: MakeFrame
) -> None:
    with open_writer() as writer:
        writer.write_frame(make_frame(1, faults=(FrameFault.BLANK,)))

    with pytest.raises(InputFileError, match="none of its 1 frames is without fault"):
        session_stack(folder)
