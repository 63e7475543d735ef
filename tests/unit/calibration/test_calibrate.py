"""Calibration against a simulated microscope, whose knobs do what its options say."""

import dataclasses
import functools
import json
import math
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

from semagent import registry
from semagent.calibration import CalibrationOptions, NotCalibratedError, Stage, calibrate
from semagent.calibration.hands import Hands
from semagent.calibration.procedure import _require_no_jump, _with_shifts
from semagent.calibration.shifts import Effect, ShiftFit
from semagent.cli import calibrate as command
from semagent.cli import main
from semagent.cli.output import Output
from semagent.clock import ManualClock
from semagent.config import RunConfig, find_config, load_config
from semagent.errors import CommandRefusedError, DisconnectedError, MicroscopeError
from semagent.memory import (
    Calibration,
    Entry,
    Matrix,
    Measure,
    Memory,
    Settings,
    Vector,
    date_of,
    load_memory,
)
from semagent.safety import AxisLimits
from semagent.types import (
    FrameHeader,
    MicroscopeAction,
    MicroscopeState,
    MoveStage,
    SetWorkingDistance,
)
from semagent_drivers.simulated.beam import Beam
from semagent_drivers.simulated.column import Column
from semagent_drivers.simulated.microscope import SimulatedMicroscope

PIXEL_M = 10e-9
COLUMN = {
    "working_distance_mm": 5.003,
    "convergence_mrad": 5.0,
    "astigmatism_um": [1.5, -1.0],
    "stigmator_um_per_unit": 20.0,
    "stigmator_coupling": [[0.9, -0.3], [0.3, 0.9]],
    "stigmator_shift_nm_per_unit": [[300.0, 100.0], [-50.0, 200.0]],
    "focus_shift_nm_per_um": [12.0, -6.0],
    "focus_brightness_per_mm": 0.5,
    "lens_hysteresis_um": 0.5,
}
OPTIONS: dict[str, Any] = {
    "seed": 3,
    "scan": {"width_px": 384, "height_px": 288, "pixel_size_nm": 10, "dwell_us": 0.5},
    "column": COLUMN,
    "specimen": {"kind": "particles", "working_distance_mm": 5.0},
    "stage": {"backlash_um": 0.1},
    "drift": {"x_nm_per_s": 2, "y_nm_per_s": -1, "z_nm_per_s": 10},
}
STAGE = AxisLimits(min=-1e-3, max=1e-3, max_step=1e-4, max_travel=1e-2)


@functools.cache
def configuration() -> RunConfig:
    config = load_config(find_config("simulated"))
    safety = msgspec.structs.replace(config.safety, stage_x_m=STAGE, stage_y_m=STAGE)
    return msgspec.structs.replace(config, safety=safety)


def run(
    config: RunConfig | None = None,
    step: Any = lambda _stage, _header: None,
    left_out: list[str] | None = None,
    **changes: Any,
) -> tuple[Calibration | BaseException, MicroscopeState, MicroscopeState, list[Stage]]:
    """The calibration, or why there is none, with the settings before and after it."""
    config = config or configuration()
    clock, stages = ManualClock(), []
    microscope = registry.open_microscope("simulated", {**OPTIONS, **changes}, clock=clock)

    def note(stage: Stage, header: FrameHeader) -> None:
        stages.append(stage)
        step(stage, header)

    with Hands(config, microscope, clock) as hands:
        hands.arm()
        before = microscope.read_state()
        found: Calibration | BaseException
        try:
            told = [] if left_out is None else left_out
            _, found = calibrate(
                hands, config, microscope.capabilities, CalibrationOptions(), note, told.append
            )
        except BaseException as error:  # noqa: BLE001 - the tests look at it
            found = error
        after = microscope.read_state()
    with pytest.raises(DisconnectedError, match="was closed"):
        microscope.read_state()
    return found, before, after, stages


def entries(matrix: Matrix) -> list[float]:
    return [matrix.xx, matrix.xy, matrix.yx, matrix.yy]


@pytest.fixture(scope="module")
def measured() -> tuple[Calibration, MicroscopeState, MicroscopeState]:
    found, before, after, _ = run()
    assert isinstance(found, Calibration)
    return found, before, after


