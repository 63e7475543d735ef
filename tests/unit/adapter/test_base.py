"""What the base of all adapters promises, on a small vendor with bad habits."""

import math
import threading
import time

import numpy as np
import pytest

from semagent.clock import ManualClock, SystemClock
from semagent.errors import (
    AcquisitionStoppedError,
    CommandRefusedError,
    DisconnectedError,
    MicroscopeError,
    MicroscopeTimeoutError,
    NotReadyError,
)
from semagent.testing import MicroscopeConformance, MicroscopeFaults, Rig
from semagent.types import (
    FrameFault,
    MoveStage,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetWorkingDistance,
    StagePosition,
)
from semagent_drivers.adapter import SdkThread
from semagent_drivers.fakes import Fault, Trip

from . import vendor


@pytest.fixture
def instrument():
    return vendor.Instrument()


@pytest.fixture
def microscope(instrument):
    microscope = vendor.open_vendor(instrument, ManualClock())
    yield microscope
    microscope.close()


class TestFaults(MicroscopeFaults):
    driver = "vendor"

    @pytest.fixture
    def rig(self, instrument):
        trip = Trip()
        yield Rig({"instrument": instrument, "trip": trip}, trip, instrument.optics)
        trip.disarm()

    def open_microscope(self, options):
        return vendor.open_vendor(clock=SystemClock(), **options)


class TestConformance(MicroscopeConformance):
    driver = "vendor"

    @pytest.fixture
    def microscope(self, instrument):
        microscope = vendor.open_vendor(instrument, SystemClock())
        yield microscope
        microscope.close()

    @pytest.mark.skip("this vendor has no options")
    def test_an_unknown_option_is_an_error_that_names_it(self):
        pass


def test_the_suite_finds_numbers_that_cannot_be_recorded(microscope, instrument):
    suite = MicroscopeConformance()
    suite.test_what_it_says_can_be_sent_and_recorded(microscope)
    instrument.wd_mm = np.float64(8.0)
    with pytest.raises(TypeError, match=r"numpy\.float64 is unsupported"):
        suite.test_what_it_says_can_be_sent_and_recorded(microscope)


def test_a_refusal_of_the_vendor_is_one_with_its_words(microscope, instrument):
    with pytest.raises(CommandRefusedError, match=r"Vendor 1 refused .*0\.055.*E23") as raised:
        microscope.apply(SetWorkingDistance(working_distance_m=0.055))
    assert isinstance(raised.value.__cause__, vendor.VendorRefusalError)
    assert instrument.wd_mm == 8.0


def test_out_of_range_never_reaches_the_vendor():
    instrument, trip = vendor.Instrument(), Trip()
    microscope = vendor.open_vendor(instrument, ManualClock(), trip)
    with pytest.raises(CommandRefusedError, match=r"70 mm is outside 1 mm to 60 mm"):
        microscope.apply(SetWorkingDistance(working_distance_m=0.07))
    with pytest.raises(CommandRefusedError, match="beam shift cannot be set"):
        microscope.apply(SetBeamShift(x_m=0.0, y_m=0.0))
    with pytest.raises(CommandRefusedError, match="stage axis z_m cannot be moved"):
        microscope.apply(MoveStage(z_m=0.0))
    with pytest.raises(CommandRefusedError, match=r"9 scans is outside 1 to 8 scans"):
        microscope.apply(SetScan(frame_averages=9))
    with pytest.raises(CommandRefusedError, match="dwell cannot be set"):
        microscope.apply(SetScan(dwell_s=1e-6))
    assert trip.calls == 0
    microscope.close()


@pytest.mark.parametrize("reads_mm", [8.0, math.nan])
def test_an_ignored_command_does_not_pass_as_done(microscope, instrument, reads_mm):
    instrument.deaf, instrument.wd_mm = True, reads_mm
    with pytest.raises(MicroscopeError, match=r"accepted working distance 8\.1 mm but reads"):
        microscope.apply(SetWorkingDistance(working_distance_m=0.0081))


