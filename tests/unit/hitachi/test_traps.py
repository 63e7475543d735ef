"""Hitachi's traps, over real TCP."""

import math
import socket
import struct
import threading
import time

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
)
from semagent.options import parse_options
from semagent.types import MoveStage, SetBlanked, SetScan, SetStigmator, SetWorkingDistance
from semagent_drivers.adapter import ImageFolder, Wait
from semagent_drivers.hitachi.bmp import grey, is_whole, whole_file
from semagent_drivers.hitachi.fake import FakeSem, bitmap
from semagent_drivers.hitachi.options import HitachiOptions


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@pytest.fixture
def sem(tmp_path):
    with FakeSem(free_port(), tmp_path, (96, 128)) as sem:
        yield sem


def opened(sem, folder, **options):
    given = {"width_px": 128, "height_px": 96, "connect_timeout_s": 5.0, **options}
    return registry.open_microscope(
        "hitachi", {"folder": str(folder), "port": sem.port, **given}, clock=SystemClock()
    )


@pytest.fixture
def microscope(sem, tmp_path):
    microscope = opened(sem, tmp_path)
    yield microscope
    microscope.close()


# -- the call and the wire ----------------------------------------------------------------------


def test_everything_it_says_is_in_si_units(microscope, sem):
    sem.voltages = 5000, 4000  # of the gun, and against it at the specimen
    state = microscope.read_state()
    optics, there = state.optics, state.stage
    assert (optics.accelerating_voltage_v, optics.magnification) == (1000.0, 20_000.0)
    assert (there.x_m, there.y_m, there.z_m) == pytest.approx((0.055, 0.05, 0.01))
    assert there.tilt_rad == pytest.approx(math.radians(2))
    assert there.rotation_rad == pytest.approx(math.pi / 2)


@pytest.mark.parametrize(("key", "address"), [("bind", "localhost"), ("peer", "sem-pc")])
def test_an_address_that_is_none_is_named(tmp_path, key, address):
    with pytest.raises(ConfigError, match=f"{key}: '{address}' does not appear to be an IPv4"):
        parse_options({"folder": str(tmp_path), key: address}, HitachiOptions, where="driver")


def test_nobody_calls(tmp_path):
    options = {"folder": str(tmp_path), "port": free_port(), "connect_timeout_s": 0.2}
    with pytest.raises(DisconnectedError, match=r"no SEM PC called .* within 0\.2 s"):
        registry.open_microscope("hitachi", options, clock=SystemClock())


def test_a_call_from_elsewhere_is_turned_away(sem, tmp_path):
    with pytest.raises(DisconnectedError, match=r"127\.0\.0\.1 called and was turned away"):
        opened(sem, tmp_path, peer="192.0.2.7", connect_timeout_s=0.3)


def test_a_port_open_to_the_network_needs_to_know_who_calls(tmp_path):
    options = {"folder": str(tmp_path), "bind": "0.0.0.0"}
    with pytest.raises(ConfigError, match="peer has to name the SEM PC"):
        registry.open_microscope("hitachi", options, clock=SystemClock())


def test_the_folder_has_to_be_there(tmp_path):
    with pytest.raises(ConfigError, match="there is no folder"):
        registry.open_microscope("hitachi", {"folder": str(tmp_path / "none")}, clock=SystemClock())


def test_somebody_else_who_calls_is_not_taken_for_a_sem(tmp_path):
    port = free_port()

    def talk():
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5.0) as connection:
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n")
                    connection.recv(100)
            except ConnectionRefusedError:
                continue
            return

    caller = threading.Thread(target=talk)
    caller.start()
    options = {"folder": str(tmp_path), "port": port, "connect_timeout_s": 5.0}
    with pytest.raises(DisconnectedError, match="speaks another language"):
        registry.open_microscope("hitachi", options, clock=SystemClock())
    caller.join()


