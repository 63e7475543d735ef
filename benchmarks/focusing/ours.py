"""semagent itself: the loop that ``semagent autofocus`` runs, on the microscope of a trial."""

import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec
import numpy as np

from focusing.beads import open_scope
from focusing.beads import run_config as beads_config
from focusing.outcome import Outcome
from focusing.scope import START_M, STIGMATOR_RANGE, Scope
from focusing.trials import HOLD_FRAMES, Trial
from semagent import registry
from semagent.bus import Mailbox
from semagent.config import RunConfig
from semagent.lockstep import Lockstep
from semagent.memory import Calibration, Matrix, Memory, Settings
from semagent.ports import Engine
from semagent.types import (
    Analysis,
    Arm,
    FocusBelief,
    FocusResult,
    Frame,
    Issuer,
    Mode,
    SetMode,
    SetWorkingDistance,
    StartAutofocus,
)

MAX_CYCLES = 200

CALIBRATION_ERROR = 0.03
"""Of the effect of a stigmator, relative to it: `semagent calibrate` does no better."""


def run_config(trial: Trial, engine: dict[str, Any], control: dict[str, Any]) -> RunConfig:
    """The configuration a user would write for this microscope, as far as limits go."""
    unit_m = trial.unit_m
    axis_none = dict.fromkeys(
        ("stage_x_m", "stage_y_m", "stage_z_m", "stage_rotation_rad", "stage_tilt_rad")
    )
    return msgspec.convert(
        {
            "semagent": 1,
            "instrument": "benchmark",
            "driver": {"name": "simulated"},
            "engine": engine,
            "control": control,
            "safety": {
                "specimen_holder": "none: simulated",
                "working_distance_m": {
                    "min": START_M - 150 * unit_m,
                    "max": START_M + 150 * unit_m,
                    "max_step": 300 * unit_m,
                    "max_travel": 1e6 * unit_m,
                },
                "stigmator": {"min": -1.0, "max": 1.0, "max_step": 1.0, "max_travel": 1e3},
                "beam_shift_m": {"min": -1e-4, "max": 1e-4, "max_step": 1e-4, "max_travel": 1.0},
                **axis_none,
                "scan": {"dwell_s": [25e-9, 10e-6], "max_frame_averages": 16, "min_region": 0.1},
                "allow_unblank": True,
                "keep_out": [],
                "travel_window_s": 600.0,
                "max_evidence_age_s": 600.0,
                "operator_hold_s": 0.0,
                "heartbeat_timeout_s": 60.0,
                "readback_tolerance": {
                    "working_distance_m": 0.05 * unit_m,
                    "stigmator": 0.001,
                    "beam_shift_m": 20e-9,
                    "stage_x_m": 1e-6,
                    "stage_y_m": 1e-6,
                    "stage_z_m": 1e-6,
                    "stage_rotation_rad": 1e-3,
                    "stage_tilt_rad": 1e-3,
                    "dwell_s": 1e-9,
                    "region": 1e-3,
                },
            },
        },
        RunConfig,
    )


def calibrated(trial: Trial) -> Memory:
    """What ``semagent calibrate`` leaves: what stigmators do, to within a few parts in a hundred.

    The slope is not told: it comes from pixel size and convergence, as for every method.
    """
    scale_m = STIGMATOR_RANGE * trial.unit_m
    sigma_m = CALIBRATION_ERROR * scale_m
    rng = np.random.default_rng([trial.seed, 11])
    xx, xy, yx, yy = (scale_m * np.array([1.0, 0.0, 0.0, 1.0]) + rng.normal(0, sigma_m, 4)).tolist()
    matrix = Matrix(xx=xx, xy=xy, yx=yx, yy=yy, sigma=sigma_m)
    calibration = Calibration(date="", frames=20, astigmatism_per_stigmator=matrix)
    return Memory().with_calibration(Settings(), calibration)


