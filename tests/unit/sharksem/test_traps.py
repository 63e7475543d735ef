"""SharkSEM's traps, over real sockets, and those that other programs have fallen into."""

import math
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
from semagent.types import (
    FrameFault,
    MoveStage,
    Region,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
)
from semagent_drivers.fakes import Fault
from semagent_drivers.sharksem.fake import FakeSharkSem
from semagent_drivers.sharksem.fake.functions import Functions


@pytest.fixture
def fake():
    with FakeSharkSem() as fake:
        yield fake


@pytest.fixture
def instrument(fake):
    return fake.instrument


def opened(fake, **options):
    given = {
        "port": fake.port,
        "data_port": fake.data_port,
        "stage_update_s": 0.05,
        "scan": {"width_px": 192, "height_px": 128, "dwell_us": 0.1},
        **options,
    }
    return registry.open_microscope("sharksem", given, clock=SystemClock())


@pytest.fixture
def microscope(fake):
    microscope = opened(fake)
    yield microscope
    microscope.close()


# -- questions and answers --------------------------------------------------------------------


def test_everything_it_says_is_in_si_units(microscope):
    state = microscope.read_state()
    optics, there = state.optics, state.stage
    assert (optics.accelerating_voltage_v, optics.beam_current_a) == (5000.0, 1e-10)
    assert state.scan.pixel_size_m == pytest.approx(10.24e-6 / 192)
    assert (there.x_m, there.y_m, there.z_m) == pytest.approx((0.5e-3, -0.25e-3, 10e-3))
    assert there.rotation_rad == pytest.approx(math.pi / 6)
    assert there.tilt_rad == pytest.approx(math.pi / 36)


def test_the_beam_is_shifted_no_farther_than_is_configured(fake):
    microscope = opened(fake, beam_shift_range_um=20.0)
    with pytest.raises(
        CommandRefusedError, match=r"beam shift y -21 µm is outside -20 µm to 20 µm"
    ):
        microscope.apply(SetBeamShift(x_m=0.0, y_m=-21e-6))
    microscope.close()


def test_answers_that_another_version_gives_are_not_taken_for_others(microscope, instrument):
    instrument.talkative = True
    for distance_m in (8.01e-3, 8.02e-3):
        microscope.apply(SetWorkingDistance(working_distance_m=distance_m))
        frame = microscope.acquire(10.0)
        assert frame.header.optics.working_distance_m == distance_m
        assert frame.header.faults == ()
    microscope.apply(SetBlanked(blanked=True))
    microscope.apply(MoveStage(x_m=1e-3))
    state = microscope.read_state()
    assert state.optics.blanked
    assert state.stage.x_m == pytest.approx(1e-3)


def test_a_peer_that_speaks_something_else_is_a_lost_link(microscope, fake, monkeypatch):
    send = fake.send
    garbage = b"HTTP/1.1 400 Bad Request\r\n" * 8
    monkeypatch.setattr(fake, "send", lambda connection, data: send(connection, garbage))
    for _ in range(2):
        with pytest.raises(DisconnectedError, match="not SharkSEM"):
            microscope.read_state()


# -- focus and stigmators ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "action", [SetWorkingDistance(working_distance_m=8.01e-3), SetStigmator(x=0.1, y=0.2)]
)
def test_the_beam_is_waited_for_while_the_optics_are_busy(microscope, instrument, action):
    instrument.settle_s = 0.15
    started_s = time.perf_counter()
    microscope.apply(action)
    assert time.perf_counter() - started_s >= 0.15


def test_optics_that_stay_busy_are_not_waited_for_for_ever(fake, instrument):
    microscope = opened(fake, settle_timeout_s=0.1)
    instrument.settle_s = 30.0
    with pytest.raises(MicroscopeTimeoutError, match=r"settling within 0\.1 s"):
        microscope.apply(SetWorkingDistance(working_distance_m=8.01e-3))
    microscope.close()


