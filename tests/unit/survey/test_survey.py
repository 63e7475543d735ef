"""Tile scans over a simulated specimen that is tilted."""

import csv
import dataclasses
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from matplotlib.axes import Axes

from semagent import registry
from semagent.clock import ManualClock
from semagent.config import RunConfig, find_config, load_config
from semagent.errors import CommandRefusedError, MicroscopeError, RecordError
from semagent.lockstep import Lockstep
from semagent.memory import Calibration, Entry, Measure, Memory, Settings
from semagent.places import GridOptions, ScanOptions
from semagent.safety import AxisLimits
from semagent.survey import Found, NoMapError, Pilot, Survey, Visit
from semagent.survey.files import describe, write_results, write_tables
from semagent.survey.picture import picture
from semagent.survey.pilot import for_survey
from semagent.types import Frame, FrameHeader, MicroscopeAction, Mode, SetWorkingDistance
from semagent.wire import Message
from semagent_drivers.simulated.microscope import SimulatedMicroscope

OPTIONS: dict[str, Any] = {
    "seed": 2,
    "scan": {"width_px": 256, "height_px": 192, "pixel_size_nm": 10, "dwell_us": 0.5},
    "column": {"working_distance_mm": 5.004, "lens_hysteresis_um": 0.2},
    "specimen": {
        "kind": "particles",
        "working_distance_mm": 5.0,
        "tile_px": 1024,
        "mount_tilt_x_deg": 3,
        "mount_tilt_y_deg": -2,
    },
    "stage": {"backlash_um": 1.0},
    "drift": {"z_nm_per_s": 5},
}
STAGE = AxisLimits(min=-1e-3, max=1e-3, max_step=150e-6, max_travel=1e-2)
SCAN = ScanOptions(grid=GridOptions(rows=3, columns=3, pitch_m=(100e-6, 100e-6)), focus_at=5)


@functools.cache
def configuration() -> RunConfig:
    config = load_config(find_config("simulated"))
    safety = msgspec.structs.replace(config.safety, stage_x_m=STAGE, stage_y_m=STAGE)
    return for_survey(msgspec.structs.replace(config, safety=safety))


class Bench:
    """One scan, with what it left behind."""

    def __init__(
        self,
        scan: ScanOptions = SCAN,
        config: RunConfig | None = None,
        on_frame: Any = lambda _header: None,
        pixel_size_nm: float = 10,
        recorder: Any = None,
        **changes: Any,
    ) -> None:
        config = config or configuration()
        clock = ManualClock()
        self.microscope: Any = registry.open_microscope(
            "simulated",
            {**OPTIONS, "scan": {**OPTIONS["scan"], "pixel_size_nm": pixel_size_nm}, **changes},
            clock=clock,
        )
        engine = registry.open_engine("sharpness", {})
        self.visits: list[tuple[Visit, float]] = []
        self.found: Found | BaseException | None
        with Lockstep(config, self.microscope, engine, clock, recorder) as lockstep:
            pilot = Pilot(lockstep, config, clock, approach_m=3e-6, on_frame=on_frame)
            pilot.arm()
            first = pilot.look().header
            survey = Survey(pilot, config, scan, first, scan.places(first), on_visit=self._visited)
            self.before = self.microscope.read_state()
            try:
                survey.run()
                self.found = survey.found
            except BaseException as error:  # noqa: BLE001 - the tests look at it
                self.found = error
            self.kept = survey.found
            self.after = self.microscope.read_state()

    def _visited(self, visit: Visit) -> None:
        self.visits.append((visit, self.microscope.truth().defocus_m))


@pytest.fixture(scope="module")
def scanned() -> Bench:
    return Bench()


def test_every_position_is_in_focus(scanned: Bench) -> None:
    assert [visit.index for visit, _ in scanned.visits] == list(range(9))
    half_depth_m = scanned.microscope.truth().half_depth_m
    assert max(abs(defocus_m) for _, defocus_m in scanned.visits) < half_depth_m


