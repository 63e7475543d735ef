"""The infer role: looks at the newest frame that is fit for use."""

import msgspec

from semagent.bus import Bus
from semagent.clock import Clock
from semagent.config import InferOptions
from semagent.errors import EngineError
from semagent.ports import Engine
from semagent.registrar import Registrar
from semagent.roles.base import Announcer
from semagent.signature import with_signature
from semagent.types import Frame, FrameHeader, Level


class InferRole:
    """Owns the engine, and adds where in its field each frame lies and its signature.

    Frames that failed the sanity checks are never analysed, so they cannot reach the estimator;
    the acquire role announces each of them.
    """

    def __init__(self, bus: Bus, engine: Engine, options: InferOptions, clock: Clock) -> None:
        self._bus = bus
        self._engine = engine
        self._options = options
        self._say = Announcer(bus, clock)
        self._frames = bus.subscribe("frame")
        self._registrar = Registrar()
        self._restore = options.restore and engine.restores
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
        frame = Frame(header, message.pixels)
        try:
            analysis = self._engine.analyse(frame, restore=self._restore)
            analysis = with_signature(analysis, frame)
        except EngineError as error:
            self._failures += 1
            self._say.event(
                "engine_failed",
                f"frame {header.sequence}: {error}",
                level=Level.ERROR,
                data={"sequence": header.sequence, "engine": self._engine.name},
            )
            if self._failures >= self._options.max_failures:
                raise
        else:
            self._failures = 0
            self._processed += 1
            shift = self._registrar.register(frame)
            figures = msgspec.structs.replace(analysis.figures, shift=shift)
            self._bus.publish("analysis", figures, analysis.restored)
        self._beat(busy=False)
        return True

    def close(self) -> None:
        """See `RoleLoop`."""
        self._engine.close()

    def _beat(self, *, busy: bool) -> None:
        self._bus.beat(busy=busy, processed=self._processed, skipped=self._frames.skipped)
