import threading

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semagent.clock import ManualClock
from semagent.errors import (
    AcquisitionStoppedError,
    CommandRefusedError,
    ConfigError,
    DisconnectedError,
    InputFileError,
    MicroscopeError,
    MicroscopeTimeoutError,
)
from semagent.types import MoveStage, SetBlanked, SetStigmator, SetWorkingDistance
from semagent_drivers.recorded import microscope as implementation
from semagent_drivers.recorded import open_microscope


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def open_stack(clock):
    return lambda path, **options: open_microscope({"stack": str(path), **options}, clock=clock)


def focus(microscope, distance_um):
    microscope.apply(SetWorkingDistance(working_distance_m=distance_um * 1e-6))


def read_um(microscope):
    return round(microscope.read_state().optics.working_distance_m * 1e6, 6)


def test_capabilities(open_stack, five):
    capabilities = open_stack(five).capabilities
    assert capabilities.driver == "recorded"
    assert capabilities.simulated
    assert capabilities.repeats_frames
    assert capabilities.verified_on is not None
    assert capabilities.stage_axes == ()
    assert capabilities.working_distance_range_m == (5e-3, 5.008e-3)


def test_it_begins_at_the_first_frame(open_stack, five):
    assert read_um(open_stack(five)) == 5004


@pytest.mark.parametrize(("start_m", "expected_um"), [(5.0e-3, 5000), (5.0071e-3, 5008)])
def test_it_begins_where_asked(open_stack, five, start_m, expected_um):
    assert read_um(open_stack(five, start_working_distance_m=start_m)) == expected_um


@pytest.mark.parametrize("start_m", [4.99e-3, float("nan")])
def test_a_start_outside_the_stack_is_refused(open_stack, five, start_m):
    with pytest.raises(ConfigError, match=r"start_working_distance_m: .*outside"):
        open_stack(five, start_working_distance_m=start_m)


@pytest.mark.parametrize("options", [{}, {"stack": 3}, {"stack": "x", "step": 1}])
def test_options_are_checked(options, clock):
    with pytest.raises(ConfigError, match="driver recorded: "):
        open_microscope(options, clock=clock)


def test_a_stack_that_is_not_there_is_an_input_error(open_stack, tmp_path):
    with pytest.raises(InputFileError, match="absent"):
        open_stack(tmp_path / "absent")


# -- where requests lead ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked_um", "given_um"),
    [(5000, 5000), (5000.9, 5000), (5001.1, 5002), (5007.9, 5008), (4999.1, 5000), (5008.9, 5008)],
)
def test_the_nearest_frame_is_returned_with_its_own_working_distance(
    open_stack, five, asked_um, given_um
):
    microscope = open_stack(five)
    focus(microscope, asked_um)
    frame = microscope.acquire(1.0)
    assert frame.header.optics.working_distance_m == pytest.approx(given_um * 1e-6)
    assert frame.header.optics == microscope.read_state().optics
    levels = {5004: 10, 5000: 20, 5002: 30, 5008: 40, 5006: 50}
    assert np.all(frame.pixels == levels[given_um])


@given(offset_um=st.floats(-3, 11))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_refused_if_and_only_if_more_than_half_a_step_outside(open_stack, five, offset_um):
    microscope = open_stack(five)
    asked_m = 5e-3 + offset_um * 1e-6
    if -1 + 1e-5 < offset_um < 9 - 1e-5:
        microscope.apply(SetWorkingDistance(working_distance_m=asked_m))
        distances = [5e-3, 5.002e-3, 5.004e-3, 5.006e-3, 5.008e-3]
        error = abs(microscope.read_state().optics.working_distance_m - asked_m)
        assert error == pytest.approx(min(abs(each - asked_m) for each in distances), abs=1e-12)
    elif offset_um < -1 - 1e-5 or offset_um > 9 + 1e-5:
        with pytest.raises(CommandRefusedError):
            microscope.apply(SetWorkingDistance(working_distance_m=asked_m))


@pytest.mark.parametrize(
    "distance_m", [4.9989e-3, 5.0092e-3, 0.0, -5e-3, float("nan"), float("inf"), float("-inf")]
)
def test_a_refusal_leaves_everything_as_it_was(open_stack, five, distance_m):
    microscope = open_stack(five)
    focus(microscope, 5002)
    before = microscope.read_state()
    with pytest.raises(CommandRefusedError, match=r"working distance .* outside .* 5000 to"):
        microscope.apply(SetWorkingDistance(working_distance_m=distance_m))
    assert microscope.read_state() == before
    assert np.all(microscope.acquire(1.0).pixels == 30)


