"""The traps of TESCAN Automation."""

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
    MicroscopeError,
    MicroscopeTimeoutError,
)
from semagent.types import (
    MoveStage,
    Region,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
)
from semagent_drivers.tescan_automation import fake

OPTIONS = {
    "sdk": "semagent_drivers.tescan_automation.fake",
    "port": 1002,
    "x_range_mm": (-10.0, 10.0),
    "y_range_mm": (-10.0, 10.0),
    "stage_update_s": 0.02,
    "scan": {"width_px": 192, "height_px": 128, "dwell_us": 0.1},
}
HALF = Region(left=0.5, top=0.25, width=0.5, height=0.5)


@pytest.fixture
def instrument():
    instrument = fake.Instrument()
    fake.INSTRUMENTS[1002] = instrument
    yield instrument
    instrument.switch_off()
    del fake.INSTRUMENTS[1002]


def opened(**options):
    given = {**OPTIONS, **options}
    return registry.open_microscope("tescan-automation", given, clock=SystemClock())


@pytest.fixture
def microscope(instrument):
    microscope = opened()
    yield microscope
    microscope.close()


def test_without_the_package_people_are_told_how_to_get_it():
    with pytest.raises(ConfigError, match=r"tescan-automation needs .*tescanautomation.*licence"):
        opened(sdk="tescanautomation")


def test_what_it_cannot_do_it_does_not_claim(microscope):
    for action, says in (
        (SetStigmator(x=0.0, y=0.0), "stigmators cannot be set"),
        (SetBlanked(blanked=True), "cannot be blanked"),
        (SetBeamShift(x_m=0.0, y_m=0.0), "beam shift cannot be set"),
        (MoveStage(z_m=0.02), "z_m cannot be moved"),
    ):
        with pytest.raises(CommandRefusedError, match=says):
            microscope.apply(action)
    optics = microscope.read_state().optics
    assert (optics.stigmator_x, optics.blanked) == (None, None)


def test_focus_is_waited_for(microscope, instrument):
    instrument.settle_s = 0.15
    started_s = time.perf_counter()
    microscope.apply(SetWorkingDistance(working_distance_m=6.01e-3))
    assert time.perf_counter() - started_s >= 0.15
    assert microscope.read_state().optics.working_distance_m == 6.01e-3


def test_but_not_for_ever(instrument):
    microscope = opened(settle_timeout_s=0.1)
    instrument.settle_s = 30.0
    with pytest.raises(MicroscopeTimeoutError, match="settling"):
        microscope.apply(SetWorkingDistance(working_distance_m=6.01e-3))
    microscope.close()


def test_a_clamped_focus_does_not_pass_as_done(instrument):
    microscope = opened(working_distance_range_mm=(2.0, 150.0))
    with pytest.raises(MicroscopeError, match=r"accepted working distance 130 mm but reads"):
        microscope.apply(SetWorkingDistance(working_distance_m=0.13))
    microscope.close()


def test_everything_it_says_is_in_si_units(microscope, instrument):
    state = microscope.read_state()
    assert state.optics.accelerating_voltage_v == 5000.0
    assert state.scan.pixel_size_m == pytest.approx(10.24e-6 / 192)
    there = state.stage
    assert (there.x_m, there.y_m, there.z_m) == pytest.approx((1e-3, -2e-3, 20e-3))
    assert there.rotation_rad == pytest.approx(math.pi / 4)
    assert there.tilt_rad == pytest.approx(math.pi / 18)


def test_the_beam_is_shifted_no_farther_than_is_configured(instrument):
    microscope = opened(beam_shift_range_um=20.0)
    with pytest.raises(
        CommandRefusedError, match=r"beam shift y -21 µm is outside -20 µm to 20 µm"
    ):
        microscope.apply(SetBeamShift(x_m=0.0, y_m=-21e-6))
    microscope.close()


def test_a_scan_that_is_turned_is_another(microscope, instrument):
    first = microscope.read_state().settings_rev
    instrument.rotation_deg = 10.0
    assert microscope.read_state().settings_rev == first + 1


def test_a_move_that_is_ignored_does_not_pass_as_done(microscope, instrument):
    instrument.deaf = True
    with pytest.raises(MicroscopeError, match="accepted stage x"):
        microscope.apply(MoveStage(x_m=2e-3))


def test_one_axis_moves_and_the_others_are_sent_where_they_are(microscope, instrument):
    microscope.apply(MoveStage(x_m=2e-3))
    assert instrument.position == [2.0, -2.0, 20.0, 45.0, 10.0]


def test_a_stage_that_does_not_know_its_tilt_is_not_moved(microscope, instrument):
    instrument.position[4] = float("nan")
    with pytest.raises(MicroscopeError, match="nan for the stage position"):
        microscope.apply(MoveStage(x_m=2e-3))
    assert instrument.position[0] == 1.0
    assert microscope.read_state().stage.tilt_rad is None


def test_what_the_simulator_does_not_simulate_is_unknown(microscope, instrument):
    assert microscope.read_state().optics.beam_current_a is None
    instrument.current_pa = 100.0
    assert microscope.read_state().optics.beam_current_a == pytest.approx(100e-12)
    instrument.wd_mm = float("nan")
    with pytest.raises(MicroscopeError, match="gives nan for the"):
        microscope.read_state()


def test_whatever_scans_is_stopped_first_and_our_scan_afterwards(microscope, instrument):
    microscope.acquire(10.0)
    assert (instrument.live, instrument.stops) == (False, 2)


def test_the_last_pixels_of_a_region_belong_to_it(microscope):
    microscope.apply(SetScan(dwell_s=10e-6))
    whole = microscope.acquire(10.0)
    microscope.apply(SetScan(region=HALF))
    part = microscope.acquire(10.0)
    assert part.pixels.shape == (64, 96)
    middle = whole.pixels[32:96, 96:].astype(float)
    assert np.corrcoef(middle.ravel(), part.pixels.astype(float).ravel())[0, 1] > 0.5


def test_regions_have_eight_bits_only(instrument):
    microscope = opened(scan={"width_px": 192, "height_px": 128, "bit_depth": 16})
    assert microscope.acquire(10.0).pixels.dtype == np.uint16
    with pytest.raises(CommandRefusedError, match="region cannot be scanned"):
        microscope.apply(SetScan(region=HALF))
    microscope.close()


@pytest.mark.parametrize(
    ("beam", "selected", "says"),
    [("BeamOff", 0, "beam is not on"), ("BeamOn", None, "no detector")],
)
def test_a_frame_that_would_show_nothing_is_not_taken(microscope, instrument, beam, selected, says):
    instrument.beam, instrument.selected = beam, selected
    with pytest.raises(MicroscopeError, match=says):
        microscope.acquire(10.0)


def test_a_detector_by_name(instrument):
    microscope = opened(detector="In-Beam SE")
    assert microscope.acquire(10.0).header.detector == "In-Beam SE"
    microscope.close()
    with pytest.raises(ConfigError, match=r"'BSE' is not one of .*E-T, In-Beam SE"):
        opened(detector="BSE")


def test_a_stop_is_not_sent_from_another_thread(instrument):
    microscope = opened(scan={"width_px": 192, "height_px": 128, "dwell_us": 1000.0})
    instrument.realtime = True
    timers = threading.Timer(0.1, microscope.stop), threading.Timer(0.3, instrument.switch_off)
    for timer in timers:
        timer.start()
    with pytest.raises(AcquisitionStoppedError):
        microscope.acquire(60.0)
    for timer in timers:
        timer.join()
    microscope.read_state()  # behind the scan that was stopped, and the stop itself
    assert instrument.stops == 2
    microscope.close()
