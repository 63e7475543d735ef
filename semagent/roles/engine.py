"""What the infer and the restore role have in common."""

from abc import ABC, abstractmethod

from semagent.bus import Bus
from semagent.clock import Clock
from semagent.config import InferOptions
from semagent.errors import EngineError, FrameTooSmallError
from semagent.ports import Engine
from semagent.roles.base import Announcer
from semagent.types import Frame, FrameHeader


class EngineRole(ABC):
    """Owns an engine, and shows it the newest frame that is fit for use.

    Frames that failed the sanity checks are never looked at; the acquire role announces each of
    them.

    Args:
        engine: opened; closed together with the role.
        options: of the infer role; they hold for the restore role too.
    """

    def __init__(self, bus: Bus, engine: Engine, options: InferOptions, clock: Clock) -> None:
        self._bus = bus
        self._engine = engine
        self._max_failures = options.max_failures
        self._say = Announcer(bus, clock)
        self._frames = bus.subscribe("frame")
        self._processed = 0
        self._failures = 0

    @abstractmethod
    def _look(self, frame: Frame) -> None:
        """Show the engine a frame, and publish what it says.

        Raises:
            EngineError: the engine failed.
        """

    @abstractmethod
    def _failed(self, header: FrameHeader, error: EngineError) -> None:
        """Say that the engine failed on a frame, or that it is too small for the engine."""

    def step(self) -> bool:
        """See `RoleLoop`.

        A frame that is too small is no failure: somebody has reduced the scanned region.

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
            self._look(Frame(header, message.pixels))
        except FrameTooSmallError as error:
            self._failed(header, error)
        except EngineError as error:
            self._failures += 1
            self._failed(header, error)
            if self._failures >= self._max_failures:
                raise
        else:
            self._failures = 0
            self._processed += 1
        self._beat(busy=False)
        return True

    def close(self) -> None:
        """See `RoleLoop`."""
        self._engine.close()

    def _beat(self, *, busy: bool) -> None:
        self._bus.beat(busy=busy, processed=self._processed, skipped=self._frames.skipped)
