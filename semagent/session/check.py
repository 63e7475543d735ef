"""Checking a recorded session, file by file."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from semagent.errors import InputFileError
from semagent.session.folder import (
    damaged_line,
    decode_value,
    read_lines,
    read_manifest,
    strays,
    torn,
    unfinished,
)
from semagent.session.jsontext import to_json
from semagent.session.layout import (
    DERIVED,
    DERIVED_CHANNEL,
    EVENTS,
    FRAME_CHANNEL,
    FRAMES,
    MANIFEST,
    DerivedRecord,
    FrameRecord,
    Manifest,
    Problem,
    ProblemKind,
    configuration_sha256,
    pixels_sha256,
)
from semagent.session.ometiff import read_frame_file, read_pixels
from semagent.types import Pixels

T = TypeVar("T")


def verify(folder: Path) -> list[Problem]:
    """Check everything a session says of itself: order, files, hashes, headers.

    Reads every pixel. An interrupted session has problems too, of the kinds ``not_closed``,
    ``torn_line``, ``unacknowledged`` and ``leftover``; its acknowledged frames are sound if there
    are no others.

    Raises:
        InputFileError: the folder is no session, or was written by a newer semagent.
    """
    checker = _Checker(folder)
    checker.run()
    return checker.problems


class _Checker:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[Problem] = []

    def run(self) -> None:
        manifest = read_manifest(self.folder)
        self.problems += unfinished(manifest)
        frames, derived = self._read_events()
        self._check_manifest(manifest, len(frames))
        for before, after in pairwise(record.header.sequence for record in frames):
            if after != before + 1:
                self._add(ProblemKind.GAP, EVENTS, f"frame {after} comes after frame {before}")
        for record in frames:
            self._check_frame(record)
        for restored in derived:
            self._check_derived(restored)
        self.problems += strays(self.folder, FRAMES, {record.file for record in frames})
        self.problems += strays(self.folder, DERIVED, {record.file for record in derived})

    def _add(self, kind: ProblemKind, file: str, message: str) -> None:
        self.problems.append(Problem(kind=kind, file=file, message=message))

    def _read_events(self) -> tuple[list[FrameRecord], list[DerivedRecord]]:
        frames: list[FrameRecord] = []
        derived: list[DerivedRecord] = []
        damaged: list[int] = []
        for number, line in read_lines(self.folder, damaged=damaged):
            try:
                if line is None:
                    self.problems.append(torn(number))
                elif line.channel == FRAME_CHANNEL:
                    frames.append(decode_value(line, FrameRecord))
                elif line.channel == DERIVED_CHANNEL:
                    derived.append(decode_value(line, DerivedRecord))
            except ValueError:
                damaged.append(number)
        self.problems += [damaged_line(number) for number in damaged]
        return frames, derived

    def _check_manifest(self, manifest: Manifest, frames: int) -> None:
        if manifest.frames is not None and manifest.frames != frames:
            message = f"{manifest.frames} frames were recorded, {frames} have a line in the events"
            self._add(ProblemKind.MANIFEST_MISMATCH, MANIFEST, message)
        if configuration_sha256(manifest.configuration) != manifest.configuration_sha256:
            message = "the configuration is not the one that was used, its SHA-256 differs"
            self._add(ProblemKind.MANIFEST_MISMATCH, MANIFEST, message)

    def _check_frame(self, record: FrameRecord) -> None:
        frame = self._read(record.file, read_frame_file)
        if frame is None:
            return
        self._check_hash(record.file, frame.pixels, record.sha256)
        if to_json(frame.header) != to_json(record.header):  # as text: NaN is not equal to NaN
            message = "the header in the file is not the one in the events"
            self._add(ProblemKind.HEADER_MISMATCH, record.file, message)

    def _check_derived(self, record: DerivedRecord) -> None:
        read = self._read(record.file, read_pixels)
        if read is not None:
            self._check_hash(record.file, read[0], record.sha256)

    def _read(self, name: str, read: Callable[[Path], T]) -> T | None:
        path = self.folder / name
        if not path.is_file():
            self._add(ProblemKind.MISSING_FILE, name, "the file is missing")
            return None
        try:
            return read(path)
        except InputFileError as error:
            self._add(ProblemKind.UNREADABLE, name, str(error))
            return None

    def _check_hash(self, name: str, pixels: Pixels, sha256: str) -> None:
        if pixels_sha256(pixels) != sha256:
            message = "the pixels are not those that were recorded, their SHA-256 differs"
            self._add(ProblemKind.HASH_MISMATCH, name, message)