def test_the_scale_of_focus_and_its_play(measured: Any) -> None:
    calibration = measured[0]
    assert calibration.blur_per_focus.value == pytest.approx(0.0025, rel=0.03)
    assert calibration.blur_per_focus.sigma < 0.03 * 0.0025
    assert calibration.focus_hysteresis_m.value == pytest.approx(0.5e-6, abs=0.1e-6)


@pytest.mark.parametrize(
    ("kind", "seed", "play_um"),
    [("particles", 3, 4.0), ("fracture", 3, 4.0), ("fibres", 4, 0.0), ("particles", 3, 10.0)],
)
def test_focus_is_found_whatever_the_play_of_the_lens(kind: str, seed: int, play_um: float) -> None:
    """The play may be five half depths of field: the sharpest frames lie that far from focus."""
    found, *_ = run(
        seed=seed,
        column={**COLUMN, "lens_hysteresis_um": play_um},
        specimen={"kind": kind, "working_distance_mm": 5.0},
    )
    assert isinstance(found, Calibration), found
    assert found.focus_hysteresis_m is not None
    assert found.focus_hysteresis_m.value == pytest.approx(play_um * 1e-6, abs=0.1e-6)
    assert found.blur_per_focus is not None
    assert found.blur_per_focus.value == pytest.approx(0.0025, rel=0.03)


