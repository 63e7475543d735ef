"""How a run is doing: gathered here once, shown by the terminal, the console and the metrics."""

from collections import deque
from enum import StrEnum

import numpy as np

from semagent.channels import HEARTBEAT_RATE_HZ, Role
from semagent.clock import Clock
from semagent.config import RunConfig
from semagent.dose import Dose, DoseMeter
from semagent.types import Capabilities, FrameAnalysis, FrameHeader, Heartbeat, Value
from semagent.wire import Message

SILENCE_S = 50 / HEARTBEAT_RATE_HZ
"""A role that has not been heard of for so long counts as lost."""

_BUSY_MARGIN_S = 30.0
_STALE_FRAMES, _STALE_S = 3, 5.0  # since the last one that was analysed: more than an engine's lag
_LATENCIES = 1000
_STAMPS = 32


class Condition(StrEnum):
    """What can be said of a role from its signs of life."""

    STARTING = "starting"
    """Not heard of yet."""

    IDLE = "idle"
    BUSY = "busy"
    HUNG = "hung"
    """Busy with one thing for longer than it may be."""

    SILENT = "silent"
    """No sign of life for `SILENCE_S`."""


class RoleHealth(Value, frozen=True, kw_only=True):
    """One role as its last heartbeat described it.

    Attributes:
        age_s: time since that heartbeat, ``None`` before the first.
        busy_s: time it has been busy with one thing.
        processed: frames it has dealt with.
        skipped: frames it did not look at because newer ones had come.
        missing: messages that were sent to it and never came.
        refused: messages it could not read.
        rss_bytes: resident memory of its process, 0 where roles share one.
    """

    role: str
    condition: Condition
    age_s: float | None = None
    busy_s: float = 0.0
    processed: int = 0
    skipped: int = 0
    missing: int = 0
    refused: int = 0
    rss_bytes: int = 0


class Health(Value, frozen=True, kw_only=True):
    """A run at one moment; what is not known yet is ``None``.

    Attributes:
        roles: all that belong to the run.
        frames: number of frames exposed.
        frame_age_s: time since the exposure of the newest frame heard of ended.
        frames_per_s: over the last frames.
        stale_s: time from the last frame that was analysed to the newest, where that is so long
            that score and focus say nothing of now; ``None`` otherwise.
        latency_p50_s: median time of the engine over its last frames.
        latency_p99_s: 99th percentile of the same.
        dose: what the field in view has taken.
        warnings: sentences for people, the most serious first.
    """

    roles: tuple[RoleHealth, ...]
    frames: int
    frame_age_s: float | None
    frames_per_s: float | None
    stale_s: float | None
    latency_p50_s: float | None
    latency_p99_s: float | None
    dose: Dose
    warnings: tuple[str, ...]


def busy_limit_s(role: str, config: RunConfig) -> float:
    """How long a role may be busy with one thing before it counts as hung."""
    if role == Role.ACQUIRE:
        return config.acquire.frame_timeout_s + _BUSY_MARGIN_S
    engines = (Role.INFER, Role.RESTORE)
    return config.infer.max_busy_s if role in engines else _BUSY_MARGIN_S


def unverified(capabilities: Capabilities) -> str | None:
    """What to say of a driver that has never met the hardware it is for."""
    if capabilities.verified_on is not None:
        return None
    return (
        f"the driver {capabilities.driver!r} has never been run on its hardware: stay at "
        "the microscope and watch it"
    )


