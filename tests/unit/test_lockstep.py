"""All roles in one process: one cycle is one frame, and nothing happens unasked."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from semagent import registry
from semagent.bus import Mailbox
from semagent.clock import ManualClock
from semagent.config import find_config, load_config
from semagent.errors import MicroscopeError, MicroscopeTimeoutError
from semagent.lockstep import Lockstep, next_frame
from semagent.parts import make_recorder
from semagent.replay import Replay
from semagent.types import (
    Arm,
    Cancel,
    Intent,
    Issuer,
    Mode,
    Outcome,
    Region,
    SetMode,
    SetScan,
    SetWorkingDistance,
    StartAutofocus,
    Stop,
)


class Bench:
    def __init__(self, record: Path | None = None, **options: object) -> None:
        config = load_config(find_config("simulated"))
        self.clock = ManualClock()
        scan = {"width_px": 384, "height_px": 256, "dwell_us": 0.2}
        column = {"working_distance_mm": 5.02}
        self.microscope = registry.open_microscope(
            "simulated", {"speed": 1, "scan": scan, "column": column, **options}, clock=self.clock
        )
        engine = registry.open_engine("sharpness", {})
        recorder = None
        if record is not None:
            capabilities = self.microscope.capabilities
            recorder = make_recorder(record, config, capabilities, engine.name, self.clock)
        self.lockstep = Lockstep(config, self.microscope, engine, self.clock, recorder)
        self.results = self.lockstep.listen("result")

    @property
    def working_distance_m(self) -> float:
        return self.microscope.read_state().optics.working_distance_m

    def focus(self, cycles: int = 40) -> str | None:
        self.lockstep.request(SetMode(mode=Mode.HOLD))
        self.lockstep.request(StartAutofocus())
        for _ in range(cycles):
            self.lockstep.cycle()
            message = self.results.take()
            if message is not None:
                return str(message.value.status)
        return None


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    with bench.lockstep:
        yield bench


def test_it_focuses(bench: Bench):
    assert bench.lockstep.operate(Arm()).outcome is Outcome.APPLIED
    assert bench.focus() == "focused"
    assert bench.working_distance_m == pytest.approx(5e-3, abs=2e-6)


def test_a_command_of_the_agent_is_void_once_its_frame_is_too_old(bench: Bench):
    frames, commands = bench.lockstep.listen("frame"), bench.lockstep.listen("command")
    bench.lockstep.operate(Arm())
    assert bench.focus(cycles=1) is None
    header = frames.take().value
    given = []
    while (message := commands.take()) is not None:
        given.append(message.value)
    (*_, last) = given
    assert (last.issuer, last.basis.sequence) == (Issuer.AGENT, header.sequence)
    age_ns = load_config(find_config("simulated")).safety.max_evidence_age_s * 1e9
    assert last.expires_ns == header.monotonic_ns + age_ns


def test_the_engine_is_closed_even_if_the_microscope_fails_at_the_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    closed = []

    def fail() -> None:
        raise MicroscopeError("the link is gone")

    monkeypatch.setattr(bench.lockstep.acquire, "close", fail)
    monkeypatch.setattr(bench.lockstep.infer, "close", lambda: closed.append("engine"))
    with pytest.raises(MicroscopeError, match="the link is gone"), bench.lockstep:
        pass
    monkeypatch.undo()
    assert closed == ["engine"]


def test_a_microscope_that_cannot_be_closed_does_not_hide_what_went_wrong(
    monkeypatch: pytest.MonkeyPatch,
):
    bench = Bench()

    def fail() -> None:
        raise MicroscopeError("it does not answer")

    monkeypatch.setattr(bench.microscope, "close", fail)
    with pytest.raises(ValueError, match="the first"), bench.lockstep:
        raise ValueError("the first")


def test_a_frame_is_not_waited_for_for_ever():
    clock, frames = ManualClock(), Mailbox("frame")
    started_ns = clock.monotonic_ns()
    with pytest.raises(MicroscopeTimeoutError, match="no frame within 3 s"):
        next_frame(frames, lambda: clock.advance(1.0), clock, 3.0)
    assert clock.monotonic_ns() - started_ns == 4_000_000_000


def test_disarmed_nothing_moves(bench: Bench):
    assert bench.focus() == "held"
    assert bench.working_distance_m == pytest.approx(5.02e-3, abs=1e-12)


def test_the_operator_moves_through_the_same_gate(bench: Bench):
    far = SetWorkingDistance(working_distance_m=5.9e-3)
    assert bench.lockstep.operate(far).outcome is Outcome.REFUSED
    bench.lockstep.operate(Arm())
    assert bench.lockstep.operate(far).outcome is Outcome.REFUSED
    near = SetWorkingDistance(working_distance_m=5.1e-3)
    assert bench.lockstep.operate(near).outcome is Outcome.APPLIED


def test_what_the_caller_does_in_between_may_take_its_time(bench: Bench):
    """Longer than the gate waits for a sign of life of control."""
    bench.lockstep.operate(Arm())
    bench.clock.advance(60)
    near = SetWorkingDistance(working_distance_m=5.1e-3)
    assert bench.lockstep.operate(near).outcome is Outcome.APPLIED


def test_a_proposal_stands_until_the_next_frame_or_mode(bench: Bench):
    intents = bench.lockstep.listen("intent")
    bench.lockstep.operate(Arm())
    bench.lockstep.request(SetMode(mode=Mode.ADVISE))

    def proposed_at(away_m: float) -> Intent:
        bench.lockstep.operate(SetWorkingDistance(working_distance_m=5e-3 + away_m))
        bench.lockstep.cycle()
        return intents.take().value

    proposed_at(20e-6)
    intent = proposed_at(10e-6)
    assert intent.proposal_m == pytest.approx(5e-3, abs=2e-6)
    assert intent.basis.sequence == 2
    assert proposed_at(0.0).proposal_m is None
    assert proposed_at(-10e-6).proposal_m == pytest.approx(5e-3, abs=2e-6)
    bench.lockstep.request(SetMode(mode=Mode.OBSERVE))
    assert intents.take().value.proposal_m is None


def test_cancel_puts_focus_back(bench: Bench):
    bench.lockstep.operate(Arm())
    bench.focus(cycles=3)
    assert bench.working_distance_m != pytest.approx(5.02e-3, abs=1e-7)
    bench.lockstep.request(Cancel())
    bench.lockstep.settle()
    assert bench.working_distance_m == pytest.approx(5.02e-3, abs=1e-12)
    assert bench.results.take().value.status != "focused"


def test_a_time_out_puts_focus_back(bench: Bench):
    bench.lockstep.operate(Arm())
    bench.focus(cycles=3)
    assert bench.working_distance_m != pytest.approx(5.02e-3, abs=1e-7)
    for _ in range(100):  # the infer role has fallen silent
        bench.clock.advance(0.1)
        bench.lockstep.settle()
    assert bench.working_distance_m == pytest.approx(5.02e-3, abs=1e-12)
    assert bench.results.take().value.status == "failed"
    assert bench.lockstep.gate.armed


def test_stop_latches_and_leaves_the_microscope_as_it_is(bench: Bench):
    bench.lockstep.operate(Arm())
    bench.focus(cycles=3)
    stopped_m = bench.working_distance_m
    bench.lockstep.operate(Stop())
    for _ in range(3):
        bench.lockstep.cycle()
    assert bench.working_distance_m == stopped_m
    assert not bench.lockstep.gate.armed


def test_no_frame_is_exposed_that_nobody_asked_for(bench: Bench):
    frames = bench.lockstep.listen("frame")
    bench.lockstep.operate(Arm())
    bench.lockstep.request(SetMode(mode=Mode.ADVISE))
    assert frames.take() is None
    bench.lockstep.cycle()
    assert frames.take() is not None
    assert bench.lockstep.acquire.frames == 1


def test_frames_too_small_for_the_engine_hold_a_search_and_its_replay(tmp_path: Path):
    folder = tmp_path / "session"
    bench = Bench(folder)
    with bench.lockstep:
        told = bench.lockstep.listen("event")
        bench.lockstep.operate(Arm())
        bench.microscope.apply(SetScan(region=Region(left=0, top=0, width=1, height=0.1)))
        assert bench.focus() == "held"
        assert bench.working_distance_m == pytest.approx(5.02e-3, abs=1e-12)
    messages = []
    while (message := told.take()) is not None:
        messages.append(message.value.message)
    assert any("frames in a row could not be used (too_small)" in each for each in messages)
    replay = Replay(folder)
    assert "flagged" in {heard.kind for heard in replay.run()}
    replay.close()
    assert replay.differences() == []


@pytest.mark.parametrize("lost", ["frame", "reply"])
def test_a_record_that_breaks_off_replays_as_far_as_it_goes(tmp_path: Path, lost: str):
    folder = tmp_path / "session"
    bench = Bench(folder)
    with bench.lockstep:
        bench.lockstep.operate(Arm())
        assert bench.focus() == "focused"
    # What control says reaches the record on another way than what acquire says.
    events, manifest = folder / "events.jsonl", folder / "manifest.json"
    lines = events.read_text(encoding="utf-8").splitlines(keepends=True)
    lines.remove([line for line in lines if json.loads(line)["channel"] == lost][-1])
    events.write_text("".join(lines), encoding="utf-8")
    text = manifest.read_text(encoding="utf-8").replace('"complete": true', '"complete": false')
    manifest.write_text(text, encoding="utf-8")
    replay = Replay(folder)
    frames = [heard for heard in replay.run() if heard.kind == "analysis"]
    replay.close()
    assert len(frames) >= 2
    assert replay.replayed
    assert replay.differences() == []


def test_what_was_recorded_replays_to_the_same_commands(tmp_path: Path):
    folder = tmp_path / "session"
    bench = Bench(folder, faults={"blank": {"at": [4]}})
    with bench.lockstep:
        bench.lockstep.operate(Arm())
        assert bench.focus() == "focused"
    replay = Replay(folder)
    kinds = [heard.kind for heard in replay.run()]
    replay.close()
    assert {"analysis", "flagged", "gate", "reply", "request"} <= set(kinds)
    assert len(replay.replayed) >= 5
    assert replay.differences() == []


def test_a_time_out_replays_too(tmp_path: Path):
    folder = tmp_path / "session"
    bench = Bench(folder)
    with bench.lockstep:
        bench.lockstep.operate(Arm())
        bench.focus(cycles=3)
        for _ in range(100):  # the infer role has fallen silent
            bench.clock.advance(0.1)
            bench.lockstep.settle()
        assert bench.results.take().value.status == "failed"
    replay = Replay(folder)
    assert "tick" in [heard.kind for heard in replay.run()]
    replay.close()
    assert replay.differences() == []
