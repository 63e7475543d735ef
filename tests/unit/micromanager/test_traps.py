"""Traps of Micro-Manager: what the core refuses, pretends or forgets, and its bridge's wire."""

import threading
import time
import weakref

import numpy as np
import pytest

from semagent import registry
from semagent.clock import SystemClock
from semagent.errors import (
    AcquisitionStoppedError,
    CommandRefusedError,
    ConfigError,
    DisconnectedError,
    MicroscopeError,
    MicroscopeTimeoutError,
    NotReadyError,
)
from semagent.types import MoveStage, Region, SetScan, SetWorkingDistance
from semagent_drivers.micromanager.bridge import BridgeCore
from semagent_drivers.micromanager.core import CoreError
from semagent_drivers.micromanager.fake import CoreFailure, FakeCore, FakeMicroManager

RANGES = {
    "focus_range_um": [-1000, 1000],
    "x_range_um": [-500, 500],
    "y_range_um": [-500, 500],
    "exposure_range_ms": [0.5, 1000],
}


@pytest.fixture
def fake():
    with FakeMicroManager() as fake:
        yield fake


def opened(port, **options):
    options = {"backend": "java", "port": port, **RANGES, **options}
    return registry.open_microscope("micromanager", options, clock=SystemClock())


@pytest.fixture
def microscope(fake):
    microscope = opened(fake.port)
    yield microscope
    microscope.close()


def distance(um):
    return SetWorkingDistance(working_distance_m=5e-3 + um * 1e-6)


def test_micrometres_and_milliseconds_are_told_in_metres_and_seconds(microscope, fake):
    fake.core.xy.position[:] = 30.0, -40.0
    state = microscope.read_state()
    assert (state.stage.x_m, state.stage.y_m) == pytest.approx((30e-6, -40e-6))
    assert state.scan.pixel_size_m == pytest.approx(10e-9)
    assert state.scan.dwell_s == pytest.approx(1e-3)


def test_what_the_drive_refuses_is_a_refusal_with_the_cores_own_words(microscope, fake):
    with pytest.raises(CommandRefusedError, match=r"Z refused: .*Position out of range \(103\)"):
        microscope.apply(distance(400))
    assert fake.core.z.position[0] == 0


def test_a_drive_that_stops_elsewhere_is_told_with_both_readings(microscope, fake):
    fake.core.stuck = True
    with pytest.raises(MicroscopeError, match=r"focus 20 um but reads back 0 um"):
        microscope.apply(distance(20))


@pytest.mark.parametrize(("inverted", "sign"), [(False, 1), (True, -1)])
def test_the_drive_may_count_the_other_way(fake, inverted, sign):
    microscope = opened(fake.port, focus_inverted=inverted, focus_range_um=[-100, 300])
    low_m, high_m = microscope.capabilities.working_distance_range_m
    assert (low_m, high_m) == pytest.approx((4.7e-3, 5.1e-3) if inverted else (4.9e-3, 5.3e-3))
    try:
        microscope.apply(distance(12))
        assert fake.core.z.position[0] == pytest.approx(sign * 12.0)
        assert microscope.read_state().optics.working_distance_m == pytest.approx(5.012e-3)
    finally:
        microscope.close()


@pytest.mark.parametrize("move", [distance(20), MoveStage(x_m=50e-6)])
def test_a_drive_that_is_not_busy_yet_has_not_arrived(move):
    with FakeMicroManager(core=FakeCore(start_s=0.1, busy_s=0.2)) as fake:
        microscope = opened(fake.port)
        microscope.apply(move)
        assert fake.core.z.position + fake.core.xy.position in ([20.0, 0, 0], [0, 50.0, 0])
        microscope.close()


@pytest.mark.parametrize("move", [distance(20), MoveStage(x_m=50e-6)])
def test_a_drive_that_begins_too_late_is_stopped(move):
    with FakeMicroManager(core=FakeCore(start_s=0.5, busy_s=0.5)) as fake:
        microscope = opened(fake.port, busy_delay_s=0.1)
        with pytest.raises(MicroscopeError, match=r"accepted (focus|stage x)"):
            microscope.apply(move)
        time.sleep(0.6)
        assert fake.core.z.position + fake.core.xy.position == [0, 0, 0]
        microscope.close()