class HealthMonitor:
    """Takes what is said on the bus and says how the run is.

    Args:
        config: the run configuration, for what a role is allowed.
        capabilities: of the microscope.
        clock: the clock the roles stamp with.
        roles: those to be expected; others are added as they are heard of.
    """

    def __init__(
        self,
        config: RunConfig,
        capabilities: Capabilities,
        clock: Clock,
        roles: tuple[Role, ...] = (Role.ACQUIRE, Role.INFER, Role.CONTROL),
    ) -> None:
        self._config = config
        self._unverified = unverified(capabilities)
        self._roles = roles
        self._clock = clock
        self._beats: dict[str, Heartbeat] = {}
        self._newest: FrameHeader | None = None
        self._analysed: FrameHeader | None = None
        self._stamps: deque[tuple[int, int]] = deque(maxlen=_STAMPS)
        self._latencies_s: deque[float] = deque(maxlen=_LATENCIES)
        self._dose = DoseMeter()

    def take(self, message: Message) -> None:
        """Take one message of any channel into account."""
        value = message.value
        match message.topic:
            case "heartbeat":
                self._beats[message.sender] = value
            case "frame":
                self._take_header(value)
            case "analysis":
                self._take_analysis(value)
            case "event" if (header := value.flagged) is not None:
                self._take_header(header)

    def snapshot(self) -> Health:
        """How the run is now."""
        now_ns = self._clock.monotonic_ns()
        known = {*self._roles, *self._beats}
        roles = tuple(self._role(role, now_ns) for role in Role if role in known)
        age_s = None if self._newest is None else (now_ns - self._newest.monotonic_ns) / 1e9
        p50_s, p99_s = self._percentiles_s()
        return Health(
            roles=roles,
            frames=0 if self._newest is None else self._newest.sequence,
            frame_age_s=age_s,
            frames_per_s=self._frames_per_s(),
            stale_s=self._stale_s(),
            latency_p50_s=p50_s,
            latency_p99_s=p99_s,
            dose=self._dose.reading(),
            warnings=tuple(self._warnings(roles)),
        )

    def _take_analysis(self, analysis: FrameAnalysis) -> None:
        self._latencies_s.append(analysis.latency_s)
        self._analysed = analysis.header
        self._take_header(analysis.header)

    def _take_header(self, header: FrameHeader) -> None:
        known = 0 if self._newest is None else self._newest.sequence
        if header.sequence <= known:
            return
        self._newest = header
        self._stamps.append((header.monotonic_ns, header.sequence))
        self._dose.add(header)

    def _role(self, role: Role, now_ns: int) -> RoleHealth:
        beat = self._beats.get(role)
        if beat is None:
            return RoleHealth(role=role, condition=Condition.STARTING)
        age_s = (now_ns - beat.monotonic_ns) / 1e9
        busy_s = 0.0 if beat.busy_since_ns is None else (now_ns - beat.busy_since_ns) / 1e9
        if age_s > SILENCE_S:
            condition = Condition.SILENT
        elif busy_s > busy_limit_s(role, self._config):
            condition = Condition.HUNG
        else:
            condition = Condition.IDLE if beat.busy_since_ns is None else Condition.BUSY
        return RoleHealth(
            role=role,
            condition=condition,
            age_s=age_s,
            busy_s=busy_s,
            processed=beat.processed,
            skipped=beat.skipped,
            missing=beat.missing,
            refused=beat.refused,
            rss_bytes=beat.rss_bytes,
        )

    def _frames_per_s(self) -> float | None:
        if len(self._stamps) < 2:
            return None
        (first_ns, first), (last_ns, last) = self._stamps[0], self._stamps[-1]
        return None if last_ns <= first_ns else (last - first) / ((last_ns - first_ns) / 1e9)

    def _stale_s(self) -> float | None:
        if self._newest is None or self._analysed is None:
            return None
        frames = self._newest.sequence - self._analysed.sequence
        stale_s = (self._newest.monotonic_ns - self._analysed.monotonic_ns) / 1e9
        return stale_s if frames > _STALE_FRAMES and stale_s > _STALE_S else None

    def _percentiles_s(self) -> tuple[float | None, float | None]:
        if not self._latencies_s:
            return None, None
        p50_s, p99_s = np.percentile(self._latencies_s, [50, 99])
        return float(p50_s), float(p99_s)

    def _warnings(self, roles: tuple[RoleHealth, ...]) -> list[str]:
        said = []
        for role in roles:
            if role.condition is Condition.SILENT:
                said.append(
                    f"the {role.role} role has given no sign of life for {role.age_s:.0f} s"
                )
            if role.condition is Condition.HUNG:
                said.append(f"the {role.role} role is busy with one thing for {role.busy_s:.0f} s")
            # The restore role gets the time that others leave: what it misses, nobody needs.
            if role.missing and role.role != Role.RESTORE:
                said.append(f"{role.missing} messages to the {role.role} role were lost")
            if role.refused:
                said.append(f"the {role.role} role could not read {role.refused} messages")
        stale_s = self._stale_s()
        if stale_s is not None:
            said.append(f"no frame has been analysed for {stale_s:.0f} s: score and focus are old")
        return said if self._unverified is None else [*said, self._unverified]
