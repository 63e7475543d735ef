"""Starts the roles as processes, watches over them and brings them down in order."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from semagent.bus.zeromq import Endpoints, ZmqBus
from semagent.channels import Role
from semagent.config import RunConfig
from semagent.errors import RecordError, RoleError, SemagentError
from semagent.health import SILENCE_S, busy_limit_s
from semagent.process import (
    Announced,
    ConsoleAddress,
    ConsolePlan,
    End,
    Failed,
    FromChild,
    Go,
    Plan,
    Ready,
    ToChild,
    Unrecorded,
    Wiring,
    main,
    new_token,
    raise_failure,
)
from semagent.registry import require_size
from semagent.signals import ENDING, handled
from semagent.types import Capabilities, Heartbeat, Scan

STARTUP_S = 120.0
SHUTDOWN_S = 15.0
_RESTART_PAUSE_S = 1.0
_STEADY_S = 600.0  # at work, after which earlier losses of a role do not count: runs last for days
# The record comes last: it has to take what the others still say.
_SHUTDOWN_ORDER = (
    Role.CONSOLE,
    Role.ACQUIRE,
    Role.INFER,
    Role.RESTORE,
    Role.CONTROL,
    Role.RECORD,
)
# What people look at: the run does without them, and does not wait long for them to come back.
_DISPENSABLE = (Role.CONSOLE, Role.RESTORE)
_DISPENSABLE_STARTUP_S = 20.0
_CONSOLE_RESTARTS = 5


_Expected = TypeVar("_Expected", Announced, Ready)


class _Child:
    """One process and the supervisor's end of the pipe to it."""

    def __init__(self, plan: Plan) -> None:
        context = multiprocessing.get_context("spawn")
        self.role = plan.role
        self.link, far_end = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=main,
            args=(msgspec.msgpack.encode(plan), far_end),
            name=f"semagent-{plan.role}",
        )
        # With more threads, numpy's matrix products wait for each other by spinning, and take most
        # of a core from the other roles. It is read when numpy is loaded: by the child.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        with _interrupts_held():
            self.process.start()
        # Only the child may hold its end, or its death would go unnoticed here.
        far_end.close()

    def send(self, message: ToChild) -> None:
        try:
            self.link.send_bytes(msgspec.msgpack.encode(message))
        except OSError:
            return  # it is dead; whoever waits for it will see that

    def receive(self, deadline_s: float) -> FromChild:
        """The next message of the child.

        Raises:
            RoleError: it died or fell silent.
            SemagentError: it failed, and says how.
        """
        remaining_s = max(0.0, deadline_s - time.perf_counter())
        if not _wait([self.link, self.process.sentinel], remaining_s):
            raise RoleError(f"the {self.role} role did not start within {STARTUP_S:g} s")
        try:
            if not _wait([self.link], 1.0):
                raise EOFError
            message: FromChild = msgspec.msgpack.decode(self.link.recv_bytes(), type=FromChild)
        except (EOFError, OSError) as error:
            self.process.join(1.0)
            raise RoleError(
                f"the {self.role} role died (exit code {self.process.exitcode})"
            ) from error
        if isinstance(message, Failed):
            raise_failure(self.role, message)
        return message

    def end(self, deadline_s: float) -> bool:
        """Ask the process to finish; ``False`` if it had to be killed. May be called twice."""
        if self.link.closed:
            self.kill()
            return True
        self.send(End())
        try:
            self.process.join(max(0.1, deadline_s - time.perf_counter()))
            return self.process.exitcode is not None
        finally:
            self.kill()

    def kill(self) -> None:
        """End the process at once, if it still lives, and let go of it. May be called twice."""
        self.link.close()
        # It was let go of before. Or Ctrl-C came just as the process ended: its exit code is lost,
        # and Python thinks that it runs.
        with suppress(ValueError):
            self.process.kill()
            self.process.join()
            self.process.close()


