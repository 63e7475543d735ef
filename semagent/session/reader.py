"""Reading a recorded session back, be it whole or what a crash left of it."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from semagent.errors import InputFileError
from semagent.session.folder import (
    Line,
    damaged_line,
    decode_value,
    read_lines,
    read_manifest,
    strays,
    torn,
    unfinished,
)
from semagent.session.layout import (
    DERIVED_CHANNEL,
    EVENTS,
    FRAME_CHANNEL,
    FRAMES,
    DerivedRecord,
    FrameRecord,
    pixels_sha256,
)
from semagent.session.ometiff import read_derived_file, read_pixels
from semagent.types import Frame, FrameAnalysis, FrameHeader, Pixels, Value

_RECORDS: dict[str, Any] = {FRAME_CHANNEL: FrameRecord, DERIVED_CHANNEL: DerivedRecord}
"""What stands in the events in place of values with pixels."""


class Entry(Value, frozen=True, kw_only=True):
    """One line of the events.

    Attributes:
        channel: name of the channel.
        monotonic_ns: stamp of the value, on the acquiring machine's clock.
        value: of the channel's type; a `FrameRecord` for ``frame``, a `DerivedRecord` for
            ``derived``.
    """

    channel: str
    monotonic_ns: int
    value: Any


class SessionReader:
    """One recorded session, complete or not.

    Frames are read from the disk when asked for. Only acknowledged frames count: a frame file
    without a line in the events was never seen by anybody in the run; it is named in
    ``problems``, and `read_frame_file` reads it.

    Args:
        folder: where it is.
        salvage: read what can be read of damaged events, and name the rest in ``problems``.

    Attributes:
        manifest: what was run, with what.
        frame_records: header, file and hash of every frame, in order.
        derived_records: the same of the restored frames.
        problems: what the end of an interrupted run left behind. Without ``salvage`` a damaged
            record is not among them, it is an error; `verify` lists everything.

    Raises:
        InputFileError: the folder is no session, was written by a newer semagent, or, without
            ``salvage``, its events are damaged anywhere but at the very end.
    """

    def __init__(self, folder: Path, *, salvage: bool = False) -> None:
        self.folder = folder
        self._salvage = salvage
        self.manifest = read_manifest(folder)
        self.problems = list(unfinished(self.manifest))
        self.frame_records: list[FrameRecord] = []
        self.derived_records: list[DerivedRecord] = []
        unreadable: list[int] = []
        for number, line in read_lines(folder, damaged=unreadable if salvage else None):
            if line is None:
                self.problems.append(torn(number))
                continue
            try:
                if line.channel == FRAME_CHANNEL:
                    self.frame_records.append(self._value(number, line, FrameRecord))
                elif line.channel == DERIVED_CHANNEL:
                    self.derived_records.append(self._value(number, line, DerivedRecord))
            except InputFileError:
                if not salvage:
                    raise
                unreadable.append(number)
        self.problems += [damaged_line(number) for number in unreadable]
        self._by_sequence = {record.header.sequence: record for record in self.frame_records}
        self.problems += strays(folder, FRAMES, {record.file for record in self.frame_records})

    def __len__(self) -> int:
        """Return the number of acknowledged frames."""
        return len(self.frame_records)

    def __contains__(self, sequence: object) -> bool:
        """Whether there is an acknowledged frame of this number."""
        return sequence in self._by_sequence

    def frame(self, sequence: int, *, verify: bool = False) -> Frame:
        """Read one frame.

        Args:
            sequence: its number, from the header.
            verify: compare the pixels with their recorded hash.

        Raises:
            InputFileError: there is no such frame, its file is missing or cannot be read, or
                its pixels are not those that were recorded.
        """
        record = self._by_sequence.get(sequence)
        if record is None:
            raise InputFileError(f"{self.folder}: no frame {sequence} among its {len(self)} frames")
        return recorded_frame(self.folder, record, verify=verify)

    def frames(self, *, verify: bool = False) -> Iterator[Frame]:
        """Read all frames in order, one at a time; see `frame`."""
        for record in self.frame_records:
            yield self.frame(record.header.sequence, verify=verify)

    def restored(self, record: DerivedRecord) -> tuple[Pixels, FrameAnalysis]:
        """Read the pixels of one restored frame; see `recorded_restoration`."""
        return recorded_restoration(self.folder, record)

    def events(self, types: Mapping[str, Any]) -> Iterator[Entry]:
        """Read the lines of the events in order; with ``salvage``, those that can be read.

        Args:
            types: type of the value by name of the channel, as in
                ``{name: channel.type for name, channel in CHANNELS.items()}``.

        Raises:
            InputFileError: a channel is unknown or a value is not of its type.
        """
        types = {**types, **_RECORDS}
        for number, line in read_lines(self.folder, damaged=[] if self._salvage else None):
            if line is None:
                continue
            if self._salvage and line.channel not in types:
                continue
            if line.channel not in types:
                raise InputFileError(
                    f"{self.folder / EVENTS}, line {number}: channel {line.channel!r} is unknown; "
                    f"known are {', '.join(sorted(types))}"
                )
            try:
                value = self._value(number, line, types[line.channel])
            except InputFileError:
                if self._salvage:
                    continue
                raise
            yield Entry(channel=line.channel, monotonic_ns=line.monotonic_ns, value=value)

    def _value(self, number: int, line: Line, kind: Any) -> Any:
        try:
            return decode_value(line, kind)
        except ValueError as error:
            path = self.folder / EVENTS
            raise InputFileError(f"{path}, line {number} ({line.channel}): {error}") from error


def recorded_frame(folder: Path, record: FrameRecord, *, verify: bool) -> Frame:
    """Read the frame of a line of the events; see `SessionReader.frame`.

    Raises:
        InputFileError: its file is missing or cannot be read, or, with ``verify``, its pixels are
            not those that were recorded.
    """
    path = folder / record.file
    pixels, _ = read_pixels(path)
    if verify:
        _require_hash(path, pixels, record.sha256)
    try:
        return Frame(record.header, pixels)
    except ValueError as error:
        raise InputFileError(f"{path}: no frame: {error}") from error


def recorded_restoration(folder: Path, record: DerivedRecord) -> tuple[Pixels, FrameAnalysis]:
    """Read the pixels of one restored frame, and what its engine said of it.

    Raises:
        InputFileError: its file is missing or cannot be read, or its pixels are not those that
            were recorded.
    """
    path = folder / record.file
    pixels, figures = read_derived_file(path)
    _require_hash(path, pixels, record.sha256)
    return pixels, figures


def _require_hash(path: Path, pixels: Pixels, sha256: str) -> None:
    if pixels_sha256(pixels) != sha256:
        raise InputFileError(
            f"{path}: the pixels are not those that were recorded, their SHA-256 differs"
        )


class StackFrame(Value, frozen=True, kw_only=True):
    """A recorded frame as part of a focus stack: its file and everything known about it."""

    file: Path
    header: FrameHeader


def session_stack(folder: Path) -> list[StackFrame]:
    """The frames of a session that can serve as a focus stack, in the order they were taken.

    Left out are frames the sanity checks found fault with and frames whose working distance is
    not a number.

    Raises:
        InputFileError: this is no session, or none of its frames can serve.
    """
    records = SessionReader(folder).frame_records
    frames = [
        StackFrame(file=folder / record.file, header=record.header)
        for record in records
        if not record.header.faults and math.isfinite(record.header.optics.working_distance_m)
    ]
    if not frames:
        raise InputFileError(
            f"{folder}: none of its {len(records)} frames is without fault and has a working "
            "distance"
        )
    return frames
