"""Every method of the port, seen from the other end of the network."""

import weakref

import msgspec
import numpy as np
import pytest

from semagent.errors import (
    AcquisitionStoppedError,
    CommandRefusedError,
    DisconnectedError,
    GateRefusedError,
    MicroscopeError,
    MicroscopeTimeoutError,
)
from semagent.types import (
    MoveStage,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
)


@pytest.fixture
def far(serving):
    return serving()


@pytest.fixture
def near(far, connect):
    return connect(far.endpoint)


def test_capabilities_are_the_far_drivers_own(far, near):
    told = near.capabilities
    assert told.microscope == f"Bench SEM at {far.endpoint}"
    assert msgspec.structs.replace(told, microscope="Bench SEM") == far.microscope.capabilities


def test_the_state_is_read_from_the_microscope_each_time(far, near):
    assert near.read_state() == far.microscope.state
    far.microscope.state = msgspec.structs.replace(far.microscope.state, settings_rev=9)
    assert near.read_state().settings_rev == 9


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (24, 32), (768, 1024), (3, 4099)])
def test_a_frame_arrives_bit_for_bit(far, near, dtype, shape):
    sent = np.random.default_rng(5).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    far.microscope.pixels.append(sent)
    frame = near.acquire(1.0)
    assert frame.pixels.dtype == dtype
    assert np.array_equal(frame.pixels, sent)
    assert not frame.pixels.flags.writeable
    assert frame.header.sequence == 1
    assert frame.header.wall_ns == 1_800_000_000_000_000_001
    assert frame.header.detector == "BSE"
    assert frame.header.optics == far.microscope.state.optics
    assert frame.header.settings_rev == 4


def test_frames_are_counted_anew_for_each_client(far, near, connect):
    assert [near.acquire(1.0).header.sequence for _ in range(3)] == [1, 2, 3]
    near.close()
    assert connect(far.endpoint).acquire(1.0).header.sequence == 1
    assert far.microscope.sequence == 4


def test_a_frame_that_nobody_holds_is_let_go(near, eventually):
    pixels = weakref.ref(near.acquire(1.0).pixels)
    eventually(lambda: pixels() is None)


def test_a_frame_that_did_not_come_leaves_no_gap(far, near):
    near.acquire(1.0)
    far.microscope.errors.append(MicroscopeTimeoutError("no frame"))
    with pytest.raises(MicroscopeTimeoutError):
        near.acquire(1.0)
    assert near.acquire(1.0).header.sequence == 2


def test_frames_keep_their_pixels_and_their_order(far, near):
    for grey in (1, 2, 3):
        far.microscope.pixels.append(np.full((24, 32), grey, np.uint8))
    frames = [near.acquire(1.0) for _ in range(3)]
    assert [int(frame.pixels[0, 0]) for frame in frames] == [1, 2, 3]
    assert [frame.header.sequence for frame in frames] == [1, 2, 3]
    stamps = [frame.header.monotonic_ns for frame in frames]
    assert stamps == sorted(set(stamps))


@pytest.mark.parametrize(
    "action",
    [
        SetWorkingDistance(working_distance_m=0.00505),
        SetStigmator(x=0.1, y=-0.05),
        SetBeamShift(x_m=1e-6, y_m=-2e-6),
        MoveStage(x_m=5e-5),
        SetScan(dwell_s=2e-7),
        SetBlanked(blanked=True),
    ],
    ids=lambda action: type(action).__name__,
)
def test_every_action_gets_through_unchanged(far, near, action):
    near.apply(action)
    assert far.microscope.applied == [action]
    assert near.read_state() == far.microscope.state


@pytest.mark.parametrize(
    "kind",
    [
        MicroscopeError,
        CommandRefusedError,
        AcquisitionStoppedError,
        MicroscopeTimeoutError,
        DisconnectedError,
    ],
)
@pytest.mark.parametrize("method", ["read_state", "acquire", "apply"])
def test_an_error_comes_back_as_what_it_was(far, near, kind, method):
    arguments = {"acquire": (1.0,), "apply": (SetStigmator(x=0.1, y=0),)}.get(method, ())
    far.microscope.errors.append(kind("the column valve is closed"))
    with pytest.raises(MicroscopeError, match="the column valve is closed") as caught:
        getattr(near, method)(*arguments)
    assert type(caught.value) is kind


def test_an_error_of_a_drivers_own_comes_back_as_the_nearest_known(far, near):
    class GunError(MicroscopeTimeoutError):
        pass

    far.microscope.errors.append(GunError("no emission"))
    with pytest.raises(MicroscopeTimeoutError, match="no emission"):
        near.read_state()


def test_a_lost_microscope_ends_the_server(far, near, eventually):
    far.microscope.errors.append(DisconnectedError("the column computer is gone"))
    with pytest.raises(DisconnectedError, match="column computer"):
        near.read_state()
    eventually(lambda: isinstance(far.error, DisconnectedError))


