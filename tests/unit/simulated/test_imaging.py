"""What the simulated microscope simulates: optics, dose, stage, drift and scan."""

import math
from collections.abc import Callable

import numpy as np
import pytest

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
from semagent_drivers.simulated import SimulatedMicroscope

MakeSem = Callable[..., SimulatedMicroscope]


# -- optics -----------------------------------------------------------------------------------


def sharpness(sem: SimulatedMicroscope) -> float:
    return float(np.diff(sem.acquire(10).pixels.astype(float), axis=1).std())


def test_same_seed_and_commands_give_the_same_frames(make_sem: MakeSem) -> None:
    actions: list[MicroscopeAction] = [
        SetWorkingDistance(working_distance_m=5.0123e-3),
        SetStigmator(x=0.25, y=-0.75),
        SetBeamShift(x_m=1e-6, y_m=-2e-6),
        MoveStage(x_m=1e-3, y_m=-2e-3, z_m=11e-3, rotation_rad=0.5, tilt_rad=0.2),
    ]

    def run(seed: int) -> list[np.ndarray]:
        sem = make_sem(
            seed=seed,
            drift={"x_nm_per_s": 5.0, "walk_xy_nm_per_sqrt_s": 50.0},
            detector={"line_jitter_px": 0.2, "read_noise": 0.01},
        )
        frames = []
        for action in actions:
            frames.append(sem.acquire(10).pixels)
            sem.apply(action)
        return frames

    for first, again, other in zip(run(3), run(3), run(4), strict=True):
        np.testing.assert_array_equal(first, again)
        assert (first != other).mean() > 0.5


def test_focus_is_where_the_truth_says(make_sem: MakeSem) -> None:
    sem = make_sem(specimen={"working_distance_mm": 5.02}, stage={"z_mm": 10.0})
    sem.apply(MoveStage(z_m=10.005e-3))
    truth = sem.truth()
    assert truth.focal_working_distance_m == pytest.approx(5.015e-3)
    assert truth.defocus_m == pytest.approx(-15e-6)
    values = {}
    for step_um in (-15, -8, -2, 0, 2, 8, 15):
        wd = truth.focal_working_distance_m + step_um * 1e-6
        sem.apply(SetWorkingDistance(working_distance_m=wd))
        values[step_um] = sharpness(sem)
    assert max(values, key=values.__getitem__) == 0
    assert values[-15] < values[-8] < values[0] > values[8] > values[15]


def test_the_stigmators_cancel_the_columns_astigmatism(make_sem: MakeSem) -> None:
    sem = make_sem(
        column={"astigmatism_um": (4.0, -3.0), "stigmator_coupling": ((0.8, 0.3), (-0.2, 1.1))}
    )
    truth = sem.truth()
    assert (truth.a1_m, truth.a2_m) == pytest.approx((4e-6, -3e-6))
    before = sharpness(sem)
    x, y = truth.stigmator_solution
    sem.apply(SetStigmator(x=x, y=y))
    after = sem.truth()
    assert (after.a1_m, after.a2_m) == pytest.approx((0, 0), abs=1e-12)
    assert after.blur == pytest.approx((after.sigma0_px**2, 0, after.sigma0_px**2))
    assert sharpness(sem) > 1.05 * before


def test_truth_about_the_beam(make_sem: MakeSem) -> None:
    truth = make_sem(column={"convergence_mrad": 8.0, "probe_sigma_nm": 5.0}).truth()
    assert truth.slope_px_per_m == pytest.approx(8e-3 / 2 / 10e-9)
    assert truth.sigma0_px == pytest.approx(0.5)
    assert truth.half_depth_m == pytest.approx(10e-9 / 8e-3)
    assert truth.dose_per_pixel_e == pytest.approx(312.08, rel=1e-4)  # 100 pA for 0.5 us
    assert truth.total_dose_e == 0


def test_dose_adds_up_and_stops_when_blanked(make_sem: MakeSem) -> None:
    sem = make_sem(scan={"frame_averages": 2})
    sem.acquire(10)
    once = sem.truth().total_dose_e
    assert once == pytest.approx(2 * 312.075 * 128 * 96, rel=1e-4)
    sem.apply(SetBlanked(blanked=True))
    sem.acquire(10)
    assert sem.truth().total_dose_e == once
    sem.apply(SetBlanked(blanked=False))
    sem.acquire(10)
    assert sem.truth().total_dose_e == 2 * once


