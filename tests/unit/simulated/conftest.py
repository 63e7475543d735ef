"""A small, quiet microscope that each test makes as imperfect as it needs."""

from collections.abc import Callable
from typing import Any

import pytest

from semagent.clock import ManualClock
from semagent_drivers.simulated import SimulatedMicroscope, open_microscope

MakeSem = Callable[..., SimulatedMicroscope]

QUIET: dict[str, dict[str, Any]] = {
    "scan": {"width_px": 128, "height_px": 96},
    "specimen": {"tile_px": 256, "feature_size_nm": 200.0},
    "column": {"lens_hysteresis_um": 0.0},
    "detector": {"line_jitter_px": 0.0, "line_noise": 0.0, "read_noise": 0.0},
    "stage": {"backlash_um": 0.0},
    "drift": {"x_nm_per_s": 0.0, "y_nm_per_s": 0.0},
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make_sem(clock: ManualClock) -> MakeSem:
    """Open a microscope with sections merged into those of `QUIET`."""

    def make(**options: Any) -> SimulatedMicroscope:
        merged: dict[str, Any] = {"speed": 0.0, **QUIET}
        for key, value in options.items():
            merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
        return open_microscope(merged, clock=clock)

    return make
