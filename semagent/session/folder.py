"""Looking into a session folder: manifest, lines of the events, and files that are left over."""

import functools
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from semagent.errors import UNREADABLE, InputFileError
from semagent.session.jsontext import from_json
from semagent.session.layout import (
    EVENTS,
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    PARTIAL,
    Manifest,
    Problem,
    ProblemKind,
)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the events whose value has not been decoded yet."""

    channel: str
    monotonic_ns: int
    value: msgspec.Raw


@dataclass(slots=True)
class Place:
    """How far the events have been read.

    Attributes:
        offset: end of the last whole line that was taken, in bytes.
        number: of that line, from 1.
    """

    offset: int = 0
    number: int = 0


_NOT_FINITE = b'"$float"'
_decoder = functools.cache(msgspec.json.Decoder)
_decode_line = msgspec.json.Decoder(Line).decode


def is_session(folder: Path) -> bool:
    """Whether this looks like a recorded session, of whatever version.

    A folder that may not be looked into, as disks have at their root, is none.
    """
    try:
        return (folder / MANIFEST).is_file() and (folder / EVENTS).is_file()
    except OSError:
        return False


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json``.

    Raises:
        InputFileError: it is missing, damaged, not of a session, or of a newer version.
    """
    path = folder / MANIFEST
    try:
        plain = from_json(path.read_bytes())
    except OSError as error:
        raise InputFileError(f"{folder}: no recorded session: {MANIFEST} cannot be read") from error
    except ValueError as error:
        raise InputFileError(f"{path}: not JSON: {error}") from error
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise InputFileError(f'{path}: not a recorded session, it lacks "format": "{FORMAT}"')
    version = plain.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputFileError(
            f"{path}: session format {version} is newer than this semagent reads "
            f"({FORMAT_VERSION}); use semagent {plain.get('semagent_version', '')} or newer"
        )
    try:
        return msgspec.convert(plain, Manifest)
    except msgspec.ValidationError as error:
        raise InputFileError(f"{path}: {error}") from error


def read_lines(
    folder: Path, *, damaged: list[int] | None = None, place: Place | None = None
) -> Iterator[tuple[int, Line | None]]:
    """Read the lines of the events with their numbers, from 1.

    A last line without an end, torn when its writer died, comes as ``None``.

    Args:
        folder: the session.
        damaged: takes the numbers of lines that cannot be read; without it the first raises.
        place: where to begin; moves on behind each line that has been taken, so that it stands at
            the beginning of a line while the caller has it.

    Raises:
        InputFileError: the file or a line before the last cannot be read.
    """
    path = folder / EVENTS
    place = place or Place()
    try:
        with path.open("rb") as file:
            file.seek(place.offset)
            for number, text in enumerate(file, start=place.number + 1):
                if not text.endswith(b"\n"):
                    yield number, None
                    return
                try:
                    yield number, _decode_line(text)
                except UNREADABLE as error:
                    if damaged is None:
                        raise InputFileError(f"{path}, line {number}: damaged: {error}") from error
                    damaged.append(number)
                place.offset += len(text)
                place.number = number
    except OSError as error:
        raise InputFileError(f"{folder}: no recorded session: {EVENTS} cannot be read") from error


def decode_value(line: Line, kind: Any) -> Any:
    """Turn the value of a line into its type.

    Raises:
        ValueError: it is not of that type.
    """
    raw = bytes(line.value)
    if _NOT_FINITE in raw:
        return msgspec.convert(from_json(raw), kind)
    try:
        return _decoder(kind).decode(raw)  # several times as fast, and most lines have none
    except UNREADABLE as error:
        raise ValueError(str(error)) from error


def unfinished(manifest: Manifest) -> Iterator[Problem]:
    """Say so if the session was not closed in order."""
    if not manifest.complete:
        why = manifest.failure or "the process that wrote it ended before closing it"
        message = f"the session is not complete: {why}"
        yield Problem(kind=ProblemKind.NOT_CLOSED, file=MANIFEST, message=message)


def torn(number: int) -> Problem:
    """Say that the last line is torn."""
    message = f"line {number}, the last, is torn and was left out"
    return Problem(kind=ProblemKind.TORN_LINE, file=EVENTS, message=message)


def damaged_line(number: int) -> Problem:
    """Say that a line cannot be read."""
    message = f"line {number} cannot be read"
    return Problem(kind=ProblemKind.DAMAGED_LINE, file=EVENTS, message=message)


def strays(folder: Path, part: str, known: Set[str]) -> Iterator[Problem]:
    """Name the files in a part of the session that no line of the events names.

    Args:
        folder: the session.
        part: ``frames`` or ``derived``.
        known: the files that lines name, relative to the session.
    """
    if not (folder / part).is_dir():
        return
    for name in sorted(f"{part}/{path.name}" for path in (folder / part).iterdir()):
        if name.endswith(PARTIAL):
            message = "left over from a file that was never finished; it can be deleted"
            yield Problem(kind=ProblemKind.LEFTOVER, file=name, message=message)
        elif name not in known:
            message = "no line of the events names this file; nobody in the run saw it recorded"
            yield Problem(kind=ProblemKind.UNACKNOWLEDGED, file=name, message=message)