def test_a_blanked_frame_is_detector_noise(make_sem: MakeSem) -> None:
    sem = make_sem(detector={"read_noise": 0.02, "black_level": 0.1})
    lit = sem.acquire(10).pixels.astype(float)
    sem.apply(SetBlanked(blanked=True))
    dark = sem.acquire(10).pixels.astype(float)
    assert dark.mean() == pytest.approx(25.5, abs=0.5)
    assert dark.std() == pytest.approx(5.1, abs=0.3)
    assert abs(np.corrcoef(dark.ravel(), lit.ravel())[0, 1]) < 0.05


def test_lens_hysteresis_lags_but_reads_back_exactly(make_sem: MakeSem) -> None:
    sem = make_sem(column={"lens_hysteresis_um": 1.0})
    lags = []
    for wd in (5.010e-3, 5.000e-3, 5.0005e-3, 5.010e-3):
        sem.apply(SetWorkingDistance(working_distance_m=wd))
        assert sem.read_state().optics.working_distance_m == wd
        lags.append(sem.truth().lens_lag_m * 1e6)
    # Up, down, a small step that stays within the play, and up again.
    assert lags == pytest.approx([-1.0, 1.0, 0.5, -1.0], abs=1e-6)


def test_image_shifts_with_focus_and_stigmators(make_sem: MakeSem) -> None:
    sem = make_sem(
        column={
            "focus_shift_nm_per_um": (4.0, -2.0),
            "stigmator_shift_nm_per_unit": ((100.0, 0.0), (0.0, 50.0)),
        }
    )
    sem.apply(SetWorkingDistance(working_distance_m=5.01e-3))
    assert sem.truth().view_m == pytest.approx((40e-9, -20e-9), rel=1e-6)
    sem.apply(SetStigmator(x=0.5, y=1.0))
    assert sem.truth().view_m == pytest.approx((90e-9, 30e-9), rel=1e-6)


def test_brightness_and_contrast_change_with_focus(make_sem: MakeSem) -> None:
    def grey(wd_mm: float, **column: float) -> float:
        sem = make_sem(specimen={"kind": "flat"}, column=column)
        sem.apply(SetWorkingDistance(working_distance_m=wd_mm * 1e-3))
        return float(sem.acquire(10).pixels.mean()) / 255

    plain = grey(5.0)
    assert grey(5.1, focus_brightness_per_mm=0.5) == pytest.approx(plain + 0.05, abs=0.003)
    brighter = grey(5.1, focus_contrast_per_mm=2.0)
    assert brighter - 0.06 == pytest.approx(1.2 * (plain - 0.06), rel=0.02)
    assert grey(6.0, focus_contrast_per_mm=-2.0) == pytest.approx(0.06, abs=0.003)


# -- stage, shift and drift -------------------------------------------------------------------


def test_stage_and_beam_shift_move_the_view_alike(make_sem: MakeSem) -> None:
    moved, shifted, still = (make_sem(column={"beam_current_pa": 1e5}) for _ in range(3))
    moved.apply(MoveStage(x_m=200e-9, y_m=-100e-9))
    shifted.apply(SetBeamShift(x_m=200e-9, y_m=-100e-9))
    first, second = moved.acquire(10).pixels, shifted.acquire(10).pixels
    np.testing.assert_array_equal(first, second)
    reference = still.acquire(10).pixels.astype(float)
    # 20 pixels to the right and 10 up: the content goes the other way.
    overlap = np.corrcoef(first[10:, :-20].ravel(), reference[:-10, 20:].ravel())[0, 1]
    assert overlap > 0.99


def test_backlash_depends_on_the_way_of_approach(make_sem: MakeSem) -> None:
    sem = make_sem(stage={"backlash_um": 0.4})
    views = []
    for x in (10e-6, 5e-6, 0.0, 5e-6):
        sem.apply(MoveStage(x_m=x))
        assert sem.read_state().stage.x_m == x
        views.append(sem.truth().view_m[0] * 1e6)
    assert views == pytest.approx([9.8, 5.2, 0.2, 4.8], abs=1e-6)


def test_specimen_creeps_after_a_move(make_sem: MakeSem) -> None:
    sem = make_sem(stage={"creep_fraction": 0.01, "creep_time_s": 2.0, "settle_ms": 0.0})
    sem.apply(MoveStage(x_m=10e-6))
    assert sem.truth().view_m[0] == pytest.approx(9.9e-6, rel=1e-6)
    sem.apply(SetScan(dwell_s=162.76e-6))  # 2.0 s for a frame
    sem.acquire(10)
    assert sem.truth().view_m[0] == pytest.approx(10e-6 - 0.1e-6 / math.e, rel=1e-4)


