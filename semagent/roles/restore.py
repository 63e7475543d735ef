"""The restore role: restored frames for people to look at, as many as this machine manages."""

from semagent.bus import Bus
from semagent.clock import Clock
from semagent.config import InferOptions
from semagent.errors import EngineError, FrameTooSmallError
from semagent.ports import Engine
from semagent.roles.engine import EngineRole
from semagent.types import Frame, FrameHeader, Level


class RestoreRole(EngineRole):
    """Restores frames. Control does not hear what it says, so nothing waits for it.

    Of frames that are too small for the engine it speaks once, until their size changes.
    """

    def __init__(self, bus: Bus, engine: Engine, options: InferOptions, clock: Clock) -> None:
        super().__init__(bus, engine, options, clock)
        self._too_small = ""

    def _look(self, frame: Frame) -> None:
        analysis = self._engine.analyse(frame, restore=True)
        self._too_small = ""
        self._bus.publish("restored", analysis.figures, analysis.restored)

    def _failed(self, header: FrameHeader, error: EngineError) -> None:
        if isinstance(error, FrameTooSmallError):
            before, self._too_small = self._too_small, str(error)
            if before == self._too_small:
                return
        self._say.event(
            "restoration_failed", f"frame {header.sequence}: {error}", level=Level.WARNING
        )
