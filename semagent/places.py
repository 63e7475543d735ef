"""Where a tile scan goes: a grid around where the stage stands, or a list of positions."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from semagent.errors import InputFileError
from semagent.options import Count, Metres, NotNegative, Options, Positive
from semagent.types import FrameHeader

Overlap = Annotated[float, msgspec.Meta(ge=0, lt=1)]

_COLUMNS = ("x_um", "y_um")


class Place(NamedTuple):
    """A position of the stage."""

    x_m: float
    y_m: float


class GridOptions(Options, frozen=True, kw_only=True):
    """A grid centred on where the stage stands.

    Attributes:
        rows: along y.
        columns: along x.
        pitch_m: distance of neighbours along x and y.
        overlap: instead of a pitch, the part of a field that neighbours share.
    """

    rows: Count
    columns: Count
    pitch_m: tuple[Metres, Metres] | None = None
    overlap: Overlap | None = None

    def __post_init__(self) -> None:
        if (self.pitch_m is None) == (self.overlap is None):
            raise ValueError("grid: give either pitch_m or overlap")

    def places(self, header: FrameHeader) -> tuple[Place, ...]:
        """The positions around that of a frame, row by row, every second one backwards.

        Raises:
            InputFileError: the frame does not say what the grid needs.
        """
        stage, scan = header.stage, header.scan
        if stage.x_m is None or stage.y_m is None:
            raise InputFileError("scan.grid: the stage does not report where it is")
        pitch_m = self.pitch_m
        if pitch_m is None:
            if not scan.pixel_size_m:
                raise InputFileError(
                    "scan.grid.overlap: frames carry no pixel size; give pitch_m instead"
                )
            step_m = (1 - (self.overlap or 0.0)) * scan.pixel_size_m
            pitch_m = (step_m * scan.width_px, step_m * (scan.height_px - header.info_bar_px))
        places = []
        for row in range(self.rows):
            columns = range(self.columns)
            for column in columns if row % 2 == 0 else reversed(columns):
                dx, dy = column - (self.columns - 1) / 2, row - (self.rows - 1) / 2
                places.append(Place(stage.x_m + dx * pitch_m[0], stage.y_m + dy * pitch_m[1]))
        return tuple(places)


class ScanOptions(Options, frozen=True, kw_only=True):
    """A tile scan: focus at a few positions, predict the rest, acquire all.

    Attributes:
        grid: the positions.
        positions_m: instead of a grid, [x, y] of the stage, each.
        focus_at: positions that are focused before the scan begins, far from each other.
        verify_every: during the scan focus is looked for again after so many positions, and the
            map corrected; 0 looks only where the map is too uncertain.
        max_sigma: where the predicted focus is more uncertain than this many half depths of
            field, focus is looked for.
        frames: recorded at each position.
        approach_m: distance by which stage moves go too far and come back, so that every
            position is reached from the same side; ``None`` takes three times the play that
            `semagent calibrate` has measured.
        slope: standard deviation of the tilt of the specimen that is expected, height per length.
        sag: the same of its curvature, in half depths of field over the whole scan.
        drift: the same of the drift of focus, in half depths of field a minute.
    """

    grid: GridOptions | None = None
    positions_m: tuple[tuple[float, float], ...] | None = None
    focus_at: Count = 7
    verify_every: Annotated[int, msgspec.Meta(ge=0)] = 8
    max_sigma: Positive = 0.6
    frames: Count = 1
    approach_m: NotNegative | None = None
    slope: Positive = 0.05
    sag: Positive = 10.0
    drift: NotNegative = 0.3

    def __post_init__(self) -> None:
        if self.grid is not None and self.positions_m is not None:
            raise ValueError("scan: give either grid or positions_m")
        if self.positions_m is not None:
            for place in self.positions_m:
                if not all(map(math.isfinite, place)):
                    raise ValueError(f"scan.positions_m: {list(place)} is not finite")
            if not self.positions_m:
                raise ValueError("scan.positions_m: there are none")

    def places(self, header: FrameHeader) -> tuple[Place, ...]:
        """The positions, in the order in which they are visited.

        Raises:
            InputFileError: there are none, or the frame does not say what the grid needs.
        """
        if self.grid is not None:
            return self.grid.places(header)
        if self.positions_m is not None:
            return tuple(Place(*place) for place in self.positions_m)
        raise InputFileError("scan: neither grid nor positions_m is given")


def read_places(path: Path) -> tuple[Place, ...]:
    """The positions in a CSV file with the columns ``x_um`` and ``y_um``, of the stage.

    Raises:
        InputFileError: it cannot be read; the message names the line.
    """
    if path.is_char_device():  # which may have no end
        raise InputFileError(f"{path}: is a device; positions are read from a file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            places = tuple(_rows(path, csv.DictReader(file)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputFileError(f"{path}: positions cannot be read: {error}") from error
    if not places:
        raise InputFileError(f"{path}: there are no positions in it")
    return places


def _rows(path: Path, reader: "csv.DictReader[str]") -> Iterator[Place]:
    named = list(reader.fieldnames or ())
    if any(named.count(column) != 1 for column in _COLUMNS):
        raise InputFileError(
            f"{path}: the first line has to name the columns {', '.join(_COLUMNS)} once; "
            f"it names {', '.join(named) or 'nothing'}"
        )
    for row in reader:
        if None in row:  # where what is over is kept
            raise InputFileError(
                f"{path}, line {reader.line_num}: more than {len(named)} cells, which is what the "
                "first line names; decimals are written with a point"
            )
        try:
            values = [float(row[name]) for name in _COLUMNS]
        except (TypeError, ValueError):
            values = [math.nan]
        if not all(map(math.isfinite, values)):
            raise InputFileError(
                f"{path}, line {reader.line_num}: x_um and y_um have to be numbers, in micrometres"
            )
        yield Place(*(value / 1e6 for value in values))


def spread(places: tuple[Place, ...], count: int) -> list[int]:
    """Indices of ``count`` places far from each other, the outermost first.

    Each is the one farthest from those before it (Gonzalez, Theoretical Computer Science 38,
    293, 1985), which on a grid are the corners, then the middle.
    """
    middle = Place(*(sum(axis) / len(places) for axis in zip(*places, strict=True)))
    chosen = [max(range(len(places)), key=lambda index: math.dist(places[index], middle))]
    away = [math.dist(place, places[chosen[0]]) for place in places]
    while len(chosen) < min(count, len(places)):
        farthest = max(range(len(places)), key=away.__getitem__)
        if away[farthest] == 0:
            break
        chosen.append(farthest)
        away = [
            min(before, math.dist(place, places[farthest]))
            for before, place in zip(away, places, strict=True)
        ]
    return chosen
