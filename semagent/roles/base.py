"""What all roles have in common."""

from typing import Any, Protocol

import msgspec

from semagent.bus import Bus
from semagent.clock import Clock
from semagent.types import FRAME_FLAGGED, Event, FrameHeader, Level


class RoleLoop(Protocol):
    """One role. It does not know whether it has a process for itself."""

    def step(self) -> bool:
        """Do what is to be done now and say whether there was anything. Never waits for work.

        Raises:
            SemagentError: the role cannot go on.
        """
        ...

    def close(self) -> None:
        """Let go of everything. May be called twice."""
        ...


class Announcer:
    """Publishes events in the name of a role."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock

    def compose(
        self,
        kind: str,
        message: str,
        *,
        level: Level = Level.INFO,
        data: dict[str, Any] | None = None,
    ) -> Event:
        """An event of this role, now."""
        return Event(
            kind=kind,
            role=self._bus.role,
            message=message,
            monotonic_ns=self._clock.monotonic_ns(),
            wall_ns=self._clock.wall_ns(),
            level=level,
            data=data or {},
        )

    def event(
        self,
        kind: str,
        message: str,
        *,
        level: Level = Level.INFO,
        data: dict[str, Any] | None = None,
    ) -> None:
        """Publish an event."""
        self._bus.publish("event", self.compose(kind, message, level=level, data=data))

    def flagged(self, header: FrameHeader, reason: str | None = None) -> None:
        """Say that a frame is not fit for use; control hears of it this way.

        Args:
            header: with the faults.
            reason: why, where there is more to say than their names.
        """
        self.event(
            FRAME_FLAGGED,
            f"frame {header.sequence} is not used: {reason or ', '.join(header.faults)}",
            level=Level.WARNING,
            data={"header": msgspec.to_builtins(header)},
        )
