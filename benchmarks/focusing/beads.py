"""A peer's own hardware layer: Micro-Manager's core with its demo camera, beads out of focus.

The camera blurs drawn beads with the distance of stage ``Z`` from 0. There is no beam, so what
needs a model of its blur does not take part, and dose is counted in frames.
"""

import importlib.util
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

from focusing.scope import Scope
from focusing.trials import Trial
from semagent import registry
from semagent.clock import Clock, SystemClock
from semagent.config import RunConfig, find_config
from semagent.ports import Microscope
from semagent.types import SetWorkingDistance

ZERO_M = 5e-3
"""Working distance that stands for the stage's 0, where the beads are sharp."""

CORE = "Property,Core,Camera,Camera\n"


def available() -> bool:
    """Whether Micro-Manager's core and its demo adapters are installed."""
    return all(importlib.util.find_spec(name) for name in ("pymmcore", "mm_test_adapters"))


@cache
def _hardware() -> tuple[Path, Path]:
    """The adapters' folder, and the demo configuration with beads in front of the camera."""
    spec = importlib.util.find_spec("mm_test_adapters")
    assert spec is not None
    assert spec.origin is not None
    libs = Path(spec.origin).parent / "libs"
    hardware = (libs / "MMConfig_demo.cfg").read_text(encoding="utf-8")
    beads = hardware.replace(CORE, f"{CORE}Property,Camera,Mode,Fluorescent Beads\n")
    path = Path(tempfile.gettempdir()) / f"semagent-beads-{os.getpid()}.cfg"
    path.write_text(beads, encoding="utf-8")
    return libs, path


def run_config(engine: dict[str, Any], control: dict[str, Any], unit_m: float) -> RunConfig:
    """``config/micromanager.yaml`` for a stage that may go far enough."""
    raw = yaml.safe_load(find_config("micromanager").read_text(encoding="utf-8"))
    reach_m = 50 * unit_m
    libs, hardware = _hardware()
    raw["driver"]["options"] = {
        "backend": "python",
        "adapters": str(libs),
        "configuration": str(hardware),
        "working_distance_mm": ZERO_M * 1e3,
        "focus_range_um": [-2 * reach_m * 1e6, 2 * reach_m * 1e6],
        "exposure_range_ms": [1, 500],
        "call_timeout_s": 120.0,  # the machine may be busy with other parts of the benchmark
        "settle_timeout_s": 120.0,
    }
    raw["engine"] = engine
    raw["control"] = {
        "scale": {"half_depth_m": unit_m},
        "autofocus": {"range_m": reach_m, "max_step_m": reach_m / 2},
        **control,
    }
    raw["safety"]["operator_hold_s"] = 0
    raw["safety"]["working_distance_m"] = {
        "min": ZERO_M - 2 * reach_m,
        "max": ZERO_M + 2 * reach_m,
        "max_step": 2 * reach_m,
        "max_travel": 1.0,
    }
    return msgspec.convert(raw, RunConfig)


class BeadScope(Scope):
    """The demo hardware, with its stage where the trial starts."""

    def _open(self) -> tuple[Microscope, Clock, float]:
        clock = SystemClock()
        unit_m = self.trial.unit_m
        config = run_config({"name": "sharpness"}, {}, unit_m)
        microscope = registry.open_microscope("micromanager", config.driver.options, clock=clock)
        start_m = ZERO_M + self.trial.start * unit_m
        microscope.apply(SetWorkingDistance(working_distance_m=start_m))
        return microscope, clock, start_m

    @property
    def error(self) -> float:
        """Defocus, in half depths of field."""
        return (self._working_distance_m - ZERO_M) / self.trial.unit_m

    @property
    def astigmatism_px(self) -> float:
        """Lenses of light have none that could be set."""
        return 0.0

    @property
    def dose(self) -> float:
        """Frames exposed."""
        return float(self.frames)


def open_scope(trial: Trial) -> Scope:
    """The microscope of a trial, whichever it is."""
    return BeadScope(trial) if trial.experiment == "beads" else Scope(trial)