def test_so_it_is_with_a_lens_whose_play_was_calibrated() -> None:
    play = Measure(value=7e-6, sigma=0.1e-6)
    found = Calibration(date="2026-01-01T00:00:00Z", frames=50, focus_hysteresis_m=play)
    memory = Memory(entries=(Entry(settings=Settings(), calibration=found),))
    bench = Bench(
        config=msgspec.structs.replace(configuration(), remembered=memory),
        column={"working_distance_mm": 5.004, "lens_hysteresis_um": 7.0},
    )
    assert [visit.index for visit, _ in bench.visits] == list(range(9)), bench.found
    half_depth_m = bench.microscope.truth().half_depth_m
    assert max(abs(defocus_m) for _, defocus_m in bench.visits) < half_depth_m


def test_most_are_predicted(scanned: Bench) -> None:
    assert isinstance(scanned.found, Found)
    how = [visit.how for visit in scanned.found.visits]
    assert how.count("predicted") == 7  # two tell a tilt from an edge
    assert len(scanned.found.focused) == 7


@pytest.mark.parametrize(("every", "looked_at"), [(0, []), (2, [2, 5])])
def test_so_many_positions_lie_between_two_verifications(every: int, looked_at: list[int]) -> None:
    grid = GridOptions(rows=1, columns=7, pitch_m=(30e-6, 30e-6))
    level = {**OPTIONS["specimen"], "mount_tilt_x_deg": 0, "mount_tilt_y_deg": 0}
    bench = Bench(ScanOptions(grid=grid, focus_at=4, verify_every=every), specimen=level)
    assert isinstance(bench.found, Found), bench.found
    how = [visit.how for visit in bench.found.visits]
    assert [index for index, each in enumerate(how) if each == "focused"] == looked_at


def test_the_map_has_the_tilt_of_the_specimen(scanned: Bench) -> None:
    """A specimen that rises comes nearer to the lens."""
    assert isinstance(scanned.found, Found)
    x, y = scanned.found.surface.tilt
    assert x == pytest.approx(-math.tan(math.radians(3)), abs=0.006)
    assert y == pytest.approx(math.tan(math.radians(2)), abs=0.006)


def test_stage_and_focus_are_put_back(scanned: Bench) -> None:
    assert scanned.after.stage == scanned.before.stage
    before, after = scanned.before.optics, scanned.after.optics
    assert after.working_distance_m == pytest.approx(before.working_distance_m, abs=1e-9)


def test_positions_are_reached_from_the_same_side(scanned: Bench) -> None:
    """The specimen lags behind by half the play, always on the same side."""
    assert isinstance(scanned.found, Found)
    for visit in scanned.found.visits:
        wanted = SCAN.places(header_at(scanned))[visit.index]
        assert visit.place == pytest.approx(wanted, abs=1e-9)
    truth = scanned.microscope.truth()
    assert truth.view_m == pytest.approx((-0.5e-6, -0.5e-6), abs=0.05e-6)


PAIR = ScanOptions(grid=GridOptions(rows=1, columns=2, pitch_m=(100e-6, 100e-6)), focus_at=2)