class _KeptEngine:
    """An engine that outlives the run: loading a model takes longer than a trial."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def analyse(self, frame: Frame, *, restore: bool = False) -> Analysis:
        return self._engine.analyse(frame, restore=restore)

    def close(self) -> None:
        """Stay open for the next trial."""


@cache
def _engine(name: str) -> Engine:
    return _KeptEngine(registry.open_engine(name, {}))


@dataclass
class _Watch:
    """What is heard on the bus during a trial."""

    beliefs: Mailbox
    commands: Mailbox
    results: Mailbox
    belief: FocusBelief | None = None
    result: FocusResult | None = None
    moves: int = 0
    decide_s: list[float] = field(default_factory=list)

    def update(self) -> None:
        """Take in what was said since the last call."""
        while (message := self.beliefs.take()) is not None:
            self.belief = message.value
        while (message := self.commands.take()) is not None:
            ours = message.value.issuer is Issuer.AGENT
            self.moves += ours and isinstance(message.value.action, SetWorkingDistance)
        while (message := self.results.take()) is not None:
            self.result = message.value


class Ours:
    """One way of running semagent.

    Args:
        name: how the method is called in the tables.
        engine: name of the engine.
        control: section ``control`` of the configuration.
    """

    def __init__(self, name: str, engine: str, control: dict[str, Any]) -> None:
        self.name = name
        self._engine_name = engine
        self._control = control

    def __call__(self, trial: Trial) -> Outcome:
        """Run one trial."""
        started_s = time.perf_counter()
        scope = open_scope(trial)
        follow = trial.experiment == "hold"
        control = {**self._control, "hold": {**self._control.get("hold", {}), "follow": follow}}
        selected = {"name": self._engine_name}
        if trial.experiment == "beads":
            config = beads_config(selected, control, trial.unit_m)
        else:
            config = run_config(trial, selected, control)
            if trial.experiment != "uncalibrated":
                config = msgspec.structs.replace(config, remembered=calibrated(trial))
        start, start_astigmatism_px = scope.error, scope.astigmatism_px
        start_m = scope.microscope.read_state().optics.working_distance_m
        engine = _engine(self._engine_name)
        with Lockstep(config, scope.microscope, engine, scope.clock) as lockstep:
            watch = _Watch(*(lockstep.listen(name) for name in ("belief", "command", "result")))
            lockstep.operate(Arm())
            assert lockstep.gate.armed, lockstep.gate.reason
            lockstep.request(SetMode(mode=Mode.HOLD))
            if follow:
                held, extra = _hold(lockstep, watch, scope)
            else:
                lockstep.request(StartAutofocus(stigmation=True))
                held = extra = None
                _focus(lockstep, watch)
            watch.update()
            result = watch.result
            assert result is not None
            covered, sigma = _interval(watch.belief, scope)
            scope.frames = lockstep.acquire.frames
            end_m = scope.microscope.read_state().optics.working_distance_m
            return Outcome(
                experiment=trial.experiment,
                method=self.name,
                number=trial.number,
                source=trial.source,
                real=trial.image is not None,
                trial_dose=trial.dose,
                status=result.status,
                verified=result.verified,
                frames=scope.frames,
                moves=watch.moves,
                dose=scope.dose,
                start=start,
                final=scope.error,
                start_astigmatism_px=start_astigmatism_px,
                final_astigmatism_px=scope.astigmatism_px,
                covered=covered,
                sigma=sigma,
                decide_s=watch.decide_s,
                put_back=end_m == start_m,
                held_frames=held,
                extra_dose=extra,
                wall_s=time.perf_counter() - started_s,
                reason=result.reason,
            )


def _cycle(lockstep: Lockstep, watch: _Watch) -> None:
    """`Lockstep.cycle`, with the time the control role takes over the frame measured."""
    lockstep.acquire.step()
    _decide(lockstep, watch)


def _decide(lockstep: Lockstep, watch: _Watch) -> None:
    """What follows the exposure of a frame."""
    lockstep.infer.step()
    started_s = time.perf_counter()
    lockstep.control.step()
    watch.decide_s.append(time.perf_counter() - started_s)
    lockstep.settle()
    watch.update()


def _focus(lockstep: Lockstep, watch: _Watch) -> None:
    for _ in range(MAX_CYCLES):
        if watch.result is not None:
            return
        _cycle(lockstep, watch)
    raise RuntimeError(f"no result after {MAX_CYCLES} frames")


def _hold(lockstep: Lockstep, watch: _Watch, scope: Scope) -> tuple[int, float]:
    """Frames of the user within half a depth of field, and the dose of all other frames."""
    _focus(lockstep, watch)
    scan = scope.microscope.read_state().scan
    held, frames, before = 0, 0, scope.dose
    while frames < HOLD_FRAMES:
        of_user, error = scope.microscope.read_state().scan == scan, scope.error
        lockstep.acquire.step()
        if of_user:
            frames += 1
            held += abs(error + scope.error) / 2 <= 1  # in the middle of the exposure
        _decide(lockstep, watch)
    return held, scope.dose - before - frames * scope.trial.dose


def _interval(belief: FocusBelief | None, scope: Scope) -> tuple[bool | None, float | None]:
    """Whether the belief's interval holds the focus as it reads back, and its width."""
    if belief is None or belief.interval90_m is None or belief.sigma_m is None:
        return None, None
    low_m, high_m = belief.interval90_m
    return low_m <= scope.focus_m <= high_m, belief.sigma_m / scope.trial.unit_m
