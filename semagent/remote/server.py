"""The microscope's side: does what the one client asks, within this machine's own limits."""

import logging
import threading

import msgspec

from semagent.clock import Clock
from semagent.errors import (
    AcquisitionStoppedError,
    CommandRefusedError,
    DisconnectedError,
    GateRefusedError,
    MicroscopeError,
    MicroscopeTimeoutError,
)
from semagent.keys import ServerKeys
from semagent.ports import Microscope
from semagent.remote.desk import Desk, Job, Lost
from semagent.remote.protocol import (
    Acquire,
    Answer,
    Apply,
    Done,
    Picture,
    ReadState,
    State,
    picture_of,
    to_failure,
)
from semagent.remote.reception import Reception
from semagent.safety import Envelope, SafetyGate
from semagent.types import (
    Arm,
    Command,
    Frame,
    Issuer,
    MicroscopeAction,
    MicroscopeState,
)

_log = logging.getLogger(__name__)

_IDLE_S = 0.05


class MicroscopeServer:
    """Lends one microscope to one client at a time.

    Everything the microscope does, and the gate, belong to the thread that calls `run`. The
    evidence a command rests on is judged where the agent runs; this gate judges what is left to
    judge next to the instrument: ranges, steps, travel, keep-out regions, changes by hand, and
    whether the client is alive.

    Args:
        microscope: opened; stays the caller's to close.
        envelope: limits; its ``heartbeat_timeout_s`` also is the silence after which a client
            is lost.
        bind: ``tcp://host:port`` to listen on.
        keys: ``None`` only on loopback.

    Raises:
        ConfigError: ``bind`` leaves this machine and there are no keys, or one cannot listen
            there.
    """

    def __init__(
        self,
        microscope: Microscope,
        envelope: Envelope,
        *,
        bind: str,
        keys: ServerKeys | None,
        clock: Clock,
    ) -> None:
        self._microscope = microscope
        self._gate = SafetyGate(envelope)
        self._clock = clock
        self._armed_shown = False
        self._desk = Desk(self._stop_microscope)
        self._reception = Reception(
            bind,
            keys,
            capabilities=microscope.capabilities,
            desk=self._desk,
            heartbeat_timeout_s=envelope.heartbeat_timeout_s,
            clock=clock,
        )

    @property
    def endpoint(self) -> str:
        """Where it listens, with the port it was given."""
        return self._reception.endpoint

    def arm(self) -> None:
        """Let commands through, because a person at the microscope says so. Before `run`.

        Raises:
            CommandRefusedError: the microscope stands outside the envelope.
            MicroscopeError: it cannot be read.
        """
        command = Command(id="arm", issuer=Issuer.OPERATOR, action=Arm())
        refusal = self._gate.check(
            command,
            now_ns=self._clock.monotonic_ns(),
            state=self._microscope.read_state(),
            basis_ns=None,
        )
        if refusal is not None:
            raise CommandRefusedError(refusal.reason)
        self._show_gate()

    def run(self, stop: threading.Event, arm_again: threading.Event | None = None) -> None:
        """Serve until ``stop`` is set; then end what is running, close the sockets and return.

        Args:
            stop: set by whoever wants the server to end.
            arm_again: set when a person at the microscope wants to arm once more after the
                gate has disarmed itself; cleared when that has been looked at.

        Raises:
            DisconnectedError: the microscope's own connection is gone.
            RoleError: the thread that listens has died.
        """
        self._reception.start(stop)
        try:
            while not stop.is_set():
                self._reception.check()
                if arm_again is not None and arm_again.is_set():
                    arm_again.clear()
                    self._arm_again()
                match self._desk.take(_IDLE_S):
                    case Lost(reason):
                        self._gate.disarm(reason, now_ns=self._clock.monotonic_ns())
                        self._show_gate()
                    case Job() as job:
                        self._serve(job)
        finally:
            self.close()

    def close(self) -> None:
        """Stop listening. May be called twice; `run` does it at its end."""
        self._reception.close()

    # -- work ---------------------------------------------------------------------------------

    def _serve(self, job: Job) -> None:
        try:
            result, part = self._do(job)
        except MicroscopeError as error:
            self._reception.answer(job, Answer(id=job.id, result=to_failure(error)))
            if isinstance(error, DisconnectedError):
                raise
        else:
            self._reception.answer(job, Answer(id=job.id, result=result), part)
        finally:
            self._desk.finish()
        self._show_gate()

    def _do(self, job: Job) -> tuple[State | Picture | Done, memoryview | None]:
        self._require_waiting(job)
        match job.work:
            case ReadState():
                return State(state=self._read_state()), None
            case Acquire(timeout_s=timeout_s):
                return picture_of(self._acquire(timeout_s))
            case Apply(action=action):
                self._apply(job, action)
                return Done(), None

    def _read_state(self) -> MicroscopeState:
        state, gate = self._microscope.read_state(), self._gate.status
        if gate.armed:
            return state
        barred = (
            f"the safety gate of the microscope PC is disarmed: {gate.reason}. Look at the "
            "microscope, type arm where `semagent serve` runs, then arm here"
        )
        return msgspec.structs.replace(state, barred=barred)

    def _acquire(self, timeout_s: float) -> Frame:
        frame = self._microscope.acquire(timeout_s)
        self._gate.observe(frame.header.settings, now_ns=self._clock.monotonic_ns())
        return frame

    def _apply(self, job: Job, action: MicroscopeAction) -> None:
        before = self._microscope.read_state()
        command = Command(id=f"{job.session.token}/{job.id}", issuer=Issuer.OPERATOR, action=action)
        self._gate.heartbeat(job.session.heard_ns)
        refusal = self._gate.check(
            command, now_ns=self._clock.monotonic_ns(), state=before, basis_ns=None
        )
        if refusal is not None:
            raise GateRefusedError(
                f"refused by the safety gate of the microscope PC ({refusal.code}): "
                f"{refusal.reason}"
            )
        self._require_waiting(job)
        failure: MicroscopeError | None = None
        try:
            self._microscope.apply(action)
        except CommandRefusedError:
            raise
        except MicroscopeError as error:
            failure = error
            self._gate.disarm(
                f"the microscope failed while carrying out a command: {error}",
                now_ns=self._clock.monotonic_ns(),
            )
        problem = self._gate.applied(
            command, after=self._read_back(), now_ns=self._clock.monotonic_ns()
        )
        if failure is not None:
            raise failure
        if problem is not None:
            raise MicroscopeError(
                f"the safety gate of the microscope PC has disarmed ({problem.code}): "
                f"{problem.reason}"
            )

    def _read_back(self) -> MicroscopeState | None:
        try:
            return self._microscope.read_state()
        except MicroscopeError as error:
            _log.error("the settings cannot be read back: %s", error)
            return None

    def _require_waiting(self, job: Job) -> None:
        """Begin nothing that was stopped meanwhile or that nobody waits for."""
        if job.cancelled:
            move = isinstance(job.work, Apply)
            error = CommandRefusedError if move else AcquisitionStoppedError
            raise error(f"not begun, nothing has changed: {job.cancelled}")
        now_ns = self._clock.monotonic_ns()
        if job.expires_ns is not None and now_ns > job.expires_ns:
            raise MicroscopeTimeoutError(
                f"not begun, nothing has changed: it came {(now_ns - job.expires_ns) / 1e9:.3g} s "
                "after the client had stopped waiting for it"
            )

    # -- stopping, arming ---------------------------------------------------------------------

    def _stop_microscope(self) -> None:
        try:
            self._microscope.stop()
        except MicroscopeError as error:
            _log.error("the microscope cannot be stopped: %s", error)

    def _arm_again(self) -> None:
        try:
            self.arm()
        except MicroscopeError as error:
            _log.error("not armed: %s", error)

    def _show_gate(self) -> None:
        status = self._gate.status
        if status.armed != self._armed_shown:
            self._armed_shown = status.armed
            _log.warning("%s: %s", "ARMED" if status.armed else "DISARMED", status.reason)