@pytest.mark.parametrize(
    "action", [SetStigmator(x=0, y=0), MoveStage(x_m=0), SetBlanked(blanked=True)]
)
def test_what_was_not_recorded_is_refused(open_stack, five, action):
    microscope = open_stack(five)
    before = microscope.read_state()
    with pytest.raises(CommandRefusedError, match=f"{type(action).__name__}: .*working distance"):
        microscope.apply(action)
    assert microscope.read_state() == before


# -- stigmators -------------------------------------------------------------------------------


def optics(microscope):
    values = microscope.read_state().optics
    return round(values.working_distance_m * 1e6), values.stigmator_x, values.stigmator_y


def test_both_are_nearest_by_themselves_on_a_grid(open_stack, grid):
    microscope = open_stack(grid)
    assert microscope.capabilities.stigmator
    assert optics(microscope) == (5000, -0.1, 0.0)
    microscope.apply(SetStigmator(x=0.06, y=0.11))
    assert optics(microscope) == (5000, 0.1, 0.2)
    focus(microscope, 5014)
    assert optics(microscope) == (5010, 0.1, 0.2)
    microscope.apply(SetStigmator(x=-0.02, y=-0.02))
    assert optics(microscope) == (5010, 0.0, 0.0)


@pytest.mark.parametrize(
    ("x", "y"), [(0.16, 0), (-0.16, 0), (0, 0.31), (0, -0.11), (float("nan"), 0), (0, float("nan"))]
)
def test_stigmators_outside_what_was_recorded_are_refused(open_stack, grid, x, y):
    microscope = open_stack(grid)
    with pytest.raises(CommandRefusedError, match=r"stigmator [xy] .* outside"):
        microscope.apply(SetStigmator(x=x, y=y))
    assert optics(microscope) == (5000, -0.1, 0.0)


def test_a_stigmator_that_was_not_varied_accepts_its_value_only(open_stack, table):
    rows = [f"f{i}.png,{5000 + i},{x},0.3" for i, x in enumerate((0.0, 0.1, 0.2))]
    header = "file,working_distance_um,stigmator_x,stigmator_y"
    microscope = open_stack(table(header, *rows))
    microscope.apply(SetStigmator(x=0.2, y=0.3))
    assert optics(microscope) == (5002, 0.2, 0.3)
    with pytest.raises(CommandRefusedError, match=r"stigmator y 0\.31"):
        microscope.apply(SetStigmator(x=0.2, y=0.31))


def test_off_a_grid_what_was_asked_for_comes_first(open_stack, table):
    rows = ["f0.png,5000,0,0", "f1.png,5010,0,0", "f2.png,5005,0.1,0", "f3.png,5015,0.1,0"]
    microscope = open_stack(table("file,working_distance_um,stigmator_x,stigmator_y", *rows))
    microscope.apply(SetStigmator(x=0.1, y=0))
    assert optics(microscope) == (5005, 0.1, 0)
    focus(microscope, 5011)
    assert optics(microscope) == (5010, 0.0, 0)


# -- frames -----------------------------------------------------------------------------------


def test_the_header_tells_all_that_is_known(open_stack, tmp_path, vendor_tiff, clock):
    for index in range(2):
        path = tmp_path / f"{index}.tif"
        vendor_tiff(path, 7, 5e-3 + index * 1e-6, dtype=np.uint16, stigmator={"X": 0.1, "Y": -0.2})
    microscope = open_stack(tmp_path)
    clock.advance(3.0)
    frame = microscope.acquire(1.0)
    header = frame.header
    assert (header.sequence, header.settings_rev) == (1, 1)
    assert header.monotonic_ns == clock.monotonic_ns()
    assert (header.scan.width_px, header.scan.height_px, header.scan.bit_depth) == (32, 24, 16)
    assert header.scan.pixel_size_m == 1e-8
    assert (header.optics.stigmator_x, header.optics.stigmator_y) == (0.1, -0.2)
    assert header.optics.accelerating_voltage_v == 5000
    assert header.source == str(tmp_path / "0.tif")
    assert header.detector == "unknown"
    assert frame.pixels.dtype == np.uint16
    state = microscope.read_state()
    assert (state.scan, state.optics, state.stage) == (header.scan, header.optics, header.stage)
    assert not microscope.capabilities.stigmator


def test_sequence_counts_without_gaps_over_acquired_and_looked_up_frames(open_stack, five):
    microscope = open_stack(five)
    frames = [microscope.acquire(1.0), microscope.frame(3), microscope.acquire(1.0)]
    assert [frame.header.sequence for frame in frames] == [1, 2, 3]