def test_questions_are_lines_of_text_with_whole_numbers(microscope, sem):
    microscope.apply(SetWorkingDistance(working_distance_m=5.0114e-3))
    assert "Set WD HM 5011" in sem.calls
    microscope.apply(SetStigmator(x=1.0, y=-0.5))
    assert "Set STIGMAXY EXECUTE 65535,16384" in sem.calls


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"frozen": True}, r"image is frozen \(FREEZE\); press Run"),
        ({"low_mag": True}, "low-magnification mode"),
        ({"scan_mode": 2}, "spot or an area"),
    ],
)
def test_focus_is_refused_in_words_where_the_sem_says_ng(microscope, sem, state, says):
    for name, value in state.items():
        setattr(sem, name, value)
    with pytest.raises(CommandRefusedError, match=says):
        microscope.apply(SetWorkingDistance(working_distance_m=5.01e-3))
    with pytest.raises(CommandRefusedError, match=says):
        microscope.apply(SetStigmator(x=0.1, y=0.1))
    assert sem.wd_um == 5000
    assert sem.low_mag == state.get("low_mag", False), "the mode is the operator's"


def test_paramerror_is_a_refusal(sem, tmp_path):
    microscope = opened(sem, tmp_path, working_distance_range_mm=(1.0, 50.0))
    with pytest.raises(CommandRefusedError, match="Set WD HM 45000: PARAMERROR"):
        microscope.apply(SetWorkingDistance(working_distance_m=45e-3))
    microscope.close()


def test_what_the_interface_has_not_is_refused(microscope):
    for action in (SetBlanked(blanked=True), SetScan(frame_averages=2), SetScan(dwell_s=1e-6)):
        with pytest.raises(CommandRefusedError):
            microscope.apply(action)


# -- settling -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "call"),
    [
        (SetWorkingDistance(working_distance_m=5.01e-3), "Set WD HM 5010"),
        (SetStigmator(x=0.5, y=-0.25), "Set STIGMAXY EXECUTE 49152,24576"),
    ],
)
def test_ok_is_not_done(microscope, sem, action, call):
    sem.settle_s = 0.1
    microscope.apply(action)
    assert sem.calls[sem.calls.index(call) :].count("Get InstructName ALL") > 1


def test_what_never_settles_is_given_up(sem, tmp_path):
    microscope = opened(sem, tmp_path, settle_timeout_s=0.2)
    sem.settle_s = 60.0
    with pytest.raises(MicroscopeError, match=r"no settled focus within 0\.2 s"):
        microscope.apply(SetWorkingDistance(working_distance_m=5.01e-3))
    microscope.close()


def test_ok_and_nothing_done_is_found_out(microscope, sem):
    sem.deaf = True
    with pytest.raises(MicroscopeError, match="accepted working distance"):
        microscope.apply(SetWorkingDistance(working_distance_m=5.01e-3))


# -- the stage ----------------------------------------------------------------------------------


def test_one_axis_leaves_the_others_and_tilt_above_all(microscope, sem):
    microscope.apply(MoveStage(x_m=0.0551))
    assert sem.position == [55_100_000, 50_000_000, 10_000_000, 2_000, 90_000]
    microscope.apply(MoveStage(rotation_rad=math.pi / 4))
    assert sem.position[4] == 45_000


def test_less_than_a_step_is_not_worth_a_move(microscope, sem):
    microscope.apply(MoveStage(x_m=0.055 + 20e-9))
    assert not any(call.startswith("Set STAGEUNIT") for call in sem.calls)


def test_the_ends_of_the_stage_come_from_the_instrument(microscope):
    with pytest.raises(CommandRefusedError, match=r"200 mm is outside 0 mm to 110 mm"):
        microscope.apply(MoveStage(x_m=0.2))
    with pytest.raises(CommandRefusedError, match=r"stage tilt 85\.9437° is outside -5° to 70°"):
        microscope.apply(MoveStage(tilt_rad=1.5))


