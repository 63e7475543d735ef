"""Frames carry this machine's time, whenever the other one was started."""

import pytest

from semagent.clock import ManualClock, SystemClock

DAY_S = 86400.0


@pytest.mark.parametrize("shift_s", [0.0, 3 * DAY_S, -1000.0])
def test_the_age_of_a_frame_is_right(serving, connect, shift_s):
    far = serving(shift_s=shift_s)
    near = connect(far.endpoint)
    clock = SystemClock()
    for _ in range(20):
        asked_ns = clock.monotonic_ns()
        stamp_ns = near.acquire(1.0).header.monotonic_ns
        arrived_ns = clock.monotonic_ns()
        error_ns = near.clock_error_s * 1e9
        assert asked_ns - error_ns <= stamp_ns <= arrived_ns
    assert 0 < near.clock_error_s < 0.1


def age_s(near):
    stamp_ns = near.acquire(1.0).header.monotonic_ns
    return (SystemClock().monotonic_ns() - stamp_ns) / 1e9


def test_the_offset_is_looked_at_again_and_again(serving, connect, eventually):
    far = serving(heartbeat_timeout_s=0.5)
    near = connect(far.endpoint)
    # As if the other machine had been suspended for ten minutes, and its clock with it.
    far.microscope.clock.shift_ns -= 600 * 10**9
    assert age_s(near) == pytest.approx(600, abs=1), "an old offset makes frames old, never new"
    eventually(lambda: age_s(near) < 0.5)


def test_a_frame_is_never_from_the_future(serving, connect):
    far = serving()
    near = connect(far.endpoint)
    far.microscope.clock.shift_ns += 3 * 10**8
    stamps = [near.acquire(1.0).header.monotonic_ns for _ in range(5)]
    assert stamps == sorted(set(stamps))
    assert stamps[-1] <= SystemClock().monotonic_ns()


def test_two_frames_of_one_moment_still_have_an_order(serving, connect):
    far = serving()
    near = connect(far.endpoint)
    far.microscope.clock = ManualClock(far.microscope.clock.monotonic_ns())
    stamps = [near.acquire(1.0).header.monotonic_ns for _ in range(5)]
    assert stamps == sorted(set(stamps))
