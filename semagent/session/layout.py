"""Names, numbers and values of the session folder that writer and reader share."""

import hashlib
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np

from semagent.session.jsontext import to_json
from semagent.types import Capabilities, FrameHeader, Pixels, Value

FORMAT = "semagent-session"
FORMAT_VERSION = 1
"""Grows when an older reader would misunderstand the folder; new fields alone do not."""

MANIFEST = "manifest.json"
EVENTS = "events.jsonl"
FRAMES = "frames"
DERIVED = "derived"
PARTIAL = ".partial"
"""Ending of a file that is still being written; what is left of one after a crash is no frame."""

FRAME_CHANNEL = "frame"
DERIVED_CHANNEL = "derived"
EVENT_CHANNEL = "event"


def frame_file(sequence: int) -> str:
    """Path of a raw frame, relative to the session, with forward slashes."""
    return f"{FRAMES}/frame-{sequence:08d}.ome.tif"


def derived_file(sequence: int) -> str:
    """Path of a restored frame; the name says so even when the file leaves its folder."""
    return f"{DERIVED}/frame-{sequence:08d}-restored.ome.tif"


def pixels_sha256(pixels: Pixels) -> str:
    """SHA-256 of the grey values, row by row, 16-bit ones little-endian, in hexadecimal."""
    flat = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).reshape(-1)
    return hashlib.sha256(flat.data).hexdigest()


def configuration_sha256(configuration: Any) -> str:
    """SHA-256 of the configuration as JSON with sorted keys, in hexadecimal."""
    return hashlib.sha256(to_json(configuration, sort_keys=True).encode("ascii")).hexdigest()


class EngineRecord(Value, frozen=True, kw_only=True):
    """The engine of a session.

    Attributes:
        name: as the engine calls itself in its figures.
        parameters: the options it was opened with.
    """

    name: str
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)


class Manifest(Value, frozen=True, kw_only=True):
    """What ``manifest.json`` holds.

    Attributes:
        configuration: the whole configuration as used.
        configuration_sha256: see `configuration_sha256`.
        capabilities: what the driver said its microscope can do.
        engine: what analysed the frames.
        platform: operating system, machine and Python.
        packages: version of every installed Python package.
        started: wall time in ISO 8601, for people; ``started_wall_ns`` is exact.
        complete: the session was closed in order and lacks nothing. ``False`` while it is being
            written, after a crash, and after a failure to record.
        failure: why the record is not complete, where the writer lived to say so.
        lasted_ns: from start to end on the machine's monotonic clock, once closed, as the wall
            clock may be set meanwhile; not in older records.
        frames: number of frames, once closed.
        summary: what the run says of itself, once closed.
    """

    format: str
    format_version: int
    semagent_version: str
    started: str
    started_wall_ns: int
    complete: bool = False
    ended: str | None = None
    ended_wall_ns: int | None = None
    lasted_ns: int | None = None
    frames: int | None = None
    failure: str | None = None
    summary: dict[str, Any] | None = None
    capabilities: Capabilities
    engine: EngineRecord
    configuration: dict[str, Any]
    configuration_sha256: str
    platform: dict[str, str]
    packages: dict[str, str]

    @property
    def lasted_s(self) -> float | None:
        """From start to end; ``None`` where it was not closed, or its wall times contradict it."""
        lasted_ns = self.lasted_ns
        if lasted_ns is None and self.ended_wall_ns is not None:
            lasted_ns = self.ended_wall_ns - self.started_wall_ns
        return None if lasted_ns is None or lasted_ns < 0 else lasted_ns / 1e9


class FrameRecord(Value, frozen=True, kw_only=True):
    """The value of a line of the channel ``frame``: a raw frame is safe in its file.

    Raises:
        ValueError: the file is not the one of this frame.
    """

    file: str
    sha256: str
    header: FrameHeader

    def __post_init__(self) -> None:
        _require_name(self.file, frame_file(self.header.sequence))


class DerivedRecord(Value, frozen=True, kw_only=True):
    """The value of a line of the channel ``derived``.

    Attributes:
        file: the restored frame.
        sha256: of its pixels.
        raw_file: the raw frame it was made from.
        sequence: number of that frame.
        engine: name of the engine that made it.

    Raises:
        ValueError: the file is not the one of this restored frame.
    """

    file: str
    sha256: str
    raw_file: str
    sequence: int
    engine: str

    def __post_init__(self) -> None:
        _require_name(self.file, derived_file(self.sequence))


def _require_name(file: str, expected: str) -> None:
    """A record that was tampered with must not lead out of the session folder."""
    if file != expected:
        raise ValueError(f"names the file {file!r} instead of {expected!r}")


class ProblemKind(StrEnum):
    """What can be wrong with a session."""

    NOT_CLOSED = "not_closed"
    TORN_LINE = "torn_line"
    DAMAGED_LINE = "damaged_line"
    UNACKNOWLEDGED = "unacknowledged"
    LEFTOVER = "leftover"
    MISSING_FILE = "missing_file"
    UNREADABLE = "unreadable"
    HASH_MISMATCH = "hash_mismatch"
    HEADER_MISMATCH = "header_mismatch"
    GAP = "gap"
    MANIFEST_MISMATCH = "manifest_mismatch"


class Problem(Value, frozen=True, kw_only=True):
    """One thing that is wrong with a session.

    Attributes:
        file: relative to the session folder, with forward slashes.
        message: sentence for people.
    """

    kind: ProblemKind
    file: str
    message: str