def test_close_is_idempotent_and_leaves_the_microscope_as_it_is(far, near):
    near.close()
    near.close()
    assert far.microscope.applied == []
    assert not far.microscope.closed
    for call in (near.read_state, lambda: near.acquire(1.0)):
        with pytest.raises(DisconnectedError, match="was closed"):
            call()
    near.stop()


# -- the gate of the microscope PC --------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (SetWorkingDistance(working_distance_m=0.0061), "out_of_range"),
        (SetWorkingDistance(working_distance_m=float("nan")), "out_of_range"),
        (SetWorkingDistance(working_distance_m=0.0052), "step_too_large"),
        (MoveStage(y_m=0.0), "locked"),
    ],
)
def test_the_far_envelope_holds_whatever_the_near_one_says(far, near, action, code):
    with pytest.raises(GateRefusedError, match=code):
        near.apply(action)
    assert far.microscope.applied == []


def test_nothing_moves_unless_somebody_has_armed_there(serving, connect):
    far = serving(armed=False)
    near = connect(far.endpoint)
    assert "microscope PC is disarmed: not armed since" in near.read_state().barred
    with pytest.raises(GateRefusedError, match="disarmed"):
        near.apply(SetStigmator(x=0.1, y=0.0))
    assert far.microscope.applied == []
    assert near.acquire(1.0).header.sequence == 1
    far.arm_again.set()
    while far.arm_again.is_set():
        near.read_state()
    assert near.read_state().barred == ""
    near.apply(SetStigmator(x=0.1, y=0.0))
    assert len(far.microscope.applied) == 1


def test_it_does_not_arm_outside_the_envelope(serving):
    limits = {"min": 0.0055, "max": 0.006, "max_step": 1e-4, "max_travel": 1e-3}
    far = serving(armed=False, working_distance_m=limits)
    with pytest.raises(CommandRefusedError, match="working distance"):
        far.server.arm()


def test_a_command_that_was_ignored_disarms(far, near):
    far.microscope.ignores_commands = True
    with pytest.raises(MicroscopeError, match="readback_differs"):
        near.apply(SetWorkingDistance(working_distance_m=0.00505))
    far.microscope.ignores_commands = False
    with pytest.raises(CommandRefusedError, match="disarmed"):
        near.apply(SetWorkingDistance(working_distance_m=0.00505))


def test_a_command_that_failed_half_way_disarms(far, near):
    near.apply(SetStigmator(x=0.05, y=0.0))
    original = far.microscope.apply

    def fail(action):
        original(action)
        raise MicroscopeError("the power supply tripped")

    far.microscope.apply = fail
    with pytest.raises(MicroscopeError, match="tripped"):
        near.apply(SetStigmator(x=0.1, y=0.0))
    far.microscope.apply = original
    with pytest.raises(CommandRefusedError, match=r"disarmed.*tripped"):
        near.apply(SetStigmator(x=0.1, y=0.0))


def test_a_hand_on_the_knob_disarms(far, near):
    near.acquire(1.0)
    optics = msgspec.structs.replace(far.microscope.state.optics, working_distance_m=0.0051)
    far.microscope.state = msgspec.structs.replace(far.microscope.state, optics=optics)
    near.acquire(1.0)
    assert "by hand" in near.read_state().barred
    with pytest.raises(CommandRefusedError, match="by hand"):
        near.apply(SetWorkingDistance(working_distance_m=0.00505))
    assert far.microscope.applied == []


def test_settings_that_cannot_be_read_back_disarm(far, near, monkeypatch):
    apply, read = far.microscope.apply, far.microscope.read_state

    def break_the_reading(action):
        apply(action)
        far.microscope.errors.append(MicroscopeError("no answer from the lens supply"))

    monkeypatch.setattr(far.microscope, "apply", break_the_reading)
    with pytest.raises(MicroscopeError, match="could not be read back"):
        near.apply(SetStigmator(x=0.1, y=0.0))
    state = near.read_state()
    assert "could not be read back" in state.barred
    assert msgspec.structs.replace(state, barred="") == read()
    with pytest.raises(CommandRefusedError, match="disarmed"):
        near.apply(SetStigmator(x=0.1, y=0.0))


def test_arming_again_is_refused_outside_the_envelope(serving, connect, caplog, eventually):
    limits = {"min": 0.0055, "max": 0.006, "max_step": 1e-4, "max_travel": 1e-3}
    far = serving(armed=False, working_distance_m=limits)
    near = connect(far.endpoint)
    far.arm_again.set()
    eventually(lambda: "not armed: " in caplog.text)
    with pytest.raises(CommandRefusedError, match="disarmed"):
        near.apply(SetStigmator(x=0.1, y=0.0))
