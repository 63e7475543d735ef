"""The infer role: looks at the newest frame that is fit for use."""

import msgspec

from semagent.bus import Bus
from semagent.clock import Clock
from semagent.config import InferOptions
from semagent.errors import EngineError, FrameTooSmallError
from semagent.ports import Engine
from semagent.registrar import Registrar
from semagent.roles.engine import EngineRole
from semagent.signature import with_signature
from semagent.types import Frame, FrameFault, FrameHeader, Level


class InferRole(EngineRole):
    """Says what control goes by: the engine's figures, the signature, and the place in the field.

    Frames that are unfit for use can thus not reach the estimator.
    """

    def __init__(self, bus: Bus, engine: Engine, options: InferOptions, clock: Clock) -> None:
        super().__init__(bus, engine, options, clock)
        self._registrar = Registrar()
        self._restore = options.restore and engine.restores

    def _look(self, frame: Frame) -> None:
        analysis = with_signature(self._engine.analyse(frame, restore=self._restore), frame)
        shift = self._registrar.register(frame)
        figures = msgspec.structs.replace(analysis.figures, shift=shift)
        self._bus.publish("analysis", figures, analysis.restored)

    def _failed(self, header: FrameHeader, error: EngineError) -> None:
        if isinstance(error, FrameTooSmallError):
            small = msgspec.structs.replace(header, faults=(FrameFault.TOO_SMALL,))
            self._say.flagged(small, str(error))
            return
        self._say.event(
            "engine_failed",
            f"frame {header.sequence}: {error}",
            level=Level.ERROR,
            data={"sequence": header.sequence, "engine": self._engine.name},
        )
