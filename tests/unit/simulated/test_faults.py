from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from semagent.clock import ManualClock
from semagent.errors import CommandRefusedError, DisconnectedError, MicroscopeTimeoutError
from semagent.types import (
    MicroscopeAction,
    MoveStage,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
)
from semagent_drivers.simulated import SimulatedMicroscope
from semagent_drivers.simulated.faults import CommandFault, ExposureFault, FaultPlan
from semagent_drivers.simulated.options import Fault, FaultOptions

MakeSem = Callable[..., SimulatedMicroscope]


def pixels(make_sem: MakeSem, **faults: Any) -> list[np.ndarray]:
    sem = make_sem(faults=faults)
    return [sem.acquire(10).pixels for _ in range(4)]


def test_other_frames_are_untouched_by_a_fault(make_sem: MakeSem) -> None:
    clean = pixels(make_sem)
    for name in ("frozen", "incomplete", "saturated", "blank", "wrong_size", "late"):
        struck = pixels(make_sem, **{name: {"at": [3]}})
        for index in (0, 1, 3):
            np.testing.assert_array_equal(struck[index], clean[index])
        assert (name == "late") == np.array_equal(struck[2], clean[2])


def test_frozen_repeats_the_frame_before_in_its_own_memory(make_sem: MakeSem) -> None:
    sem = make_sem(faults={"frozen": {"at": [1, 3]}})
    first, second, third = (sem.acquire(10) for _ in range(3))
    assert first.pixels.std() > 5  # there is nothing before the first to repeat
    np.testing.assert_array_equal(second.pixels, third.pixels)
    assert not np.shares_memory(second.pixels, third.pixels)
    assert third.header.sequence == 3


def test_a_frame_of_another_size_does_not_freeze(make_sem: MakeSem) -> None:
    first, second, *_ = pixels(make_sem, wrong_size={"at": [1]}, frozen={"at": [2]})
    assert first.shape == (48, 128)
    assert second.shape == (96, 128)


def test_incomplete_lacks_its_last_rows(make_sem: MakeSem) -> None:
    frame, *_ = pixels(make_sem, incomplete={"at": [1], "fraction": 0.25})
    assert frame[24:].max() == 0
    assert frame[:24].std() > 5


def test_saturated_is_white(make_sem: MakeSem) -> None:
    frame, *_ = pixels(make_sem, saturated={"at": [1]})
    assert (frame == 255).mean() > 0.99


def test_blank_holds_nothing_at_all(make_sem: MakeSem) -> None:
    sem = make_sem(faults={"blank": {"at": [1]}}, detector={"read_noise": 0.01})
    frame = sem.acquire(10)
    assert frame.pixels.max() == 0
    assert frame.header.optics.blanked is False


def test_wrong_size_differs_from_its_header(make_sem: MakeSem) -> None:
    frame = make_sem(faults={"wrong_size": {"at": [1]}}).acquire(10)
    assert frame.pixels.shape == (48, 128)
    assert frame.header.scan.height_px == 96
    assert frame.pixels.flags.c_contiguous


def test_late_keeps_its_stamp(make_sem: MakeSem, clock: ManualClock) -> None:
    sem = make_sem(faults={"late": {"at": [2], "delay_s": 3.0}})
    sem.acquire(10)
    header = sem.acquire(10).header
    assert (clock.monotonic_ns() - header.monotonic_ns) * 1e-9 == pytest.approx(3.0)
    assert header.sequence == 2


def test_too_late_is_a_time_out_and_uses_no_number(make_sem: MakeSem, clock: ManualClock) -> None:
    sem = make_sem(faults={"late": {"at": [1], "delay_s": 30.0}})
    start = clock.monotonic_ns()
    with pytest.raises(MicroscopeTimeoutError):
        sem.acquire(2.0)
    assert (clock.monotonic_ns() - start) * 1e-9 == pytest.approx(2.0)
    assert sem.acquire(2.0).header.sequence == 1


def test_disconnected_stays_so(make_sem: MakeSem) -> None:
    sem = make_sem(faults={"disconnect": {"at": [2]}})
    sem.acquire(10)
    for call in (lambda: sem.acquire(10), sem.read_state, lambda: sem.apply(MoveStage(x_m=0.0))):
        with pytest.raises(DisconnectedError, match="open the driver again"):
            call()
    sem.stop()
    sem.close()


def test_refused_once(make_sem: MakeSem) -> None:
    sem = make_sem(faults={"refused": {"at": [1]}})
    before, focus = sem.read_state(), SetWorkingDistance(working_distance_m=5.01e-3)
    with pytest.raises(CommandRefusedError, match="command 1"):
        sem.apply(focus)
    assert sem.read_state() == before
    sem.apply(focus)
    assert sem.read_state().optics.working_distance_m == 5.01e-3


@pytest.mark.parametrize(
    "action",
    [
        SetWorkingDistance(working_distance_m=5.01e-3),
        SetStigmator(x=0.5, y=0.5),
        SetBeamShift(x_m=1e-6, y_m=1e-6),
        SetBlanked(blanked=True),
        MoveStage(x_m=1e-3),
        SetScan(dwell_s=1e-6),
    ],
    ids=lambda action: type(action).__name__,
)
def test_ignored_once(make_sem: MakeSem, action: MicroscopeAction) -> None:
    sem = make_sem(faults={"ignored": {"at": [1]}})
    before = sem.read_state()
    sem.apply(action)
    assert sem.read_state() == before
    sem.apply(action)
    assert sem.read_state() != before


def test_ignoring_does_not_excuse_a_bad_command(make_sem: MakeSem) -> None:
    sem = make_sem(faults={"ignored": {"probability": 1.0}})
    with pytest.raises(CommandRefusedError):
        sem.apply(SetWorkingDistance(working_distance_m=1.0))


def test_probability_is_kept_and_seeded() -> None:
    options = FaultOptions(frozen=Fault(probability=0.3), ignored=Fault(probability=0.1))
    plan, again, other = FaultPlan(options, 1), FaultPlan(options, 1), FaultPlan(options, 2)
    struck = [plan.exposure(number) for number in range(1, 1001)]
    assert sum(ExposureFault.FROZEN in faults for faults in struck) == pytest.approx(300, abs=60)
    assert struck == [again.exposure(number) for number in range(1, 1001)]
    assert struck != [other.exposure(number) for number in range(1, 1001)]
    ignored = [plan.command(number) for number in range(1, 1001)]
    assert ignored.count(CommandFault.IGNORED) == pytest.approx(100, abs=40)
    assert CommandFault.REFUSED not in ignored


def test_nothing_strikes_by_default() -> None:
    plan = FaultPlan(FaultOptions(), 0)
    assert not any(plan.exposure(number) or plan.command(number) for number in range(1, 200))
