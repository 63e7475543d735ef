"""What runs in the process of one role, and how it talks to the supervisor that started it."""

import os
import secrets
import sys
import threading
import time
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import psutil

from semagent import registry, signals
from semagent.bus import Mailbox
from semagent.bus.zeromq import Endpoints, ZmqBus
from semagent.channels import Role
from semagent.clock import Clock, SystemClock
from semagent.config import Part, RunConfig
from semagent.errors import EngineError, MicroscopeError, RecordError, SemagentError, UsageError
from semagent.parts import make_acquire, make_control, make_recorder
from semagent.ports import Engine
from semagent.roles import AcquireRole, ControlRole, InferRole, RecordRole, RestoreRole, RoleLoop
from semagent.types import Capabilities, Scan

_IDLE_S = 0.01
_FOLLOW_UP_S = 0.02  # a few times as long as an answer takes there and the next command back
_ORPHANED = "the process that watched over the run was killed"
_ORPHAN_S = 10.0  # and as long as a frame may take: focus is put back meanwhile
_LAST_BEATS_S = 2.0
_NICENESS = {Role.CONSOLE: 5, Role.RESTORE: 19}
LISTENERS_S = 10.0


class ConsolePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the console keeps over a restart, so that browsers find it again.

    Attributes:
        operator_token: secret of those who may command.
        viewer_token: secret of those who may only look.
        port: where an earlier process listened.
    """

    operator_token: str
    viewer_token: str
    port: int | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor tells a new process.

    Attributes:
        config: the run configuration.
        frames: number of frames after which acquisition rests, ``None`` for no end.
        session: folder of the record, ``None`` for none.
        rebind: endpoints of an earlier process of this role, to take its place.
        console: who may use the console, and where it was found before.
    """

    role: Role
    config: RunConfig
    token: str
    frames: int | None = None
    session: str | None = None
    rebind: Endpoints | None = None
    console: ConsolePlan | None = None


class ConsoleAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where the console listens."""

    url: str
    port: int


class Announced(msgspec.Struct, frozen=True, kw_only=True, tag="announced"):
    """A process can be reached, and has opened what it owns.

    Attributes:
        capabilities: of the microscope, from the process that owns it.
        scan: how it is set to scan as the run begins.
        engine: name of the engine, from the process that owns it.
        smallest_px: see `semagent.ports.Engine`.
    """

    endpoints: Endpoints
    capabilities: Capabilities | None = None
    scan: Scan | None = None
    engine: str | None = None
    smallest_px: int = 0
    console: ConsoleAddress | None = None


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """A process has set about listening to all the others.

    Attributes:
        listens: the channels, one entry for every subscription.
    """

    listens: tuple[str, ...]


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """A process ends because of an error."""

    kind: str
    message: str


class Wiring(msgspec.Struct, frozen=True, kw_only=True, tag="wiring"):
    """Where everybody is, and what was opened."""

    roles: dict[Role, Endpoints]
    capabilities: Capabilities
    engine: str


class Go(msgspec.Struct, frozen=True, kw_only=True, tag="go"):
    """Begin, once everybody who listens can be heard of.

    Attributes:
        listeners: the channels each role listens to.
    """

    listeners: dict[Role, tuple[str, ...]]


class Unrecorded(msgspec.Struct, frozen=True, kw_only=True, tag="unrecorded"):
    """The record is lost: take no more frames, but put back what is asked to be put back."""


class End(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """Finish properly."""


FromChild = Announced | Ready | Failed
ToChild = Wiring | Go | Unrecorded | End

_ERRORS: dict[str, type[SemagentError]] = {
    error.__name__: error for error in (UsageError, EngineError, MicroscopeError, RecordError)
}


def new_token() -> str:
    """A secret that keeps strangers off the sockets of one run."""
    return secrets.token_urlsafe(24)


def raise_failure(role: Role, failed: Failed) -> NoReturn:
    """Raise in the supervisor what ended a child.

    Raises:
        SemagentError: always.
    """
    error = _ERRORS.get(failed.kind, SemagentError)
    raise error(f"{role} role: {failed.message}")


def main(plan_bytes: bytes, link: Connection) -> None:
    """Run one role until the supervisor says `End`, or is gone and focus is put back."""
    # Ctrl-C reaches every process of a console, and a service manager ends all of a service;
    # only the supervisor may act on it.
    signals.ignore()
    plan = msgspec.msgpack.decode(plan_bytes, type=Plan)
    try:
        _run(plan, link)
    except SemagentError as error:
        _send(link, _failed(error))
        raise SystemExit(1) from error
    except Exception as error:
        _send(link, Failed(kind="", message=f"{type(error).__name__}: {error}"))
        raise


def _run(plan: Plan, link: Connection) -> None:
    clock = SystemClock()
    bus = ZmqBus(
        plan.role,
        plan.token,
        serves={Role.ACQUIRE: "command", Role.CONTROL: "request"}.get(plan.role),
        collects=plan.role is Role.RECORD,
        rebind=plan.rebind,
        record_timeout_s=plan.config.record.wait_s,
    )
    try:
        _run_role(plan, link, bus, clock)
    finally:
        bus.close()


def _step_back(role: Role) -> None:
    """Let what people look at take no time from what moves the microscope.

    Restored frames take what everybody else leaves.
    """
    niceness = _NICENESS.get(role)
    if niceness is None:
        return
    process = psutil.Process()
    leftovers = role is Role.RESTORE
    with suppress(OSError, psutil.Error):  # some containers do not let it: no reason not to run
        if sys.platform == "win32":
            process.nice(
                psutil.IDLE_PRIORITY_CLASS if leftovers else psutil.BELOW_NORMAL_PRIORITY_CLASS
            )
        elif sys.platform == "linux":
            for thread in process.threads():  # each has a priority of its own
                if leftovers:
                    # Niceness alone would let it finish its slice of time while the others wait.
                    os.sched_setscheduler(thread.id, os.SCHED_IDLE, os.sched_param(0))
                else:
                    os.setpriority(os.PRIO_PROCESS, thread.id, niceness)
        else:
            process.nice(niceness)


def _run_role(plan: Plan, link: Connection, bus: ZmqBus, clock: Clock) -> None:
    if _has_said(link):
        return  # already told to end: opening a microscope may take long
    with ExitStack() as held:
        opened = _open(plan, clock)
        if opened is not None:
            held.callback(opened.close)
        _send(link, _announcement(plan.role, opened, bus.endpoints))
        wiring = _receive(link)
        if not isinstance(wiring, Wiring):
            return
        role = _make_role(plan, wiring, opened, bus, clock)
        held.pop_all()  # from here on the role closes what was opened
    beats = bus.subscribe("heartbeat")
    try:
        bus.connect(wiring.roles)
        _send(link, Ready(listens=bus.listens))
        go = _receive(link)
        if isinstance(go, Go):
            bus.await_listeners(go.listeners, LISTENERS_S)
            _step_back(plan.role)  # not before: what others leave may be too little to begin with
            _loop(role, plan, link, bus, beats)
    finally:
        role.close()


def _open(plan: Plan, clock: Clock) -> Any:
    """Open what the role owns; ``None`` if that is nothing."""
    config = plan.config
    match plan.role:
        case Role.ACQUIRE:
            driver = config.driver
            return registry.open_microscope(driver.name, driver.options, clock=clock)
        case Role.INFER:
            return registry.open_engine(config.engine.name, config.engine.options)
        case Role.RESTORE if config.restoration is not None:
            return _open_restoring(config.restoration)
        case Role.CONSOLE:
            # Only this process needs the console's libraries.
            from semagent.console import listen  # noqa: PLC0415

            return listen(config.console, plan.console.port if plan.console else None)
    return None


def _announcement(role: Role, opened: Any, endpoints: Endpoints) -> Announced:
    match role:
        case Role.ACQUIRE:
            capabilities, scan = opened.capabilities, opened.read_state().scan
            return Announced(endpoints=endpoints, capabilities=capabilities, scan=scan)
        case Role.INFER:
            name, smallest_px = opened.name, opened.smallest_px
            return Announced(endpoints=endpoints, engine=name, smallest_px=smallest_px)
        case Role.CONSOLE:
            address = ConsoleAddress(url=opened.url, port=opened.port)
            return Announced(endpoints=endpoints, console=address)
    return Announced(endpoints=endpoints)


def _open_restoring(part: Part) -> Engine:
    engine = registry.open_engine(part.name, part.options)
    if not engine.restores:
        engine.close()
        raise UsageError(f"restoration: engine {part.name} measures frames and restores none")
    return engine


def _make_role(plan: Plan, wiring: Wiring, opened: Any, bus: ZmqBus, clock: Clock) -> RoleLoop:
    config = plan.config
    match plan.role:
        case Role.ACQUIRE:
            return make_acquire(bus, config, opened, clock, patient=True, follow_up_s=_FOLLOW_UP_S)
        case Role.INFER:
            return InferRole(bus, opened, config.infer, clock)
        case Role.RESTORE:
            return RestoreRole(bus, opened, config.infer, clock)
        case Role.CONTROL:
            return make_control(bus, config, wiring.capabilities, clock)
        case Role.RECORD:
            recorder = make_recorder(
                Path(plan.session or ""), config, wiring.capabilities, wiring.engine, clock
            )
            return RecordRole(bus, recorder)
        case Role.CONSOLE if plan.console is not None:
            from semagent.console import Console, RunFacts, Tokens  # noqa: PLC0415

            return Console(
                bus,
                opened,
                RunFacts(
                    config=config,
                    capabilities=wiring.capabilities,
                    engine=wiring.engine,
                    session=Path(plan.session).resolve() if plan.session else None,
                ),
                Tokens(operator=plan.console.operator_token, viewer=plan.console.viewer_token),
                clock,
            )
    raise SemagentError(f"no process for the {plan.role} role")


def _loop(role: RoleLoop, plan: Plan, link: Connection, bus: ZmqBus, beats: Mailbox) -> None:
    ending, orphaned = threading.Event(), threading.Event()
    # A blocking read in a thread: the supervisor's end closes even if it is killed.
    watcher = threading.Thread(target=_watch, args=(link, bus, ending, orphaned), daemon=True)
    watcher.start()
    while not ending.is_set():
        _step(role, plan, link, bus)
    if orphaned.is_set():
        _put_back(role, plan, link, bus, beats)


def _step(role: RoleLoop, plan: Plan, link: Connection, bus: ZmqBus) -> None:
    if isinstance(role, AcquireRole):
        done = plan.frames is not None and role.frames >= plan.frames
        role.paused = done or bus.record_lost
    try:
        worked = role.step()
    except RecordError as error:
        if plan.role is Role.RECORD:
            raise
        # No frame may be taken that is not kept, but focus still has to be put back.
        bus.stop_recording()
        _send(link, _failed(error))
    else:
        if not worked:
            bus.wait(_IDLE_S)


def _put_back(role: RoleLoop, plan: Plan, link: Connection, bus: ZmqBus, beats: Mailbox) -> None:
    """Nobody is left to bring the roles down: control puts focus back, the others outlive it."""
    if isinstance(role, ControlRole):
        role.cancel(_ORPHANED)
    if isinstance(role, RecordRole):
        role.failure = f"{_ORPHANED}, and nobody has closed the record"
    heard_s = time.perf_counter()
    until_s = heard_s + plan.config.acquire.frame_timeout_s + _ORPHAN_S
    while time.perf_counter() < min(until_s, heard_s + _LAST_BEATS_S):
        _step(role, plan, link, bus)
        while (beat := beats.take()) is not None:
            if beat.sender == Role.CONTROL:
                heard_s = time.perf_counter()
        if isinstance(role, ControlRole):
            if role.at_rest:
                return
            heard_s = time.perf_counter()


def _watch(
    link: Connection, bus: ZmqBus, ending: threading.Event, orphaned: threading.Event
) -> None:
    while isinstance(message := _receive(link), Unrecorded):
        bus.stop_recording()
    if message is None:
        orphaned.set()
    ending.set()


def _failed(error: SemagentError) -> Failed:
    kind = next((name for name, known in _ERRORS.items() if isinstance(error, known)), "")
    return Failed(kind=kind, message=str(error))


def _send(link: Connection, message: FromChild) -> None:
    try:
        link.send_bytes(msgspec.msgpack.encode(message))
    except OSError:
        return  # the supervisor is gone; the next read says so


def _has_said(link: Connection) -> bool:
    """Whether the supervisor has said something, or is gone."""
    try:
        return link.poll()
    except OSError:  # of a broken pipe on Windows; elsewhere that is something to read
        return True


def _receive(link: Connection) -> ToChild | None:
    """What the supervisor says next; ``None`` if it is gone."""
    try:
        message: ToChild = msgspec.msgpack.decode(link.recv_bytes(), type=ToChild)
    except (EOFError, OSError):
        return None
    return message
