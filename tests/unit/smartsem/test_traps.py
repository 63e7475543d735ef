"""SmartSEM's traps, and those that other programs have fallen into."""

import math
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from semagent import registry
from semagent.clock import ManualClock, SystemClock
from semagent.errors import (
    CommandRefusedError,
    ConfigError,
    DisconnectedError,
    MicroscopeError,
    MicroscopeTimeoutError,
    NotReadyError,
)
from semagent.types import MoveStage, SetBlanked, SetStigmator, SetWorkingDistance
from semagent_drivers.fakes import Fault
from semagent_drivers.smartsem import fake
from semagent_drivers.smartsem.com import Control, Refused
from semagent_drivers.smartsem.facts import PROG_ID

OPTIONS = {"sdk": "semagent_drivers.smartsem.fake", "stage": True}


@pytest.fixture
def instrument():
    instrument = fake.Instrument(store=(192, 128))
    fake.INSTRUMENTS[PROG_ID] = instrument
    yield instrument
    instrument.trip.disarm()
    del fake.INSTRUMENTS[PROG_ID]


def opened(clock=None, **options):
    return registry.open_microscope(
        "smartsem", {**OPTIONS, **options}, clock=clock or ManualClock()
    )


@pytest.fixture
def microscope(instrument):
    microscope = opened()
    yield microscope
    microscope.close()


def test_without_windows_and_the_control_people_are_told_how_to_get_them():
    windows = "" if sys.platform == "win32" else "Windows .*"
    with pytest.raises(ConfigError, match=rf"smartsem needs .*{windows}CZ\.EMApiCtrl.*licence"):
        opened(sdk="win32com.client")


@pytest.mark.parametrize("hresult", [-2147221005, -2147221164])
def test_without_the_control_people_are_told_how_to_get_it(monkeypatch, hresult):
    def not_registered(prog_id):
        raise fake.COMError(hresult, "Invalid class string")

    monkeypatch.setattr(fake, "Dispatch", not_registered)
    with pytest.raises(ConfigError, match=r"smartsem needs .*CZ\.EMApiCtrl.*regsvr32"):
        opened()


def test_everything_it_says_is_in_si_units(microscope):
    state = microscope.read_state()
    optics, there = state.optics, state.stage
    assert (optics.accelerating_voltage_v, optics.magnification) == (5000.0, 20_000.0)
    assert optics.beam_current_a == pytest.approx(1e-10)
    assert state.scan.pixel_size_m == pytest.approx(10e-9)
    assert (there.x_m, there.y_m, there.z_m) == pytest.approx((0.0651, 0.0602, 0.0101))
    assert there.tilt_rad == pytest.approx(math.pi / 6)
    assert there.rotation_rad == pytest.approx(math.pi / 2)


@pytest.mark.parametrize(
    "action", [SetWorkingDistance(working_distance_m=5.01e-3), SetStigmator(x=0.1, y=0.1)]
)
def test_the_beam_has_time_to_settle(instrument, action):
    clock = ManualClock()
    microscope = opened(clock, focus_settle_s=0.25)
    before_ns = clock.monotonic_ns()
    microscope.apply(action)
    assert clock.monotonic_ns() - before_ns >= 0.25e9
    microscope.close()


def test_an_axis_without_limits_is_not_there(instrument, monkeypatch):
    monkeypatch.setitem(fake.STAGE_LIMITS, "Z", (0.0, 0.0))
    microscope = opened()
    assert microscope.capabilities.stage_axes == ("x_m", "y_m", "tilt_rad", "rotation_rad")
    microscope.close()


def test_a_dead_link_is_no_success(microscope, instrument):
    instrument.trip.arm(Fault.DROP, 1)
    with pytest.raises(DisconnectedError, match="SmartSEM has gone"):
        microscope.apply(SetWorkingDistance(working_distance_m=5.01e-3))
    assert instrument.numbers["AP_WD"] == 5.0e-3