def test_a_stop_stops_the_stage(microscope, sem):
    sem.settle_s = 20.0
    timer = threading.Timer(0.1, microscope.stop)
    timer.start()
    with pytest.raises(MicroscopeError, match="stopped on its way"):
        microscope.apply(MoveStage(x_m=0.0551))
    timer.join()
    assert sem.calls[-1] == "Set STAGE STOP *"


def test_a_move_whose_stop_the_sem_refuses_is_not_refused(sem, tmp_path, monkeypatch):
    take = sem._take
    monkeypatch.setattr(
        sem, "_take", lambda main, *rest: "NG" if main == "STAGE" else take(main, *rest)
    )
    microscope = opened(sem, tmp_path, move_timeout_s=0.2)
    sem.settle_s = 3600.0
    with pytest.raises(MicroscopeTimeoutError, match="no end of the move"):
        microscope.apply(MoveStage(x_m=0.056))
    microscope.close()


def test_a_stage_that_nobody_can_watch_any_more_is_stopped(microscope, sem, monkeypatch):
    answer = sem._answer

    def lost_sight(line, *, failing):
        moves = any(call.startswith("Set STAGEUNIT") for call in sem.calls)
        return answer(line, failing=failing or (moves and "InstructName" in line))

    monkeypatch.setattr(sem, "_answer", lost_sight)
    with pytest.raises(MicroscopeError, match="answered with NG"):
        microscope.apply(MoveStage(x_m=0.056))
    assert sem.calls[-1] == "Set STAGE STOP *"


def test_a_stage_that_has_not_begun_yet_has_not_arrived(sem, tmp_path):
    sem.start_s, sem.move_s = 0.1, 0.2
    microscope = opened(sem, tmp_path)
    microscope.apply(MoveStage(x_m=0.056))
    assert sem.position[0] == 56_000_000
    microscope.close()


def test_a_stage_that_begins_too_late_is_stopped(sem, tmp_path):
    sem.start_s, sem.move_s = 0.5, 0.5
    microscope = opened(sem, tmp_path, stage_settle_s=0.1)
    with pytest.raises(MicroscopeError, match="accepted stage x"):
        microscope.apply(MoveStage(x_m=0.056))
    time.sleep(0.6)
    assert sem.position[0] == 55_000_000
    microscope.close()


def test_a_stage_that_does_not_arrive_is_stopped(sem, tmp_path):
    microscope = opened(sem, tmp_path, move_timeout_s=0.2)
    sem.settle_s = 3600.0
    with pytest.raises(MicroscopeTimeoutError, match=r"no end of the move within 0\.2 s"):
        microscope.apply(MoveStage(x_m=0.0551))
    assert sem.calls[-1] == "Set STAGE STOP *"
    microscope.close()


# -- images -------------------------------------------------------------------------------------


def test_a_capture_leaves_the_scan_running(microscope, sem):
    frame = microscope.acquire(10.0)
    assert not sem.frozen
    assert frame.header.detector == "SE"
    microscope.apply(SetWorkingDistance(working_distance_m=5.01e-3))


def test_the_image_before_is_not_taken_for_the_new_one(microscope, sem):
    first = microscope.acquire(10.0)
    sem.wd_um = 5200
    sem.capture_s = 0.1
    second = microscope.acquire(10.0)
    assert second.pixels.std() < first.pixels.std()


def test_another_size_is_named(sem, tmp_path):
    microscope = opened(sem, tmp_path, width_px=256)
    with pytest.raises(MicroscopeError, match="has 128 x 96 pixels, not 256 x 96"):
        microscope.acquire(10.0)
    assert not sem.frozen
    microscope.close()


def test_the_information_bar_is_told(sem, tmp_path):
    microscope = opened(sem, tmp_path, info_bar_px=16)
    assert microscope.acquire(10.0).specimen.shape == (80, 128)
    microscope.close()


