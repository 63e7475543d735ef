"""Where a tile scan goes."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from semagent.errors import InputFileError
from semagent.places import GridOptions, Place, ScanOptions, read_places, spread
from semagent.types import FrameHeader, Optics, Scan, StagePosition

HEADER = FrameHeader(
    sequence=1,
    monotonic_ns=0,
    wall_ns=0,
    detector="SE",
    scan=Scan(width_px=1000, height_px=800, bit_depth=8, pixel_size_m=1e-8),
    optics=Optics(working_distance_m=5e-3),
    stage=StagePosition(x_m=1e-3, y_m=2e-3),
    settings_rev=1,
    info_bar_px=50,
)


def around(places: tuple[Place, ...]) -> list[tuple[float, float]]:
    """In micrometres from where the stage stands."""
    return [(round((x - 1e-3) * 1e6, 6), round((y - 2e-3) * 1e6, 6)) for x, y in places]


def test_a_grid_is_centred_and_goes_to_and_fro():
    grid = GridOptions(rows=2, columns=3, pitch_m=(10e-6, 4e-6))
    assert around(grid.places(HEADER)) == [(-10, -2), (0, -2), (10, -2), (10, 2), (0, 2), (-10, 2)]


def test_overlap_is_of_the_specimen_without_the_information_bar():
    grid = GridOptions(rows=2, columns=1, overlap=0.2)
    assert around(grid.places(HEADER)) == [(0, -3), (0, 3)]


@pytest.mark.parametrize(
    "grid",
    [{"rows": 1, "columns": 1}, {"rows": 1, "columns": 1, "overlap": 0.1, "pitch_m": [1, 1]}],
)
def test_pitch_or_overlap(grid: dict[str, Any]):
    with pytest.raises(msgspec.ValidationError, match="either pitch_m or overlap"):
        msgspec.convert(grid, GridOptions)


def test_a_stage_that_does_not_say_where_it_is():
    lost = msgspec.structs.replace(HEADER, stage=StagePosition())
    with pytest.raises(InputFileError, match="where it is"):
        GridOptions(rows=1, columns=1, overlap=0.0).places(lost)


def test_a_list():
    options = ScanOptions(positions_m=((0.0, 1e-3), (2e-3, 0.0)))
    assert options.places(HEADER) == (Place(0.0, 1e-3), Place(2e-3, 0.0))


@pytest.mark.parametrize("listed", [(), ((0.0, float("nan")),)])
def test_a_list_that_is_none(listed: Any):
    with pytest.raises(ValueError, match="positions_m"):
        ScanOptions(positions_m=listed)


def test_a_file(tmp_path: Path):
    path = tmp_path / "positions.csv"
    path.write_text("name,x_um,y_um\na,1.5,-2\nb,3,4\n", encoding="utf-8-sig")
    assert read_places(path) == (Place(1.5 / 1e6, -2 / 1e6), Place(3 / 1e6, 4 / 1e6))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n1,2\n", "x_um, y_um once; it names x, y"),
        ("x_um,y_um,x_um\n1,2,3\n", "x_um, y_um once; it names x_um, y_um, x_um"),
        ("x_um,y_um\n1,2\n12,5,30,0\n", "line 3: more than 2 cells"),
        ("x_um,y_um\n1,2\n1,two\n", "line 3"),
        ("x_um,y_um\n1\n", "line 2"),
        ("x_um,y_um\ninf,1\n", "line 2"),
        ("x_um,y_um\n", "no positions"),
        ("", "names nothing"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, message: str):
    path = tmp_path / "positions.csv"
    path.write_text(text)
    with pytest.raises(InputFileError, match=message):
        read_places(path)


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no such device here")
def test_a_device_may_have_no_end():
    with pytest.raises(InputFileError, match="is a device"):
        read_places(Path("/dev/null"))


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(InputFileError, match="cannot be read"):
        read_places(tmp_path / "no.csv")


def test_the_outermost_first_then_the_middle():
    places = tuple(Place(float(x), float(y)) for y in range(3) for x in range(3))
    chosen = [places[index] for index in spread(places, 5)]
    assert set(chosen[:4]) == {Place(0, 0), Place(2, 0), Place(0, 2), Place(2, 2)}
    assert chosen[4] == Place(1, 1)


def test_not_more_than_there_are_and_none_twice():
    assert sorted(spread((Place(0, 0), Place(1, 0), Place(1, 0)), 9)) in ([0, 1], [0, 2])
