"""Stops, time-outs and the end of the server, while the microscope is at work."""

import threading
import time

import pytest

from semagent.errors import (
    AcquisitionStoppedError,
    CommandRefusedError,
    DisconnectedError,
    MicroscopeError,
    MicroscopeTimeoutError,
    RoleError,
)
from semagent.types import MoveStage, SetStigmator

LONG_S = 60.0
PROMPT_S = 1.0


@pytest.fixture
def far(serving):
    return serving()


@pytest.fixture
def near(far, connect):
    return connect(far.endpoint)


def test_a_long_acquisition_is_stopped_at_once(far, near, in_background):
    far.microscope.exposure_s = LONG_S
    call = in_background(near.acquire, LONG_S)
    assert far.microscope.begun.wait(PROMPT_S)
    near.stop()
    assert isinstance(call.outcome(PROMPT_S), AcquisitionStoppedError)
    stops = far.microscope.stops
    time.sleep(0.2)
    assert far.microscope.stops == stops, "it is over, so nothing is stopped any more"
    far.microscope.exposure_s = 0.0
    assert near.acquire(1.0).header.sequence == 1


def test_no_wait_is_so_long_that_a_ctrl_c_is_late_on_windows(far, near, monkeypatch):
    far.microscope.exposure_s = 0.5
    waited_s, wait = [], threading.Condition.wait

    def noted(condition, timeout=None):
        if threading.current_thread() is threading.main_thread():
            waited_s.append(float("inf") if timeout is None else timeout)
        return wait(condition, timeout)

    monkeypatch.setattr(threading.Condition, "wait", noted)
    near.acquire(LONG_S)
    assert waited_s
    assert max(waited_s) <= PROMPT_S


def test_a_stop_also_takes_back_what_still_waits(far, near, in_background):
    far.microscope.exposure_s = LONG_S
    frame = in_background(near.acquire, LONG_S)
    assert far.microscope.begun.wait(PROMPT_S)
    move = in_background(near.apply, SetStigmator(x=0.1, y=0.0))
    time.sleep(0.2)
    near.stop()
    assert isinstance(frame.outcome(PROMPT_S), AcquisitionStoppedError)
    outcome = move.outcome(PROMPT_S)
    assert isinstance(outcome, CommandRefusedError)
    assert "not begun, nothing has changed: it was stopped" in str(outcome)
    assert far.microscope.applied == []


def test_a_stop_is_not_lost_on_a_driver_that_has_not_begun_to_listen(far, near, in_background):
    far.microscope.exposure_s, far.microscope.deaf_s = LONG_S, 0.2
    call = in_background(near.acquire, LONG_S)
    assert far.microscope.begun.wait(PROMPT_S)
    near.stop()
    assert isinstance(call.outcome(PROMPT_S), AcquisitionStoppedError)


def test_a_move_is_stopped_and_the_gate_shuts(far, near, in_background):
    far.microscope.move_s = LONG_S
    call = in_background(near.apply, MoveStage(x_m=5e-5))
    assert far.microscope.begun.wait(PROMPT_S)
    near.stop()
    outcome = call.outcome(PROMPT_S)
    assert isinstance(outcome, MicroscopeError)
    assert "stopped on its way" in str(outcome)
    with pytest.raises(CommandRefusedError, match="disarmed"):
        near.apply(MoveStage(x_m=5e-5))


def test_a_move_that_is_stopped_while_the_settings_are_read_is_not_begun(
    far, near, in_background, monkeypatch, eventually
):
    reading, read = threading.Event(), far.microscope.read_state

    def read_until_stopped():
        reading.set()
        eventually(lambda: far.microscope.stops > 0)
        return read()

    monkeypatch.setattr(far.microscope, "read_state", read_until_stopped)
    call = in_background(near.apply, SetStigmator(x=0.1, y=0.0))
    assert reading.wait(PROMPT_S)
    near.stop()
    outcome = call.outcome(PROMPT_S)
    assert isinstance(outcome, CommandRefusedError)
    assert "not begun, nothing has changed: it was stopped" in str(outcome)
    assert far.microscope.applied == []