def test_every_frame_is_taken_after_focus_was_reached_from_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lens has play too, and the second position lies higher than the first."""
    apply, acquire = SimulatedMicroscope.apply, SimulatedMicroscope.acquire
    targets_m: list[float] = []

    def note(self: SimulatedMicroscope, action: MicroscopeAction) -> None:
        if isinstance(action, SetWorkingDistance):
            targets_m.append(action.working_distance_m)
        return apply(self, action)

    def check(self: SimulatedMicroscope, timeout_s: float) -> Frame:
        assert targets_m[-2:] == sorted(targets_m[-2:])
        return acquire(self, timeout_s)

    monkeypatch.setattr(SimulatedMicroscope, "apply", note)
    monkeypatch.setattr(SimulatedMicroscope, "acquire", check)
    bench = Bench(PAIR)
    assert isinstance(bench.found, Found), bench.found
    first, second = (visit.working_distance_m for visit in bench.found.visits)
    assert first > second


def test_a_stage_that_takes_longer_than_evidence_lasts_is_waited_for() -> None:
    bench = Bench(PAIR, stage={"backlash_um": 1.0, "speed_mm_per_s": 0.01})
    assert isinstance(bench.found, Found), bench.found
    assert_back_home(bench)


def test_as_many_frames_as_are_asked_for_are_taken_at_each_position() -> None:
    bench = Bench(msgspec.structs.replace(PAIR, frames=3))
    assert isinstance(bench.found, Found), bench.found
    for visit in bench.found.visits:
        first, *_ = visit.sequences
        assert visit.sequences == (first, first + 1, first + 2)


def test_during_a_scan_the_agent_neither_follows_focus_nor_corrects_drift() -> None:
    """It focuses when the scan asks it to; beam and lens stay put in between."""
    config = configuration()
    drift = msgspec.structs.replace(config.control.drift, correct=True)
    hold = msgspec.structs.replace(config.control.hold, follow=True)
    control = msgspec.structs.replace(config.control, mode=Mode.OBSERVE, drift=drift, hold=hold)
    control = for_survey(msgspec.structs.replace(config, control=control)).control
    assert (control.mode, control.hold.follow, control.drift.correct) == (Mode.HOLD, False, False)


def header_at(bench: Bench) -> FrameHeader:
    assert isinstance(bench.found, Found)
    return FrameHeader(
        sequence=1,
        monotonic_ns=0,
        wall_ns=0,
        detector="",
        scan=bench.before.scan,
        optics=bench.before.optics,
        stage=bench.before.stage,
        settings_rev=1,
    )


def test_without_structure_there_is_no_map() -> None:
    bench = Bench(specimen={**OPTIONS["specimen"], "kind": "flat"})
    assert isinstance(bench.found, NoMapError)
    assert bench.after.stage == bench.before.stage


@pytest.mark.parametrize("frame", [3, 15, 30])
def test_interrupted_anywhere_everything_is_put_back(frame: int) -> None:
    seen = 0

    def interrupt(_header: FrameHeader) -> None:
        nonlocal seen
        seen += 1
        if seen == frame:
            raise KeyboardInterrupt

    bench = Bench(on_frame=interrupt)
    assert isinstance(bench.found, KeyboardInterrupt)
    assert bench.after.stage == bench.before.stage
    wanted_m = bench.before.optics.working_distance_m
    assert bench.after.optics.working_distance_m == pytest.approx(wanted_m, abs=1e-9)


@pytest.mark.parametrize("when", ["before the frame", "after the frame"])
@pytest.mark.parametrize("frame", [15, 25, 35])
def test_whoever_changes_the_scan_ends_it_and_everything_is_put_back(
    frame: int, when: str, change_scan: Callable[[int, str], None]
) -> None:
    change_scan(frame, when)
    bench = Bench()
    assert isinstance(bench.found, MicroscopeError), bench.found
    assert str(bench.found) == "the settings were changed: dwell from 0.5 µs to 1 µs"
    assert bench.after.stage == bench.before.stage
    wanted_m = bench.before.optics.working_distance_m
    assert bench.after.optics.working_distance_m == pytest.approx(wanted_m, abs=1e-9)


class FullDisk:
    """A record that takes a number of messages and nothing more, whatever it is given."""

    def __init__(self, messages: int) -> None:
        self._left = messages

    def record(self, _message: Message) -> None:
        self._left -= 1
        if self._left < 0:
            raise RecordError("no space left")

    def close(self) -> None:
        pass


@pytest.mark.parametrize("messages", [60, 61, 62, 63, 64, 65, 66, 300])
def test_a_record_that_is_lost_ends_the_scan_and_everything_is_put_back(messages: int) -> None:
    bench = Bench(recorder=FullDisk(messages))
    assert isinstance(bench.found, RecordError)
    assert str(bench.found) == "no space left"
    assert bench.after.stage == bench.before.stage
    before, after = bench.before.optics, bench.after.optics
    assert after.working_distance_m == pytest.approx(before.working_distance_m, abs=1e-9)


def test_with_no_travel_left_for_the_way_around_the_backlash_it_goes_back_straight() -> None:
    config = configuration()
    short = AxisLimits(min=4e-3, max=6e-3, max_step=50e-6, max_travel=115e-6)
    safety = msgspec.structs.replace(config.safety, working_distance_m=short)
    bench = Bench(
        config=msgspec.structs.replace(config, safety=safety),
        column={**OPTIONS["column"], "working_distance_mm": 4.990},
    )
    assert isinstance(bench.found, CommandRefusedError), bench.found
    assert "working_distance_m.max_travel" in str(bench.found)
    assert bench.after.stage == bench.before.stage
    wanted_m = bench.before.optics.working_distance_m
    assert bench.after.optics.working_distance_m == pytest.approx(wanted_m, abs=1e-9)


def test_focus_is_put_back_where_the_stage_is_not() -> None:
    seen = 0

    def interrupt(_header: FrameHeader) -> None:
        nonlocal seen
        seen += 1
        if seen == 15:
            raise KeyboardInterrupt

    bench = Bench(on_frame=interrupt, faults={"refused": {"at": [25, 26]}})
    assert isinstance(bench.found, MicroscopeError)
    assert "not everything could be put back: the command to move stage was" in str(bench.found)
    assert bench.after.stage != bench.before.stage
    wanted_m = bench.before.optics.working_distance_m
    assert bench.after.optics.working_distance_m == pytest.approx(wanted_m, abs=1e-9)


def test_a_first_move_that_failed_has_moved_something_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate has closed: nothing may be put back, and that is said."""
    apply = SimulatedMicroscope.apply

    def move_and_fail(self: SimulatedMicroscope, action: MicroscopeAction) -> None:
        apply(self, action)
        raise MicroscopeError("no answer")

    monkeypatch.setattr(SimulatedMicroscope, "apply", move_and_fail)
    bench = Bench(PAIR)
    assert isinstance(bench.found, MicroscopeError)
    assert "failed: no answer; and not everything could be put back: " in str(bench.found)


