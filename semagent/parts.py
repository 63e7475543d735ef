"""Puts the roles together from a configuration; the same for one process and for many."""

from pathlib import Path

import msgspec

from semagent.bus import Bus
from semagent.clock import Clock
from semagent.config import RunConfig
from semagent.control import Controller
from semagent.ports import Microscope
from semagent.roles import AcquireRole, ControlRole, SessionRecorder
from semagent.safety import SafetyGate
from semagent.sanity import FrameChecker
from semagent.session import EngineRecord, SessionWriter
from semagent.types import Capabilities


def make_acquire(bus: Bus, config: RunConfig, microscope: Microscope, clock: Clock) -> AcquireRole:
    """The acquire role, with a gate that is disarmed."""
    checker = FrameChecker(config.sanity, repeats_frames=microscope.capabilities.repeats_frames)
    gate = SafetyGate(config.safety)
    return AcquireRole(bus, microscope, gate, checker, config.acquire, clock)


def make_control(
    bus: Bus, config: RunConfig, capabilities: Capabilities, clock: Clock
) -> ControlRole:
    """The control role, in the mode the configuration gives."""
    controller = Controller(config.control, capabilities)
    lifetime_s = config.safety.max_evidence_age_s
    return ControlRole(bus, controller, clock, command_lifetime_s=lifetime_s)


def make_recorder(
    folder: Path, config: RunConfig, capabilities: Capabilities, engine: str, clock: Clock
) -> SessionRecorder:
    """A new session in ``folder``.

    Raises:
        UsageError: the folder holds something already.
        RecordError: it cannot be written.
    """
    writer = SessionWriter(
        folder,
        configuration=msgspec.to_builtins(config),
        clock=clock,
        capabilities=capabilities,
        engine=EngineRecord(name=engine, parameters=config.engine.options),
        sync=config.record.sync,
    )
    return SessionRecorder(writer, clock)