def test_a_rotation_that_differs_by_whole_turns_has_arrived(microscope):
    there = StagePosition(rotation_rad=3.1 - 2 * math.pi)
    microscope.stage_arrived({"rotation_rad": 3.1}, there, {"rotation_rad": 1e-3})
    with pytest.raises(MicroscopeError, match="accepted stage rotation"):
        microscope.stage_arrived({"rotation_rad": 3.0}, there, {"rotation_rad": 1e-3})


def test_a_blanked_beam_takes_no_frame_and_stays_blanked(microscope, instrument):
    microscope.apply(SetBlanked(blanked=True))
    instrument.grab = None  # calling it would fail
    with pytest.raises(MicroscopeError, match="unblank it before"):
        microscope.acquire(1.0)
    assert instrument.blanked


def test_a_move_keeps_tilt_and_focus_and_a_tiny_one_is_skipped(microscope, instrument):
    microscope.apply(MoveStage(x_m=1e-5))
    assert (instrument.x_mm, instrument.tilt_deg, instrument.wd_mm) == (1e-2, 10.0, 8.0)
    instrument.move_to = None  # calling it would fail
    microscope.apply(MoveStage(x_m=1.0001e-5))


def test_what_could_not_be_put_back_is_named():
    instrument, trip = vendor.Instrument(), Trip()
    microscope = vendor.open_vendor(instrument, ManualClock(), trip)
    microscope.read_state()
    reading = trip.calls
    trip.arm(Fault.FAIL, reading + 2)  # the call after the grab
    with pytest.raises(MicroscopeError, match="not put back: blanker") as raised:
        microscope.acquire(1.0)
    assert isinstance(raised.value.__cause__, MicroscopeError)
    assert instrument.blanked
    microscope.close()


def test_flicker_is_no_change_of_settings_but_a_creep_is(microscope, instrument):
    first = microscope.read_state().settings_rev
    instrument.kilovolts = 5.02
    assert microscope.read_state().settings_rev == first
    instrument.kilovolts = 5.06  # each step is small, the way from the first is not
    assert microscope.read_state().settings_rev == first + 1
    assert microscope.acquire(1.0).header.settings_rev == first + 1


@pytest.mark.parametrize(
    "turned",
    [
        {"wd_mm": 8.0005},
        {"stigmator_percent": (0.5, 0.0)},
        {"stigmator_percent": (0.0, 0.5)},
        {"kilovolts": 10.0},
        {"rotation_rad": 0.1},
    ],
)
def test_a_frame_during_which_somebody_turns_a_knob_is_neither_of_before_nor_after(
    microscope, instrument, turned
):
    instrument.while_exposing = turned
    assert microscope.acquire(1.0).header.faults == (FrameFault.CHANGED,)
    assert microscope.acquire(1.0).header.faults == ()


@pytest.mark.parametrize("turned_rad", [None, 0.002, -math.pi])
def test_frames_of_a_scan_that_was_turned_are_not_to_be_compared(
    microscope, instrument, turned_rad
):
    first = microscope.acquire(1.0).header.settings_rev
    for same_rad in (1e-4, -1e-4, 2 * math.pi):
        instrument.rotation_rad = same_rad
        assert microscope.acquire(1.0).header.settings_rev == first
    instrument.rotation_rad = turned_rad
    assert microscope.acquire(1.0).header.settings_rev == first + 1


def test_a_focus_that_flickers_is_not_turned(microscope, instrument):
    instrument.while_exposing = {"wd_mm": 8.0001}
    assert microscope.acquire(1.0).header.faults == ()


def test_frames_of_another_detector_are_not_to_be_compared(microscope, instrument):
    first = microscope.read_state().settings_rev
    assert microscope.acquire(1.0).header.settings_rev == first
    instrument.detector = "InLens"
    assert microscope.acquire(1.0).header.settings_rev == first + 1
    assert microscope.acquire(1.0).header.settings_rev == first + 1
    assert microscope.read_state().settings_rev == first + 1


def test_two_frames_of_one_moment_have_an_order(microscope):
    first, second = (microscope.acquire(1.0).header.monotonic_ns for _ in range(2))
    assert second > first


def test_a_frame_carries_the_time_of_day(instrument):
    microscope = vendor.open_vendor(instrument, SystemClock())
    before_ns = time.time_ns()
    header = microscope.acquire(5.0).header
    assert before_ns <= header.wall_ns <= time.time_ns()
    microscope.close()