def test_drift_follows_simulated_time(make_sem: MakeSem) -> None:
    drift = {"x_nm_per_s": 30.0, "y_nm_per_s": -10.0, "z_nm_per_s": 200.0}
    sem = make_sem(scan={"dwell_us": 40.0}, drift=drift)
    before = sem.truth()
    for _ in range(10):
        sem.acquire(10)
    after = sem.truth()
    assert after.elapsed_s == pytest.approx(10 * 96 * (128 * 40e-6 + 10e-6))
    assert after.view_m == pytest.approx((30e-9 * after.elapsed_s, -10e-9 * after.elapsed_s))
    # Towards the pole piece: focus comes nearer.
    moved = after.focal_working_distance_m - before.focal_working_distance_m
    assert moved == pytest.approx(-200e-9 * after.elapsed_s)


def test_random_walk_spreads_with_the_root_of_time(make_sem: MakeSem) -> None:
    ends = []
    for seed in range(40):
        sem = make_sem(seed=seed, specimen={"kind": "flat"}, drift={"walk_z_nm_per_sqrt_s": 100.0})
        sem.apply(MoveStage(x_m=15.7e-3))
        ends.append(sem.truth().focal_working_distance_m - 5e-3)
    assert np.std(ends) == pytest.approx(400e-9, rel=0.3)


def test_tilted_stage_spreads_the_focus_over_the_field(make_sem: MakeSem) -> None:
    sem = make_sem(stage={"tilt_deg": 45.0})
    low, high = sem.truth().defocus_range_m
    assert high - low == pytest.approx(95 * 10e-9, rel=1e-3)
    assert sem.truth().defocus_m == pytest.approx(0, abs=1e-8)
    top = Region(left=0, top=0, width=1, height=0.25)
    sem.apply(SetScan(region=top))
    assert sem.truth().defocus_m == pytest.approx(-36 * 10e-9, abs=1e-8)


# -- scan -------------------------------------------------------------------------------------


def test_region_is_cut_from_the_field_and_saves_dose(make_sem: MakeSem) -> None:
    sem = make_sem(column={"beam_current_pa": 1e6})
    whole = sem.acquire(10).pixels.astype(float)
    spent = sem.truth().total_dose_e
    sem.apply(SetScan(region=Region(left=0.25, top=0.5, width=0.5, height=0.25)))
    frame = sem.acquire(10)
    assert frame.pixels.shape == (24, 64)
    assert (frame.header.scan.width_px, frame.header.scan.height_px) == (64, 24)
    np.testing.assert_allclose(frame.pixels, whole[48:72, 32:96], atol=2)
    assert sem.truth().total_dose_e == pytest.approx(spent * 1.125)
    sem.apply(SetScan(region=Region(left=0, top=0, width=1, height=1)))
    assert sem.acquire(10).pixels.shape == (96, 128)


def test_longer_dwell_and_averages_mean_less_noise(make_sem: MakeSem) -> None:
    def noise(**scan: float) -> float:
        frames = make_sem(specimen={"kind": "flat"}, scan={"bit_depth": 16, **scan})
        return float(frames.acquire(100).pixels.std())

    base = noise(dwell_us=0.5)
    assert noise(dwell_us=2.0) == pytest.approx(base / 2, rel=0.05)
    assert noise(frame_averages=4) == pytest.approx(base / 2, rel=0.05)


def test_averaging_smears_a_drifting_specimen(make_sem: MakeSem) -> None:
    drift = {"x_nm_per_s": 2000.0}
    scan = {"dwell_us": 1.0, "frame_averages": 8}
    assert sharpness(make_sem(scan=scan, drift=drift)) < 0.9 * sharpness(make_sem(scan=scan))


def test_info_bar_is_declared_and_drawn(make_sem: MakeSem) -> None:
    sem = make_sem(scan={"info_bar_px": 20, "height_px": 116, "bit_depth": 16})
    frame = sem.acquire(10)
    assert frame.header.info_bar_px == 20
    assert frame.specimen.shape == (96, 128)
    bar = frame.pixels[-20:]
    assert (bar == 0).mean() > 0.5
    assert bar.max() == 65535
    sem.apply(SetScan(region=Region(left=0, top=0, width=0.5, height=0.5)))
    assert sem.acquire(10).header.info_bar_px == 0


def test_brightness_and_contrast_wander_from_frame_to_frame(make_sem: MakeSem) -> None:
    def means(**detector: float) -> list[float]:
        sem = make_sem(detector={"black_level": 0.2, **detector})
        return [float(sem.acquire(10).pixels.mean()) for _ in range(6)]

    still, offset = means(), means(brightness_drift=0.02)
    assert np.ptp(still) < 0.5
    assert np.ptp(offset) > 2
    assert offset[0] == pytest.approx(still[0], abs=0.5)
    assert np.ptp(means(contrast_drift=0.1)) > 2