def test_focus_that_the_microscope_clamps_does_not_pass_as_done(fake):
    microscope = opened(fake, working_distance_range_mm=(2.0, 150.0))
    with pytest.raises(
        MicroscopeError, match=r"accepted working distance 130 mm but reads back 120 mm"
    ):
        microscope.apply(SetWorkingDistance(working_distance_m=0.13))
    microscope.close()


def test_the_field_follows_the_focus_and_that_voids_nothing(microscope):
    before = microscope.read_state()
    microscope.apply(SetWorkingDistance(working_distance_m=8.5e-3))
    after = microscope.read_state()
    assert after.scan.pixel_size_m > before.scan.pixel_size_m
    assert after.settings_rev == before.settings_rev


def test_the_stigmators_are_the_centering_of_that_name_in_percent(microscope, instrument):
    optics = microscope.read_state().optics
    assert (optics.stigmator_x, optics.stigmator_y) == (0.015, -0.005)
    microscope.apply(SetStigmator(x=-0.25, y=1.0))
    assert instrument.centerings == {0: (1.0, 2.0), 1: (3.0, 4.0), 2: (-25.0, 100.0)}


def test_a_stigmator_that_is_not_set_does_not_pass_as_set(microscope, instrument):
    instrument.deaf.add("SetCentering")
    with pytest.raises(MicroscopeError, match="accepted stigmator x"):
        microscope.apply(SetStigmator(x=0.1, y=0.1))


def test_a_centering_that_is_not_there_is_an_error(fake):
    with pytest.raises(ConfigError, match=r"stigmator_centering 5 is not .*OBJ Centering"):
        opened(fake, stigmator_centering=5)


def test_a_scan_that_is_turned_is_another(microscope, instrument):
    first = microscope.read_state().settings_rev
    instrument.rotation_deg = 30.0
    assert microscope.read_state().settings_rev == first + 1


def test_several_rotations_are_none_that_could_be_told(fake, instrument, monkeypatch):
    named = "geom.0.name=Scan Rotation\ngeom.1.name=Image Rotation\n"
    monkeypatch.setattr(Functions, "EnumGeometries", lambda its, body: (named,))
    microscope = opened(fake)
    first = microscope.read_state().settings_rev
    instrument.rotation_deg = 30.0
    assert microscope.read_state().settings_rev == first
    microscope.close()


# -- frames -----------------------------------------------------------------------------------


def test_a_lost_packet_is_an_incomplete_frame_and_the_next_one_is_whole(microscope, instrument):
    instrument.lose = {2}
    frame = microscope.acquire(10.0)
    assert frame.header.faults == (FrameFault.INCOMPLETE,)
    assert not frame.pixels[32:48].any()
    assert frame.pixels[48:].any()
    instrument.lose = set()
    frame = microscope.acquire(10.0)
    assert frame.header.faults == ()
    assert frame.pixels[32:48].any()


def test_a_lost_end_is_an_incomplete_frame_after_a_while(fake, instrument):
    microscope = opened(fake, call_timeout_s=0.3)
    instrument.lose = {7}
    assert microscope.acquire(10.0).header.faults == (FrameFault.INCOMPLETE,)
    microscope.close()


def test_a_frame_of_which_nothing_comes_is_an_error(fake, instrument):
    microscope = opened(fake, call_timeout_s=0.3)
    instrument.lose = set(range(8))
    with pytest.raises(MicroscopeTimeoutError, match="not one pixel"):
        microscope.acquire(10.0)
    microscope.close()


def test_one_hole_in_one_of_the_averaged_scans_counts(microscope, instrument):
    microscope.apply(SetScan(frame_averages=3))
    instrument.lose = {0}
    assert microscope.acquire(10.0).header.faults == (FrameFault.INCOMPLETE,)


def test_the_scan_is_stopped_after_every_frame_and_after_a_stop(fake, instrument):
    microscope = opened(fake, scan={"width_px": 192, "height_px": 128, "dwell_us": 100.0})
    timer = threading.Timer(0.1, microscope.stop)
    timer.start()
    with pytest.raises(AcquisitionStoppedError):
        microscope.acquire(60.0)
    timer.join()
    assert instrument.stops == instrument.scans * 2  # before it and after it
    microscope.close()


