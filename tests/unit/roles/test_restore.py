"""The restore role: restored frames for people, and failures that stay its own."""

import msgspec
import numpy as np
import pytest

from semagent.bus import LocalBus, LocalHub
from semagent.channels import Role
from semagent.clock import ManualClock
from semagent.config import InferOptions
from semagent.errors import EngineError, FrameTooSmallError
from semagent.roles import RestoreRole
from semagent.testing.engines import figures_of, frame_of
from semagent.types import Analysis, Frame, FrameFault


class Engine:
    """Restores by inverting, or fails."""

    name = "inverting"
    restores = True

    def __init__(self) -> None:
        self.fails = False
        self.error: EngineError = EngineError("out of memory")
        self.closed = False

    def analyse(self, frame: Frame, *, restore: bool = False) -> Analysis:
        if self.fails:
            raise self.error
        assert restore
        figures = figures_of(frame.header, engine=self.name)
        return Analysis(figures, 255 - frame.pixels)

    def close(self) -> None:
        self.closed = True


class Bench:
    def __init__(self) -> None:
        clock = ManualClock()
        hub = LocalHub(clock)
        self.acquire, console = LocalBus(hub, Role.ACQUIRE), LocalBus(hub, Role.CONSOLE)
        self.restored, self.analysed = console.subscribe("restored"), console.subscribe("analysis")
        self.events = console.subscribe("event")
        self.engine = Engine()
        options = InferOptions(max_failures=2)
        self.role = RestoreRole(LocalBus(hub, Role.RESTORE), self.engine, options, clock)

    def expose(self, *faults: FrameFault, sequence: int = 1) -> None:
        frame = frame_of(np.full((4, 6), 10, np.uint8), sequence=sequence)
        header = msgspec.structs.replace(frame.header, faults=faults)
        self.acquire.publish("frame", header, frame.pixels)


def test_a_restored_frame_is_published_apart_from_what_control_hears():
    bench = Bench()
    bench.expose()
    assert bench.role.step()
    message = bench.restored.take()
    assert message is not None
    assert message.value.header.sequence == 1
    assert (message.pixels == 245).all()
    assert bench.analysed.take() is None
    assert not bench.role.step()


def test_a_frame_with_faults_is_left_alone():
    bench = Bench()
    bench.expose(FrameFault.FROZEN)
    assert bench.role.step()
    assert bench.restored.take() is None


def test_failures_are_told_and_end_the_role_when_there_are_too_many():
    bench = Bench()
    bench.engine.fails = True
    bench.expose()
    bench.role.step()
    event = bench.events.take()
    assert event is not None
    assert event.value.kind == "restoration_failed"
    bench.expose(sequence=2)
    with pytest.raises(EngineError):
        bench.role.step()
    event = bench.events.take()
    assert event is not None
    assert event.value.message == "frame 2: out of memory"


def test_frames_that_are_too_small_are_told_once_for_each_size():
    bench = Bench()
    for sequence, size in enumerate(["6 x 4", "6 x 4", "5 x 4", "5 x 4", "", "5 x 4"], 1):
        bench.engine.error = FrameTooSmallError(f"frames of {size} pixels are too small")
        bench.engine.fails = bool(size)
        bench.expose(sequence=sequence)
        bench.role.step()
    told = []
    while (event := bench.events.take()) is not None:
        told.append(event.value.message)
    assert told == [
        f"frame {sequence}: frames of {size} pixels are too small"
        for sequence, size in [(1, "6 x 4"), (3, "5 x 4"), (6, "5 x 4")]
    ]


def test_closing_frees_the_engine():
    bench = Bench()
    bench.role.close()
    assert bench.engine.closed