def test_a_stop_when_nothing_happens_reaches_the_microscope_and_spoils_nothing(
    far, near, eventually
):
    near.stop()
    eventually(lambda: far.microscope.stops == 1)
    assert near.acquire(1.0).header.sequence == 1
    near.apply(SetStigmator(x=0.1, y=0.0))


def test_a_stop_does_not_hit_what_is_asked_afterwards(far, near):
    for _ in range(30):
        near.stop()
        near.acquire(1.0)
    assert far.microscope.sequence == 30


def test_a_call_that_hangs_times_out_and_is_told_to_stop(far, connect, eventually):
    near = connect(far.endpoint, move_timeout_s=0.2, answer_timeout_s=0.2)
    far.microscope.move_s = LONG_S
    with pytest.raises(MicroscopeTimeoutError, match=r"Apply within 0\.2 s"):
        near.apply(MoveStage(x_m=5e-5))
    eventually(lambda: far.microscope.stops > 0)
    far.microscope.move_s = 0.0
    eventually(lambda: near.read_state() is not None)
    assert far.microscope.applied == []


def test_what_waited_too_long_is_not_begun(far, connect, in_background):
    near = connect(far.endpoint, move_timeout_s=0.2)
    begin = far.microscope.begun
    far.microscope.exposure_s = 0.6
    frame = in_background(near.acquire, 5.0)
    assert begin.wait(PROMPT_S)
    with pytest.raises(MicroscopeTimeoutError):
        near.apply(SetStigmator(x=0.1, y=0.0))
    assert frame.outcome(PROMPT_S).header.sequence == 1
    near.read_state()
    assert far.microscope.applied == []


def test_a_client_cannot_queue_without_end(far, connect, in_background):
    near = connect(far.endpoint)
    far.microscope.exposure_s = LONG_S
    calls = [in_background(near.acquire, LONG_S) for _ in range(12)]
    far.microscope.begun.wait(PROMPT_S)
    time.sleep(0.2)
    near.stop()
    outcomes = [call.outcome() for call in calls]
    refused = [outcome for outcome in outcomes if "too many questions" in str(outcome)]
    assert len(refused) == 3
    assert sum(isinstance(outcome, AcquisitionStoppedError) for outcome in outcomes) == 9


def test_the_server_ends_in_the_middle_of_an_acquisition(far, near, in_background):
    far.microscope.exposure_s = LONG_S
    call = in_background(near.acquire, LONG_S)
    assert far.microscope.begun.wait(PROMPT_S)
    begun_s = time.perf_counter()
    far.end()
    assert time.perf_counter() - begun_s < 2 * PROMPT_S
    assert isinstance(call.outcome(PROMPT_S), AcquisitionStoppedError | DisconnectedError)
    with pytest.raises(DisconnectedError):
        near.read_state()


def test_a_hung_microscope_does_not_hang_the_client(serving, connect):
    far = serving()
    near = connect(far.endpoint, answer_timeout_s=0.2)
    far.microscope.jam = threading.Event()
    with pytest.raises(MicroscopeTimeoutError):
        near.acquire(0.1)
    with pytest.raises(MicroscopeTimeoutError):
        near.read_state()
    far.microscope.jam.set()


def test_a_microscope_that_cannot_be_stopped_is_shown_and_goes_on(
    far, near, monkeypatch, caplog, eventually
):
    def fail():
        raise MicroscopeError("no stop in this mode")

    monkeypatch.setattr(far.microscope, "stop", fail)
    near.stop()
    eventually(lambda: "cannot be stopped: no stop in this mode" in caplog.text)
    assert near.acquire(1.0).header.sequence == 1


def test_a_dead_connection_thread_ends_the_server(far, near, monkeypatch, eventually):
    def fail(_desk, _now_ns):
        raise RuntimeError("a mistake in the program")

    monkeypatch.setattr("semagent.remote.desk.Desk.chase", fail)
    eventually(lambda: isinstance(far.error, RoleError))
    with pytest.raises(DisconnectedError):
        near.read_state()
