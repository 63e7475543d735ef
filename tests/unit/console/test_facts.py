"""What the console knows of a run: counts, the history and where the microscope stands."""

from typing import Any

import msgspec
import pytest

from semagent.bus import LocalBus, LocalHub
from semagent.channels import Role
from semagent.clock import ManualClock
from semagent.console import RunFacts
from semagent.console.facts import Board
from semagent.roles.base import Announcer
from semagent.testing.engines import figures_of, frame_of
from semagent.types import (
    Command,
    FocusBelief,
    Issuer,
    Outcome,
    Reply,
    SetWorkingDistance,
)

MOVE = SetWorkingDistance(working_distance_m=5.1e-3)


class Bench:
    def __init__(self, facts: RunFacts) -> None:
        clock = ManualClock()
        self._hub = LocalHub(clock)
        self.board = Board(LocalBus(self._hub, Role.CONSOLE), facts, clock)
        self.announcer = Announcer(LocalBus(self._hub, Role.ACQUIRE), clock)

    def say(self, role: Role, channel: str, value: Any, pixels: Any = None) -> None:
        LocalBus(self._hub, role).publish(channel, value, pixels)
        self.board.update()

    def answer(self, issuer: Issuer, outcome: Outcome, **more: Any) -> None:
        command = Command(id="1", issuer=issuer, action=MOVE)
        more = {"monotonic_ns": 1, **more}
        reply = Reply(command=command, outcome=outcome, next_sequence=1, **more)
        self.say(Role.ACQUIRE, "reply", reply)

    def counts(self) -> tuple[int, int, int]:
        counts = self.board.snapshot()["counts"]
        return counts["moves"], counts["refused"], counts["flagged"]


@pytest.fixture
def bench(facts: RunFacts) -> Bench:
    return Bench(facts)


def test_moves_of_the_agent_refusals_and_bad_frames_are_counted(bench: Bench, pixels: Any):
    bench.answer(Issuer.AGENT, Outcome.APPLIED)
    bench.answer(Issuer.OPERATOR, Outcome.APPLIED)
    assert bench.counts() == (1, 0, 0)
    bench.answer(Issuer.OPERATOR, Outcome.REFUSED, reason="no")
    bench.answer(Issuer.AGENT, Outcome.FAILED, reason="no")
    assert bench.counts() == (1, 2, 0)
    bench.announcer.event("gate_armed", "armed")
    bench.announcer.flagged(frame_of(pixels).header)
    bench.board.update()
    assert bench.counts() == (1, 2, 1)


def test_the_column_is_where_it_was_read_back_last(bench: Bench, pixels: Any):
    header = msgspec.structs.replace(frame_of(pixels).header, monotonic_ns=10)
    bench.say(Role.ACQUIRE, "frame", header, pixels)
    moved = msgspec.structs.replace(header.optics, working_distance_m=5.1e-3)
    state = msgspec.structs.replace(header.settings, optics=moved)
    bench.answer(Issuer.AGENT, Outcome.APPLIED, state=state, monotonic_ns=9)
    assert bench.board.optics == header.optics  # the frame is newer
    bench.answer(Issuer.AGENT, Outcome.APPLIED, state=state, monotonic_ns=11)
    assert bench.board.optics == moved


def test_the_history_has_score_and_belief_of_each_frame(bench: Bench, pixels: Any):
    header = msgspec.structs.replace(frame_of(pixels).header, monotonic_ns=2_500_000_000)
    belief = FocusBelief(sequence=1, settings_rev=1, frames=1, focus_m=5.2e-3, sigma_m=3e-6)
    bench.say(Role.CONTROL, "belief", belief)
    bench.say(Role.INFER, "analysis", figures_of(header, focus_score=0.625))
    point = bench.board.history.last
    assert point is not None
    assert (point.sequence, point.t_s, point.score) == (header.sequence, 2.5, 0.625)
    assert point.working_distance_m == header.optics.working_distance_m
    assert (point.focus_m, point.sigma_m) == (5.2e-3, 3e-6)
