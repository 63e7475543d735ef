"""A recorded session as a focus stack."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semagent.clock import ManualClock
from semagent.errors import InputFileError
from semagent.session import EngineRecord, SessionWriter
from semagent.types import (
    Capabilities,
    Frame,
    FrameFault,
    FrameHeader,
    Optics,
    Scan,
    SetStigmator,
    SetWorkingDistance,
    StagePosition,
)
from semagent_drivers.recorded import load_stack, open_microscope

HEIGHT, WIDTH = 24, 32


def frame(sequence: int, optics: Optics, **changes: Any) -> Frame:
    """A frame whose every grey value is ten times its number."""
    known: dict[str, Any] = {
        "sequence": sequence,
        "monotonic_ns": sequence,
        "wall_ns": sequence,
        "detector": "SE2",
        "scan": Scan(
            width_px=WIDTH, height_px=HEIGHT, bit_depth=16, pixel_size_m=3e-9, dwell_s=1e-6
        ),
        "optics": optics,
        "stage": StagePosition(x_m=1e-3, tilt_rad=0.1),
        "settings_rev": 1,
        "info_bar_px": 4,
    }
    pixels = np.full((HEIGHT, WIDTH), 10 * sequence, np.uint16)
    return Frame(FrameHeader(**(known | changes)), pixels)


def optics(working_distance_um: float, stigmator_x: float = 0.0) -> Optics:
    return Optics(
        working_distance_m=working_distance_um * 1e-6,
        stigmator_x=stigmator_x,
        stigmator_y=0.25,
        accelerating_voltage_v=5000.0,
        beam_current_a=1e-10,
    )


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    def write(*frames: Frame) -> Path:
        writer = SessionWriter(
            tmp_path / "session",
            configuration={},
            capabilities=Capabilities(driver="test", microscope="none", verified_on=None),
            engine=EngineRecord(name="none"),
            clock=ManualClock(),
            sync=False,
        )
        with writer:
            for each in frames:
                writer.write_frame(each)
        return tmp_path / "session"

    return write


def test_a_session_is_a_stack_of_its_sound_frames(record: Callable[..., Path]) -> None:
    folder = record(
        frame(1, optics(5004)),
        frame(2, optics(5000), faults=(FrameFault.FROZEN,)),
        frame(3, optics(5002, stigmator_x=0.1)),
        frame(4, optics(math.nan)),
    )

    stack = load_stack(folder)

    assert [entry.working_distance_m for entry in stack.entries] == [
        optics(5004).working_distance_m,
        optics(5002).working_distance_m,
    ]
    assert [(entry.stigmator_x, entry.stigmator_y) for entry in stack.entries] == [
        (0.0, 0.25),
        (0.1, 0.25),
    ]
    assert stack.varies_stigmator
    assert [entry.header.path.name for entry in stack.entries] == [
        "frame-00000001.ome.tif",
        "frame-00000003.ome.tif",
    ]


def test_a_session_can_be_driven_like_a_microscope(record: Callable[..., Path]) -> None:
    recorded = [frame(1, optics(5004)), frame(2, optics(5000)), frame(3, optics(5000, 0.1))]
    microscope = open_microscope({"stack": str(record(*recorded))}, clock=ManualClock())

    microscope.apply(SetWorkingDistance(working_distance_m=5000.5e-6))
    microscope.apply(SetStigmator(x=0.09, y=0.25))
    taken = microscope.acquire(1.0)
    microscope.close()

    assert np.array_equal(taken.pixels, recorded[2].pixels)
    assert taken.header.scan == recorded[2].header.scan
    assert taken.header.optics == recorded[2].header.optics
    assert taken.header.stage == recorded[2].header.stage
    assert taken.header.detector == "SE2"
    assert taken.header.info_bar_px == 4


def test_frames_of_other_settings_are_no_stack(record: Callable[..., Path]) -> None:
    other = Scan(width_px=WIDTH, height_px=HEIGHT, bit_depth=16, pixel_size_m=6e-9, dwell_s=1e-6)
    folder = record(frame(1, optics(5000)), frame(2, optics(5002), scan=other))

    with pytest.raises(InputFileError, match=r"frame-00000002\.ome\.tif: pixel size"):
        load_stack(folder)


def test_a_session_without_frames_is_no_stack(record: Callable[..., Path]) -> None:
    with pytest.raises(InputFileError, match="none of its 0 frames"):
        load_stack(record())
