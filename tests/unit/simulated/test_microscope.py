"""What the simulated microscope takes, refuses and reads back, and how it keeps time."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from semagent.clock import ManualClock
from semagent.errors import (
    AcquisitionStoppedError,
    CommandRefusedError,
    MicroscopeError,
    MicroscopeTimeoutError,
)
from semagent.types import (
    MicroscopeAction,
    MoveStage,
    Region,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
)
from semagent_drivers.simulated import SimulatedMicroscope, open_microscope

MakeSem = Callable[..., SimulatedMicroscope]

ACTIONS: list[MicroscopeAction] = [
    SetWorkingDistance(working_distance_m=5.0123e-3),
    SetStigmator(x=0.25, y=-0.75),
    SetBeamShift(x_m=1e-6, y_m=-2e-6),
    MoveStage(x_m=1e-3, y_m=-2e-3, z_m=11e-3, rotation_rad=0.5, tilt_rad=0.2),
    SetScan(dwell_s=2e-6, frame_averages=3),
    SetBlanked(blanked=True),
]

REFUSED: list[MicroscopeAction] = [
    *(SetWorkingDistance(working_distance_m=v) for v in (math.nan, math.inf, 0.9e-3, 26e-3, -5e-3)),
    *(SetStigmator(x=x, y=y) for x, y in [(1.001, 0), (0, -1.001), (math.nan, 0), (0, math.inf)]),
    *(SetBeamShift(x_m=x, y_m=y) for x, y in [(16e-6, 0), (0, -16e-6), (0, math.nan)]),
    MoveStage(x_m=51e-3),
    MoveStage(x_m=1e-3, z_m=-1e-3),
    MoveStage(y_m=math.nan),
    MoveStage(tilt_rad=math.radians(61)),
    MoveStage(rotation_rad=math.inf),
    SetScan(dwell_s=math.nan),
    SetScan(dwell_s=0.0),
    SetScan(dwell_s=1e-6, frame_averages=0),
    SetScan(frame_averages=257),
    SetScan(region=Region(left=0.5, top=0, width=0.6, height=1)),
    SetScan(region=Region(left=-0.1, top=0, width=0.5, height=1)),
    SetScan(region=Region(left=0, top=0, width=0.1, height=1)),
    SetScan(region=Region(left=0, top=0, width=1, height=0)),
    SetScan(region=Region(left=0, top=math.nan, width=1, height=1)),
]


# -- rules of the port ------------------------------------------------------------------------


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_header_matches_pixels(make_sem: MakeSem, bit_depth: int) -> None:
    frame = make_sem(scan={"bit_depth": bit_depth}).acquire(10)
    assert frame.pixels.shape == (frame.header.scan.height_px, frame.header.scan.width_px)
    assert frame.pixels.shape == (96, 128)
    assert frame.pixels.dtype == (np.uint8 if bit_depth == 8 else np.uint16)
    assert frame.header.scan.bit_depth == bit_depth


def test_first_read_back_is_what_was_configured(make_sem: MakeSem) -> None:
    state = make_sem(
        scan={"dwell_us": 0.3, "frame_averages": 2, "pixel_size_nm": 12.0},
        column={
            "working_distance_mm": 4.5,
            "stigmator_x": 0.1,
            "beam_shift_y_um": -3,
            "blanked": True,
        },
        stage={"x_mm": 1.5, "z_mm": 12.0, "tilt_deg": 30.0},
    ).read_state()
    assert state.optics.working_distance_m == 4.5e-3
    assert (state.optics.stigmator_x, state.optics.stigmator_y) == (0.1, 0.0)
    assert state.optics.beam_shift_y_m == pytest.approx(-3e-6)
    assert state.optics.blanked is True
    assert state.optics.beam_current_a == pytest.approx(100e-12)
    assert state.optics.convergence_angle_rad == pytest.approx(5e-3)
    assert state.optics.accelerating_voltage_v == 5000
    assert state.scan.dwell_s == pytest.approx(0.3e-6)
    assert state.scan.frame_averages == 2
    assert state.scan.pixel_size_m == pytest.approx(12e-9)
    assert state.stage.x_m == pytest.approx(1.5e-3)
    assert state.stage.tilt_rad == pytest.approx(math.radians(30))


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: type(action).__name__)
def test_read_back_equals_the_set_point(make_sem: MakeSem, action: MicroscopeAction) -> None:
    sem = make_sem(column={"lens_hysteresis_um": 2.0}, stage={"backlash_um": 5.0})
    before = sem.read_state()
    sem.apply(action)
    after = sem.read_state()
    parts = {"scan": after.scan, "optics": after.optics, "stage": after.stage}
    names = {
        "x_m": "beam_shift_x_m",
        "y_m": "beam_shift_y_m",
        "x": "stigmator_x",
        "y": "stigmator_y",
    }
    for field in action.__struct_fields__:
        value = getattr(action, field)
        name = field if isinstance(action, MoveStage) else names.get(field, field)
        if value is not None:
            assert [getattr(part, name) for part in parts.values() if hasattr(part, name)] == [
                value
            ]
    assert after != before
    assert sem.acquire(10).header.optics == after.optics


@pytest.mark.parametrize("action", REFUSED, ids=repr)
def test_out_of_range_is_refused_and_nothing_changes(
    make_sem: MakeSem, action: MicroscopeAction
) -> None:
    sem = make_sem()
    before, truth = sem.read_state(), sem.truth()
    with pytest.raises(CommandRefusedError, match=r"\d|nan|inf"):
        sem.apply(action)
    assert sem.read_state() == before
    assert sem.truth() == truth


@pytest.mark.parametrize(
    "action",
    [
        SetWorkingDistance(working_distance_m=1e-3),
        SetWorkingDistance(working_distance_m=25e-3),
        SetStigmator(x=1.0, y=-1.0),
        MoveStage(x_m=-50e-3, z_m=0.0),
        MoveStage(),
        SetScan(region=Region(left=0.875, top=0, width=0.125, height=1.0)),
        SetScan(dwell_s=1e-3, frame_averages=256),
    ],
    ids=repr,
)
def test_limits_themselves_are_allowed(make_sem: MakeSem, action: MicroscopeAction) -> None:
    make_sem().apply(action)


def test_settings_revision_grows_with_the_scan_only(make_sem: MakeSem) -> None:
    sem = make_sem()
    revisions = [sem.read_state().settings_rev]
    for action in [
        *ACTIONS[:4],
        SetScan(dwell_s=1e-6),
        SetScan(dwell_s=1e-6),
        SetScan(frame_averages=2),
        SetScan(region=Region(left=0, top=0, width=0.5, height=0.5)),
    ]:
        sem.apply(action)
        revisions.append(sem.read_state().settings_rev)
    assert np.diff(revisions).tolist() == [0, 0, 0, 0, 1, 0, 1, 1]
    assert sem.acquire(10).header.settings_rev == revisions[-1]


def test_capabilities_promise_what_is_there(make_sem: MakeSem) -> None:
    capabilities = make_sem().capabilities
    assert capabilities.simulated
    assert capabilities.working_distance_range_m == (1e-3, 25e-3)
    assert set(capabilities.stage_axes) == set(MoveStage.__struct_fields__)


# -- time -------------------------------------------------------------------------------------


class StoppingClock(ManualClock):
    """Calls ``stop`` on the microscope once so much time has passed."""

    sem: SimulatedMicroscope
    stop_at_ns = 0

    def sleep(self, duration_s: float) -> None:
        super().sleep(duration_s)
        if self.stop_at_ns and self.monotonic_ns() >= self.stop_at_ns:
            self.stop_at_ns = 0
            self.sem.stop()


def stopping_sem(**options: Any) -> tuple[SimulatedMicroscope, StoppingClock]:
    clock = StoppingClock()
    clock.sem = open_microscope(
        {"scan": {"width_px": 64, "height_px": 64}, "specimen": {"tile_px": 128}, **options},
        clock=clock,
    )
    return clock.sem, clock


@pytest.mark.parametrize(("speed", "expected_s"), [(1.0, 0.096 * 74), (10.0, 0.0096 * 74)])
def test_a_frame_takes_its_nominal_time(
    make_sem: MakeSem, clock: ManualClock, speed: float, expected_s: float
) -> None:
    sem = make_sem(speed=speed, scan={"dwell_us": 500.0, "line_overhead_us": 10_000.0})
    start = clock.monotonic_ns()
    header = sem.acquire(60).header
    assert (header.monotonic_ns - start) * 1e-9 == pytest.approx(expected_s, rel=1e-6)
    assert sem.truth().elapsed_s == pytest.approx(0.096 * 74)


def test_as_fast_as_possible_never_sleeps_but_time_passes(
    make_sem: MakeSem, clock: ManualClock
) -> None:
    sem = make_sem(speed=0.0)
    start = clock.monotonic_ns()
    sem.acquire(10)
    sem.apply(MoveStage(x_m=5e-3))
    assert clock.monotonic_ns() == start
    # 128 x 96 pixels of 0.5 us, 10 us a line; 5 mm at 1 mm/s, 0.3 s to settle.
    assert sem.truth().elapsed_s == pytest.approx(96 * (64e-6 + 10e-6) + 5.3)


def test_stop_ends_a_long_exposure_promptly() -> None:
    sem, clock = stopping_sem(scan={"width_px": 64, "height_px": 64, "dwell_us": 1000.0})
    start = clock.monotonic_ns()
    clock.stop_at_ns = start + 1_000_000_000
    with pytest.raises(AcquisitionStoppedError):
        sem.acquire(60)
    assert (clock.monotonic_ns() - start) * 1e-9 < 1.05
    # A quarter of the 4.1 s was exposed, so a quarter of the dose was spent.
    whole = sem.truth().dose_per_pixel_e * 64 * 64
    assert sem.truth().total_dose_e == pytest.approx(whole * 1.0 / 4.0966, rel=0.03)
    assert sem.acquire(60).header.sequence == 1


def test_stop_halts_the_stage_on_its_way() -> None:
    sem, clock = stopping_sem()
    clock.stop_at_ns = clock.monotonic_ns() + 2_000_000_000
    with pytest.raises(MicroscopeError, match="stopped"):
        sem.apply(MoveStage(x_m=8e-3))
    assert sem.read_state().stage.x_m == pytest.approx(2e-3, rel=0.02)


@pytest.mark.parametrize("timeout_s", [0.5, 0.0, -1.0])
def test_too_short_a_deadline_is_kept(
    make_sem: MakeSem, clock: ManualClock, timeout_s: float
) -> None:
    sem = make_sem(speed=1.0, scan={"dwell_us": 500.0})
    start = clock.monotonic_ns()
    with pytest.raises(MicroscopeTimeoutError, match=r"takes 6\.14 s at speed 1"):
        sem.acquire(timeout_s)
    assert (clock.monotonic_ns() - start) * 1e-9 == pytest.approx(max(timeout_s, 0.0), abs=1e-6)
    assert sem.acquire(math.inf).header.sequence == 1


def test_lens_settling_takes_time(make_sem: MakeSem, clock: ManualClock) -> None:
    sem = make_sem(speed=1.0, column={"lens_settle_ms": 80.0})
    start = clock.monotonic_ns()
    sem.apply(SetWorkingDistance(working_distance_m=5.01e-3))
    assert (clock.monotonic_ns() - start) * 1e-9 == pytest.approx(0.08)