def test_a_stop_in_the_middle_of_a_packet_leaves_the_next_frame_whole(
    fake, microscope, monkeypatch
):
    send, cut = fake._data.send, threading.Event()

    def in_two(connection, data):
        if len(data) > 1000 and not cut.is_set():
            cut.set()
            send(connection, data[:500])
            microscope.stop()
            time.sleep(0.2)  # the driver lets go meanwhile
            data = data[500:]
        send(connection, data)

    monkeypatch.setattr(fake._data, "send", in_two)
    with pytest.raises(AcquisitionStoppedError):
        microscope.acquire(10.0)
    frame = microscope.acquire(10.0)
    assert frame.header.faults == ()
    assert frame.pixels.std() > 5


def test_live_scan_and_channel_are_as_they_were(microscope, instrument):
    instrument.live_scan, instrument.channel = 1, [0, 16]
    microscope.acquire(10.0)
    assert (instrument.live_scan, instrument.channel) == (1, [0, 16])
    instrument.live_scan, instrument.channel = 0, [1, 8]
    microscope.acquire(10.0)
    assert (instrument.live_scan, instrument.channel) == (0, [1, 8])


def test_a_live_scan_that_cannot_be_stopped_is_named(microscope, instrument):
    instrument.deaf.add("GUISetScanning")
    with pytest.raises(MicroscopeError, match="live scan did not go off"):
        microscope.acquire(10.0)


def test_sixteen_bits_and_a_region(fake):
    microscope = opened(fake, scan={"width_px": 256, "height_px": 128, "bit_depth": 16})
    microscope.apply(SetScan(region=Region(left=0.5, top=0.25, width=0.5, height=0.5)))
    frame = microscope.acquire(10.0)
    assert frame.pixels.dtype == np.uint16
    assert frame.pixels.shape == (64, 128)
    microscope.close()


@pytest.mark.parametrize(
    ("beam", "selected", "says"), [(0, 0, "beam is not on"), (1, -1, "no detector")]
)
def test_a_frame_that_would_show_nothing_is_not_taken(microscope, instrument, beam, selected, says):
    instrument.beam, instrument.selected = beam, selected
    with pytest.raises(MicroscopeError, match=says):
        microscope.acquire(10.0)


def test_the_detector_is_named(microscope, instrument):
    instrument.selected = 1
    assert microscope.acquire(10.0).header.detector == "BSE"


# -- blanker ----------------------------------------------------------------------------------


def test_blanked_is_always_off_and_not_automatic(microscope, instrument):
    microscope.apply(SetBlanked(blanked=True))
    assert instrument.blanker_mode == 1
    with pytest.raises(MicroscopeError, match="beam is blanked"):
        microscope.acquire(10.0)
    microscope.apply(SetBlanked(blanked=False))
    assert instrument.blanker_mode == 2  # on while scanning only, as the user had it


@pytest.mark.parametrize("modes", [{0, 2}, set()])
def test_a_blanker_that_cannot_hold_the_beam_off_says_so(microscope, instrument, modes):
    instrument.blanker_modes = modes
    with pytest.raises(CommandRefusedError, match=r"did not take mode 1 but reads 2.*gun blanker"):
        microscope.apply(SetBlanked(blanked=True))
    assert (instrument.blanker_mode, instrument.blanker_wish) == (2, None)


def test_a_live_scan_does_not_delay_the_blanking(microscope, instrument):
    instrument.live_scan = 1
    microscope.apply(SetBlanked(blanked=True))
    assert (instrument.blanker_mode, instrument.live_scan) == (1, 1)


