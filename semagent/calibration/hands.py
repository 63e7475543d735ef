"""A microscope in the hands of a procedure: frames and moves, one at a time, through the gate."""

import itertools
from types import TracebackType
from typing import Self

from semagent.bus import LocalBus, LocalHub
from semagent.channels import Role
from semagent.clock import Clock
from semagent.config import RunConfig
from semagent.errors import MicroscopeError
from semagent.lockstep import expose, next_frame, require_applied
from semagent.parts import make_acquire
from semagent.ports import Microscope
from semagent.safety import Code
from semagent.types import (
    Arm,
    Basis,
    Command,
    Frame,
    FrameHeader,
    Issuer,
    MicroscopeAction,
    Reply,
)

_TRIES = 5  # frames in a row that may be unfit for use
_FRESH = 0.5  # of the life of evidence: a new frame is taken before a command after that


class Hands:
    """Stands in for the control role, and gives its commands as the agent: each with evidence.

    Args:
        config: the run configuration.
        microscope: opened; closed at the end.
        clock: what time it is.
    """

    def __init__(self, config: RunConfig, microscope: Microscope, clock: Clock) -> None:
        hub = LocalHub(clock)
        self._bus = LocalBus(hub, Role.CONTROL)
        self._operator = LocalBus(hub, Role.CONSOLE)
        self._frames = self._bus.subscribe("frame")
        self._acquire = make_acquire(LocalBus(hub, Role.ACQUIRE), config, microscope, clock)
        self._clock = clock
        self._wait_s = config.acquire.longest_wait_s
        self._fresh_ns = round(_FRESH * config.safety.max_evidence_age_s * 1e9)
        self._ids = itertools.count(1)
        self._last: FrameHeader | None = None
        self._told = False  # that the gate is shut
        self.frames = 0

    def arm(self) -> None:
        """Arm the gate in the name of the person who asked for it.

        Raises:
            CommandRefusedError: the gate will not be armed; the message says why.
        """
        arm = Command(id="operator-arm", issuer=Issuer.OPERATOR, action=Arm())
        require_applied(self._give(arm), told=False)

    def expose(self) -> Frame:
        """Expose one frame that is fit for use.

        Raises:
            MicroscopeError: there is none.
        """
        faults: tuple[str, ...] = ()
        for _ in range(_TRIES):
            frame = self._one_frame()
            if not frame.header.faults:
                return frame
            faults = frame.header.faults
        raise MicroscopeError(f"{_TRIES} frames in a row cannot be used: {', '.join(faults)}")

    def do(self, action: MicroscopeAction) -> None:
        """Carry out one action.

        Raises:
            CommandRefusedError: the gate or the microscope refused it.
            MicroscopeError: it failed.
        """
        reply = self._ask(action)
        if reply.code == Code.SETTINGS_CHANGED:
            self._last = None
            reply = self._ask(action)
        told, self._told = self._told, not self._acquire.gate.armed
        require_applied(reply, told=told)

    def _ask(self, action: MicroscopeAction) -> Reply:
        last = self._last
        if last is None or self._clock.monotonic_ns() - last.monotonic_ns > self._fresh_ns:
            # Fit for use or not, it says how the microscope stands: enough to go elsewhere.
            last = self._one_frame().header
        basis = Basis(sequence=last.sequence, settings_rev=last.settings_rev)
        name = f"calibrate-{next(self._ids)}"
        return self._give(Command(id=name, issuer=Issuer.AGENT, action=action, basis=basis))

    def _give(self, command: Command) -> Reply:
        self._bus.beat(busy=False, processed=self.frames, skipped=0)
        self._operator.send("command", command)
        self._acquire.serve()
        for answer in self._operator.answers():
            if isinstance(answer, Reply) and answer.command.id == command.id:
                return answer
        raise MicroscopeError("the acquire role did not answer")

    def _one_frame(self) -> Frame:
        message = next_frame(self._frames, self._expose, self._clock, self._wait_s)
        self.frames += 1
        self._last = message.value
        return Frame(message.value, message.pixels)

    def _expose(self) -> None:
        self._bus.beat(busy=False, processed=self.frames, skipped=0)
        expose(self._acquire, self._clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._acquire.close()
