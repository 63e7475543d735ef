"""The restore role: restored frames for people to look at, as many as this machine manages."""

from semagent.bus import Bus
from semagent.clock import Clock
from semagent.config import InferOptions
from semagent.errors import EngineError
from semagent.ports import Engine
from semagent.roles.base import Announcer
from semagent.types import Frame, FrameHeader, Level


class RestoreRole:
    """Owns the restoring engine. Control does not hear what it says, so nothing waits for it.

    Args:
        options: of the infer role; ``max_failures`` holds here too.
    """

    def __init__(self, bus: Bus, engine: Engine, options: InferOptions, clock: Clock) -> None:
        self._bus = bus
        self._engine = engine
        self._max_failures = options.max_failures
        self._say = Announcer(bus, clock)
        self._frames = bus.subscribe("frame")
        self._processed = 0
        self._failures = 0

    def step(self) -> bool:
        """See `RoleLoop`.

        Raises:
            EngineError: the engine failed on ``max_failures`` frames in a row.
        """
        message = self._frames.take()
        if message is None:
            return False
        header: FrameHeader = message.value
        if header.faults:
            return True
        self._beat(busy=True)
        try:
            analysis = self._engine.analyse(Frame(header, message.pixels), restore=True)
        except EngineError as error:
            self._failures += 1
            self._say.event(
                "restoration_failed", f"frame {header.sequence}: {error}", level=Level.WARNING
            )
            if self._failures >= self._max_failures:
                raise
        else:
            self._failures = 0
            self._processed += 1
            self._bus.publish("restored", analysis.figures, analysis.restored)
        self._beat(busy=False)
        return True

    def close(self) -> None:
        """See `RoleLoop`."""
        self._engine.close()

    def _beat(self, *, busy: bool) -> None:
        self._bus.beat(busy=busy, processed=self._processed, skipped=self._frames.skipped)
