"""AutoScript's traps, one by one: each is built into the fake, and none catches the driver."""

import sys
import threading

import numpy as np
import pytest

from semagent import registry
from semagent.clock import ManualClock
from semagent.errors import (
    CommandRefusedError,
    ConfigError,
    DisconnectedError,
    MicroscopeError,
    MicroscopeTimeoutError,
    NotReadyError,
)
from semagent.types import (
    FrameFault,
    MoveStage,
    Region,
    SetBeamShift,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
)
from semagent_drivers.autoscript.fake import INSTRUMENTS, Instrument
from semagent_drivers.fakes import Fault

OPTIONS = {"sdk": "semagent_drivers.autoscript.fake", "host": "unit", "focus_settle_s": 0.25}
PART = Region(left=0.125, top=0.25, width=0.51, height=0.51)


@pytest.fixture
def instrument():
    instrument = Instrument(resolution="192x128")
    INSTRUMENTS["unit"] = instrument
    yield instrument
    instrument.switch_off()
    del INSTRUMENTS["unit"]


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def microscope(instrument, clock):
    microscope = registry.open_microscope("autoscript", OPTIONS, clock=clock)
    yield microscope
    microscope.close()


def test_without_the_sdk_people_are_told_how_to_get_it():
    with pytest.raises(ConfigError, match=r"driver autoscript needs .*licence of AutoScript"):
        registry.open_microscope("autoscript", {}, clock=ManualClock())
    assert "autoscript_sdb_microscope_client" not in sys.modules


def test_no_server_there(instrument):
    instrument.trip.arm(Fault.DROP, 1)
    with pytest.raises(DisconnectedError, match="unit:7520 cannot be reached"):
        registry.open_microscope("autoscript", OPTIONS, clock=ManualClock())


def test_focus_does_not_degauss_where_it_need_not(microscope, instrument, clock):
    before_ns = clock.monotonic_ns()
    microscope.apply(SetWorkingDistance(working_distance_m=5.01e-3))
    assert instrument.degaussed == 0
    assert instrument.distance_m == 5.01e-3
    assert clock.monotonic_ns() - before_ns >= 0.25e9


def test_an_older_system_degausses_and_is_given_time(clock):
    INSTRUMENTS["unit"] = instrument = Instrument(resolution="192x128", has_no_degauss=False)
    microscope = registry.open_microscope(
        "autoscript", {**OPTIONS, "degauss_settle_s": 3.0}, clock=clock
    )
    before_ns = clock.monotonic_ns()
    microscope.apply(SetWorkingDistance(working_distance_m=5.01e-3))
    assert instrument.degaussed == 1
    assert clock.monotonic_ns() - before_ns >= 3.0e9
    microscope.close()


def test_a_scan_that_is_turned_is_another(microscope, instrument):
    first = microscope.read_state().settings_rev
    instrument.rotation_rad = 0.1
    assert microscope.read_state().settings_rev == first + 1


def test_without_a_beam_no_frame_is_taken(microscope, instrument):
    instrument.on = False
    with pytest.raises(NotReadyError, match="the beam is not on"):
        microscope.acquire(10.0)


def test_an_exposure_that_cannot_end_in_time_is_not_begun_and_leaves_the_link(
    microscope, instrument
):
    instrument.dwell_s = 1e-3
    with pytest.raises(MicroscopeTimeoutError, match=r"takes at least 24\.6 s, and 10 s are left"):
        microscope.acquire(10.0)
    assert microscope.acquire(30.0).header.scan.dwell_s == 1e-3


def test_a_frame_is_the_electron_beam_s_and_the_operator_s_view_comes_back(microscope, instrument):
    instrument.active_view = 2  # the ion beam's
    frame = microscope.acquire(10.0)
    assert frame.pixels.std() > 5
    assert frame.header.detector == "ETD"
    assert instrument.active_view == 2