def test_a_control_that_does_not_initialise_is_left_behind_by_nobody(instrument):
    instrument.trip.arm(Fault.FAIL, 1)
    with pytest.raises(MicroscopeError, match="InitialiseRemoting: code 1012, the command failed"):
        opened()
    assert instrument.controls == 0


@pytest.mark.parametrize("code", [1003, None, True, "0", (), math.nan])
def test_whatever_is_not_zero_is_no_success(instrument, monkeypatch, code):
    monkeypatch.setattr(fake._Control, "InitialiseRemoting", lambda self: code)
    fake.pythoncom.CoInitialize()
    with pytest.raises(Refused):
        Control(fake, PROG_ID)
    fake.pythoncom.CoUninitialize()


@pytest.mark.parametrize("value", ["", None, True, math.nan, "0.005"])
def test_a_number_that_is_none_is_not_taken_for_one(microscope, instrument, value):
    instrument.fixed["AP_MANUALKV"] = value
    with pytest.raises(MicroscopeError, match="AP_MANUALKV"):
        microscope.read_state()


@pytest.mark.parametrize("answer", [0, (0,), None])
@pytest.mark.parametrize("call", ["Get", "GetStagePosition"])
def test_success_without_a_value_is_none(microscope, monkeypatch, call, answer):
    monkeypatch.setattr(fake._Control, call, lambda *asked: answer)
    with pytest.raises(MicroscopeError):
        microscope.read_state()


def test_the_control_is_let_go_at_the_end(instrument):
    microscope = opened()
    assert instrument.controls == 1
    microscope.close()
    assert instrument.controls == 0


def test_metres_go_as_32_bit_floats(microscope, instrument):
    microscope.apply(SetWorkingDistance(working_distance_m=5.0123e-3))
    assert instrument.numbers["AP_WD"] == float(np.float32(5.0123e-3))


def test_a_working_distance_out_of_reach_is_refused_and_says_why(instrument):
    microscope = opened(working_distance_range_mm=(1.0, 200.0))
    with pytest.raises(CommandRefusedError, match="code 1008, the value is too high"):
        microscope.apply(SetWorkingDistance(working_distance_m=0.15))
    assert instrument.numbers["AP_WD"] == 5.0e-3
    microscope.close()


def test_stigmators_are_percent(microscope, instrument):
    assert microscope.read_state().optics.stigmator_x == 0.02
    microscope.apply(SetStigmator(x=0.05, y=-0.1))
    assert instrument.numbers["AP_STIG_X"] == 5.0
    assert instrument.numbers["AP_STIG_Y"] == -10.0


@pytest.mark.parametrize(
    "action",
    [
        SetWorkingDistance(working_distance_m=5.01e-3),
        SetStigmator(x=0.1, y=0.1),
        SetBlanked(blanked=True),
    ],
)
def test_what_is_accepted_and_not_done_does_not_pass_as_done(microscope, instrument, action):
    instrument.deaf = True
    with pytest.raises(MicroscopeError, match="accepted"):
        microscope.apply(action)


def test_a_move_of_one_axis_leaves_the_tilt(microscope, instrument):
    before = list(instrument.position)
    microscope.apply(MoveStage(x_m=0.066))
    assert instrument.position[0] == pytest.approx(0.066)
    assert instrument.position[1:] == before[1:]
    assert before[3] == 30.0


@pytest.mark.parametrize("value", [math.nan, math.inf, None, True])
def test_no_axis_is_sent_to_what_is_no_number(microscope, instrument, value):
    instrument.position[5] = value  # M, which nobody asks for and every move tells
    with pytest.raises(MicroscopeError, match="for the stage position"):
        microscope.apply(MoveStage(x_m=0.066))
    assert "MoveStage" not in instrument.calls


def test_a_move_that_is_ignored_does_not_pass_as_done(microscope, instrument, monkeypatch):
    monkeypatch.setattr(instrument, "move", lambda target: None)
    with pytest.raises(MicroscopeError, match="accepted stage x"):
        microscope.apply(MoveStage(x_m=0.066))


