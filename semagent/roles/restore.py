"""The restore role: restored frames for people to look at, as many as this machine manages."""

from semagent.errors import EngineError
from semagent.roles.engine import EngineRole
from semagent.types import Frame, FrameHeader, Level


class RestoreRole(EngineRole):
    """Restores frames. Control does not hear what it says, so nothing waits for it."""

    def _look(self, frame: Frame) -> None:
        analysis = self._engine.analyse(frame, restore=True)
        self._bus.publish("restored", analysis.figures, analysis.restored)

    def _failed(self, header: FrameHeader, error: EngineError) -> None:
        self._say.event(
            "restoration_failed", f"frame {header.sequence}: {error}", level=Level.WARNING
        )