@pytest.mark.parametrize("move", [distance(20), MoveStage(x_m=50e-6)])
def test_a_drive_that_does_not_come_to_rest_is_stopped(move):
    with FakeMicroManager(core=FakeCore(busy_s=3600.0)) as fake:
        microscope = opened(fake.port, settle_timeout_s=0.2, move_timeout_s=0.2)
        with pytest.raises(MicroscopeTimeoutError, match=r"no standstill of \w+ within 0\.2 s"):
            microscope.apply(move)
        microscope.read_state()  # behind the stop
        assert "stop" in {request.get("name") for request in fake.requests}
        microscope.close()


@pytest.mark.parametrize("move", [distance(20), MoveStage(x_m=50e-6)])
def test_a_drive_that_nobody_can_watch_any_more_is_stopped(microscope, fake, monkeypatch, move):
    def broken(device):
        raise CoreFailure(f'Error in device "{device}"')

    monkeypatch.setattr(fake.core, "_deviceBusy", broken)
    with pytest.raises(MicroscopeError, match="Error in device"):
        microscope.apply(move)
    microscope.read_state()  # behind the stop
    assert "stop" in {request.get("name") for request in fake.requests}


def test_one_axis_moves_and_the_other_keeps_its_place(microscope, fake):
    fake.core.xy.position[1] = 33.0
    microscope.apply(MoveStage(x_m=50e-6))
    assert fake.core.xy.position == [pytest.approx(50.0), 33.0]


def test_a_move_smaller_than_the_drive_can_tell_is_not_made(microscope, fake):
    fake.requests.clear()
    microscope.apply(MoveStage(x_m=0.3e-6))
    assert "setXYPosition" not in {request.get("name") for request in fake.requests}


def test_a_stage_without_ranges_is_not_moved(fake):
    microscope = opened(fake.port, x_range_um=None, y_range_um=None)
    try:
        with pytest.raises(CommandRefusedError, match="stage axis x_m cannot be moved"):
            microscope.apply(MoveStage(x_m=0.0))
    finally:
        microscope.close()


def test_somebody_elses_live_view_is_neither_used_nor_ended(microscope, fake):
    fake.core.exposure_ms = 1000.0
    fake.core.call("startSequenceAcquisition", [1000, 0.0, True])
    with pytest.raises(NotReadyError, match=r"does not start.*end a live view if one runs"):
        microscope.acquire(5.0)
    assert fake.core.shutter_open


def test_the_shutter_is_closed_after_an_exposure_that_was_stopped(microscope, fake):
    fake.core.exposure_ms = 900.0
    timer = threading.Timer(0.1, microscope.stop)
    timer.start()
    with pytest.raises(AcquisitionStoppedError):
        microscope.acquire(10.0)
    timer.join()
    fake.core.exposure_ms = 1.0
    microscope.read_state()  # behind the end of the exposure
    assert not fake.core.shutter_open


def test_averaging_is_a_sequence_and_its_mean(microscope):
    microscope.apply(SetScan(frame_averages=4))
    frame = microscope.acquire(5.0)
    assert frame.pixels.dtype == np.uint8
    assert frame.header.scan.frame_averages == 4


def test_averaged_images_are_not_all_kept(microscope, monkeypatch):
    pop, kept = microscope._pop, []

    def watched(shape):
        kept[:] = [reference for reference in kept if reference() is not None]
        assert len(kept) <= 1, "the one before, which is added up already"
        image = pop(shape)
        kept.append(weakref.ref(image))
        return image

    monkeypatch.setattr(microscope, "_pop", watched)
    microscope.apply(SetScan(frame_averages=4))
    microscope.acquire(5.0)


