"""The infer role: the newest usable frame, counted skips, failures that do not spread."""

import cv2
import msgspec
import numpy as np
import pytest

from semagent.bus import LocalBus, LocalHub
from semagent.channels import Role
from semagent.clock import ManualClock
from semagent.config import InferOptions
from semagent.errors import EngineError, FrameTooSmallError
from semagent.roles import InferRole
from semagent.testing.engines import figures_of, frame_of
from semagent.types import Analysis, Frame, FrameFault, FrameHeader


class Figures:
    """An engine that fails on the frames it is told to fail on, and needs 16 rows."""

    name = "figures"
    restores = True

    def __init__(self, *failing: int) -> None:
        self._failing = failing
        self.seen: list[int] = []
        self.closed = 0

    def analyse(self, frame: Frame, *, restore: bool = False) -> Analysis:
        sequence = frame.header.sequence
        self.seen.append(sequence)
        if sequence in self._failing:
            raise EngineError(f"cannot look at {sequence}")
        if len(frame.pixels) < 16:
            raise FrameTooSmallError("16 rows are needed")
        figures = figures_of(frame.header, engine=self.name)
        return Analysis(figures, frame.pixels.copy() if restore else None)

    def close(self) -> None:
        self.closed += 1


class Bench:
    def __init__(self, engine: Figures, **options: object) -> None:
        self.clock = clock = ManualClock()
        hub = LocalHub(clock)
        self.acquire = LocalBus(hub, Role.ACQUIRE)
        console = LocalBus(hub, Role.CONSOLE)
        self.analyses = console.subscribe("analysis")
        self.events = console.subscribe("event")
        self.beats = console.subscribe("heartbeat")
        infer = LocalBus(hub, Role.INFER)
        self.role = InferRole(infer, engine, InferOptions(**options), clock)

    def expose(self, sequence: int, *faults: FrameFault, rows: int = 16) -> None:
        frame = frame_of(np.zeros((rows, 16), np.uint8), sequence=sequence)
        header = msgspec.structs.replace(frame.header, faults=faults)
        self.acquire.publish("frame", header, frame.pixels)


def test_it_looks_at_the_newest_frame_and_counts_what_it_skipped():
    engine = Figures()
    bench = Bench(engine)
    for sequence in (1, 2, 3):
        bench.expose(sequence)
    assert bench.role.step()
    assert not bench.role.step()
    assert engine.seen == [3]
    assert bench.analyses.take().value.header.sequence == 3
    assert bench.beats.take().value.skipped == 2


def test_a_frame_with_faults_never_reaches_the_engine():
    engine = Figures()
    bench = Bench(engine)
    bench.expose(1, FrameFault.BLANK)
    assert bench.role.step()
    assert engine.seen == []
    assert bench.analyses.take() is None


def test_a_failure_is_told_and_the_next_frame_is_looked_at():
    engine = Figures(1)
    bench = Bench(engine)
    bench.expose(1)
    bench.role.step()
    event = bench.events.take().value
    assert (event.kind, event.data["sequence"]) == ("engine_failed", 1)
    bench.expose(2)
    bench.role.step()
    assert bench.analyses.take().value.header.sequence == 2


def test_failures_in_a_row_end_the_role_and_one_success_forgives():
    bench = Bench(Figures(1, 3, 4), max_failures=2)
    for sequence in (1, 2, 3):
        bench.expose(sequence)
        bench.role.step()
    bench.expose(4)
    with pytest.raises(EngineError, match="cannot look at 4"):
        bench.role.step()


def test_frames_that_are_too_small_are_flagged_and_never_end_the_role():
    bench = Bench(Figures(1), max_failures=2)
    bench.expose(1)
    bench.role.step()
    assert bench.events.take().value.kind == "engine_failed"
    for sequence in (2, 3, 4):
        bench.expose(sequence, rows=15)
        assert bench.role.step()
        event = bench.events.take().value
        assert event.kind == "frame_flagged"
        assert event.message == f"frame {sequence} is not used: 16 rows are needed"
        header = msgspec.convert(event.data["header"], FrameHeader)
        assert (header.sequence, header.faults) == (sequence, (FrameFault.TOO_SMALL,))
    bench.expose(5)
    bench.role.step()
    assert bench.analyses.take().value.header.sequence == 5


@pytest.mark.parametrize(
    ("asked", "restores"), [(True, True), (False, True), (True, False), (False, False)]
)
def test_an_engine_that_restores_is_asked_to_where_that_is_wanted(asked: bool, restores: bool):
    engine = Figures()
    engine.restores = restores
    bench = Bench(engine, restore=asked)
    bench.expose(1)
    bench.role.step()
    assert (bench.analyses.take().pixels is not None) is (asked and restores)


def test_as_long_as_the_engine_looks_at_a_frame_the_role_is_busy(monkeypatch: pytest.MonkeyPatch):
    engine = Figures()
    bench = Bench(engine)
    look, meanwhile = engine.analyse, []

    def watched(frame: Frame, *, restore: bool = False) -> Analysis:
        meanwhile.append(bench.beats.take().value)
        return look(frame, restore=restore)

    monkeypatch.setattr(engine, "analyse", watched)
    bench.expose(1)
    bench.role.step()
    afterwards = bench.beats.take().value
    assert [beat.busy_since_ns for beat in meanwhile] == [bench.clock.monotonic_ns()]
    assert (afterwards.busy_since_ns, afterwards.processed) == (None, 1)


def test_closing_frees_the_engine():
    engine = Figures()
    Bench(engine).role.close()
    assert engine.closed == 1


def test_it_says_how_far_a_frame_has_moved_since_the_first_of_its_field():
    bench = Bench(Figures())
    rng = np.random.default_rng(1)
    specimen = cv2.GaussianBlur(rng.normal(128, 200, (300, 400)).astype(np.float32), (0, 0), 2)
    grey = np.clip(specimen, 0, 255).astype(np.uint8)
    for sequence, place in ((1, 20), (2, 27)):
        pixels = np.ascontiguousarray(grey[10:202, place : place + 256])
        frame = frame_of(pixels, sequence=sequence)
        bench.acquire.publish("frame", frame.header, frame.pixels)
        bench.role.step()
        analysis = bench.analyses.take().value
    assert analysis.shift.reference_sequence == 1
    assert (analysis.shift.x_px, analysis.shift.y_px) == pytest.approx((-7, 0), abs=0.1)


def test_a_frame_without_structure_lies_nowhere():
    bench = Bench(Figures())
    bench.expose(1)
    bench.role.step()
    assert bench.analyses.take().value.shift is None