class Supervisor:
    """The processes of one run.

    Args:
        config: the run configuration.
        frames: number of frames after which acquisition rests.
        session: folder of the record, ``None`` for none.
        console: serve the operator's console too.
        on_trouble: told what is wrong with a role, and what is done about that.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        frames: int | None = None,
        session: Path | None = None,
        console: bool = False,
        on_trouble: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self._config = config
        self._frames = frames
        self._session = session
        self._serve_console = console
        self._on_trouble = on_trouble
        self._token = new_token()
        self._children: dict[Role, _Child] = {}
        self._lost: set[Role] = set()
        self._unrecorded = False
        self._endpoints: dict[Role, Endpoints] = {}
        self._listeners: dict[Role, tuple[str, ...]] = {}
        self._capabilities: Capabilities | None = None
        self._scan: Scan | None = None
        self._engine, self._smallest_px = "", 0
        self._restarts: dict[Role, int] = {}
        self._back_since_s: dict[Role, float] = {}
        # Roles that are being started again, and when their next process is begun.
        self._comebacks: dict[Role, float] = {}
        self._console = ConsolePlan(operator_token=new_token(), viewer_token=new_token())
        self._address: ConsoleAddress | None = None
        self.bus = ZmqBus(Role.SUPERVISOR, self._token)
        self._beats = self.bus.subscribe("heartbeat")
        self._heard_s: dict[Role, float] = {}
        self._pulse: dict[Role, Heartbeat] = {}
        self._watched_s = 0.0

    @property
    def capabilities(self) -> Capabilities:
        """What the microscope can do; known once `start` has returned."""
        if self._capabilities is None:
            raise RoleError("the microscope is not open yet")
        return self._capabilities

    @property
    def engine(self) -> str:
        """Name of the engine; known once `start` has returned."""
        return self._engine

    @property
    def console_links(self) -> tuple[str, str] | None:
        """Where operators and viewers find the console; ``None`` without one."""
        if self._address is None:
            return None
        tokens = (self._console.operator_token, self._console.viewer_token)
        operator, viewer = (f"{self._address.url}/?token={token}" for token in tokens)
        return operator, viewer

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles of this run that have not been given up."""
        return tuple(self._children)

    def start(self) -> None:
        """Start all roles; returns when each listens to the others and frames begin to flow.

        Raises:
            SemagentError: a role could not start; all are ended again.
        """
        roles = [Role.ACQUIRE, Role.INFER, Role.CONTROL]
        if self._session is not None:
            roles.insert(0, Role.RECORD)
        if self._serve_console:
            roles.append(Role.CONSOLE)
            if self._config.restoration is not None:
                roles.append(Role.RESTORE)
        deadline_s = time.perf_counter() + STARTUP_S
        try:
            for role in roles:
                self._children[role] = _Child(self._plan(role))
            for child in self._children.values():
                self._learn(child, _expect(child.receive(deadline_s), Announced))
            if self._scan is not None:
                require_size(self._scan, self._smallest_px, self._engine)
            for child in self._children.values():
                child.send(self._wiring())
            for role, child in self._children.items():
                self._listeners[role] = _expect(child.receive(deadline_s), Ready).listens
            self.bus.connect(self._endpoints)
            self._listeners[self.bus.role] = self.bus.listens
            for child in self._children.values():
                child.send(Go(listeners=self._listeners))
        except BaseException:
            self.close()
            raise

    def watch(self, timeout_s: float) -> None:
        """Wait up to ``timeout_s`` for something to go wrong, and put it right if possible.

        A role that has died, fallen silent or been busy with one thing for too long is lost. A
        lost infer role, restore role or console is started again, a limited number of times, and
        the others are watched meanwhile. The run can do without the latter two; the loss of any
        other ends it.

        Raises:
            SemagentError: a role is lost for good.
        """
        for child in self._well():
            hung = self._hung(child.role)
            if hung:
                self._replace(child, RoleError(f"the {child.role} role {hung}"))
        self._begin_comebacks()
        links = [child.link for child in self._well()]
        sentinels = [child.process.sentinel for child in self._well()]
        ready = _wait([*links, *sentinels], timeout_s)
        for child in self._well():
            if child.link in ready or child.process.sentinel in ready:
                try:
                    self._go_on(child, child.receive(time.perf_counter() + 1.0))
                except SemagentError as error:
                    self._replace(child, error)

    def works(self, role: Role) -> bool:
        """Whether a role is still there to be asked something."""
        return role in self._children and role not in self._lost

    def _well(self) -> list[_Child]:
        return [child for role, child in self._children.items() if role not in self._lost]

    def _hung(self, role: Role) -> str:
        """What is wrong with a role whose process lives; empty if nothing is."""
        now_s = time.perf_counter()
        if role in self._comebacks:
            startup_s = _DISPENSABLE_STARTUP_S if role in _DISPENSABLE else STARTUP_S
            late = now_s > self._comebacks[role] + startup_s
            return f"did not start within {startup_s:g} s" if late else ""
        while (message := self._beats.take()) is not None:
            self._heard_s[Role(message.sender)] = now_s
            self._pulse[Role(message.sender)] = message.value
        if now_s - self._watched_s > SILENCE_S / 2:
            # It was this process that stood still, or it has only just begun to watch.
            self._heard_s = dict.fromkeys(self._children, now_s)
        self._watched_s = now_s
        if now_s - self._heard_s.get(role, now_s) > SILENCE_S:
            return f"has given no sign of life for {SILENCE_S:g} s"
        pulse, limit_s = self._pulse.get(role), busy_limit_s(role, self._config)
        if pulse is None or pulse.busy_since_ns is None:
            return ""
        busy_s = (time.perf_counter_ns() - pulse.busy_since_ns) / 1e9
        return f"has been busy with one thing for {busy_s:.0f} s" if busy_s > limit_s else ""

    def close(self) -> None:
        """End all roles in order. May be called twice."""
        try:
            for role in set(self._children) - {*self._endpoints, Role.ACQUIRE}:
                self._children[role].kill()  # it has opened nothing that must be closed
                del self._children[role]
            for role in [role for role in _SHUTDOWN_ORDER if role in self._children]:
                if role in self._comebacks:
                    self._children[role].kill()  # it has not begun yet
                elif not self._children[role].end(time.perf_counter() + SHUTDOWN_S):
                    self._on_trouble(f"the {role} role did not end in time and was killed")
                del self._children[role]
        finally:
            # Somebody insists with a second Ctrl-C, at any line above: nobody is waited for any
            # more, and nobody is forgotten.
            while self._children:
                self._children.popitem()[1].kill()
            self.bus.close()

    def _plan(self, role: Role) -> Plan:
        return Plan(
            role=role,
            config=self._config,
            token=self._token,
            frames=self._frames,
            session=None if self._session is None else str(self._session),
            rebind=self._endpoints.get(role),
            console=self._console if role is Role.CONSOLE else None,
        )

    def _learn(self, child: _Child, announced: Announced) -> None:
        self._endpoints[child.role] = announced.endpoints
        self._capabilities = announced.capabilities or self._capabilities
        self._scan = announced.scan or self._scan
        self._engine = announced.engine or self._engine
        self._smallest_px = announced.smallest_px or self._smallest_px
        if announced.console is not None:
            self._address = announced.console
            self._console = msgspec.structs.replace(self._console, port=announced.console.port)

    def _wiring(self) -> Wiring:
        return Wiring(roles=self._endpoints, capabilities=self.capabilities, engine=self._engine)

    def _replace(self, child: _Child, error: SemagentError) -> None:
        """Have a lost role started again, as often as allowed; pauses grow.

        Raises:
            SemagentError: ``error``, and the run cannot do without the role.
        """
        if child.role is Role.RECORD or isinstance(error, RecordError):
            self._go_on_unrecorded(child.role, error)
            return
        role = child.role
        engines = self._config.infer.max_restarts
        allowed = {Role.INFER: engines, Role.RESTORE: engines, Role.CONSOLE: _CONSOLE_RESTARTS}
        self._comebacks.pop(role, None)
        now_s = time.perf_counter()
        if now_s - self._back_since_s.pop(role, now_s) > _STEADY_S:
            self._restarts.pop(role)
        number = self._restarts.get(role, 0) + 1
        if number <= allowed.get(role, 0):
            self._restarts[role] = number
            self._on_trouble(f"{error}; starting it again ({number} of {allowed[role]})")
            # A second Ctrl-C may come at any line: it stays on the list until it has ended.
            self._lost.add(role)
            child.end(time.perf_counter() + 1.0)
            del self._children[role]
            self._lost.remove(role)
            pause_s = _RESTART_PAUSE_S * 2 ** (number - 1)
            self._comebacks[role] = time.perf_counter() + pause_s
        elif role in _DISPENSABLE:
            self._on_trouble(f"{error}; the run goes on without it")
            self._children.pop(role).kill()
        else:
            self._lost.add(role)
            raise error

    def _begin_comebacks(self) -> None:
        """Start the processes whose pause is over."""
        for role, begin_s in self._comebacks.items():
            if role not in self._children and time.perf_counter() >= begin_s:
                self._children[role] = _Child(self._plan(role))

    def _go_on(self, child: _Child, said: FromChild) -> None:
        """Take the next step with a process that is being started again.

        Raises:
            RoleError: that is not what it has to say now.
        """
        if child.role in self._comebacks and isinstance(said, Announced):
            self._learn(child, said)
            child.send(self._wiring())
        else:
            self._listeners[child.role] = _expect(said, Ready).listens
            child.send(Go(listeners=self._listeners_but(Role.CONSOLE)))
            del self._comebacks[child.role]
            self._pulse.pop(child.role, None)
            self._back_since_s[child.role] = self._heard_s[child.role] = time.perf_counter()

    def _listeners_but(self, role: Role) -> dict[Role, tuple[str, ...]]:
        return {name: said for name, said in self._listeners.items() if name is not role}

    def _go_on_unrecorded(self, role: Role, error: SemagentError) -> None:
        """Have the other roles do without the record, as far as that is needed to put focus back.

        Raises:
            SemagentError: ``error``, for the first role that notices.
        """
        if role is Role.RECORD:
            self._lost.add(role)
        if not self._unrecorded:
            self._unrecorded = True
            for child in self._children.values():
                child.send(Unrecorded())
            raise error


def _wait(for_: list[Any], timeout_s: float) -> list[Any]:
    """What has something to say, within ``timeout_s``; Ctrl-C does not end that.

    Windows breaks it off even if a handler has taken Ctrl-C, where others go on.
    """
    until_s = time.perf_counter() + timeout_s
    while True:
        try:
            return wait(for_, max(0.0, until_s - time.perf_counter()))
        except InterruptedError:
            continue


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back; what is started meanwhile never hears it, not even before our code runs.

    Windows hands no mask on to a new process: there `main` is the first to see to that.
    """
    pressed: list[int] = []
    # The mask alone is not enough: another thread of this process may get the signal.
    with handled(lambda number, _frame: pressed.append(number)):
        if sys.platform != "win32":
            resource_tracker.ensure_running()  # its first start would lift the mask again
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            yield
        finally:
            if sys.platform != "win32":
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if pressed:
        signal.raise_signal(pressed[0])


def _expect(message: FromChild, kind: type[_Expected]) -> _Expected:
    if not isinstance(message, kind):
        raise RoleError(f"a role said {type(message).__name__} instead of {kind.__name__}")
    return message