def test_no_exposure_begins_once_the_time_for_it_is_over(instrument, monkeypatch):
    clock = ManualClock()
    microscope = vendor.open_vendor(instrument, clock)
    monkeypatch.setattr(instrument, "pixel_size_m", lambda: clock.sleep(2.0) or 10e-9)
    monkeypatch.setattr(instrument, "grab", lambda: pytest.fail("exposed"))
    with pytest.raises(MicroscopeTimeoutError, match="no frame within 1 s"):
        microscope.acquire(1.0)
    microscope.close()


def test_a_blanked_beam_waits_for_a_person(microscope, instrument):
    instrument.blanked = True
    with pytest.raises(NotReadyError, match="unblank it before a frame is taken"):
        microscope.acquire(1.0)
    assert instrument.blanked


@pytest.mark.parametrize("follows", [False, True])
def test_a_field_that_follows_the_focus_is_no_change_but_a_zoom_is(microscope, instrument, follows):
    instrument.field_follows = follows
    first = microscope.read_state().settings_rev
    for wd_mm in (8.5, 7.0, 8.0):
        instrument.wd_mm = wd_mm
        assert microscope.acquire(1.0).header.settings_rev == first
    instrument.pixel_m *= 1.02
    assert microscope.acquire(1.0).header.settings_rev == first + 1


def test_a_lost_link_stays_lost():
    trip = Trip()
    microscope = vendor.open_vendor(vendor.Instrument(), ManualClock(), trip)
    trip.arm(Fault.DROP, 1)
    with pytest.raises(DisconnectedError):
        microscope.read_state()
    trip.disarm()
    with pytest.raises(DisconnectedError, match="open it again"):
        microscope.read_state()
    assert trip.calls == 0
    microscope.close()


def test_stop_lets_go_of_a_call_that_cannot_be_ended(instrument):
    instrument.exposure_s = 30.0
    microscope = vendor.open_vendor(instrument, SystemClock(), call_timeout_s=5.0)
    # The blanker is put back as soon as the vendor has time for it.
    timers = threading.Timer(0.1, microscope.stop), threading.Timer(0.3, instrument.aborted.set)
    for timer in timers:
        timer.start()
    started_s = time.perf_counter()
    with pytest.raises(AcquisitionStoppedError):
        microscope.acquire(20.0)
    assert time.perf_counter() - started_s < 3.0
    for timer in timers:
        timer.join()
    assert instrument.blanked is False
    microscope.close()


def test_calls_behind_one_that_was_stopped_wait_for_its_end():
    thread, stopped, busy = SdkThread("Vendor"), threading.Event(), threading.Event()
    stopped.set()
    with pytest.raises(AcquisitionStoppedError):
        thread.call(lambda: busy.wait(5.0), timeout_s=5.0, what="expose", stopped=stopped)
    posted = []
    thread.post(lambda: posted.append("blanker"))
    threading.Timer(0.2, busy.set).start()
    assert thread.call(lambda: "answer", timeout_s=0.05, what="answer") == "answer"
    assert posted == ["blanker"]
    thread.close()


def test_after_a_call_that_did_not_come_back_nothing_more_is_called():
    thread, busy = SdkThread("Vendor"), threading.Event()
    with pytest.raises(MicroscopeTimeoutError, match="did not expose within"):
        thread.call(lambda: busy.wait(5.0), timeout_s=0.05, what="expose")
    called = []
    with pytest.raises(DisconnectedError, match="an earlier call of Vendor has not come back"):
        thread.call(lambda: called.append(1), timeout_s=5.0, what="answer")
    thread.post(lambda: called.append(2))
    busy.set()
    thread.close()
    assert called == []


def test_a_thread_is_prepared_for_the_vendor_and_cleared_up():
    done = []
    thread = SdkThread(
        "Vendor",
        enter=lambda: done.append(("enter", threading.get_ident())),
        leave=lambda: done.append(("leave", threading.get_ident())),
    )
    there = thread.call(threading.get_ident, timeout_s=5.0, what="answer")
    thread.close()
    assert done == [("enter", there), ("leave", there)]