def test_beyond_the_envelope_it_is_refused_and_put_back() -> None:
    config = configuration()
    narrow = AxisLimits(min=-60e-6, max=60e-6, max_step=150e-6, max_travel=1e-2)
    safety = msgspec.structs.replace(config.safety, stage_x_m=narrow)
    bench = Bench(config=msgspec.structs.replace(config, safety=safety))
    assert isinstance(bench.found, CommandRefusedError)
    assert "stage x" in str(bench.found)
    assert bench.after.stage == bench.before.stage


def test_an_axis_that_may_not_move_is_said() -> None:
    config = configuration()
    safety = msgspec.structs.replace(config.safety, stage_y_m=None)
    bench = Bench(config=msgspec.structs.replace(config, safety=safety))
    assert isinstance(bench.found, CommandRefusedError)
    assert "stage_y_m" in str(bench.found)


def test_a_stage_that_does_not_obey_ends_the_scan_and_says_so() -> None:
    """The gate has closed: nothing may be put back, and that is said."""
    bench = Bench(faults={"ignored": {"at": [20]}})
    assert isinstance(bench.found, MicroscopeError)
    assert str(bench.found).count("not carried out as commanded") == 1
    assert "; and not everything could be put back: the safety gate is disarmed; check" in str(
        bench.found
    )


def saturated_from(scanned: Bench, index: int, count: int) -> dict[str, Any]:
    """Faults of the exposures at a position and after."""
    assert isinstance(scanned.found, Found)
    (first,) = scanned.found.visits[index].sequences
    return {"saturated": {"at": list(range(first, first + count))}}