def test_a_region_is_read_out_alone(microscope):
    whole = microscope.acquire(5.0).pixels
    microscope.apply(SetScan(region=Region(left=0.25, top=0.5, width=0.5, height=0.25)))
    frame = microscope.acquire(5.0)
    assert frame.pixels.shape == (whole.shape[0] // 4, whole.shape[1] // 2)
    assert frame.header.scan.region == Region(left=0.25, top=0.5, width=0.5, height=0.25)


def test_another_binning_is_the_same_field_and_a_region_its_same_part(microscope, fake):
    whole = microscope.acquire(5.0)
    fake.core.call("setProperty", ["Camera", "Binning", "2"])
    binned = microscope.acquire(5.0)
    assert binned.header.scan.region is None
    assert binned.header.scan.pixel_size_m == 2 * whole.header.scan.pixel_size_m
    assert binned.header.settings_rev > whole.header.settings_rev
    region = Region(left=0.25, top=0.5, width=0.5, height=0.25)
    microscope.apply(SetScan(region=region))
    part = microscope.acquire(5.0)
    assert part.header.scan.region == region
    assert part.pixels.shape == (binned.pixels.shape[0] // 4, binned.pixels.shape[1] // 2)


def test_a_row_that_does_not_fill_a_binned_pixel_is_no_region():
    with FakeMicroManager(core=FakeCore(size_px=(257, 193))) as fake:
        microscope = opened(fake.port)
        try:
            fake.core.call("setProperty", ["Camera", "Binning", "2"])
            assert microscope.read_state().scan.region is None
        finally:
            microscope.close()


def test_a_camera_in_colour_is_named_and_the_cure_with_it():
    with (
        FakeMicroManager(core=FakeCore(bits=32)) as fake,
        pytest.raises(MicroscopeError, match="Camera gives 4 bytes per pixel; set its pixel type"),
    ):
        opened(fake.port)


def test_several_cameras_behind_one_are_refused():
    core = FakeCore()
    core.channels = 2
    with (
        FakeMicroManager(core=core) as fake,
        pytest.raises(MicroscopeError, match="Camera is 2 cameras, whose images come in any order"),
    ):
        opened(fake.port)


def test_another_camera_that_was_chosen_meanwhile_is_not_taken_for_the_first(microscope, fake):
    fake.core.camera = "Other"
    with pytest.raises(NotReadyError, match="the camera is Other, but was Camera"):
        microscope.acquire(5.0)
    assert not fake.core.shutter_open
    fake.core.camera = "Camera"
    assert microscope.acquire(5.0).header.detector == "Camera"


def test_another_version_of_the_bridge_is_named():
    with (
        FakeMicroManager(version="4.0.0") as fake,
        pytest.raises(DisconnectedError, match=r"speaks version 4\.0\.0 of its bridge, not 5"),
    ):
        opened(fake.port)


@pytest.mark.parametrize(
    ("command", "answer", "message"),
    [
        ("connect", [], "an answer that cannot be read: list where an object is expected"),
        ("get-constructors", {"api": "none"}, "speaks another language"),
        ("constructor", {"type": "null"}, r"speaks another language: KeyError\('hash-code'\)"),
        ("constructor", {"type": "exception", "value": "no DLL"}, r"makes no .*CMMCore: no DLL"),
    ],
)
def test_a_bridge_that_answers_otherwise_is_named(fake, monkeypatch, command, answer, message):
    told = fake._reply

    def reply(request, parts):
        return answer if request["command"] == command else told(request, parts)

    monkeypatch.setattr(fake, "_reply", reply)
    with pytest.raises(DisconnectedError, match=message):
        opened(fake.port)


def test_nobody_there_says_where_to_switch_it_on():
    with FakeMicroManager() as fake:
        port = fake.port
    with pytest.raises(DisconnectedError, match="Run server on port"):
        opened(port, call_timeout_s=0.2)


def test_an_overload_is_chosen_by_javas_types_and_a_missing_one_is_named(fake):
    core = BridgeCore("127.0.0.1", fake.port, 5.0)
    try:
        core.call("setPosition", "Z", 3, timeout_s=5.0)  # an int where Java wants a double
        request = fake.requests[-1]
        assert request["argument-types"] == ["java.lang.String", "double"]
        assert repr(request["arguments"]) == "['Z', 3.0]"
        with pytest.raises(CoreError, match=r"has no setPosition\(bool\)"):
            core.call("setPosition", True, timeout_s=5.0)
    finally:
        core.close()


def test_javas_objects_are_given_back(microscope, fake):
    microscope.acquire(5.0)
    assert len(fake.objects) == 1  # the core
    microscope.close()
    assert not fake.objects


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "python"}, "backend python needs adapters and configuration"),
        ({"configuration": "x.cfg"}, "backend java takes neither"),
        ({"focus_range_um": [10, -10]}, "not a finite range, lower end first"),
        ({"working_distance_mm": 0.5}, "leaves -0.5 mm at the end of focus_range_um"),
        ({"exposure_range_ms": [0, 1]}, "must be above 0 ms"),
    ],
)
def test_options_that_make_no_sense_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        opened(4827, **options)


@pytest.mark.parametrize(
    ("missing", "message"),
    [("adapters", "there is no folder"), ("configuration", "there is no file")],
)
def test_a_path_that_does_not_exist_is_named(tmp_path, missing, message):
    paths = {"adapters": tmp_path, "configuration": tmp_path / "a.cfg"}
    paths["configuration"].touch()
    paths[missing] /= "nowhere"
    with pytest.raises(ConfigError, match=message):
        opened(4827, backend="python", **{key: str(path) for key, path in paths.items()})
