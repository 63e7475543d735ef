"""Frames, headers and writers for the tests of session recording."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semagent.clock import ManualClock
from semagent.session import EngineRecord, SessionWriter
from semagent.testing.engines import figures_of
from semagent.types import (
    Capabilities,
    Frame,
    FrameAnalysis,
    FrameHeader,
    Optics,
    Scan,
    StagePosition,
)

MakeFrame = Callable[..., Frame]
OpenWriter = Callable[..., SessionWriter]


def _frame(sequence: int = 1, *, shape: tuple[int, int] = (6, 8), **changes: Any) -> Frame:
    dtype = changes.pop("dtype", np.uint8)
    rng = np.random.default_rng(sequence)
    pixels = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    known: dict[str, Any] = {
        "sequence": sequence,
        "monotonic_ns": 1_000_000_000 * sequence + 1,
        "wall_ns": 1_760_000_000_123_456_789 + sequence,
        "detector": "SE2",
        "scan": Scan(
            width_px=shape[1],
            height_px=shape[0],
            bit_depth=8 * np.dtype(dtype).itemsize,
            pixel_size_m=4e-9,
            dwell_s=1e-6,
            frame_averages=2,
        ),
        "optics": Optics(working_distance_m=5.2e-3, stigmator_x=0.1, stigmator_y=-0.2),
        "stage": StagePosition(x_m=1e-3, y_m=-2e-3),
        "settings_rev": 1,
    }
    return Frame(FrameHeader(**(known | changes)), pixels)


@pytest.fixture
def make_frame() -> MakeFrame:
    """``make_frame(sequence=1, shape=(6, 8), dtype=np.uint8, **header fields)``."""
    return _frame


@pytest.fixture
def make_figures() -> Callable[[FrameHeader], FrameAnalysis]:
    """Figures of an engine for a header."""

    def make(header: FrameHeader) -> FrameAnalysis:
        return figures_of(
            header, engine="restorer/v1", sharpness=float("-inf"), sharpness_sigma=float("nan")
        )

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the session goes; not there yet."""
    return tmp_path / "session"


@pytest.fixture
def open_writer(folder: Path) -> OpenWriter:
    """``open_writer(**changes to the arguments)``: a writer into ``folder``, without sync."""

    def open_it(**changes: Any) -> SessionWriter:
        known: dict[str, Any] = {
            "configuration": {"driver": {"name": "simulated", "options": {"seed": 3}}},
            "capabilities": Capabilities(
                driver="simulated", microscope="test bench", verified_on=None
            ),
            "engine": EngineRecord(name="restorer/v1", parameters={"strength": 0.5}),
            "clock": ManualClock(start_ns=1_760_000_000_000_000_007),
            "sync": False,
        }
        return SessionWriter(changes.pop("folder", folder), **(known | changes))

    return open_it
