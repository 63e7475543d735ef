"""When a run may end: not before its last frame has come through, and not long after."""

import msgspec
import pytest

from semagent.bus import LocalBus, LocalHub
from semagent.channels import Role
from semagent.cli.drain import Drain
from semagent.cli.ledger import Ledger
from semagent.cli.output import Output
from semagent.clock import ManualClock
from semagent.testing.engines import figures_of
from semagent.types import (
    FRAME_FLAGGED,
    Event,
    FrameHeader,
    Heartbeat,
    Level,
    Optics,
    Scan,
    StagePosition,
)

POLL_S = 0.05


class Roles:
    """Says on the bus what the roles of a run say, a beat of each in every turn."""

    def __init__(self) -> None:
        self.clock = ManualClock(start_ns=0)
        hub = LocalHub(self.clock)
        listening = LocalBus(hub, Role.SUPERVISOR)
        self.ledger = Ledger(listening.subscribe, Output(json=True), lambda _row: None)
        self.buses = {role: LocalBus(hub, role) for role in Role if role is not Role.SUPERVISOR}
        self.processed = {Role.ACQUIRE: 0, Role.INFER: 0, Role.CONTROL: 0}
        self.busy: dict[Role, int] = {}
        self.silent: set[Role] = set()

    def turn(self) -> None:
        self.clock.advance(POLL_S)
        for role, processed in self.processed.items():
            if role not in self.silent:
                beat = Heartbeat(
                    role=role,
                    monotonic_ns=self.clock.monotonic_ns(),
                    busy_since_ns=self.busy.get(role),
                    processed=processed,
                )
                self.buses[role].publish("heartbeat", beat)
        self.ledger.update()

    def seconds_until(self, drain: Drain) -> float:
        begin_ns = self.clock.monotonic_ns()
        while not drain.done():
            self.turn()
            assert self.clock.monotonic_ns() - begin_ns < 60e9
        return (self.clock.monotonic_ns() - begin_ns) / 1e9

    def analyse(self, sequence: int) -> None:
        analysis = figures_of(header(sequence))
        self.buses[Role.INFER].publish("analysis", analysis)


def header(sequence: int) -> FrameHeader:
    return FrameHeader(
        sequence=sequence,
        monotonic_ns=sequence,
        wall_ns=0,
        detector="SE2",
        scan=Scan(width_px=100, height_px=50, bit_depth=8, pixel_size_m=10e-9, dwell_s=1e-6),
        optics=Optics(working_distance_m=5e-3),
        stage=StagePosition(),
        settings_rev=1,
    )


@pytest.fixture
def roles() -> Roles:
    """Two frames are exposed; the first has come through."""
    roles = Roles()
    roles.processed |= {Role.ACQUIRE: 2, Role.INFER: 1, Role.CONTROL: 1}
    roles.analyse(1)
    roles.turn()
    return roles


def test_a_slow_engine_is_waited_for(roles: Roles) -> None:
    drain = Drain(roles.ledger, roles.clock)
    roles.busy[Role.INFER] = roles.clock.monotonic_ns()
    for _ in range(200):  # ten seconds
        assert not drain.done()
        roles.turn()
    del roles.busy[Role.INFER]
    roles.analyse(2)
    roles.processed |= {Role.INFER: 2, Role.CONTROL: 2}
    assert roles.seconds_until(drain) < 0.3


def test_control_has_to_have_thought_about_the_last_frame(roles: Roles) -> None:
    drain = Drain(roles.ledger, roles.clock)
    roles.analyse(2)
    roles.processed[Role.INFER] = 2
    for _ in range(10):
        roles.turn()
        assert not drain.done()
    roles.processed[Role.CONTROL] = 2
    assert 0.1 < roles.seconds_until(drain) < 0.3  # for the way of its commands


def test_every_role_gives_a_sign_of_life_after_the_last_frame(roles: Roles) -> None:
    roles.analyse(2)
    roles.processed |= {Role.INFER: 2, Role.CONTROL: 2}
    roles.turn()
    drain = Drain(roles.ledger, roles.clock)
    roles.silent.add(Role.ACQUIRE)
    for _ in range(10):
        roles.turn()
        assert not drain.done()
    roles.silent.clear()
    assert roles.seconds_until(drain) < 0.1


def test_a_frame_that_nobody_analyses_counts_too(roles: Roles) -> None:
    drain = Drain(roles.ledger, roles.clock)
    flagged = Event(
        kind=FRAME_FLAGGED,
        role=Role.ACQUIRE,
        message="frame 2 is not used",
        monotonic_ns=1,
        wall_ns=0,
        level=Level.WARNING,
        data={"header": {**msgspec.to_builtins(header(2)), "faults": ["blank"]}},
    )
    roles.buses[Role.ACQUIRE].publish("event", flagged)
    assert roles.seconds_until(drain) < 0.3


def test_a_frame_that_was_lost_with_its_engine_is_not_waited_for(roles: Roles) -> None:
    drain = Drain(roles.ledger, roles.clock)
    assert 1.0 <= roles.seconds_until(drain) < 1.2