def test_a_stage_that_has_not_begun_yet_has_not_arrived(instrument):
    instrument.start_s, instrument.move_s = 0.2, 0.3
    microscope = opened(SystemClock())
    microscope.apply(MoveStage(x_m=0.066))
    assert not instrument.stage.moving
    assert instrument.position[0] == pytest.approx(0.066)
    microscope.close()


def test_a_stage_that_pauses_on_its_way_has_not_arrived(instrument, monkeypatch):
    halves = iter((0.0655, 0.066))

    def begin(_=None):
        if (to := next(halves, None)) is not None:
            instrument.stage.move([to, *instrument.position[1:]], 0.1, 0.1)
            threading.Timer(0.25, begin).start()

    monkeypatch.setattr(instrument, "move", begin)
    microscope = opened(SystemClock())
    microscope.apply(MoveStage(x_m=0.066))
    assert instrument.position[0] == 0.066
    microscope.close()


def test_a_stage_that_begins_too_late_is_stopped(instrument):
    instrument.start_s, instrument.move_s = 1.0, 1.0
    microscope = opened(SystemClock(), stage_settle_s=0.2)
    require_stopped(instrument, microscope, MicroscopeError, "accepted stage x")
    time.sleep(1.2)
    assert instrument.position[0] == pytest.approx(0.0651)


def require_stopped(instrument, microscope, error, says):
    """A move fails with this error, and the stage is told to stop."""
    with pytest.raises(error, match=says):
        microscope.apply(MoveStage(x_m=0.066))
    microscope.read_state()
    assert "CMD_STAGE_ABORT" in instrument.calls
    microscope.close()


def test_a_stage_that_stays_busy_is_given_up_and_stopped(instrument):
    instrument.move_s = 3600.0
    microscope = opened(SystemClock(), move_timeout_s=0.2)
    says = r"no end of the move within 0\.2 s"
    require_stopped(instrument, microscope, MicroscopeTimeoutError, says)


def test_a_stage_that_nobody_can_watch_any_more_is_stopped(instrument, monkeypatch):
    told = instrument.told
    monkeypatch.setattr(
        instrument, "told", lambda asked: told(asked) if asked != "DP_STAGE_IS" else None
    )
    require_stopped(instrument, opened(), MicroscopeError, "DP_STAGE_IS")


def test_a_stage_that_started_although_the_call_failed_is_stopped(instrument, monkeypatch):
    move = instrument.move

    def fail_on_the_way(target):
        move(target)
        raise fake.COMError(0x80004005 - 2**32, "Unspecified error")

    monkeypatch.setattr(instrument, "move", fail_on_the_way)
    require_stopped(instrument, opened(), MicroscopeError, "Unspecified error")


def test_the_stage_does_not_move_unless_told(instrument):
    microscope = opened(stage=False)
    assert microscope.capabilities.stage_axes == ()
    assert microscope.read_state().stage.tilt_rad == pytest.approx(math.radians(30))
    microscope.close()


def test_a_frame_that_never_ends_is_given_up(microscope, instrument):
    instrument.stuck = True
    with pytest.raises(MicroscopeTimeoutError, match="no frozen frame"):
        microscope.acquire(1.0)


def test_the_image_is_live_or_frozen_as_before(microscope, instrument):
    microscope.acquire(10.0)
    assert not instrument.frozen
    instrument.execute("CMD_FREEZE_ALL")
    assert instrument.told("DP_FROZEN") == "Frozen"
    microscope.acquire(10.0)
    assert instrument.told("DP_FROZEN") == "Frozen"


