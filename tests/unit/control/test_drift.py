"""Keeping the picture where it is, on a simulated microscope that drifts."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from semagent import registry
from semagent.clock import ManualClock
from semagent.config import RunConfig, find_config, load_config
from semagent.control.options import DriftOptions, HoldOptions
from semagent.lockstep import Lockstep
from semagent.memory import Calibration, Matrix, Measure, Memory, Settings, Vector
from semagent.parts import make_recorder
from semagent.replay import Replay
from semagent.safety import AxisLimits
from semagent.types import (
    Arm,
    Cancel,
    Mode,
    MoveStage,
    Outcome,
    SetBeamShift,
    SetMode,
    SetWorkingDistance,
)

PIXEL_M = 10e-9
FIELD_M = 256 * PIXEL_M
OPTIONS: dict[str, Any] = {
    "seed": 1,
    "scan": {"width_px": 256, "height_px": 192, "pixel_size_nm": 10, "dwell_us": 1.0},
    "column": {"working_distance_mm": 5.0, "focus_shift_nm_per_um": [12.0, -6.0]},
    "specimen": {"kind": "particles", "working_distance_mm": 5.0, "tile_px": 1024},
    "drift": {"x_nm_per_s": 120, "y_nm_per_s": -80},
    "stage": {"backlash_um": 0.3},
}
TURNED = Matrix(xx=-1.0, xy=0.0, yx=0.0, yy=-1.0, sigma=0.001)
CALIBRATION = Calibration(
    date="2026-01-01T00:00:00Z",
    frames=48,
    image_shift_per_focus=Vector(x=-12e-3, y=6e-3, sigma=1e-5),
    image_shift_per_beam_shift=TURNED,
    image_shift_per_stage=TURNED,
    stage_backlash_m=Measure(value=0.3e-6, sigma=1e-9),
)
STAGE = AxisLimits(min=-1e-3, max=1e-3, max_step=1e-4, max_travel=1e-2)
Kinds = list[str]


@functools.cache
def configuration(reach_m: float = 10e-6, **drift: Any) -> RunConfig:
    config = load_config(find_config("simulated"))
    beam = AxisLimits(min=-reach_m, max=reach_m, max_step=5e-6, max_travel=100e-6)
    safety = msgspec.structs.replace(
        config.safety,
        beam_shift_m=beam,
        stage_x_m=STAGE,
        stage_y_m=STAGE,
        readback_tolerance=msgspec.structs.replace(
            config.safety.readback_tolerance, stage_x_m=1e-8, stage_y_m=1e-8
        ),
    )
    control = msgspec.structs.replace(
        config.control,
        hold=HoldOptions(follow=False),
        drift=DriftOptions(**{"correct": True, "deadband": 0.02, **drift}),
    )
    memory = Memory().with_calibration(Settings(accelerating_voltage_v=5e3), CALIBRATION)
    return msgspec.structs.replace(config, safety=safety, control=control, remembered=memory)


def following(reach_m: float = 10e-6, **drift: Any) -> RunConfig:
    """The configuration, with focus followed, too."""
    config = configuration(reach_m, **drift)
    control = msgspec.structs.replace(config.control, hold=HoldOptions())
    return msgspec.structs.replace(config, control=control)


class Bench:
    def __init__(
        self, config: RunConfig | None = None, record: Path | None = None, **changes: Any
    ) -> None:
        config = config or configuration()
        clock = ManualClock()
        self.microscope: Any = registry.open_microscope(
            "simulated", {**OPTIONS, **changes}, clock=clock
        )
        engine = registry.open_engine("sharpness", {})
        recorder = None
        if record is not None:
            capabilities = self.microscope.capabilities
            recorder = make_recorder(record, config, capabilities, engine.name, clock)
        self.lockstep = Lockstep(config, self.microscope, engine, clock, recorder)
        self.commands = self.lockstep.listen("command")
        self.events = self.lockstep.listen("event")
        self.actions: list[Any] = []
        self.kinds: Kinds = []
        self.views: list[tuple[float, float]] = []

    def start(self, mode: Mode = Mode.HOLD, *, arm: bool = True) -> "Bench":
        if arm:
            assert self.lockstep.operate(Arm()).outcome is Outcome.APPLIED
        self.lockstep.request(SetMode(mode=mode))
        return self

    def frames(self, count: int) -> "Bench":
        for _ in range(count):
            self.lockstep.cycle()
            self.lockstep.settle()
            while (message := self.commands.take()) is not None:
                if message.value.issuer == "agent":
                    self.actions.append(message.value.action)
            while (message := self.events.take()) is not None:
                self.kinds.append(message.value.kind)
            self.views.append(self.microscope.truth().view_m)
        return self

    @property
    def wandered_m(self) -> float:
        """How far the view has gone from where it was, at most, in the later half."""
        x0, y0 = self.views[0]
        half = self.views[len(self.views) // 2 :]
        return max(max(abs(x - x0), abs(y - y0)) for x, y in half)

    def __enter__(self) -> "Bench":
        self.lockstep.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.lockstep.__exit__(None, None, None)


def test_the_picture_stands_still() -> None:
    with Bench() as bench:
        bench.start().frames(60)
        drifted_m = 120e-9 * bench.microscope.truth().elapsed_s
    assert drifted_m > 4 * 0.02 * FIELD_M
    assert bench.wandered_m < 1.5 * 0.02 * FIELD_M
    assert {type(action) for action in bench.actions} == {SetBeamShift}
    assert "drift_uncorrected" not in bench.kinds


def test_off_unless_asked_for() -> None:
    with Bench(configuration(correct=False)) as bench:
        bench.start().frames(30)
    assert bench.actions == []
    assert bench.wandered_m > 2 * 0.02 * FIELD_M


def test_without_drift_nothing_moves() -> None:
    with Bench(drift={"x_nm_per_s": 0, "y_nm_per_s": 0}) as bench:
        bench.start().frames(20)
    assert bench.actions == []
    assert "drift_unknown" not in bench.kinds


def test_on_a_grid_nothing_moves_and_that_nobody_can_tell_is_said_once(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:1024, :1024] // 8 % 2
    grid = tmp_path / "grid.png"
    cv2.imwrite(str(grid), np.where(rows & columns, 200, 60).astype(np.uint8))
    specimen = {"kind": "image", "path": str(grid), "working_distance_mm": 5.0}
    with Bench(specimen=specimen) as bench:
        bench.start().frames(40)
    assert bench.actions == []
    assert bench.kinds.count("drift_unknown") == 1


def test_what_focus_has_done_is_no_drift() -> None:
    with Bench(drift={"x_nm_per_s": 0, "y_nm_per_s": 0}) as bench:
        bench.start().frames(8)
        bench.lockstep.operate(SetWorkingDistance(working_distance_m=5.004e-3))
        bench.lockstep.request(SetMode(mode=Mode.HOLD))
        bench.frames(20)
    moved_m = abs(bench.views[-1][0] - bench.views[0][0])
    assert moved_m == pytest.approx(4e-6 * 12e-3, rel=0.1)
    assert bench.actions == []


@pytest.mark.parametrize(
    ("mode", "arm", "said"),
    [(Mode.OBSERVE, True, False), (Mode.ADVISE, True, True), (Mode.HOLD, False, True)],
)
def test_otherwise_only_proposals(mode: Mode, arm: bool, said: bool) -> None:
    with Bench() as bench:
        bench.start(mode, arm=arm).frames(30)
    assert bench.actions == []
    assert ("drift_proposal" in bench.kinds) is said
    assert bench.kinds.count("drift_proposal") <= 12  # once for each step of the deadband


def test_where_the_operator_looks_is_what_is_wanted() -> None:
    with Bench() as bench:
        bench.start().frames(40)
        here = bench.microscope.read_state().optics
        wanted = SetBeamShift(x_m=here.beam_shift_x_m + 0.3e-6, y_m=here.beam_shift_y_m)
        assert bench.lockstep.operate(wanted).outcome is Outcome.APPLIED
        bench.actions.clear()
        bench.frames(10)
        assert bench.actions == []  # the agent is paused
        bench.lockstep.request(SetMode(mode=Mode.HOLD))
        bench.views.clear()
        bench.frames(40)
    assert bench.wandered_m < 1.5 * 0.02 * FIELD_M
    assert bench.actions


@pytest.mark.parametrize(
    "measured",
    [
        Matrix(xx=1.0, xy=0.0, yx=0.0, yy=1.0, sigma=0.001),
        Matrix(xx=0.0, xy=-1.0, yx=1.0, yy=0.0, sigma=0.001),
    ],
    ids=["half", "quarter"],
)
def test_a_calibration_of_a_scan_turned_otherwise_is_not_followed(measured: Matrix) -> None:
    """It would take the picture further away with every correction."""
    config = configuration()
    calibration = msgspec.structs.replace(CALIBRATION, image_shift_per_beam_shift=measured)
    memory = Memory().with_calibration(Settings(accelerating_voltage_v=5e3), calibration)
    with Bench(msgspec.structs.replace(config, remembered=memory)) as bench:
        said = bench.lockstep.listen("event")
        bench.start().frames(60)
        assert len(bench.actions) == 2
        messages = [each.value.message for each in iter(said.take, None)]
        bench.lockstep.request(SetMode(mode=Mode.HOLD))
        bench.frames(15)
    assert sum("where the calibration says" in message for message in messages) == 1
    assert len(bench.actions) > 2  # asked again, it tries again


def test_out_of_range_without_the_stage_it_stops_and_says_so() -> None:
    with Bench(configuration(0.2e-6)) as bench:
        bench.start().frames(60)
    assert max(abs(a.x_m) for a in bench.actions) <= 0.2e-6
    assert bench.kinds.count("drift_uncorrected") == 1


def test_out_of_range_the_stage_takes_over_from_the_side_without_play() -> None:
    with Bench(configuration(0.2e-6, stage=True)) as bench:
        bench.start().frames(90)
        state = bench.microscope.read_state()
    moves = [action for action in bench.actions if isinstance(action, MoveStage)]
    assert moves
    for axis, name in ((0, "x_m"), (1, "y_m")):
        ends = [getattr(move, name) for move in moves if getattr(move, name) is not None]
        assert ends, axis
        assert ends[-1] > min(0.0, *ends[:-1])  # the last leg goes up
    assert "drift_uncorrected" not in bench.kinds
    assert abs(state.optics.beam_shift_x_m) <= 0.2e-6
    assert bench.wandered_m < 0.35e-6  # the play of the stage, once, and the deadband


def test_refused_it_stops_until_it_is_asked_again() -> None:
    with Bench(faults={"refused": {"at": [1]}}) as bench:
        bench.start().frames(25)
        assert len(bench.actions) == 1
        assert bench.kinds.count("drift_uncorrected") == 1
        bench.lockstep.request(SetMode(mode=Mode.HOLD))
        bench.frames(25)
    assert len(bench.actions) > 1


def test_a_hand_that_closes_the_gate_before_a_correction_ends_corrections_until_it_is_armed() -> (
    None
):
    with Bench() as bench:
        commands, read_state = bench.lockstep.listen("command"), bench.microscope.read_state

        def touched() -> Any:
            while (message := commands.take()) is not None:
                if isinstance(message.value.action, SetBeamShift):
                    bench.microscope.apply(SetWorkingDistance(working_distance_m=5.0005e-3))
            return read_state()

        bench.microscope.read_state = touched
        bench.start().frames(25)
        assert len(bench.actions) == 1
        assert bench.kinds.count("gate_disarmed") == 1
        assert "drift_uncorrected" not in bench.kinds
        bench.microscope.read_state = read_state
        bench.lockstep.operate(Arm())
        bench.frames(25)
    assert len(bench.actions) > 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"remembered": Memory()}, "semagent calibrate"),
        ({"safety": None}, "beam_shift_m"),
    ],
)
def test_what_is_missing_is_said_once(changes: dict[str, Any], why: str) -> None:
    config = configuration()
    if "safety" in changes:
        changes = {"safety": msgspec.structs.replace(config.safety, beam_shift_m=None)}
    with Bench(msgspec.structs.replace(config, **changes)) as bench:
        said = bench.lockstep.listen("event")
        bench.start().frames(30)
    messages = []
    while (message := said.take()) is not None:
        if message.value.kind == "drift_uncorrected":
            messages.append(message.value.message)
    assert len(messages) == 1
    assert why in messages[0]
    assert bench.actions == []


def dragging(config: RunConfig, on_stage: Callable[[Bench], None]) -> Bench:
    """A stage whose moves change the working distance, within what the gate tolerates.

    ``on_stage`` is called while the first of them is on its way.
    """
    tolerance = msgspec.structs.replace(config.safety.readback_tolerance, working_distance_m=1e-6)
    safety = msgspec.structs.replace(config.safety, readback_tolerance=tolerance)
    bench = Bench(msgspec.structs.replace(config, safety=safety))
    apply, asked = bench.microscope.apply, False

    def drag(action: Any) -> None:
        nonlocal asked
        apply(action)
        if isinstance(action, MoveStage):
            here_m = bench.microscope.read_state().optics.working_distance_m
            apply(SetWorkingDistance(working_distance_m=here_m + 0.5e-6))
            if not asked:
                asked = True
                on_stage(bench)

    bench.microscope.apply = drag
    return bench


def test_a_dragged_working_distance_is_put_back() -> None:
    with dragging(configuration(0.2e-6, stage=True), lambda _bench: None) as bench:
        bench.start().frames(60)
        after_m = bench.microscope.read_state().optics.working_distance_m
    restored = [action for action in bench.actions if isinstance(action, SetWorkingDistance)]
    assert restored
    assert all(action.working_distance_m == 5e-3 for action in restored)
    assert after_m == 5e-3
    assert "working_distance_restored" in bench.kinds


@pytest.mark.parametrize("request_", [Cancel(), SetMode(mode=Mode.OBSERVE)])
def test_a_dragged_working_distance_is_put_back_if_the_agent_is_to_rest_meanwhile(
    request_: Cancel | SetMode,
) -> None:
    with dragging(
        configuration(0.2e-6, stage=True), lambda bench: bench.lockstep.request(request_)
    ) as bench:
        bench.start().frames(45)
        after_m = bench.microscope.read_state().optics.working_distance_m
    assert [type(action) for action in bench.actions[-2:]] == [MoveStage, SetWorkingDistance]
    assert after_m == 5e-3


def test_a_stage_move_on_its_way_while_the_mode_is_set_again_is_no_hand() -> None:
    with dragging(
        following(0.2e-6, stage=True),
        lambda bench: bench.lockstep.request(SetMode(mode=Mode.HOLD)),
    ) as bench:
        bench.start().frames(40)
    assert any(isinstance(action, MoveStage) for action in bench.actions)
    assert "paused" not in bench.kinds


def test_a_record_replays(tmp_path: Path) -> None:
    with Bench(configuration(0.2e-6, stage=True), record=tmp_path / "session") as bench:
        bench.start().frames(60)
    replay = Replay(tmp_path / "session")
    for _ in replay.run():
        pass
    replay.close()
    assert len(replay.replayed) == len(bench.actions) > 3
    assert replay.differences() == []


def test_in_hold_mode_it_goes_on_beside_following() -> None:
    with Bench(following()) as bench:
        bench.start().frames(80)
    assert {SetBeamShift, SetWorkingDistance} <= {type(action) for action in bench.actions}
    assert "hold_ended" not in bench.kinds
    assert "paused" not in bench.kinds


@pytest.mark.parametrize("z_nm_per_s", [4000, -4000])
def test_the_picture_stands_still_while_focus_follows_the_specimen(z_nm_per_s: float) -> None:
    """Else it would go by 12 nm for every micrometre."""
    drift = {"x_nm_per_s": 0, "y_nm_per_s": 0, "z_nm_per_s": z_nm_per_s}
    with Bench(following(), drift=drift) as bench:
        bench.start().frames(8)
        bench.views.clear()
        bench.frames(120)
        here = bench.microscope.read_state().optics
    assert abs(here.working_distance_m - 5e-3) > 20e-6
    assert bench.wandered_m < 1.5 * 0.02 * FIELD_M
    assert "drift_uncorrected" not in bench.kinds


def test_a_picture_that_wanders_is_followed_in_focus_all_the_same() -> None:
    """Else what comes into it passes for blur: a third of a per cent of the field every frame."""
    with Bench(
        following(correct=False),
        specimen={**OPTIONS["specimen"], "kind": "fibres"},
        drift={"x_nm_per_s": 120, "y_nm_per_s": -80, "z_nm_per_s": 500},
        seed=2,
    ) as bench:
        bench.start().frames(10)
        off = []
        for _ in range(120):
            bench.frames(1)
            truth = bench.microscope.truth()
            off.append(abs(truth.defocus_m) / truth.half_depth_m)
    assert bench.wandered_m > 0.3 * FIELD_M
    assert max(off) < 1
    assert "hold_lost" not in bench.kinds


def test_what_a_search_has_done_to_the_picture_is_left_alone() -> None:
    column = {**OPTIONS["column"], "working_distance_mm": 5.02}
    still = {"x_nm_per_s": 0, "y_nm_per_s": 0}
    with Bench(following(), column=column, drift=still) as bench:
        bench.start().frames(40)
    x0, x1 = bench.views[0][0], bench.views[-1][0]
    assert abs(x1 - x0) == pytest.approx(20e-6 * 12e-3, rel=0.1)
    assert SetWorkingDistance in {type(action) for action in bench.actions}
    assert SetBeamShift not in {type(action) for action in bench.actions}


def test_steps_that_follow_focus_with_every_frame_do_not_keep_it_waiting() -> None:
    drift = {"x_nm_per_s": 120, "y_nm_per_s": -80, "z_nm_per_s": 4000}
    with Bench(following(0.2e-6, stage=True), drift=drift) as bench:
        bench.start().frames(80)
    steps = [action for action in bench.actions if isinstance(action, SetWorkingDistance)]
    assert len(steps) > 60
    assert bench.kinds.count("drift_corrected") > 10
    assert any(isinstance(action, MoveStage) for action in bench.actions)
    assert "working_distance_restored" not in bench.kinds
    assert "paused" not in bench.kinds