@pytest.mark.parametrize(("kind", "seed"), [("grains", 4), ("porous", 5)])
def test_a_spot_that_grows_is_not_taken_for_play(
    kind: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    beam, taken = Column.beam, [0]

    def count(_at: Stage, _header: FrameHeader) -> None:
        taken[0] += 1

    def grown(column: Column) -> Beam:
        now = beam(column)
        return dataclasses.replace(now, sigma0_px=now.sigma0_px + 0.05 * taken[0])

    monkeypatch.setattr(Column, "beam", grown)
    found, *_ = run(step=count, seed=seed, specimen={"kind": kind, "working_distance_mm": 5.0})
    assert isinstance(found, Calibration), found
    play, matrix = found.focus_hysteresis_m, found.astigmatism_per_stigmator
    assert play is not None
    assert play.value == pytest.approx(0.5e-6, abs=3 * play.sigma)
    assert matrix is not None
    assert entries(matrix) == pytest.approx([18e-6, -6e-6, 6e-6, 18e-6], abs=3 * matrix.sigma)


def test_the_uncertainties_are_honest(measured: Any) -> None:
    """What is known to be true lies within three of the standard deviations that are stated."""
    calibration = measured[0]
    slope, play = calibration.blur_per_focus, calibration.focus_hysteresis_m
    assert abs(slope.value - 0.0025) < 3 * slope.sigma
    assert abs(play.value - 0.5e-6) < 3 * play.sigma
    focus = calibration.image_shift_per_focus
    assert max(abs(focus.x + 12e-3), abs(focus.y - 6e-3)) < 3 * focus.sigma
    beam = calibration.image_shift_per_beam_shift
    assert max(abs(beam.xx + 1), abs(beam.yy + 1), abs(beam.xy), abs(beam.yx)) < 3 * beam.sigma


@pytest.mark.parametrize("seed", [4, 6])
def test_where_focus_wanders_less_is_known(seed: int) -> None:
    found, *_ = run(
        seed=seed,
        scan={**OPTIONS["scan"], "dwell_us": 1.0},
        specimen={"kind": "porous", "working_distance_mm": 5.0},
        drift={**OPTIONS["drift"], "walk_z_nm_per_sqrt_s": 200},
    )
    assert isinstance(found, Calibration), found
    play = found.focus_hysteresis_m
    assert play is not None
    assert abs(play.value - 0.5e-6) < 3 * play.sigma


def test_signs_scales_and_coupling_of_the_stigmators(measured: Any) -> None:
    matrix = measured[0].astigmatism_per_stigmator
    assert entries(matrix) == pytest.approx([18e-6, -6e-6, 6e-6, 18e-6], abs=1.2e-6)
    # These stigmators do not focus, and the calibration does not say they do.
    vector = measured[0].focus_per_stigmator
    assert math.hypot(vector.x, vector.y) < 4 * vector.sigma


@pytest.mark.parametrize("seed", [3, 5])
def test_a_field_of_few_directions_tells_what_stigmators_do(seed: int) -> None:
    """The power of fibres is seldom in the middle of a bin's directions."""
    found, *_ = run(seed=seed, specimen={"kind": "fibres", "working_distance_mm": 5.0})
    assert isinstance(found, Calibration), found
    matrix = found.astigmatism_per_stigmator
    assert matrix is not None
    assert entries(matrix) == pytest.approx([18e-6, -6e-6, 6e-6, 18e-6], abs=2.5 * matrix.sigma)
    assert matrix.sigma < 1.2e-6


def test_stigmators_that_do_nothing_are_not_kept() -> None:
    left_out: list[str] = []
    found, *_ = run(left_out=left_out, column={**COLUMN, "stigmator_um_per_unit": 1e-3})
    assert isinstance(found, Calibration)
    assert found.astigmatism_per_stigmator is None
    assert found.focus_per_stigmator is None
    assert ["astigmatism_per_stigmator is not kept" in each for each in left_out] == [True]
    assert found.blur_per_focus is not None


def test_shifts_are_those_of_the_content(measured: Any) -> None:
    """The view moves one way, the picture the other."""
    calibration = measured[0]
    focus, stigmator = calibration.image_shift_per_focus, calibration.image_shift_per_stigmator
    assert (focus.x, focus.y) == pytest.approx((-12e-3, 6e-3), abs=0.1e-3)
    assert entries(stigmator) == pytest.approx([-300e-9, -100e-9, 50e-9, -200e-9], abs=10e-9)


@pytest.mark.parametrize("name", ["image_shift_per_beam_shift", "image_shift_per_stage"])
def test_scale_and_rotation(measured: Any, name: str) -> None:
    matrix = getattr(measured[0], name)
    assert entries(matrix) == pytest.approx([-1, 0, 0, -1], abs=5e-3)


def test_the_play_of_the_stage(measured: Any) -> None:
    assert measured[0].stage_backlash_m.value == pytest.approx(0.1e-6, abs=5e-9)


def test_of_two_axes_the_larger_play_is_kept() -> None:
    fit = ShiftFit(
        effects={"stage_x": Effect(-1.0, 0.0, 1e-3), "stage_y": Effect(0.0, -1.0, 1e-3)},
        jumps={"stage_x": Effect(5e-8, 0.0, 1e-9), "stage_y": Effect(0.0, 1.5e-7, 2e-9)},
        residual_m=1e-9,
    )
    play = _with_shifts(Calibration(date="2025-01-01", frames=40), fit).stage_backlash_m
    assert play is not None
    assert (play.value, play.sigma) == pytest.approx((3e-7, 4e-9))


@pytest.mark.parametrize(
    ("jump_m", "sigma_m", "found_out"),
    [(3e-6, 0.3e-6, True), (-3e-6, 0.3e-6, True), (3e-6, 0.5e-6, False), (1e-6, 0.01e-6, False)],
)
def test_a_jump_is_one_that_is_sure_and_larger_than_half_a_depth_of_field(
    jump_m: float, sigma_m: float, found_out: bool
) -> None:
    fit: Any = SimpleNamespace(jump_m=(jump_m, sigma_m))
    with pytest.raises(NotCalibratedError) if found_out else nullcontext():
        _require_no_jump(fit, 2e-6)


@pytest.mark.parametrize("known", [False, True])
def test_what_frames_do_not_tell_of_the_beam_is_assumed_or_remembered(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither pixel size nor angle; or no angle, which an earlier calibration tells."""
    state = SimulatedMicroscope._state

    def without(microscope: SimulatedMicroscope) -> MicroscopeState:
        told = state(microscope)
        replace = msgspec.structs.replace
        scan = told.scan if known else replace(told.scan, pixel_size_m=None)
        optics = replace(told.optics, convergence_angle_rad=None)
        return replace(told, scan=scan, optics=optics)

    monkeypatch.setattr(SimulatedMicroscope, "_state", without)
    config = configuration()
    if known:
        slope = Measure(value=0.0025, sigma=1e-4)
        earlier = Calibration(date="2025-01-01", frames=40, blur_per_focus=slope)
        memory = Memory(entries=(Entry(settings=Settings(), calibration=earlier),))
        scale = msgspec.structs.replace(config.control.scale, assumed_convergence_angle_rad=0.5e-3)
        control = msgspec.structs.replace(config.control, scale=scale)
        config = msgspec.structs.replace(config, remembered=memory, control=control)
    found, before, after, _ = run(config)
    assert isinstance(found, Calibration), found
    assert found.blur_per_focus is not None
    assert found.blur_per_focus.value == pytest.approx(0.0025, rel=0.03)
    assert found.image_shift_per_beam_shift is not None
    assert found.image_shift_per_beam_shift.xx == pytest.approx(-1, abs=5e-3)
    assert after == before


def test_a_beam_shift_that_does_nothing_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    shift_m = Column.image_shift_m
    monkeypatch.setattr(
        Column, "image_shift_m", lambda column: shift_m(column) - column._beam_shift_m
    )
    left_out: list[str] = []
    found, *_ = run(left_out=left_out)
    assert isinstance(found, Calibration)
    assert found.image_shift_per_beam_shift is None
    assert found.image_shift_per_stage is not None
    assert ["image_shift_per_beam_shift is not kept" in each for each in left_out] == [True]


@pytest.mark.parametrize("stage", [Stage.BEAM_SHIFT, Stage.STAGE])
def test_what_a_specimen_that_jumped_says_is_not_kept(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift_m, jumped, left_out = Column.image_shift_m, [False], []
    monkeypatch.setattr(
        Column,
        "image_shift_m",
        lambda column: np.add(shift_m(column), (0.3e-6 * jumped[0], 0.0)),
    )

    def jump(at: Stage, _header: FrameHeader) -> None:
        jumped[0] |= at is stage

    found, *_ = run(step=jump, left_out=left_out)
    assert isinstance(found, Calibration)
    assert found.image_shift_per_beam_shift is None
    assert found.image_shift_per_stage is None
    assert found.stage_backlash_m is None
    assert len(left_out) == 2
    assert found.blur_per_focus is not None


def test_everything_is_put_back(measured: Any) -> None:
    _, before, after = measured
    assert after == before


def test_a_turned_scan_shows_in_the_shift_of_the_stage() -> None:
    turn = math.radians(30)
    found, *_ = run(stage={"backlash_um": 0.1, "rotation_deg": 30.0})
    assert isinstance(found, Calibration)
    assert found.image_shift_per_stage is not None
    matrix = found.image_shift_per_stage
    size = math.hypot(matrix.xx, matrix.yx)
    assert size == pytest.approx(1, abs=0.01)
    assert abs(math.sin(math.atan2(matrix.yx, matrix.xx))) == pytest.approx(
        math.sin(turn), abs=0.01
    )


def test_what_the_envelope_does_not_allow_is_left_out() -> None:
    config = configuration()
    safety = msgspec.structs.replace(config.safety, stage_x_m=None, stigmator=None)
    found, *_ = run(msgspec.structs.replace(config, safety=safety))
    assert isinstance(found, Calibration)
    assert found.image_shift_per_stage is None
    assert found.stage_backlash_m is None
    assert found.astigmatism_per_stigmator is None
    assert found.image_shift_per_beam_shift is not None


@pytest.mark.parametrize(
    ("stage", "frame"),
    [(Stage.FOCUS, 9), (Stage.STIGMATORS, 2), (Stage.BEAM_SHIFT, 2), (Stage.STAGE, 3)],
)
def test_interrupted_anywhere_everything_is_put_back(
    stage: Stage, frame: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Focus and stage from below, so that their play is taken up as before."""
    seen, apply = 0, SimulatedMicroscope.apply
    focus_m, x_m = [], []

    def note(microscope: SimulatedMicroscope, action: MicroscopeAction) -> None:
        if isinstance(action, SetWorkingDistance):
            focus_m.append(action.working_distance_m)
        elif isinstance(action, MoveStage) and action.x_m is not None:
            x_m.append(action.x_m)
        apply(microscope, action)

    def interrupt(at: Stage, _header: FrameHeader) -> None:
        nonlocal seen
        seen += at is stage
        if seen == frame:
            seen = 100
            raise KeyboardInterrupt

    monkeypatch.setattr(SimulatedMicroscope, "apply", note)
    found, before, after, _ = run(step=interrupt)
    assert isinstance(found, KeyboardInterrupt)
    assert after == before
    assert focus_m[-2:] == sorted(focus_m[-2:])
    assert x_m[-2:] == sorted(x_m[-2:])


def test_a_stage_that_takes_longer_than_evidence_lasts_is_waited_for() -> None:
    """A step of 0.19 µm takes 12 s."""
    found, before, after, _ = run(stage={"backlash_um": 0.1, "speed_mm_per_s": 1.6e-5}, drift={})
    assert isinstance(found, Calibration), found
    assert after == before


@pytest.mark.parametrize("command", [2, 24, 30, 40, 50])
def test_refused_by_the_microscope_everything_is_put_back(command: int) -> None:
    found, before, after, _ = run(faults={"refused": {"at": [command]}})
    assert isinstance(found, CommandRefusedError)
    assert "injected" in str(found)
    assert after == before


@pytest.mark.parametrize("when", ["before the frame", "after the frame"])
@pytest.mark.parametrize("frame", [8, 30])
def test_whoever_changes_the_scan_ends_it_and_everything_is_put_back(
    frame: int, when: str, change_scan: Callable[[int, str], None]
) -> None:
    change_scan(frame, when)
    found, before, after, _ = run()
    assert isinstance(found, MicroscopeError), found
    assert str(found) == "the settings were changed: dwell from 0.5 µs to 1 µs"
    assert (after.optics, after.stage) == (before.optics, before.stage)


def test_with_nothing_but_unusable_frames_everything_is_put_back() -> None:
    """They are long enough for evidence to grow old over a few of them."""
    scan = {**OPTIONS["scan"], "dwell_us": 9.9}
    found, before, after, _ = run(faults={"blank": {"at": list(range(12, 99))}}, scan=scan)
    assert isinstance(found, MicroscopeError)
    assert str(found) == "5 frames in a row cannot be used: frozen, saturated, blank"
    assert after == before


def test_within_the_limits_that_configurations_ship_with() -> None:
    """Moves are split, and the stigmators turned less where their travel does not suffice."""
    config, shipped = configuration(), load_config(find_config("sharksem")).safety
    safety = msgspec.structs.replace(
        config.safety,
        working_distance_m=msgspec.structs.replace(shipped.working_distance_m, min=0.004),
        stigmator=shipped.stigmator,
        beam_shift_m=load_config(find_config("autoscript")).safety.beam_shift_m,
        stage_x_m=msgspec.structs.replace(STAGE, max_step=1.5e-6),
        stage_y_m=msgspec.structs.replace(STAGE, max_step=1.5e-6),
        keep_out=(),
    )
    found, before, after, stages = run(
        msgspec.structs.replace(config, safety=safety),
        scan={**OPTIONS["scan"], "pixel_size_nm": 60},
        column={**COLUMN, "stigmator_um_per_unit": 60.0},
    )
    assert isinstance(found, Calibration), found
    assert set(stages) == set(Stage)
    assert after == before
    matrix = found.astigmatism_per_stigmator
    assert matrix is not None
    assert entries(matrix) == pytest.approx([54e-6, -18e-6, 18e-6, 54e-6], abs=3 * matrix.sigma)
    assert found.image_shift_per_beam_shift is not None
    assert found.image_shift_per_beam_shift.xx == pytest.approx(-1, abs=0.05)


LOW = AxisLimits(min=4.98e-3, max=6e-3, max_step=1e-4, max_travel=1e-2)


@pytest.mark.parametrize(
    ("key", "limits", "said"),
    [
        ("working_distance_m", LOW, "working distance 4.975 mm is outside 4.98 mm to 6 mm"),
        (
            "stigmator",
            AxisLimits(min=-0.1, max=0.1, max_step=0.05, max_travel=2.0),
            "stigmator x -0.15 is outside -0.1 to 0.1, the limits stigmator ",
        ),
        (
            "beam_shift_m",
            AxisLimits(min=-1e-7, max=1e-7, max_step=1e-7, max_travel=1e-5),
            "beam shift x -307.2 nm is outside -100 nm to 100 nm, the limits beam_shift_m ",
        ),
        (
            "stage_y_m",
            msgspec.structs.replace(STAGE, max=3e-7),
            "stage y 0.000384 mm is outside -1 mm to 0.0003 mm, the limits stage_y_m ",
        ),
    ],
)
def test_too_little_room_is_said_before_anything_moves(
    key: str, limits: AxisLimits, said: str
) -> None:
    config = configuration()
    safety = msgspec.structs.replace(config.safety, **{key: limits})
    found, before, after, stages = run(msgspec.structs.replace(config, safety=safety))
    assert isinstance(found, CommandRefusedError)
    assert said in str(found)
    assert not stages
    assert after == before


def test_with_no_travel_left_for_the_way_around_the_play_it_goes_back_straight() -> None:
    config = configuration()
    short = AxisLimits(min=4e-3, max=6e-3, max_step=40e-6, max_travel=95e-6)
    safety = msgspec.structs.replace(config.safety, working_distance_m=short)
    found, before, after, _ = run(msgspec.structs.replace(config, safety=safety))
    assert isinstance(found, CommandRefusedError), found
    assert "working_distance_m.max_travel" in str(found)
    assert after == before


def test_what_could_not_be_put_back_is_said() -> None:
    """A command that is ignored disarms the gate, and nobody but a person may arm it again."""
    found, *_ = run(faults={"ignored": {"at": [30]}})
    assert isinstance(found, MicroscopeError)
    assert str(found).count("not carried out as commanded") == 1
    assert "; and not everything could be put back: the safety gate is disarmed; check" in str(
        found
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"specimen": {"kind": "flat"}},
        {"column": {**COLUMN, "working_distance_mm": 5.025}},
        {"column": {**COLUMN, "working_distance_mm": 5.2}},
    ],
    ids=["no structure", "beside the sweep", "far away"],
)
def test_without_focus_in_sight_nothing_is_claimed(changes: dict[str, Any]) -> None:
    found, before, after, stages = run(**changes)
    assert isinstance(found, NotCalibratedError)
    assert set(stages) == {Stage.FOCUS}
    assert after == before


