"""``stack.csv``: the table that says where each image of a folder was taken."""

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import TextIO

import msgspec

from semagent.errors import InputFileError
from semagent.images import ImageHeader, ImageMetadata, merge
from semagent.types import FURTHEST_WORKING_DISTANCE_M, StagePosition

TABLE_NAME = "stack.csv"

_REQUIRED = ("file", "working_distance_um")


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of numbers: how many of its unit make one SI unit, and what is allowed."""

    per_si: float
    allows: Callable[[float], bool]
    allowed: str


_FINITE = (math.isfinite, "finite")
_POSITIVE = (lambda value: 0 < value < math.inf, "above 0 and finite")
_FURTHEST_UM = FURTHEST_WORKING_DISTANCE_M * 1e6
_DISTANCE = (
    lambda value: abs(value) <= _FURTHEST_UM,
    f"from -{_FURTHEST_UM:.0f} to {_FURTHEST_UM:.0f}",
)
_FRACTION = (lambda value: -1 <= value <= 1, "from -1 to 1")
_NUMBERS: dict[str, _Column] = {
    "working_distance_um": _Column(1e6, *_DISTANCE),
    "pixel_size_nm": _Column(1e9, *_POSITIVE),
    "stigmator_x": _Column(1, *_FRACTION),
    "stigmator_y": _Column(1, *_FRACTION),
    "stage_x_um": _Column(1e6, *_FINITE),
    "stage_y_um": _Column(1e6, *_FINITE),
    "dwell_ns": _Column(1e9, *_POSITIVE),
    "beam_energy_kv": _Column(1e-3, *_POSITIVE),
}


@dataclass(frozen=True, slots=True)
class TableRow:
    """One line of the table: a file and what the table says of it, in SI units."""

    file: Path
    metadata: ImageMetadata

    def override(self, header: ImageHeader) -> ImageHeader:
        """``header`` with the table's settings in place of the file's own."""
        stage = {
            name: value
            for position in (header.metadata.stage, self.metadata.stage)
            for name, value in msgspec.structs.asdict(position).items()
            if value is not None
        }
        metadata = merge(
            msgspec.structs.replace(self.metadata, stage=StagePosition(**stage)), header.metadata
        )
        return replace(header, metadata=metadata)


def read_table(path: Path) -> list[TableRow]:
    """Read a table of comma-separated values with a line of column names.

    Raises:
        InputFileError: the message names the table, the line, the column and what is allowed.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(_rows(path, file))
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputFileError(f"{path}: is not UTF-8 text; save it as CSV UTF-8") from error
    except csv.Error as error:
        raise InputFileError(f"{path}: is no table of comma-separated values ({error})") from error


def _rows(path: Path, file: TextIO) -> Iterator[TableRow]:
    lines = csv.reader(file, strict=True)
    columns = [name.strip() for name in next(lines, [])]
    _check_columns(path, columns)
    seen: dict[Path, int] = {}
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{path}, line {lines.line_num}"
        if len(cells) != len(columns):
            raise InputFileError(f"{where}: has {len(cells)} cells for {len(columns)} columns")
        row = _row(path, where, dict(zip(columns, (cell.strip() for cell in cells), strict=True)))
        if (same := row.file.resolve()) in seen:
            raise InputFileError(f"{where}: {row.file.name} is already on line {seen[same]}")
        seen[same] = lines.line_num
        yield row


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    allowed = [*_REQUIRED, *(name for name in _NUMBERS if name not in _REQUIRED)]
    hint = f"allowed are {', '.join(allowed)}"
    if len(columns) == 1 and ";" in columns[0]:
        raise InputFileError(f"{path}, line 1: columns are separated by semicolons; use commas")
    for name in columns:
        if name not in allowed:
            raise InputFileError(f"{path}, line 1: unknown column {name!r}; {hint}")
        if columns.count(name) > 1:
            raise InputFileError(f"{path}, line 1: column {name!r} is there twice")
    for name in _REQUIRED:
        if name not in columns:
            raise InputFileError(f"{path}, line 1: column {name!r} is missing; {hint}")
    if ("stigmator_x" in columns) != ("stigmator_y" in columns):
        raise InputFileError(f"{path}, line 1: stigmator_x and stigmator_y come together")


def _row(path: Path, where: str, cells: dict[str, str]) -> TableRow:
    if not cells["file"]:
        raise InputFileError(f"{where}: column 'file' is empty")
    # A table written on Windows may have backslashes; they mean the same everywhere.
    file = path.parent / PureWindowsPath(cells["file"]).as_posix()
    if not file.is_file():
        raise InputFileError(f"{where}: {file}: no such file")
    if not cells["working_distance_um"]:
        raise InputFileError(f"{where}: column 'working_distance_um' is empty")
    si = {
        name: _number(where, name, cells[name], column)
        for name, column in _NUMBERS.items()
        if cells.get(name)
    }
    return TableRow(
        file,
        ImageMetadata(
            working_distance_m=si["working_distance_um"],
            pixel_size_m=si.get("pixel_size_nm"),
            dwell_s=si.get("dwell_ns"),
            accelerating_voltage_v=si.get("beam_energy_kv"),
            stigmator_x=si.get("stigmator_x"),
            stigmator_y=si.get("stigmator_y"),
            stage=StagePosition(x_m=si.get("stage_x_um"), y_m=si.get("stage_y_um")),
        ),
    )


def _number(where: str, name: str, cell: str, column: _Column) -> float:
    try:
        value = float(cell)
    except ValueError as error:
        raise InputFileError(f"{where}: {name} is {cell!r}, which is no number") from error
    if not column.allows(value):
        raise InputFileError(f"{where}: {name} is {cell}; it has to be {column.allowed}")
    return value / column.per_si