def test_a_frame_after_a_change_of_focus_has_nothing_of_before_it(instrument, monkeypatch):
    scene = np.arange(128 * 192, dtype=np.uint16).reshape(128, 192) % 100

    def seen(optics=None):
        far = (optics or instrument.optics()).working_distance_m > 5.005e-3
        return (scene + 100 * far).astype(np.uint8)

    monkeypatch.setattr(instrument, "expose", seen)
    instrument.frame_s = 0.3
    microscope = opened(SystemClock(), focus_settle_s=0)
    for distance_m in (5.01e-3, 5.0e-3):
        microscope.apply(SetWorkingDistance(working_distance_m=distance_m))
        assert np.array_equal(microscope.acquire(10.0).pixels, seen())
    microscope.close()


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("mode", ["Frame Int. Done", "Line Int.", "Drift Comp. Frame Int. Busy"])
def test_an_integration_is_waited_for_and_not_cut_off(instrument, monkeypatch, mode, live):
    monkeypatch.setattr(instrument, "expose", lambda optics=None: np.full((128, 192), 200, "u1"))
    instrument.frame_s = 0.05
    instrument.noise_reduction = mode
    microscope = opened(SystemClock(), blank_retries=0)
    if live:
        instrument.execute("CMD_UNFREEZE_ALL")
    else:
        instrument.frozen = True
    for _ in range(2):
        assert (microscope.acquire(10.0).pixels == 200).all()
        assert instrument.told("DP_FROZEN") == "Frozen"  # as it would have ended by itself
    microscope.close()


def test_a_picture_that_keeps_some_of_the_one_before_is_not_taken(microscope, instrument):
    instrument.noise_reduction = "Continuous Avg."
    with pytest.raises(
        NotReadyError, match=r"Continuous Avg.*keeps some of the pictures before it"
    ):
        microscope.acquire(10.0)
    assert not instrument.frozen


def test_a_scan_that_is_turned_is_another(microscope, instrument):
    def revision():
        return microscope.read_state().settings_rev

    first = revision()
    instrument.fixed["AP_SCANROTATION"] = 360.0
    assert revision() == first
    instrument.fixed["AP_SCANROTATION"] = 30.0
    assert revision() == first + 1
    instrument.turned = "Off"  # the angle stays
    assert revision() == first + 2


@pytest.mark.parametrize("state", ["EHT Off", "Gun Off"])
def test_without_high_voltage_no_frame_is_taken(microscope, instrument, state):
    instrument.run_up = state
    with pytest.raises(NotReadyError, match=f"beam is not on .*{state}"):
        microscope.acquire(10.0)
    assert not instrument.frozen


def test_a_file_that_somebody_else_holds_is_no_end_of_the_link(microscope, monkeypatch):
    def held(*_, **__):
        raise PermissionError(13, "used by another process")

    monkeypatch.setattr(Path, "unlink", held)
    first, second = (microscope.acquire(10.0).pixels for _ in range(2))
    assert (first != second).any()


def test_a_frame_that_would_be_cut_off_is_not_taken(microscope, instrument):
    instrument.freeze_on = "End Line"
    with pytest.raises(MicroscopeError, match=r"freezes on 'End Line'.*End Frame"):
        microscope.acquire(10.0)
    assert "CMD_FREEZE_ALL" not in instrument.calls


def test_a_frame_without_anything_is_taken_again(microscope, instrument):
    instrument.blank_frames = 2
    assert microscope.acquire(10.0).pixels.std() > 1
    instrument.blank_frames = 10
    assert microscope.acquire(10.0).pixels.std() == 0


def test_an_image_of_another_size_is_refused(microscope, instrument, monkeypatch):
    monkeypatch.setattr(instrument, "expose", lambda: np.zeros((64, 96), np.uint8))
    with pytest.raises(MicroscopeError, match=r"96 x 64 pixels of uint8, but .* 192 x 128"):
        microscope.acquire(10.0)


@pytest.mark.parametrize(
    ("key", "value"), [("blanked", "perhaps"), ("store", "large"), ("store", "")]
)
def test_words_that_are_not_known_are_named(microscope, instrument, monkeypatch, key, value):
    told = instrument.told
    name = {"blanked": "DP_BEAM_BLANKING", "store": "DP_IMAGE_STORE"}[key]
    monkeypatch.setattr(instrument, "told", lambda asked: value if asked == name else told(asked))
    with pytest.raises(MicroscopeError, match=name):
        microscope.read_state()