def test_a_quad_that_shows_something_else_is_borrowed(microscope, instrument):
    instrument.views[1] = 3
    assert microscope.acquire(10.0).pixels.std() > 5
    assert instrument.views[1] == 3


def test_a_frame_of_the_wrong_beam_is_an_error(microscope, instrument, monkeypatch):
    grab = instrument.grab

    def somebody_else_switches(settings):
        instrument.active_view = 2
        return grab(settings)

    monkeypatch.setattr(instrument, "grab", somebody_else_switches)
    with pytest.raises(MicroscopeError, match="wrong beam: Ion"):
        microscope.acquire(10.0)


def test_a_reduced_area_leaves_neither_a_blanked_beam_nor_a_wrong_size(
    microscope, instrument, monkeypatch
):
    areas, grab = [], instrument.grab
    monkeypatch.setattr(instrument, "grab", lambda s: areas.append(s.reduced_area) or grab(s))
    microscope.apply(SetScan(region=PART))
    frame = microscope.acquire(10.0)
    (area,) = areas
    assert (area.left, area.top, area.width, area.height) == (0.125, 0.25, 0.51, 0.51)
    assert not instrument.blanked
    assert frame.pixels.shape == (frame.header.scan.height_px, frame.header.scan.width_px)
    assert frame.pixels.shape == (64, 98)
    again = microscope.acquire(10.0)
    assert again.header.scan == frame.header.scan
    assert again.header.settings_rev == frame.header.settings_rev
    assert again.header.scan.pixel_size_m == pytest.approx(40e-9)


def test_the_whole_field_again(microscope):
    microscope.apply(SetScan(region=PART))
    microscope.apply(SetScan(region=Region(left=0, top=0, width=1, height=1)))
    assert microscope.acquire(10.0).pixels.shape == (128, 192)


def test_the_scan_settings_of_the_operator_stay(microscope, instrument, monkeypatch):
    averages, grab = [], instrument.grab
    monkeypatch.setattr(
        instrument, "grab", lambda s: averages.append(s.frame_integration) or grab(s)
    )
    microscope.apply(SetScan(dwell_s=3e-6, frame_averages=4))
    scan = microscope.acquire(10.0).header.scan
    assert (scan.dwell_s, scan.frame_averages) == (3e-6, 4)
    assert instrument.dwell_s == 1e-6
    assert averages == [4]


def test_a_dwell_the_scanner_cannot_do_is_refused(microscope):
    with pytest.raises(
        CommandRefusedError, match=r"dwell 100000 µs is outside 0\.025 µs to 25000 µs"
    ):
        microscope.apply(SetScan(dwell_s=0.1))


@pytest.mark.parametrize("action", [SetStigmator(x=0.1, y=0.1), SetBeamShift(x_m=1e-7, y_m=0.0)])
def test_the_beam_has_time_to_settle(microscope, clock, action):
    before_ns = clock.monotonic_ns()
    microscope.apply(action)
    assert clock.monotonic_ns() - before_ns >= 0.25e9


def test_each_axis_of_the_stage_has_limits_of_its_own(microscope):
    with pytest.raises(CommandRefusedError, match=r"stage z -1 mm is outside 0 mm to 40 mm"):
        microscope.apply(MoveStage(z_m=-1e-3))


def test_a_beam_that_the_operator_blanks_during_a_frame_stays_blanked(
    microscope, instrument, monkeypatch
):
    grab = instrument.grab

    def while_somebody_blanks(settings):
        image = grab(settings)
        instrument.blanked = True
        return image

    monkeypatch.setattr(instrument, "grab", while_somebody_blanks)
    assert microscope.acquire(10.0).header.faults == (FrameFault.CHANGED,)
    assert instrument.blanked


def test_a_linked_stage_takes_focus_along_and_it_is_put_back(microscope, instrument):
    tilt_rad, z_m = instrument.position["t"], instrument.position["z"]
    microscope.apply(MoveStage(x_m=2.5e-3))
    assert instrument.distance_m == 5.0e-3
    assert instrument.degaussed == 0
    assert (instrument.position["t"], instrument.position["z"]) == (tilt_rad, z_m)


