"""Health: what heartbeats and frames say of a run, and the warnings that follow."""

from typing import Any

import msgspec
import pytest

from semagent.channels import Role
from semagent.clock import ManualClock
from semagent.config import find_config, load_config
from semagent.dose import dose_of
from semagent.health import Condition, HealthMonitor
from semagent.testing.engines import figures_of
from semagent.types import (
    Capabilities,
    Event,
    FrameHeader,
    Heartbeat,
    Level,
    Optics,
    Scan,
    StagePosition,
)
from semagent.wire import Message

ROLES = (Role.ACQUIRE, Role.INFER)


def header(sequence: int, **changes: Any) -> FrameHeader:
    known: dict[str, Any] = {
        "sequence": sequence,
        "monotonic_ns": 1_000_000_000 + sequence * 100_000_000,
        "wall_ns": 0,
        "detector": "SE2",
        "scan": Scan(width_px=100, height_px=50, bit_depth=8, pixel_size_m=10e-9, dwell_s=1e-6),
        "optics": Optics(working_distance_m=5e-3, beam_current_a=160.2176634e-12),
        "stage": StagePosition(),
        "settings_rev": 1,
    }
    return FrameHeader(**(known | changes))


def analysis(sequence: int, latency_s: float = 0.01) -> Message:
    value = figures_of(header(sequence), latency_s=latency_s)
    return Message(topic="analysis", sender="infer", number=sequence, value=value)


def beat(role: Role, clock: ManualClock, **changes: Any) -> Message:
    value = Heartbeat(role=role, monotonic_ns=clock.monotonic_ns(), **changes)
    return Message(topic="heartbeat", sender=role, number=1, value=value)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def monitor(clock: ManualClock) -> HealthMonitor:
    capabilities = Capabilities(driver="bench", microscope="bench", verified_on="this bench")
    return HealthMonitor(load_config(find_config("simulated")), capabilities, clock, ROLES)


def test_a_role_is_starting_until_it_is_heard_and_silent_when_it_falls_silent(
    monitor: HealthMonitor, clock: ManualClock
):
    monitor.take(beat(Role.ACQUIRE, clock, processed=7, rss_bytes=2**20))
    acquire, infer = monitor.snapshot().roles
    assert (acquire.condition, acquire.processed) == (Condition.IDLE, 7)
    assert infer.condition is Condition.STARTING
    assert monitor.snapshot().warnings == ()
    clock.advance(5.1)
    silent = monitor.snapshot()
    assert silent.roles[0].condition is Condition.SILENT
    assert silent.warnings == ("the acquire role has given no sign of life for 5 s",)


def test_a_call_that_takes_too_long_hangs(monitor: HealthMonitor, clock: ManualClock):
    since_ns = clock.monotonic_ns()
    clock.advance(60.0)
    monitor.take(beat(Role.INFER, clock, busy_since_ns=since_ns))
    assert monitor.snapshot().roles[1].condition is Condition.BUSY
    clock.advance(0.5)
    monitor.take(beat(Role.INFER, clock, busy_since_ns=since_ns))
    assert monitor.snapshot().roles[1].condition is Condition.HUNG


def test_lost_and_unreadable_messages_are_warnings(monitor: HealthMonitor, clock: ManualClock):
    monitor.take(beat(Role.INFER, clock, missing=3, refused=2))
    monitor.take(beat(Role.RESTORE, clock, missing=28))  # as few frames as time allows, on purpose
    warnings = monitor.snapshot().warnings
    assert warnings == (
        "3 messages to the infer role were lost",
        "the infer role could not read 2 messages",
    )


def test_frames_that_nobody_looked_at_cost_dose_all_the_same(
    monitor: HealthMonitor, clock: ManualClock
):
    one = dose_of(header(1))
    assert one == pytest.approx(1e9 * 1e-6 / 10**2)
    monitor.take(analysis(1))
    monitor.take(analysis(4))
    clock.move_to(header(4).monotonic_ns + 250_000_000)
    health = monitor.snapshot()
    assert health.frames == health.dose["frames_here"] == 4
    assert health.dose["here_e_nm2"] == pytest.approx(4 * one)
    assert health.frame_age_s == pytest.approx(0.25)
    assert health.frames_per_s == pytest.approx(10.0)


def test_a_flagged_frame_counts_as_exposed(monitor: HealthMonitor):
    event = Event(
        kind="frame_flagged",
        role="acquire",
        message="blank",
        monotonic_ns=1,
        wall_ns=1,
        level=Level.WARNING,
        data={"header": header(9)},
    )
    monitor.take(Message(topic="event", sender="acquire", number=1, value=event))
    assert monitor.snapshot().frames == 9


def test_what_was_analysed_long_ago_is_stale(monitor: HealthMonitor):
    def flagged(sequence: int, **changes: Any) -> Message:
        event = Event(
            kind="frame_flagged",
            role="acquire",
            message="",
            monotonic_ns=0,
            wall_ns=0,
            level=Level.WARNING,
            data={"header": msgspec.to_builtins(header(sequence, **changes))},
        )
        return Message(topic="event", sender="acquire", number=1, value=event)

    monitor.take(flagged(1))
    assert monitor.snapshot().stale_s is None  # nothing was ever known
    monitor.take(analysis(2))
    monitor.take(flagged(52))
    assert monitor.snapshot().stale_s is None
    monitor.take(flagged(53))
    health = monitor.snapshot()
    assert health.stale_s == pytest.approx(5.1)
    assert health.warnings == ("no frame has been analysed for 5 s: score and focus are old",)
    monitor.take(analysis(54))
    assert monitor.snapshot().stale_s is None
    # Of slow scans the engine is a frame behind, and nothing is old.
    monitor.take(flagged(55, monotonic_ns=60_000_000_000))
    assert monitor.snapshot().stale_s is None


def test_latency_percentiles(monitor: HealthMonitor):
    assert monitor.snapshot().latency_p99_s is None
    for number in range(1, 101):
        monitor.take(analysis(number, latency_s=number / 1000))
    health = monitor.snapshot()
    assert health.latency_p50_s == pytest.approx(0.0505)
    assert health.latency_p99_s == pytest.approx(0.09901)


def test_a_driver_that_never_met_its_hardware_is_a_warning(clock: ManualClock):
    config = load_config(find_config("simulated"))
    unverified = Capabilities(driver="ours", microscope="ours", verified_on=None)
    (warning,) = HealthMonitor(config, unverified, clock, ROLES).snapshot().warnings
    assert "'ours' has never been run on its hardware" in warning


def test_the_dose_of_a_new_field_starts_again(monitor: HealthMonitor):
    for sequence, x_m in ((1, 0.0), (2, 0.0), (3, 1e-3)):
        moved = header(sequence, stage=StagePosition(x_m=x_m, y_m=0.0))
        monitor.take(Message(topic="frame", sender="acquire", number=sequence, value=moved))
    assert monitor.snapshot().dose["frames_here"] == 1
    assert monitor.snapshot().dose["frames"] == 3


def test_a_role_that_was_not_expected_is_shown_when_heard(
    monitor: HealthMonitor, clock: ManualClock
):
    monitor.take(beat(Role.CONSOLE, clock))
    assert [role.role for role in monitor.snapshot().roles] == ["acquire", "infer", "console"]