def test_a_position_that_cannot_be_used_is_noted_and_the_scan_goes_on(
    scanned: Bench, tmp_path: Path
) -> None:
    bench = Bench(faults=saturated_from(scanned, 2, 5))
    assert isinstance(bench.found, Found)
    how = [visit.how for visit in bench.found.visits]
    assert len(how) == 9
    assert [index for index, each in enumerate(how) if each == "unusable"] == [2]
    unusable = bench.found.visits[2]
    assert unusable.place == pytest.approx((100e-6, -100e-6), abs=1e-9)
    assert (unusable.focus_score, unusable.sequences) == (None, ())
    assert "saturated" in unusable.reason
    assert bench.after.stage == bench.before.stage
    write_results(tmp_path, bench.found)
    with (tmp_path / "positions.csv").open(encoding="utf-8", newline="") as file:
        row = list(csv.DictReader(file))[2]
    assert (row["how"], row["focus_score"], row["frames"]) == ("unusable", "", "")
    assert "saturated" in row["reason"]


def test_several_in_a_row_end_the_scan_and_what_was_found_is_kept(scanned: Bench) -> None:
    bench = Bench(faults=saturated_from(scanned, 2, 500))
    assert isinstance(bench.found, MicroscopeError)
    assert "3 positions in a row cannot be used: " in str(bench.found)
    assert "put back" not in str(bench.found)
    assert bench.after.stage == bench.before.stage
    wanted_m = bench.before.optics.working_distance_m
    assert bench.after.optics.working_distance_m == pytest.approx(wanted_m, abs=1e-9)
    assert bench.kept is not None
    how = [visit.how for visit in bench.kept.visits]
    assert len(how) == 5
    assert "unusable" not in how[:2]
    assert how[2:] == 3 * ["unusable"]


def test_without_a_visit_there_is_a_map_and_no_picture(scanned: Bench, tmp_path: Path) -> None:
    assert isinstance(scanned.found, Found)
    files = write_results(tmp_path, dataclasses.replace(scanned.found, visits=()))
    assert [path.name for path in files] == ["positions.csv", "focus-map.json"]


def with_a_miss(found: Found) -> Found:
    """Frames of position 4 were taken 3 µm from where the map expected focus, and are in doubt."""
    visits = list(found.visits)
    visits[4] = dataclasses.replace(
        visits[4], working_distance_m=visits[4].predicted_m + 3e-6, how="predicted"
    )
    return dataclasses.replace(found, visits=tuple(visits), doubtful=(4,))