def test_the_pixel_size_comes_from_the_magnification(microscope):
    assert microscope.read_state().scan.pixel_size_m == pytest.approx(0.127 / 20_000 / 128)


@pytest.mark.parametrize(("rotation", "others"), [((0, 1805), 0), ((1, 1805), 1), ((1, 0), 0)])
def test_a_scan_that_is_turned_is_another(microscope, sem, rotation, others):
    first = microscope.read_state().settings_rev  # off, with an angle that stays
    sem.rotation = rotation
    assert microscope.read_state().settings_rev == first + others


def test_a_sem_pc_that_does_not_tell_the_rotation_works_without(sem, tmp_path):
    sem.rotation = None
    microscope = opened(sem, tmp_path)
    assert microscope.acquire(10.0).header.faults == ()
    microscope.close()


def test_an_image_that_nobody_waited_for_does_not_pass_for_the_next(sem, tmp_path):
    microscope = opened(sem, tmp_path)
    sharp = microscope.acquire(10.0).pixels.std()
    sem.capture_s, sem.late_s = 0.3, 0.4
    microscope.apply(SetWorkingDistance(working_distance_m=0.006))  # far out of focus
    threading.Timer(0.5, microscope.stop).start()
    with pytest.raises(AcquisitionStoppedError):
        microscope.acquire(10.0)
    microscope.apply(SetWorkingDistance(working_distance_m=0.005))
    assert microscope.acquire(10.0).pixels.std() == pytest.approx(sharp, rel=0.1)
    microscope.close()


def test_half_an_image_is_no_image(tmp_path):
    pixels = np.arange(35, dtype=np.uint8).reshape(5, 7)
    whole = bitmap(pixels)
    assert is_whole(whole)
    assert not is_whole(whole[:-1])
    assert not is_whole(whole[:10])
    assert np.array_equal(grey(whole), pixels)
    wait = Wait(SystemClock(), 1.0, threading.Event())
    folder, path = ImageFolder(tmp_path, "*.bmp"), tmp_path / "C_Image_1.bmp"
    before = folder.stamps(wait)
    assert folder.newer(before, whole_file) is None
    path.write_bytes(whole[:-1])
    assert folder.newer(before, whole_file) is None
    path.write_bytes(whole)
    assert folder.newer(before, whole_file) == whole
    assert folder.newer(folder.stamps(wait), whole_file) is None


@pytest.mark.parametrize("size", [0, 10])
def test_a_bitmap_whose_size_was_left_out_is_whole_once_all_rows_are_there(size):
    whole = bytearray(bitmap(np.arange(35, dtype=np.uint8).reshape(5, 7)))
    struct.pack_into("<I", whole, 2, size)
    assert not is_whole(bytes(whole[:-1]))
    assert is_whole(bytes(whole))


@pytest.mark.parametrize(("place", "value"), [(18, 0), (18, -7), (22, 0)])
def test_a_bitmap_of_no_size_is_none(place, value):
    data = bytearray(bitmap(np.arange(35, dtype=np.uint8).reshape(5, 7)))
    struct.pack_into("<i", data, place, value)
    with pytest.raises(MicroscopeError, match="something else than a bitmap"):
        grey(bytes(data))


def test_bitmaps_of_24_bits_are_read_if_they_are_grey():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    rows = np.repeat(pixels, 3, axis=1)  # from the top: the height is negative
    header = struct.pack("<2sIHHIIiiHHI", b"BM", 54 + 36, 0, 0, 54, 40, 4, -3, 1, 24, 0)
    data = header + bytes(54 - len(header)) + rows.tobytes()
    assert np.array_equal(grey(data), pixels)
    coloured = bytearray(data)
    coloured[54] += 1
    with pytest.raises(MicroscopeError, match="coloured"):
        grey(bytes(coloured))
    with pytest.raises(MicroscopeError, match="something else than a bitmap"):
        grey(b"\x89PNG" + data[4:])