def test_frames_can_be_looked_up_without_moving(open_stack, five):
    microscope = open_stack(five)
    levels = [int(microscope.frame(index).pixels[0, 0]) for index in range(5)]
    assert levels == [10, 20, 30, 40, 50]
    assert len(microscope.stack.entries) == 5
    assert read_um(microscope) == 5004
    for index in (-1, 5):
        with pytest.raises(InputFileError, match=f"no frame {index}; frames are 0 to 4"):
            microscope.frame(index)


def test_frames_of_one_setting_take_turns(open_stack, table):
    rows = ["f0.png,5000", "f1.png,5010", "f2.png,5000", "f3.png,5000"]
    microscope = open_stack(table("file,working_distance_um", *rows))
    levels = [int(microscope.acquire(1.0).pixels[0, 0]) for _ in range(4)]
    assert levels == [10, 30, 40, 10]
    focus(microscope, 5010)
    focus(microscope, 5000)
    assert int(microscope.acquire(1.0).pixels[0, 0]) == 10


def test_planes_of_an_ome_tiff_are_frames(open_stack, tmp_path):
    path = tmp_path / "s.ome.tif"
    data = np.stack([np.full((24, 32), 10 * (z + 1), np.uint8) for z in range(3)])
    units = {"PositionZ": [5.0, 5.1, 5.2], "PositionZUnit": ["mm"] * 3}
    tifffile.imwrite(path, data, ome=True, metadata={"axes": "ZYX", "Plane": units})
    microscope = open_stack(path)
    focus(microscope, 5180)
    frame = microscope.acquire(1.0)
    assert np.all(frame.pixels == 30)
    assert frame.header.source == f"{path}#page=2"


def test_files_are_decoded_once_while_they_are_remembered(open_stack, five, monkeypatch):
    decoded = []
    read_image = implementation.read_image

    def counting(path, page):
        decoded.append(path.name)
        return read_image(path, page)

    monkeypatch.setattr(implementation, "read_image", counting)
    monkeypatch.setattr(implementation, "_CACHED_FRAMES", 2)
    microscope = open_stack(five)
    for index in (0, 0, 1, 0, 2, 0, 1):
        microscope.frame(index)
    assert decoded == ["f0.png", "f1.png", "f2.png", "f1.png"]


# -- the end ----------------------------------------------------------------------------------


def test_a_frame_that_vanished_is_a_microscope_error(open_stack, five):
    microscope = open_stack(five)
    (five / "f0.png").unlink()
    with pytest.raises(MicroscopeError, match=r"f0\.png: no such file"):
        microscope.acquire(1.0)
    focus(microscope, 5000)
    assert microscope.acquire(1.0).header.sequence == 1


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan")])
def test_no_time_is_not_enough(open_stack, five, timeout_s):
    with pytest.raises(MicroscopeTimeoutError):
        open_stack(five).acquire(timeout_s)


def test_stop_ends_a_frame_that_is_being_read(open_stack, five, monkeypatch):
    reading, stopped = threading.Event(), threading.Event()
    read_image = implementation.read_image

    def slow(path, page):
        reading.set()
        assert stopped.wait(5)
        return read_image(path, page)

    monkeypatch.setattr(implementation, "read_image", slow)
    microscope = open_stack(five)

    def stop():
        assert reading.wait(5)
        microscope.stop()
        stopped.set()

    other = threading.Thread(target=stop)
    other.start()
    with pytest.raises(AcquisitionStoppedError):
        microscope.acquire(5.0)
    other.join(5)
    assert microscope.acquire(5.0).header.sequence == 1


def test_a_closed_microscope_says_so_and_closes_twice(open_stack, five):
    microscope = open_stack(five)
    microscope.close()
    microscope.close()
    microscope.stop()
    for call in (
        microscope.read_state,
        lambda: microscope.acquire(1.0),
        lambda: microscope.frame(0),
        lambda: focus(microscope, 5000),
    ):
        with pytest.raises(DisconnectedError, match="is closed"):
            call()


def test_real_frames_with_their_bar(open_stack, shared_data):
    microscope = open_stack(shared_data / "test" / "gift-fei34682")
    assert microscope.capabilities.stigmator
    frame = microscope.acquire(1.0)
    assert frame.header.info_bar_px == 59
    assert frame.specimen.shape == (884, 1024)
    assert frame.header.optics.working_distance_m == 10.4771e-3
