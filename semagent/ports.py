"""The seams: what a driver, an engine and an estimator have to offer.

A driver is a callable behind an entry point of the group ``semagent.drivers``, an engine one
of the group ``semagent.engines``::

    def open_microscope(options: Mapping[str, Any], *, clock: Clock) -> Microscope
    def open_engine(options: Mapping[str, Any]) -> Engine

Both raise `ConfigError` for options they do not know or cannot use, and do their slow work
(connecting, loading, warming up) before they return.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from semagent.clock import Clock
from semagent.types import (
    Analysis,
    Capabilities,
    FocusBelief,
    Frame,
    FrameAnalysis,
    MicroscopeAction,
    MicroscopeState,
    Signature,
)


class Microscope(Protocol):
    """One opened microscope. Only ``stop`` may be called from another thread."""

    @property
    def capabilities(self) -> Capabilities:
        """What this microscope can do; constant while it is open."""
        ...

    def read_state(self) -> MicroscopeState:
        """Read the settings back from the microscope, not from memory.

        Raises:
            MicroscopeError: they cannot be read.
        """
        ...

    def acquire(self, timeout_s: float) -> Frame:
        """Expose one frame and return it with the settings measured along with it.

        The pixels belong to the caller; the driver never writes to them again.

        Raises:
            AcquisitionStoppedError: ``stop`` was called meanwhile.
            MicroscopeTimeoutError: no whole frame within ``timeout_s`` seconds.
            NotReadyError: a person has to do something first, such as unblank the beam.
            MicroscopeError: anything else.
        """
        ...

    def apply(self, action: MicroscopeAction) -> None:
        """Carry out one action and return when the microscope has settled.

        Raises:
            CommandRefusedError: out of the instrument's range, not finite, or not supported;
                nothing has changed.
            MicroscopeError: anything else; the state is unknown until it is read back.
        """
        ...

    def stop(self) -> None:
        """End a running acquisition or move promptly. Safe from any thread, at any time."""
        ...

    def close(self) -> None:
        """Let go of the microscope, leaving it as it is. May be called twice."""
        ...


class OpenMicroscope(Protocol):
    """The callable behind an entry point of the group ``semagent.drivers``."""

    def __call__(self, options: Mapping[str, Any], *, clock: Clock) -> Microscope:
        """Connect and return the microscope.

        Raises:
            ConfigError: an option is unknown, missing or out of range.
            InputFileError: a file that an option names cannot be used.
            MicroscopeError: the microscope cannot be reached.
        """
        ...


class Engine(Protocol):
    """One loaded inference engine."""

    @property
    def name(self) -> str:
        """Name for records, e.g. ``sharpness/tenengrad``."""
        ...

    @property
    def restores(self) -> bool:
        """Whether ``analyse`` can return restored pixels."""
        ...

    @property
    def smallest_px(self) -> int:
        """Rows and columns that a frame needs at least, without its information bar."""
        ...

    def analyse(self, frame: Frame, *, restore: bool = False) -> Analysis:
        """Measure, and on request restore, one frame.

        Raises:
            FrameTooSmallError: the frame has fewer pixels than the engine needs.
            EngineError: the engine failed.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds. May be called twice."""
        ...


class OpenEngine(Protocol):
    """The callable behind an entry point of the group ``semagent.engines``."""

    def __call__(self, options: Mapping[str, Any]) -> Engine:
        """Load, warm up and return the engine.

        Raises:
            ConfigError: an option is unknown, missing or out of range.
            EngineError: the engine cannot run here; says what is missing.
        """
        ...


class FocusEstimator(Protocol):
    """Turns what an engine says of successive frames into a belief about focus."""

    def reset(self, focused: Signature | None = None) -> None:
        """Forget all frames; how the field looks in focus may be known."""
        ...

    def update(self, analysis: FrameAnalysis) -> FocusBelief:
        """Take one frame into account and say what is now believed."""
        ...
