"""All roles in one process, one after the other: nothing happens unless somebody asks for it.

One cycle exposes one frame, looks at it, decides, and carries out what was decided. No frame is
exposed that nobody looks at, so this is how a single autofocus spends the least dose, and how
recorded stacks and sessions run deterministically.
"""

import itertools
from collections.abc import Callable
from contextlib import closing
from types import TracebackType
from typing import Self

from semagent.bus import LocalBus, LocalHub, Mailbox
from semagent.channels import Role
from semagent.clock import Clock
from semagent.config import RunConfig
from semagent.control.ending import DISARMED
from semagent.control.situation import in_words
from semagent.errors import (
    CommandRefusedError,
    GateRefusedError,
    MicroscopeError,
    MicroscopeTimeoutError,
    RoleError,
    SemagentError,
)
from semagent.parts import make_acquire, make_control
from semagent.ports import Engine, Microscope
from semagent.roles import AcquireRole, InferRole, SessionRecorder
from semagent.safety import Code
from semagent.types import Action, Command, GateStatus, Issuer, Outcome, Reply, Request
from semagent.wire import Message

_POLL_S = 0.005


class Lockstep:
    """The roles of one run in this process.

    Args:
        config: the run configuration.
        microscope: opened; closed together with the roles.
        engine: opened; closed together with the roles.
        clock: what time it is.
        recorder: takes everything that is to be recorded, if anything is; closed after the roles.
    """

    def __init__(
        self,
        config: RunConfig,
        microscope: Microscope,
        engine: Engine,
        clock: Clock,
        recorder: SessionRecorder | None = None,
    ) -> None:
        self._recorder = recorder
        self._hub = LocalHub(clock, recorder)
        self._operator = LocalBus(self._hub, Role.CONSOLE)
        self._clock = clock
        self._ids = itertools.count(1)
        control_bus = LocalBus(self._hub, Role.CONTROL)
        # Control first: it has to hear how the gate stands when the acquire role begins.
        self.control = make_control(control_bus, config, microscope.capabilities, clock)
        self.infer = InferRole(LocalBus(self._hub, Role.INFER), engine, config.infer, clock)
        self.acquire = make_acquire(LocalBus(self._hub, Role.ACQUIRE), config, microscope, clock)

    def listen(self, channel: str) -> Mailbox:
        """Hear what is said on a channel from now on."""
        return self._operator.subscribe(channel)

    @property
    def gate(self) -> GateStatus:
        """How the safety gate stands."""
        return self.acquire.gate

    def operate(self, action: Action) -> Reply:
        """Do something as the operator and return what became of it."""
        name = f"operator-{next(self._ids)}"
        return self.carry_out(Command(id=name, issuer=Issuer.OPERATOR, action=action))

    def carry_out(self, command: Command) -> Reply:
        """Give a command beside those of the control role and return what became of it.

        Raises:
            RoleError: the acquire role does not answer.
        """
        self.control.step()  # a sign of life: the caller may have taken long
        self._operator.send("command", command)
        self.acquire.serve()
        self.control.step()
        for answer in self._operator.answers():
            if isinstance(answer, Reply) and answer.command.id == command.id:
                return answer
        raise RoleError("the acquire role did not answer")

    def wake(self) -> None:
        """Have the roles notice the time and each other, after the caller has done other things."""
        self.control.step()
        self.acquire.serve()

    def request(self, request: Request) -> None:
        """Ask something of the control role."""
        self._operator.send("request", request)
        self.control.step()
        self.acquire.serve()

    def cycle(self) -> None:
        """Expose one frame, look at it, decide and carry out what was decided.

        Where there is no frame, as it is not time for one yet or it failed, a moment passes.

        Raises:
            SemagentError: a role cannot go on.
        """
        self._hub.require_record()
        expose(self.acquire, self._clock)
        self.infer.step()
        self.settle()

    def settle(self) -> None:
        """Let control and acquire finish what they have to say to each other, without a frame."""
        # Signs of life first: an exposure may have taken longer than the gate's patience.
        self.control.step()
        while self.acquire.serve():
            self.control.step()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # The microscope first, and the others whatever becomes of it.
            with closing(self.control), closing(self.infer), closing(self.acquire):
                pass
        except SemagentError:
            if kind is None:
                raise
        finally:
            if self._recorder is not None:
                self._recorder.close()


def expose(acquire: AcquireRole, clock: Clock) -> None:
    """Expose one frame; where there is none, as it is not time yet or it failed, a moment passes.

    Raises:
        MicroscopeError: the role cannot go on.
    """
    frames = acquire.frames
    acquire.step()
    if acquire.frames == frames:
        clock.sleep(_POLL_S)


def next_frame(
    frames: Mailbox, expose_one: Callable[[], None], clock: Clock, limit_s: float
) -> Message:
    """The next frame, though not waited for longer than ``limit_s``.

    Raises:
        MicroscopeTimeoutError: none came.
    """
    until_ns = clock.monotonic_ns() + round(limit_s * 1e9)
    while clock.monotonic_ns() <= until_ns:
        expose_one()
        if (message := frames.take()) is not None:
            return message
    raise MicroscopeTimeoutError(f"no frame within {limit_s:g} s")


def require_applied(reply: Reply, *, told: bool) -> None:
    """See to it that a command was carried out.

    Args:
        reply: what became of it.
        told: that the gate is shut, and why, was told with an earlier one.

    Raises:
        GateRefusedError: the gate refused it.
        CommandRefusedError: the microscope refused it.
        MicroscopeError: it failed.
    """
    what = f"the command to {in_words(reply.command.action)}"
    if told and reply.code == Code.DISARMED:
        raise GateRefusedError(DISARMED)
    if reply.outcome is Outcome.REFUSED:
        kind = CommandRefusedError if reply.code == "microscope" else GateRefusedError
        raise kind(f"{what} was refused: {reply.reason}")
    if reply.outcome is Outcome.FAILED:
        raise MicroscopeError(f"{what} failed: {reply.reason}")