def test_a_stop_while_the_stage_moves_puts_focus_back_once_it_has_arrived(
    microscope, instrument, monkeypatch
):
    move, begun, arrives = instrument.move, threading.Event(), threading.Event()

    def slow(target, *, raw):
        begun.set()
        arrives.wait(5.0)
        move(target, raw=raw)

    def stop():
        begun.wait(5.0)
        microscope.stop()

    monkeypatch.setattr(instrument, "move", slow)
    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(MicroscopeError, match="stopped on its way"):
        microscope.apply(MoveStage(x_m=2.5e-3))
    stopper.join()
    arrives.set()
    state = microscope.read_state()
    assert state.stage.x_m == 2.5e-3
    assert state.optics.working_distance_m == 5.0e-3


def test_positions_are_raw_ones(microscope, instrument):
    assert microscope.read_state().stage.x_m == instrument.position["x"]
    microscope.apply(MoveStage(x_m=2.5e-3, rotation_rad=0.4))
    assert instrument.position["x"] == 2.5e-3
    assert instrument.position["r"] == 0.4


def test_stigmators_are_fractions_of_the_range_the_instrument_has(microscope, instrument):
    microscope.apply(SetStigmator(x=0.5, y=-0.25))
    assert (instrument.stigmator.x, instrument.stigmator.y) == (0.4, -0.2)
    optics = microscope.read_state().optics
    assert (optics.stigmator_x, optics.stigmator_y) == pytest.approx((0.5, -0.25))
    with pytest.raises(CommandRefusedError):
        microscope.apply(SetStigmator(x=1.01, y=0.0))


def test_everything_it_says_is_in_si_units(microscope, instrument):
    microscope.apply(SetBeamShift(x_m=1e-6, y_m=-2e-6))
    state = microscope.read_state()
    assert state.optics.accelerating_voltage_v == 5000.0
    assert state.optics.beam_current_a == 100e-12
    assert state.optics.beam_shift_y_m == -2e-6
    assert state.scan.pixel_size_m == pytest.approx(instrument.field_width_m / 192)
    assert state.stage.tilt_rad == 0.05


def test_a_refusal_is_told_from_a_failure_by_looking(microscope, instrument, monkeypatch):
    instrument.trip.arm(Fault.FAIL, 2)  # the call that sets it, after the one that reads it
    with pytest.raises(CommandRefusedError, match="refused the working distance"):
        microscope.apply(SetWorkingDistance(working_distance_m=5.01e-3))
    focus = instrument.focus

    def half_way(distance_m, *, degauss):
        focus(distance_m, degauss=degauss)
        focus(-1.0, degauss=degauss)

    monkeypatch.setattr(instrument, "focus", half_way)
    with pytest.raises(MicroscopeError) as raised:
        microscope.apply(SetWorkingDistance(working_distance_m=5.02e-3))
    assert not isinstance(raised.value, CommandRefusedError)


def test_what_is_accepted_and_not_done_is_found_out(microscope, instrument):
    instrument.deaf = True
    with pytest.raises(MicroscopeError, match="accepted working distance"):
        microscope.apply(SetWorkingDistance(working_distance_m=5.01e-3))


def test_sixteen_bits(instrument, clock):
    microscope = registry.open_microscope("autoscript", {**OPTIONS, "bit_depth": 16}, clock=clock)
    frame = microscope.acquire(10.0)
    assert frame.pixels.dtype == np.uint16
    assert frame.header.scan.bit_depth == 16
    microscope.close()


def test_a_system_without_a_stage(clock, instrument, monkeypatch):
    monkeypatch.setattr("semagent_drivers.autoscript.fake.model.Stage.is_installed", False)
    microscope = registry.open_microscope("autoscript", OPTIONS, clock=clock)
    assert microscope.capabilities.stage_axes == ()
    assert microscope.read_state().stage.x_m is None
    microscope.close()
