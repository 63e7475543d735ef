"""Focus stacks on disk: finding the frames, and refusing a set that is not one stack.

A stack comes in several forms. Each has a function that lists its frames as `StackEntry`
values; `_FORMS` says which function is tried for which path, and everything after that is
common to all. Only headers are read here, except of PNG, JPEG and BMP, which have to be decoded
to know that they are whole.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semagent.errors import InputFileError
from semagent.images import ImageHeader, ImageMetadata, in_words, read_headers
from semagent.lengths import show_distance
from semagent.session import StackFrame, is_session, session_stack
from semagent.types import FURTHEST_WORKING_DISTANCE_M
from semagent_drivers.recorded.table import TABLE_NAME, read_table

_IMAGE_SUFFIXES = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp"}

# Rounded displays of one setting differ by less than this.
_SAME_SETTING = 0.01
_PIXEL_SIZE, _VOLTAGE = "pixel size", "accelerating voltage"
_UNITS = {_PIXEL_SIZE: (1e9, "nm"), _VOLTAGE: (1e-3, "kV")}
# What is nearer is no distance from a pole piece: it counts from some other place.
_LEAST_DISTANCE_M = 0.5e-3


@dataclass(frozen=True, slots=True)
class StackEntry:
    """One recorded frame.

    Attributes:
        header: the file, the page in it, the size, the acquisition settings.
        working_distance_m: where it was taken.
        stigmator_x: fraction of the full range; ``None`` for the whole stack or for no frame.
        stigmator_y: as ``stigmator_x``.
    """

    header: ImageHeader
    working_distance_m: float
    stigmator_x: float | None
    stigmator_y: float | None

    @property
    def source(self) -> str:
        """The file, and the page where a file holds several frames."""
        page = f"#page={self.header.page}" if self.header.page else ""
        return f"{in_words(self.header.path)}{page}"


@dataclass(frozen=True, slots=True)
class Stack:
    """A checked focus stack: frames of one size, type and set of settings, in recorded order.

    Attributes:
        path: what the user named.
        entries: two or more, with at least two different working distances.
    """

    path: Path
    entries: tuple[StackEntry, ...]

    @property
    def working_distance_range_m(self) -> tuple[float, float]:
        """Smallest and largest recorded working distance."""
        distances_m = [entry.working_distance_m for entry in self.entries]
        return min(distances_m), max(distances_m)

    @property
    def varies_stigmator(self) -> bool:
        """Whether frames were recorded at more than one setting of the stigmators."""
        return len({(entry.stigmator_x, entry.stigmator_y) for entry in self.entries}) > 1


def load_stack(path: Path | str) -> Stack:
    """Find and check the frames of a recorded focus stack.

    Args:
        path: a folder with ``stack.csv``, that file itself, a session recorded by semagent, a
            folder or glob of images whose own metadata give the working distance, or a
            multi-page OME-TIFF with Z positions.

    Raises:
        InputFileError: nothing is there, a file is missing, damaged or cut short, a frame has
            no working distance, or the frames do not belong together; the message names the
            file and, for ``stack.csv``, the line.
    """
    path = Path(path)
    try:
        for recognises, read in _FORMS:
            if recognises(path):
                entries = tuple(read(path))
                _check_belong_together(path, entries)
                return Stack(path, entries)
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read ({error.strerror})") from error
    raise InputFileError(
        f"{path}: no such file or folder; a recorded stack is a folder with {TABLE_NAME}, a "
        "recorded session, a folder or glob of images that carry their working distance, or an "
        "OME-TIFF with Z positions"
    )


# -- forms ------------------------------------------------------------------------------------


def _table_file(path: Path) -> Path:
    return path / TABLE_NAME if path.is_dir() else path


def _is_table(path: Path) -> bool:
    table = _table_file(path)
    return table.name == TABLE_NAME and table.is_file()


def _read_table(path: Path) -> list[StackEntry]:
    """A folder with ``stack.csv``; what the table says comes before the files' own metadata."""
    entries = []
    for row in read_table(_table_file(path)):
        headers = read_headers(row.file)
        if len(headers) > 1:
            raise InputFileError(
                f"{row.file}: holds {len(headers)} planes; a row of {TABLE_NAME} names one image"
            )
        entries.append(_entry(row.override(headers[0])))
    return entries


def _read_session(path: Path) -> list[StackEntry]:
    """A session recorded by semagent, without the frames that were flagged."""
    return [_entry(_recorded_header(frame)) for frame in session_stack(path)]


def _recorded_header(frame: StackFrame) -> ImageHeader:
    """What the session says of a frame, which is all there is to know."""
    scan, optics = frame.header.scan, frame.header.optics
    metadata = ImageMetadata(
        working_distance_m=optics.working_distance_m,
        pixel_size_m=scan.pixel_size_m,
        dwell_s=scan.dwell_s,
        frame_averages=scan.frame_averages,
        accelerating_voltage_v=optics.accelerating_voltage_v,
        beam_current_a=optics.beam_current_a,
        stigmator_x=optics.stigmator_x,
        stigmator_y=optics.stigmator_y,
        stage=frame.header.stage,
        magnification=optics.magnification,
        detector=frame.header.detector,
        info_bar_px=frame.header.info_bar_px,
    )
    return replace(read_headers(frame.file)[0], metadata=metadata)