# -- stage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("six_axes", [False, True])
def test_one_axis_moves_and_the_others_stay(microscope, instrument, six_axes):
    instrument.six_axes = six_axes
    microscope.apply(MoveStage(x_m=1e-3))
    microscope.apply(MoveStage(z_m=12e-3))
    assert instrument.position == pytest.approx([1.0, -0.25, 12.0, 30.0, 5.0, 0.0])
    assert instrument.position[3:] == [30.0, 5.0, 0.0]


def test_a_rotation_that_is_whole_turns_off_has_arrived(fake, instrument, monkeypatch):
    def turned(functions, body):
        x, y, z, rotation, tilt, _ = instrument.position
        return x, y, z, rotation + 360, tilt

    monkeypatch.setattr(Functions, "StgGetPosition", turned)
    microscope = opened(fake, stage_update_s=5.0)
    started_s = time.perf_counter()
    microscope.apply(MoveStage(rotation_rad=0.1))
    assert time.perf_counter() - started_s < 5.0
    assert instrument.position[3] == pytest.approx(math.degrees(0.1))
    microscope.close()


def test_axes_without_a_motor_cannot_be_moved(microscope):
    assert microscope.capabilities.stage_axes == ("x_m", "y_m", "z_m", "rotation_rad")


def test_a_move_that_is_ignored_does_not_pass_as_done(microscope, instrument):
    instrument.deaf.add("StgMoveTo")
    with pytest.raises(MicroscopeError, match=r"accepted stage x 1 mm but reads back 0\.5 mm"):
        microscope.apply(MoveStage(x_m=1e-3))


def test_a_stage_that_would_ignore_a_move_is_not_asked(microscope, instrument):
    instrument.calibrated = 0
    with pytest.raises(CommandRefusedError, match="not calibrated"):
        microscope.apply(MoveStage(x_m=1e-3))
    instrument.calibrated = 1
    instrument.stage_until_s = time.perf_counter() + 30
    with pytest.raises(CommandRefusedError, match="moving already"):
        microscope.apply(MoveStage(x_m=1e-3))
    assert instrument.position[0] == 0.5


def test_a_move_is_stopped_on_its_way(microscope, instrument):
    instrument.move_s = 30.0
    timer = threading.Timer(0.1, microscope.stop)
    timer.start()
    with pytest.raises(MicroscopeError, match="stopped on its way"):
        microscope.apply(MoveStage(x_m=1e-3))
    timer.join()
    microscope.read_state()  # StgStop answers nothing; this comes behind it
    assert instrument.stage_until_s == 0.0


def test_a_tiny_move_does_not_start_the_anti_backlash(microscope, instrument):
    instrument.deaf.add("StgMoveTo")
    microscope.apply(MoveStage(x_m=0.5e-3 + 5e-9))


# -- link -------------------------------------------------------------------------------------


def test_an_old_version_is_not_asked_what_it_would_never_answer(fake, instrument):
    instrument.version = "2.0.210300USB"
    instrument.deaf |= {"StgGetLimits", "GetBeamCurrent"}
    microscope = opened(fake, call_timeout_s=0.5)
    assert microscope.capabilities.stage_axes == ()
    assert microscope.read_state().optics.beam_current_a is None
    assert microscope.read_state().stage.x_m == 0.5e-3
    microscope.close()


def test_a_link_that_breaks_within_a_frame_ends_it(fake):
    microscope = opened(fake, scan={"width_px": 192, "height_px": 128, "dwell_us": 1000.0})
    timer = threading.Timer(0.2, fake.hang_up)
    timer.start()
    started_s = time.perf_counter()
    with pytest.raises(DisconnectedError):
        microscope.acquire(60.0)
    assert time.perf_counter() - started_s < 2.0
    timer.join()
    microscope.close()


def test_nobody_there(fake):
    with pytest.raises(DisconnectedError, match="cannot be reached"):
        opened(fake, data_port=fake.port, port=1)


def test_no_data_connection(fake):
    fake.trip.arm(Fault.FAIL, 1)
    with pytest.raises(MicroscopeError, match="TcpRegDataPort"):
        opened(fake)