def test_where_blur_is_not_that_of_a_beam_nothing_is_claimed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("semagent.calibration.procedure.MOST_RESIDUAL", 0.05)
    found, before, after, stages = run()
    assert isinstance(found, NotCalibratedError)
    assert "blur does not change with working distance and stigmators as that of a beam" in str(
        found
    )
    assert set(stages) == {Stage.FOCUS}
    assert after == before


@pytest.mark.parametrize(
    ("jump_m", "said"),
    [
        (4e-6, "between two frames focus jumped, by about 3."),
        (7e-6, "nm ahead of the working distance that is set, where a lens lags behind"),
        (15e-6, "blur does not change with working distance and stigmators"),
    ],
)
def test_a_lens_that_jumps_after_the_sweep_is_found_out(
    jump_m: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one of the stigmators would seem to do five times what it does."""
    set_lens, swept = Column.set_working_distance, [False]

    def jump(at: Stage, _header: FrameHeader) -> None:
        swept[0] |= at is Stage.STIGMATORS

    def set_elsewhere(column: Column, place_m: float) -> None:
        set_lens(column, place_m + jump_m * swept[0])
        column._working_distance_m = place_m

    monkeypatch.setattr(Column, "set_working_distance", set_elsewhere)
    found, before, after, stages = run(step=jump)
    assert isinstance(found, NotCalibratedError)
    assert said in str(found)
    assert Stage.STAGE in stages
    assert after == before


@pytest.mark.parametrize(("frame", "jump_m"), [(13, 7.5e-6), (16, -6e-6), (25, 3e-6)])
def test_a_lens_that_jumps_on_the_way_is_found_out(
    frame: int, jump_m: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it passes for play, which would be wrong by many of its standard deviations."""
    set_lens, taken = Column.set_working_distance, [0]

    def count(_at: Stage, _header: FrameHeader) -> None:
        taken[0] += 1

    def set_elsewhere(column: Column, place_m: float) -> None:
        set_lens(column, place_m + jump_m * (taken[0] >= frame))
        column._working_distance_m = place_m

    monkeypatch.setattr(Column, "set_working_distance", set_elsewhere)
    found, before, after, _ = run(step=count)
    assert isinstance(found, NotCalibratedError)
    assert "between two frames focus jumped, by about " in str(found)
    assert after == before


def test_what_the_microscope_refuses_is_no_limit_of_the_envelope(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = yaml.safe_load(find_config("simulated").read_text(encoding="utf-8"))
    faults = {"refused": {"at": [1]}}
    plain["driver"]["options"] = {**OPTIONS, "speed": 0, "faults": faults}
    path = tmp_path / "sem.yaml"
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    assert main(["calibrate", str(path), "--arm", "--json"]) == 3
    assert "error: the command to set working distance was refused: " in capsys.readouterr().err


def test_the_command(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    plain = yaml.safe_load(find_config("simulated").read_text())
    plain["driver"]["options"] = {**OPTIONS, "speed": 0}
    path = tmp_path / "sem.yaml"
    path.write_text(yaml.safe_dump(plain))
    assert main(["calibrate", str(path)]) == 5
    assert "--arm" in capsys.readouterr().err
    begun = date_of(time.time_ns())
    assert main(["calibrate", str(path), "--arm", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records[0]["event"] == "frame"
    assert records[-1]["event"] == "calibration"
    memory = load_memory(tmp_path / "sem.memory.yaml")
    assert memory.instrument == "Simulated SEM"
    (entry,) = memory.entries
    assert entry.settings.accelerating_voltage_v == 5000
    assert entry.calibration is not None
    assert begun <= entry.calibration.date <= date_of(time.time_ns())
    assert entry.calibration.blur_per_focus is not None
    assert entry.calibration.blur_per_focus.value == pytest.approx(0.0025, rel=0.03)
    assert load_config(path).remembered == memory


def test_nothing_moves_where_the_memory_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    output = ["--output", str(tmp_path / "file" / "memory.yaml")]
    assert main(["calibrate", "simulated", "--arm", "--json", *output]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "cannot write" in said.err


def test_a_calibration_that_cannot_be_kept_is_reported_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "gone" / "memory.yaml"
    found = Calibration(date="2025-01-01", frames=40)

    def lose_the_folder(*_: object) -> tuple[Settings, Calibration]:
        shutil.rmtree(memory.parent)
        memory.parent.touch()
        return Settings(), found

    monkeypatch.setattr(command, "calibrate", lose_the_folder)
    assert main(["calibrate", "simulated", "--arm", "--json", "--output", str(memory)]) == 3
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["memory"] is None
    assert "cannot write" in said.err


def test_a_calibration_is_told_in_micrometres_to_its_uncertainty(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    found = Calibration(
        date="2025-01-01",
        frames=40,
        blur_per_focus=Measure(value=0.0025, sigma=3e-5),
        stage_backlash_m=Measure(value=7e-9, sigma=1e-10),
        astigmatism_per_stigmator=Matrix(xx=2e-5, xy=-1.2e-7, yx=0.0, yy=2e-5, sigma=6e-7),
        focus_per_stigmator=Vector(x=-1e-8, y=-8e-8, sigma=5e-7),
    )
    command._report(Path("sem.memory.yaml"), found, Output(json=False))
    told = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    rows = [[cell.strip() for cell in row] for row in told]
    assert [row for row in rows if row[1] != "measured"] == [
        ["blur per focus", "0.002500", "0.000030", ""],
        [
            "astigmatism per stigmator, µm",
            "20.00, -0.12; 0.00, 20.00",
            "0.60",
            "20.00 turned by 0.2°",
        ],
        ["focus per stigmator, µm", "-0.01, -0.08", "0.50", "none to be seen"],
        ["stage backlash, µm", "0.00700", "0.00010", ""],
    ]