def _read_folder(path: Path) -> list[StackEntry]:
    """A folder of images that carry their working distance."""
    files = [file for file in path.iterdir() if file.suffix.lower() in _IMAGE_SUFFIXES]
    if not files:
        raise InputFileError(f"{path}: holds neither {TABLE_NAME} nor images")
    return _read_files(files)


def _is_glob(path: Path) -> bool:
    return any(sign in str(path) for sign in "*?[")


def _read_glob(path: Path) -> list[StackEntry]:
    """All images that a pattern matches."""
    matches = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    files = [file for file in matches if file.suffix.lower() in _IMAGE_SUFFIXES]
    if not files:
        raise InputFileError(f"{path}: matches no image")
    return _read_files(files)


def _read_files(files: Sequence[Path]) -> list[StackEntry]:
    """Images, of which one alone may be a multi-page OME-TIFF."""
    if len(files) == 1:
        return [_entry(header) for header in read_headers(files[0])]
    entries = []
    for file in sorted(files):
        headers = read_headers(file)
        if len(headers) > 1:
            raise InputFileError(
                f"{file}: holds {len(headers)} planes beside other images; give it alone"
            )
        entries.append(_entry(headers[0]))
    return entries


_FORMS: tuple[tuple[Callable[[Path], bool], Callable[[Path], list[StackEntry]]], ...] = (
    (_is_table, _read_table),
    (is_session, _read_session),
    (Path.is_dir, _read_folder),
    (Path.is_file, lambda path: _read_files([path])),
    (_is_glob, _read_glob),
)
"""The first form that recognises a path reads it."""


def _entry(header: ImageHeader) -> StackEntry:
    metadata = header.metadata
    if metadata.working_distance_m is None:
        raise InputFileError(
            f"{header.path}: its metadata give no working distance; add a {TABLE_NAME} with the "
            "columns file, working_distance_um"
        )
    if not abs(metadata.working_distance_m) <= FURTHEST_WORKING_DISTANCE_M:
        furthest_mm = FURTHEST_WORKING_DISTANCE_M * 1e3
        raise InputFileError(
            f"{header.path}: its working distance is {metadata.working_distance_m * 1e3:g} mm; it "
            f"has to be from -{furthest_mm:g} to {furthest_mm:g} mm"
        )
    return StackEntry(
        header, metadata.working_distance_m, metadata.stigmator_x, metadata.stigmator_y
    )


# -- one stack, or a mixture ------------------------------------------------------------------


def _check_belong_together(path: Path, entries: Sequence[StackEntry]) -> None:
    """Refuse frames that cannot be compared with the first one.

    Raises:
        InputFileError: the message names a file that differs, and how.
    """
    if len(entries) < 2:
        raise InputFileError(f"{path}: holds {len(entries)} frame; a focus stack has two or more")
    first = entries[0]
    for entry in entries[1:]:
        for quantity, (value, expected) in _compared(entry, first).items():
            follows = _follows(entry, first) if quantity == _PIXEL_SIZE else 0.0
            if not _same(value, expected, _SAME_SETTING + follows):
                here, there = (_show(quantity, each) for each in (value, expected))
                raise InputFileError(
                    f"{entry.source}: {quantity} is {here}, but {there} in {first.source}; "
                    "all frames of a stack are taken with the same settings"
                )
    if len({entry.working_distance_m for entry in entries}) < 2:
        raise InputFileError(
            f"{path}: all {len(entries)} frames have the working distance "
            f"{show_distance(first.working_distance_m)}; a focus stack has two or more. If the "
            f"instrument rounds what it writes, add a {TABLE_NAME}"
        )


def _compared(entry: StackEntry, first: StackEntry) -> dict[str, tuple[object, object]]:
    """What has to be the same in all frames: the value of both, by name."""

    def settings(each: StackEntry) -> dict[str, object]:
        header: ImageHeader = each.header
        metadata: ImageMetadata = header.metadata
        return {
            "size in pixels": f"{header.width} × {header.height}",
            "bit depth": header.bit_depth,
            _PIXEL_SIZE: metadata.pixel_size_m,
            _VOLTAGE: metadata.accelerating_voltage_v,
            "setting of the stigmators": None
            if None in (each.stigmator_x, each.stigmator_y)
            else "known",
        }

    expected = settings(first)
    return {name: (value, expected[name]) for name, value in settings(entry).items()}


def _follows(entry: StackEntry, first: StackEntry) -> float:
    """How much the field may follow the focus: on some columns in proportion to the distance."""
    then_m, now_m = first.working_distance_m, entry.working_distance_m
    return abs(now_m - then_m) / then_m if min(then_m, now_m) > _LEAST_DISTANCE_M else 0.0


def _show(quantity: str, value: object) -> str:
    factor, unit = _UNITS.get(quantity, (1.0, ""))
    if isinstance(value, float):
        return f"{value * factor:.4g} {unit}"
    return "not known" if value is None else str(value)


def _same(value: object, expected: object, tolerance: float) -> bool:
    if isinstance(value, float) and isinstance(expected, float):
        return math.isclose(value, expected, rel_tol=tolerance)
    return value == expected