def test_table_and_map_tell_what_was_found(scanned: Bench, tmp_path: Path) -> None:
    found = scanned.found
    assert isinstance(found, Found)
    found = with_a_miss(found)
    for path in write_tables(tmp_path, found):
        assert path.is_file()
    with (tmp_path / "positions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found.visits)
    for visit, row in zip(found.visits, rows, strict=True):
        told_um = {
            "x_um": visit.place.x_m,
            "y_um": visit.place.y_m,
            "working_distance_um": visit.working_distance_m,
            "predicted_um": visit.predicted_m,
            "sigma_um": visit.sigma_m,
        }
        for name, value_m in told_um.items():
            assert float(row[name]) == pytest.approx(value_m * 1e6, abs=1e-4)
        assert (row["index"], row["how"]) == (str(visit.index), visit.how)
        assert row["frames"] == " ".join(map(str, visit.sequences))
    reasons = [row["reason"] for row in rows]
    assert [bool(reason) for reason in reasons] == [index == 4 for index in range(9)]
    told = json.loads((tmp_path / "focus-map.json").read_text(encoding="utf-8"))
    x_m, y_m = told["middle_m"]
    in_middle_m, _ = found.surface.at(x_m, y_m, found.surface.origin[2])
    assert told["working_distance_m"] == pytest.approx(in_middle_m, abs=1e-12)
    assert [each["rejected"] for each in told["focused"]] == [False] * len(found.focused)
    for place, each in zip(found.focused, told["focused"], strict=True):
        assert {name: each[name] for name in dataclasses.asdict(place)} == dataclasses.asdict(place)


def test_the_picture_shows_what_was_found(scanned: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scanned.found
    assert isinstance(found, Found)
    found, surface = with_a_miss(found), found.surface
    drawn: list[Any] = []
    contours: list[Any] = []
    draw = Axes.contourf

    def note(axes: Axes, *given: Any, **more: Any) -> Any:
        contours.extend(given)
        return draw(axes, *given, **more)

    monkeypatch.setattr("semagent.survey.picture.stacked_png", drawn.extend)
    monkeypatch.setattr(Axes, "contourf", note)
    picture(found)
    across_um, down_um, heights_um = contours
    for row, column in ((0, 0), (10, 50), (-1, 20)):
        at_m, _ = surface.at(across_um[column] / 1e6, down_um[row] / 1e6, surface.origin[2])
        height_um = (at_m - surface.middle_m) * 1e6
        assert heights_um[row, column] == pytest.approx(height_um, abs=1e-6)
    over_specimen, misses, *_ = drawn[0].axes
    acquired, doubtful, *focused = over_specimen.lines
    places_um = [(visit.place.x_m * 1e6, visit.place.y_m * 1e6) for visit in found.visits]
    assert doubtful.get_xydata() == pytest.approx(np.array([places_um.pop(4)]))
    assert acquired.get_xydata() == pytest.approx(np.array(places_um))
    for line, place in zip(focused, found.focused, strict=False):
        assert line.get_xydata()[0] == pytest.approx((place.x_m * 1e6, place.y_m * 1e6))
    for how, drawing in zip(("focused", "predicted"), misses.containers, strict=True):
        visits = [visit for visit in found.visits if visit.how == how]
        off_um = [(visit.working_distance_m - visit.predicted_m) * 1e6 for visit in visits]
        points, _, (bars,) = drawing.lines
        assert list(points.get_xdata()) == [visit.index for visit in visits]
        assert list(points.get_ydata()) == pytest.approx(off_um)
        lengths_um = [np.ptp(bar[:, 1]) for bar in bars.get_segments()]
        assert lengths_um == pytest.approx([2 * 1.645 * visit.sigma_m * 1e6 for visit in visits])


def test_where_the_map_is_too_uncertain_it_looks() -> None:
    scan = msgspec.structs.replace(SCAN, focus_at=1, verify_every=0)
    bench = Bench(scan)
    assert isinstance(bench.found, Found)
    assert {"focused", "predicted"} == {visit.how for visit in bench.found.visits}
    half_depth_m = bench.microscope.truth().half_depth_m
    assert max(abs(defocus_m) for _, defocus_m in bench.visits) < half_depth_m


def stepped(folder: Path, height: Any, scan: ScanOptions, config: RunConfig | None = None) -> Bench:
    """A scan of fields of 13 µm over a specimen that is 200 µm higher where the function says."""
    y, x = (np.mgrid[0:2048, 0:2048] - 1023.5) * 50e-9
    step = folder / "step.png"
    cv2.imwrite(str(step), np.uint8(255 * height(x, y)))
    specimen = {"kind": "particles", "tile_px": 2048, "feature_size_nm": 500}
    return Bench(
        scan,
        config,
        pixel_size_nm=50,
        column={"working_distance_mm": 5.0},
        drift={},
        specimen={**specimen, "relief_um": 200, "height_map": str(step)},
    )


@pytest.mark.parametrize(("x", "y", "edge_m"), [(1, 0, -24e-6), (0, 1, 0.0), (1, 0, 24e-6)])
def test_where_the_specimen_is_stepped_every_position_is_in_focus_in_the_end(
    tmp_path: Path, x: float, y: float, edge_m: float
) -> None:
    grid = GridOptions(rows=4, columns=4, pitch_m=(24e-6, 24e-6))
    bench = stepped(tmp_path, lambda u, v: x * u + y * v > edge_m, ScanOptions(grid=grid))
    found = bench.found
    assert isinstance(found, Found)
    half_depth_m = bench.microscope.truth().half_depth_m
    defocus_m = {visit.index: defocus_m for visit, defocus_m in bench.visits}
    assert len(defocus_m) == len(found.visits) == 16
    assert max(map(abs, defocus_m.values())) < half_depth_m
    assert found.doubtful == ()
    assert len(found.focused) < 16
    step = describe(found)["step"]
    assert step["across"] == pytest.approx([x, y], abs=0.5)
    low_m, high_m = step["between_m"]
    assert low_m - 6e-6 < edge_m < high_m + 6e-6
    assert step["height_m"] == pytest.approx(-200e-6, abs=10e-6)


def with_limits(max_travel_m: float, window_s: float = 600.0, **autofocus: Any) -> RunConfig:
    """Limits of the stage, and options of the section ``autofocus``."""
    config = configuration()
    stage = msgspec.structs.replace(STAGE, max_travel=max_travel_m)
    safety = msgspec.structs.replace(
        config.safety, stage_x_m=stage, stage_y_m=stage, travel_window_s=window_s
    )
    options = msgspec.structs.replace(config.control.autofocus, **autofocus)
    control = msgspec.structs.replace(config.control, autofocus=options)
    return msgspec.structs.replace(config, safety=safety, control=control)


def stepped_at_a_slant(folder: Path, config: RunConfig) -> Bench:
    """Predictions of a scan that begins with few focusings come into doubt."""
    scan = ScanOptions(
        grid=GridOptions(rows=4, columns=4, pitch_m=(24e-6, 24e-6)),
        focus_at=4,
    )
    return stepped(folder, lambda x, y: 0.5 * x + 0.6 * y > 20e-6, scan, config)


def again(bench: Bench) -> list[Visit]:
    """The second visits."""
    return [visit for visit, _ in bench.visits[16:]]


def assert_back_home(bench: Bench) -> None:
    assert bench.after.stage == bench.before.stage
    wanted_m = bench.before.optics.working_distance_m
    assert bench.after.optics.working_distance_m == pytest.approx(wanted_m, abs=1e-9)


def test_where_travel_allows_it_all_positions_in_doubt_are_visited_again(tmp_path: Path) -> None:
    bench = stepped_at_a_slant(tmp_path, with_limits(630e-6))
    assert isinstance(bench.found, Found), bench.found
    assert [visit.how for visit in again(bench)] == 6 * ["focused"]
    assert bench.found.doubtful == ()
    assert_back_home(bench)


def test_where_travel_is_used_up_positions_in_doubt_are_named_and_the_scan_ends(
    tmp_path: Path,
) -> None:
    bench = stepped_at_a_slant(tmp_path, with_limits(600e-6))
    assert isinstance(bench.found, CommandRefusedError)
    assert str(bench.found).startswith("position 9, in doubt, is not visited again: stage x: ")
    assert "600 µm of stage_x_m.max_travel" in str(bench.found)
    assert bench.kept is not None
    assert len(bench.kept.visits) == 16
    assert bench.kept.doubtful == (9,)
    assert len(again(bench)) == 5
    assert_back_home(bench)


def test_positions_in_doubt_from_which_the_way_home_would_be_too_long_are_not_visited_again(
    tmp_path: Path,
) -> None:
    """Far from home, after the travel window: the gate would let the stage go there."""
    columns = [102.4e-6 + offset_m for offset_m in (-36e-6, -12e-6, 12e-6, 36e-6)]
    places = tuple(
        (x_m, y_m)
        for row, y_m in enumerate((-36e-6, -12e-6, 12e-6, 36e-6))
        for x_m in (columns if row % 2 == 0 else reversed(columns))
    )
    scan = ScanOptions(positions_m=places, focus_at=4)
    config = with_limits(400e-6, window_s=4.0)
    bench = stepped(tmp_path, lambda _x, y: y > 0, scan, config)
    assert isinstance(bench.found, CommandRefusedError), bench.found
    assert str(bench.found).startswith("position 3, in doubt, is not visited again: stage x: ")
    assert bench.kept is not None
    assert len(bench.kept.visits) == len(bench.visits) == 16
    assert bench.kept.doubtful == (3,)
    assert_back_home(bench)


def test_where_focus_is_not_found_for_want_of_dose_that_is_said_of_the_position(
    tmp_path: Path,
) -> None:
    """Three frames take 0.374 e/nm²."""
    bench = stepped_at_a_slant(tmp_path, with_limits(1e-2, max_dose_e_nm2=0.38))
    assert isinstance(bench.found, Found), bench.found
    held = [visit for visit in bench.found.visits if visit.how == "held"]
    assert {visit.index for visit in again(bench)} & {visit.index for visit in held}
    for visit in held:
        assert "max_dose_e_nm2" in visit.reason
    assert_back_home(bench)


def test_a_surface_that_leaves_the_envelope_is_not_followed_there(tmp_path: Path) -> None:
    """With steps between few places the map leads steeply on, and focus does not."""
    config, low_m, high_m = configuration(), 4.75e-3, 5.05e-3
    focus = msgspec.structs.replace(config.safety.working_distance_m, min=low_m, max=high_m)
    safety = msgspec.structs.replace(config.safety, working_distance_m=focus)
    columns = (5e-6, 18e-6, 31e-6, 44e-6)
    places = tuple(
        (x_m, y_m)
        for row, y_m in enumerate(columns)
        for x_m in (columns if row % 2 == 0 else reversed(columns))
    )
    bench = stepped(
        tmp_path,
        lambda x, _y: np.abs(x - 25.6e-6) < 13.7e-6,
        ScanOptions(positions_m=places, focus_at=4),
        msgspec.structs.replace(config, safety=safety),
    )
    assert isinstance(bench.found, Found)
    assert len(bench.found.visits) == 16
    led_on = [visit for visit, _ in bench.visits if not low_m <= visit.predicted_m <= high_m]
    assert led_on
    for visit in led_on:
        assert visit.how == "focused" or "outside the safety envelope" in visit.reason
    assert all(low_m <= visit.working_distance_m <= high_m for visit, _ in bench.visits)


def test_a_dome(tmp_path: Path) -> None:
    """Of a dome that is so small and high that its slope has to be expected."""
    y, x = np.mgrid[0:1024, 0:1024] / 1024
    dome = tmp_path / "dome.png"
    cv2.imwrite(str(dome), np.uint8(np.round(255 * (1 - (x * x + y * y) / 2))))
    specimen = {"kind": "particles", "tile_px": 1024, "feature_size_nm": 500}
    scan = ScanOptions(
        grid=GridOptions(rows=3, columns=3, pitch_m=(20e-6, 20e-6)),
        focus_at=9,
        verify_every=0,
        slope=2.0,
    )
    bench = Bench(
        scan,
        pixel_size_nm=50,
        column={"working_distance_mm": 5.0},
        specimen={**specimen, "relief_um": 120, "height_map": str(dome)},
    )
    assert isinstance(bench.found, Found)
    half_depth_m = bench.microscope.truth().half_depth_m
    assert max(abs(defocus_m) for _, defocus_m in bench.visits) < half_depth_m
    # 120 um over the diagonal of a quarter is 9.2 um over the reach of 20 um.
    # Each place is known to about a quarter of half a depth of field, which is 10 um.
    along_x, twist, along_y = bench.found.surface.sag_m
    assert along_x == pytest.approx(9.2e-6, abs=half_depth_m / 2)
    assert along_y == pytest.approx(9.2e-6, abs=half_depth_m / 2)
    assert abs(twist) < half_depth_m / 2
