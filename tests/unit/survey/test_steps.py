"""Tile scans over a specimen with an edge, wherever it lies; focusings are the truth and noise."""

import csv
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from semagent.places import GridOptions, Place, ScanOptions
from semagent.survey import Found, Survey, Visit
from semagent.survey.files import write_tables
from semagent.survey.pilot import Look

UNIT_M = 1e-6  # half a depth of field
PITCH_M = 100e-6
SIZE = 6  # rows and columns
Height = Callable[[float, float], float]  # of x and y over half the extent, in half depths


class Stage:
    """What a scan asks of a pilot; focus is always found, time goes by, and focus drifts."""

    def __init__(self, height: Height, drift: float) -> None:
        self._height, self._drift, self._random = height, drift, np.random.default_rng(0)
        self._time_s, self._place, self._focus_m = 0.0, Place(0.0, 0.0), 0.0
        self.go(self._place, self._truth_m())
        self.moved = False

    def _truth_m(self) -> float:
        half_m = PITCH_M * (SIZE - 1) / 2
        drifted = self._drift * self._time_s / 60
        height = self._height(*(each_m / half_m for each_m in self._place))
        return 5e-3 + UNIT_M * (height + drifted)

    @property
    def off(self) -> float:
        """By how many half depths it is out of focus."""
        return abs(self._focus_m - self._truth_m()) / UNIT_M

    def require_way_home(self, _place: Place, _home: Place) -> None:
        """There always is one."""

    def put_back(self, place: Place, working_distance_m: float) -> None:
        self.go(place, working_distance_m)

    def go(self, place: Place, working_distance_m: float) -> None:
        self._place, self._focus_m = place, working_distance_m
        self._time_s += 1.0
        self.last: Any = SimpleNamespace(
            sequence=round(self._time_s),
            settings_rev=1,
            monotonic_ns=round(self._time_s * 1e9),
            scan=None,
            stage=SimpleNamespace(x_m=place.x_m, y_m=place.y_m),
            optics=SimpleNamespace(working_distance_m=working_distance_m),
        )

    def focus(self) -> tuple[Any, Any]:
        sigma_m = UNIT_M * self._random.uniform(0.15, 0.4)
        focus_m = self._truth_m() + sigma_m / 2 * self._random.standard_normal()
        self.go(self._place, focus_m)
        return (
            SimpleNamespace(status="focused", final_working_distance_m=focus_m),
            SimpleNamespace(focus_m=focus_m, sigma_m=sigma_m),
        )

    def look(self) -> Look:
        self.go(self._place, self._focus_m)
        return Look(self.last, SimpleNamespace(focus_score=1.0))  # type: ignore[arg-type]


class Scan:
    """A scan, what it found, and by how much each position is out of focus, at the end.

    Where it ends at the last position, those in doubt are not visited again.
    """

    def __init__(self, height: Height, again: bool = True, drift: float = 0.0) -> None:
        stage: Any = Stage(height, drift)
        config: Any = SimpleNamespace(
            half_depth_of=lambda _header: UNIT_M,
            safety=SimpleNamespace(working_distance_m=None),
        )
        grid = GridOptions(rows=SIZE, columns=SIZE, pitch_m=(PITCH_M, PITCH_M))
        options = ScanOptions(grid=grid, drift=max(0.3, drift))
        self.off: dict[int, float] = {}

        def visited(visit: Visit) -> None:
            self.off[visit.index] = stage.off
            if not again and visit.index == SIZE**2 - 1:
                raise KeyboardInterrupt

        places = options.places(stage.last)
        survey = Survey(stage, config, options, stage.last, places, on_visit=visited)
        with nullcontext() if again else pytest.raises(KeyboardInterrupt):
            survey.run()
        assert survey.found is not None
        self.found: Found = survey.found


def edge(at: float, height: float, x: float, y: float) -> Height:
    """A specimen that is higher where x u + y v > at, and tilted."""
    return lambda u, v: height * (x * u + y * v > at) + 4 * u - 3 * v


@pytest.mark.parametrize("height", [8.0, 60.0])
@pytest.mark.parametrize(("x", "y"), [(1.0, 0.0), (0.0, 1.0), (0.5, 0.6)])
def test_wherever_an_edge_lies_every_position_is_in_focus(
    height: float, x: float, y: float
) -> None:
    focusings = []
    for at in (-0.9, -0.5, -0.1, 0.3, 0.7):
        scan = Scan(edge(at, height, x, y))
        assert len(scan.off) == SIZE**2
        assert max(scan.off.values()) < 1.2
        assert scan.found.doubtful == ()
        focusings.append(len(scan.found.focused))
    assert np.mean(focusings) < 24


@pytest.mark.parametrize("tilt", [0.0, 4.0, 20.0])
@pytest.mark.parametrize("sag", [0.0, 3.0, 10.0])
def test_a_specimen_without_an_edge_costs_no_focusings(tilt: float, sag: float) -> None:
    scan = Scan(lambda u, v: tilt * (u - v / 2) + sag * (u * u - v * v / 2))
    assert max(scan.off.values()) < 1
    # Seven at first, and one at every ninth position.
    assert len(scan.found.focused) == 11


def test_a_steady_drift_brings_no_position_into_doubt() -> None:
    """Where focus was predicted is compared with where it was then, not with where it is now."""
    scan = Scan(lambda u, v: 4 * u - 3 * v, drift=2.0)
    assert max(scan.off.values()) < 1
    assert len(scan.found.focused) < 14
    predicted = [visit for visit in scan.found.visits if visit.how == "predicted"]
    assert len(predicted) > 25


def test_until_it_is_focused_a_prediction_in_doubt_is_named(tmp_path: Path) -> None:
    broken_off, whole = (Scan(edge(0.5, 20.0, 0.5, 0.6), again) for again in (False, True))
    named = set(broken_off.found.doubtful)
    assert {index for index, off in broken_off.off.items() if off > 1.2} <= named
    write_tables(tmp_path, broken_off.found)
    with (tmp_path / "positions.csv").open(encoding="utf-8", newline="") as file:
        said = {int(row["index"]) for row in csv.DictReader(file) if "contradicts" in row["reason"]}
    assert said == named
    assert {whole.found.visits[index].how for index in named} == {"focused"}
