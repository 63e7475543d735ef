"""Where the frames of a field lie, over moves of the microscope and frames that match nothing."""

import msgspec
import numpy as np
import pytest

from semagent.clock import ManualClock
from semagent.registrar import Registrar
from semagent.types import Frame, MoveStage, SetBeamShift, SetScan, SetWorkingDistance
from semagent_drivers.simulated import SimulatedMicroscope, open_microscope

PIXEL_M = 10e-9


def open_sem(**column: object) -> SimulatedMicroscope:
    return open_microscope(
        {
            "speed": 0,
            "seed": 3,
            "scan": {"width_px": 256, "height_px": 192},
            "specimen": {"tile_px": 1024, "feature_size_nm": 150.0},
            "column": {"lens_hysteresis_um": 0.0, **column},
            "stage": {"backlash_um": 0.0},
            "drift": {"x_nm_per_s": 0.0, "y_nm_per_s": 0.0},
        },
        clock=ManualClock(),
    )


def empty(frame: Frame) -> Frame:
    return Frame(frame.header, np.zeros_like(frame.pixels))


def test_the_first_frame_of_a_field_is_the_reference():
    sem, registrar = open_sem(), Registrar()
    frame = sem.acquire(10)
    shift = registrar.register(frame)
    assert shift is not None
    assert (shift.x_px, shift.y_px) == (0.0, 0.0)
    assert shift.reference_sequence == frame.header.sequence


def test_a_beam_shift_moves_the_content_the_other_way():
    sem, registrar = open_sem(), Registrar()
    registrar.register(sem.acquire(10))
    sem.apply(SetBeamShift(x_m=20 * PIXEL_M, y_m=-7 * PIXEL_M))
    shift = registrar.register(sem.acquire(10))
    assert shift is not None
    assert (shift.x_px, shift.y_px) == pytest.approx((-20, 7), abs=0.2)


def test_displacements_add_up_beyond_the_first_field_of_view():
    sem, registrar = open_sem(), Registrar()
    for step in range(12):
        sem.apply(SetBeamShift(x_m=step * 30 * PIXEL_M, y_m=0.0))
        shift = registrar.register(sem.acquire(10))
        assert shift is not None
        assert shift.reference_sequence == 1
        assert shift.x_px == pytest.approx(-30 * step, abs=1.0)
    assert shift.sigma_px > 0


def test_focus_may_change_on_the_way():
    sem, registrar = open_sem(focus_shift_nm_per_um=[10.0, 0.0]), Registrar()
    for step in range(6):
        sem.apply(SetWorkingDistance(working_distance_m=5e-3 + step * 5e-6))
        shift = registrar.register(sem.acquire(10))
        assert shift is not None
        assert shift.x_px == pytest.approx(-5.0 * step, abs=1.0)


def test_a_field_that_follows_the_focus_stays_the_same():
    sem, registrar = open_sem(), Registrar()
    for step in range(3):
        sem.apply(SetWorkingDistance(working_distance_m=5e-3 + step * 5e-6))
        frame = sem.acquire(10)
        scan = msgspec.structs.replace(frame.header.scan, pixel_size_m=PIXEL_M * (1 + 1e-3 * step))
        header = msgspec.structs.replace(frame.header, scan=scan)
        shift = registrar.register(Frame(header, frame.pixels))
        assert shift is not None
        assert shift.reference_sequence == 1


def test_a_long_stage_move_and_other_scan_settings_begin_a_new_field():
    sem, registrar = open_sem(), Registrar()
    registrar.register(sem.acquire(10))
    sem.apply(MoveStage(x_m=100 * PIXEL_M))
    shift = registrar.register(sem.acquire(10))
    assert shift is not None
    assert shift.reference_sequence == 2
    sem.apply(SetScan(frame_averages=2))
    shift = registrar.register(sem.acquire(10))
    assert shift is not None
    assert shift.reference_sequence == 3


def test_a_short_stage_move_stays_in_the_field():
    sem, registrar = open_sem(), Registrar()
    registrar.register(sem.acquire(10))
    sem.apply(MoveStage(x_m=10 * PIXEL_M, y_m=-20 * PIXEL_M))
    shift = registrar.register(sem.acquire(10))
    assert shift is not None
    assert (shift.x_px, shift.y_px) == pytest.approx((-10, 20), abs=0.3)


def test_frames_that_match_nothing_say_nothing_and_then_a_new_field_begins():
    sem, registrar = open_sem(), Registrar()
    registrar.register(sem.acquire(10))
    assert registrar.register(empty(sem.acquire(10))) is None
    shift = registrar.register(sem.acquire(10))
    assert shift is not None
    assert shift.reference_sequence == 1
    other = open_microscope(
        {"speed": 0, "seed": 99, "scan": {"width_px": 256, "height_px": 192}}, clock=ManualClock()
    )
    header = sem.acquire(10).header
    shifts = []
    for sequence in range(10, 16):
        frame = other.acquire(10)
        stranger = msgspec.structs.replace(header, sequence=sequence)
        shifts.append(registrar.register(Frame(stranger, frame.pixels)))
    assert shifts[:5] == [None] * 5
    assert shifts[5] is not None
    assert shifts[5].reference_sequence == 15


def test_the_same_frames_give_the_same_shifts():
    sem = open_sem()
    frames = []
    for step in range(4):
        sem.apply(SetBeamShift(x_m=step * 5 * PIXEL_M, y_m=0.0))
        frames.append(sem.acquire(10))
    registrars = Registrar(), Registrar()
    first, second = ([each.register(frame) for frame in frames] for each in registrars)
    assert first == second
