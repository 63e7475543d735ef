"""Puts the roles together from a configuration; the same for one process and for many."""

from contextlib import ExitStack
from pathlib import Path

import msgspec

from semagent import registry
from semagent.bus import Bus
from semagent.clock import Clock
from semagent.config import RunConfig
from semagent.control import Axis, Controller, ControlOptions, Reach, Stabiliser
from semagent.ports import Engine, Microscope
from semagent.roles import AcquireRole, ControlRole, SessionRecorder
from semagent.safety import AxisLimits, Envelope, SafetyGate
from semagent.sanity import FrameChecker
from semagent.session import EngineRecord, SessionWriter
from semagent.types import Capabilities

_WAIT_FRACTION = 0.8


def make_acquire(
    bus: Bus,
    config: RunConfig,
    microscope: Microscope,
    clock: Clock,
    *,
    patient: bool = False,
    follow_up_s: float = 0.0,
) -> AcquireRole:
    """The acquire role, with a gate that is disarmed; see there for the last two."""
    checker = FrameChecker(config.sanity, repeats_frames=microscope.capabilities.repeats_frames)
    return AcquireRole(
        bus,
        microscope,
        SafetyGate(config.safety),
        checker,
        config.acquire,
        clock,
        patient=patient,
        follow_up_s=follow_up_s,
    )


def make_control(
    bus: Bus, config: RunConfig, capabilities: Capabilities, clock: Clock
) -> ControlRole:
    """The control role, in the mode the configuration gives.

    It is told of the envelope, so that it does not ask for what the gate would refuse.
    """
    controller = Controller(
        within_envelope(config.control, config.safety),
        _reachable(capabilities, config.safety.working_distance_m),
        stabiliser=_stabiliser(config, capabilities) if config.control.drift.correct else None,
        memory=config.remembered,
    )
    lifetime_s = config.safety.max_evidence_age_s
    return ControlRole(bus, controller, clock, command_lifetime_s=lifetime_s)


def _stabiliser(config: RunConfig, capabilities: Capabilities) -> Stabiliser:
    """Takes drift out, as far as envelope and microscope allow."""
    stage = {name: _axis(config.safety, f"stage_{name}") for name in capabilities.stage_axes}
    beam_shift = _axis(config.safety, "beam_shift_m") if capabilities.beam_shift else None
    reach = Reach(beam_shift=beam_shift, stage_x=stage.get("x_m"), stage_y=stage.get("y_m"))
    return Stabiliser(config.control.drift, config.remembered, reach)


def _axis(envelope: Envelope, key: str) -> Axis | None:
    limits, step = envelope.limits(key), envelope.longest_step(key)
    if limits is None or step is None:
        return None
    return Axis(limits.min, limits.max, step, envelope.tolerance(key))


def within_envelope(options: ControlOptions, envelope: Envelope) -> ControlOptions:
    """The options, with no step above the envelope's, and waits that fit the life of evidence."""
    autofocus = options.autofocus
    stigmator, stigmator_range = envelope.stigmator, autofocus.stigmator_range
    if stigmator is None or stigmator_range is None:
        stigmator_range = None
    else:
        low, high = stigmator_range
        stigmator_range = (max(low, stigmator.min), min(high, stigmator.max))
    autofocus = msgspec.structs.replace(
        autofocus,
        max_step_m=_least(autofocus.max_step_m, envelope.longest_step("working_distance_m")),
        stigmator_range=stigmator_range,
        max_stigmator_step=_least(autofocus.max_stigmator_step, envelope.longest_step("stigmator")),
    )
    # After a time-out focus is put back, on the evidence of the last frame there was.
    frame_s = min(options.deadlines.frame_s, _WAIT_FRACTION * envelope.max_evidence_age_s)
    # Commands wait for the end of a frame, and are carried out until they expire.
    reply_s = max(options.deadlines.reply_s, envelope.max_evidence_age_s / _WAIT_FRACTION)
    return msgspec.structs.replace(
        options,
        autofocus=autofocus,
        deadlines=msgspec.structs.replace(options.deadlines, frame_s=frame_s, reply_s=reply_s),
    )


def _least(*steps: float | None) -> float | None:
    """The shortest of longest steps; ``None`` is no limit."""
    return min((each for each in steps if each is not None), default=None)


def _reachable(capabilities: Capabilities, limits: AxisLimits | None) -> Capabilities:
    """The capabilities, with a working distance range that the envelope allows too."""
    if limits is None:
        return capabilities
    low_m, high_m = capabilities.working_distance_range_m or (limits.min, limits.max)
    narrowed = (max(low_m, limits.min), min(high_m, limits.max))
    return msgspec.structs.replace(capabilities, working_distance_range_m=narrowed)


def make_writer(
    folder: Path, config: RunConfig, capabilities: Capabilities, engine: str, clock: Clock
) -> SessionWriter:
    """A new session in ``folder``.

    Raises:
        UsageError: the folder holds something already, or cannot be made.
        RecordError: it cannot be written.
    """
    return SessionWriter(
        folder,
        configuration=msgspec.to_builtins(config),
        clock=clock,
        capabilities=capabilities,
        engine=EngineRecord(name=engine, parameters=config.engine.options),
        sync=config.record.sync,
    )


def open_beside(
    microscope: Microscope, config: RunConfig, record: Path | None, clock: Clock
) -> tuple[Engine, SessionRecorder | None]:
    """The engine for frames of this microscope and, if it is to be recorded, the recorder.

    Where one of them cannot be opened everything is closed, the microscope too.

    Raises:
        SemagentError: see `registry.open_engine_for` and `make_writer`.
    """
    with ExitStack() as opened:
        opened.callback(microscope.close)
        scan = microscope.read_state().scan
        engine = registry.open_engine_for(scan, config.engine.name, config.engine.options)
        opened.callback(engine.close)
        recorder = None
        if record is not None:
            recorder = make_recorder(record, config, microscope.capabilities, engine.name, clock)
        opened.pop_all()
    return engine, recorder


def make_recorder(
    folder: Path, config: RunConfig, capabilities: Capabilities, engine: str, clock: Clock
) -> SessionRecorder:
    """A recorder of bus messages into a new session, with the errors of `make_writer`."""
    restoring = config.restoration or config.engine
    parameters = {"analysis": config.engine.options, "restored": restoring.options}
    writer = make_writer(folder, config, capabilities, engine, clock)
    return SessionRecorder(writer, clock, parameters)
