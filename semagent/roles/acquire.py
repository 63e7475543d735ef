"""The acquire role: owns the microscope and the gate, and is the only caller of the driver."""

import logging
import threading
from collections import OrderedDict

import msgspec

from semagent.bus import Bus
from semagent.channels import Role
from semagent.clock import Clock
from semagent.config import AcquireOptions
from semagent.errors import (
    AcquisitionStoppedError,
    CommandRefusedError,
    DisconnectedError,
    GateRefusedError,
    MicroscopeError,
    NotReadyError,
)
from semagent.ports import Microscope
from semagent.roles.base import Announcer
from semagent.safety import Code, SafetyGate
from semagent.sanity import FrameChecker
from semagent.types import (
    Arm,
    Command,
    Disarm,
    Frame,
    GateStatus,
    Issuer,
    Level,
    MicroscopeAction,
    MicroscopeState,
    Outcome,
    Reply,
    Stop,
)

_log = logging.getLogger(__name__)

_REMEMBERED_FRAMES = 1024
_GATE_RATE_HZ = 1.0
_NOT_READY_S = 1.0
_INSIST_S = 0.1


class AcquireRole:
    """Carries out commands at frame boundaries and exposes frames in between.

    Order for each frame: expose, stamp, freeze, check, record, publish. Commands pass the gate
    with what was measured just before; a `Stop` also reaches the driver while a frame is being
    exposed.

    Args:
        patient: wait as long as it takes where a frame needs a person first, who has blanked the
            beam or frozen the image; otherwise that counts as a failure.
        follow_up_s: how long no frame is begun after a command of the agent, so that a way of
            several commands costs no frames that nobody looks at.
    """

    def __init__(
        self,
        bus: Bus,
        microscope: Microscope,
        gate: SafetyGate,
        checker: FrameChecker,
        options: AcquireOptions,
        clock: Clock,
        *,
        patient: bool = False,
        follow_up_s: float = 0.0,
    ) -> None:
        self._bus = bus
        self._microscope = microscope
        self._gate = gate
        self._checker = checker
        self._options = options
        self._clock = clock
        self._patient = patient
        self._follow_up_ns = round(follow_up_s * 1e9)
        self._awaited = ""
        self._say = Announcer(bus, clock)
        self._beats = bus.subscribe("heartbeat")
        bus.serve("command", self._on_urgent)
        self._exposed: OrderedDict[int, int] = OrderedDict()
        self._last_sequence = 0
        self._next_start_ns = 0
        self._failures = 0
        self._status: GateStatus | None = None
        self._next_status_ns = 0
        self._stopped_by: Issuer | None = None
        self._exposing = False
        # Held while a frame is ended, so that this can never hit the command after it.
        self._ending_frame = threading.Lock()
        self.paused = False

    @property
    def gate(self) -> GateStatus:
        """How the safety gate stands."""
        return self._gate.status

    @property
    def frames(self) -> int:
        """Sequence number of the last frame."""
        return self._last_sequence

    def step(self) -> bool:
        """See `RoleLoop`.

        Raises:
            MicroscopeError: acquisition failed ``max_failures`` times in a row.
            RecordError: the record did not take a frame.
        """
        worked = self.serve()
        if self._stopped_by is not None:
            return True  # the stop came during a command: no frame may keep it waiting
        if self.paused or self._clock.monotonic_ns() < self._next_start_ns:
            return worked
        self._acquire()
        return True

    def serve(self) -> bool:
        """Look after the gate and carry out what was asked, without exposing a frame."""
        self._hear_control()
        self._gate.check_liveness(self._clock.monotonic_ns())
        self._publish_gate()
        deliveries = self._bus.deliveries()
        for delivered in deliveries:
            delivered.answer(self._carry_out(delivered.value))
        self._publish_gate()
        return bool(deliveries)

    def close(self) -> None:
        """See `RoleLoop`."""
        self._stopped_by = None
        self._microscope.close()

    def end_exposure(self) -> None:
        """End the frame that is being exposed, if one is, and no move. Safe from any thread."""
        with self._ending_frame:
            if self._exposing:
                self._stop_microscope()

    def _stop_microscope(self) -> None:
        try:
            self._microscope.stop()
        except MicroscopeError as error:
            # This is not the role's own thread. After a `Stop` the gate closes all the same.
            _log.error("the microscope could not be stopped: %s", error)

    def _hear_control(self) -> None:
        while (beat := self._beats.take()) is not None:
            if beat.sender == Role.CONTROL:
                # When it was sent, not when it was read: an exposure may lie in between. And a
                # control role that hangs in a decision is not alive, though its bus still beats.
                self._gate.heartbeat(beat.value.busy_since_ns or beat.value.monotonic_ns)

    def _on_urgent(self, value: object) -> None:
        if isinstance(value, Command) and isinstance(value.action, Stop):
            self._stopped_by = value.issuer
            self._insist()

    def _insist(self) -> None:
        """Stop again and again until the stop is dealt with.

        What had passed the gate and was about to begin would not have heard it.
        """
        if self._stopped_by is not None:
            self._stop_microscope()
            again = threading.Timer(_INSIST_S, self._insist)
            again.daemon = True
            again.start()

    # -- commands -----------------------------------------------------------------------------

    def _carry_out(self, command: Command) -> Reply:
        self._bus.publish("command", command)
        self._beat(busy=True)
        reply = self._reply(command)
        self._beat(busy=False)
        self._bus.publish("reply", reply)
        if command.issuer is Issuer.AGENT:
            follow_up_ns = self._clock.monotonic_ns() + self._follow_up_ns
            self._next_start_ns = max(self._next_start_ns, follow_up_ns)
        return reply

    def _reply(self, command: Command) -> Reply:
        basis_ns = None if command.basis is None else self._exposed.get(command.basis.sequence)
        before = self._read_state()
        if self._stopped_by is not None:
            # What was asked before a stop must not be carried out after it.
            self._disarm(f"stopped by the {self._stopped_by}")
            self._stopped_by = None
        self._hear_control()  # the command before, or reading the settings, may have taken long
        refusal = self._gate.check(
            command, now_ns=self._clock.monotonic_ns(), state=before, basis_ns=basis_ns
        )
        if refusal is not None:
            return self._answer(command, Outcome.REFUSED, before, refusal.code, refusal.reason)
        match command.action:
            case Stop() | Arm() | Disarm():
                return self._answer(command, Outcome.APPLIED, before)
            case action:
                return self._apply(command, action)

    def _apply(self, command: Command, action: MicroscopeAction) -> Reply:
        failure = ""
        try:
            self._microscope.apply(action)
        except CommandRefusedError as error:
            # Nothing has changed, so there is nothing to book.
            code = Code.REMOTE_GATE if isinstance(error, GateRefusedError) else "microscope"
            return self._answer(command, Outcome.REFUSED, self._read_state(), code, str(error))
        except MicroscopeError as error:
            failure = str(error)
            self._disarm(f"the microscope failed while carrying out a command: {failure}")
        after = self._read_state()
        problem = self._gate.applied(command, after=after, now_ns=self._clock.monotonic_ns())
        if failure:
            return self._answer(command, Outcome.FAILED, after, "microscope", failure)
        if problem is not None:
            return self._answer(command, Outcome.FAILED, after, problem.code, problem.reason)
        return self._answer(command, Outcome.APPLIED, after)

    def _read_state(self) -> MicroscopeState | None:
        try:
            return self._microscope.read_state()
        except MicroscopeError as error:
            self._say.event(
                "state_unknown",
                f"the microscope cannot be read: {error}",
                level=Level.ERROR,
            )
            return None

    def _answer(
        self,
        command: Command,
        outcome: Outcome,
        state: MicroscopeState | None,
        code: str = "",
        reason: str = "",
    ) -> Reply:
        return Reply(
            command=command,
            outcome=outcome,
            monotonic_ns=self._clock.monotonic_ns(),
            next_sequence=self._last_sequence + 1,
            code=code,
            reason=reason,
            state=state,
        )

    def _disarm(self, reason: str) -> None:
        self._gate.disarm(reason, now_ns=self._clock.monotonic_ns())

    def _publish_gate(self) -> None:
        """Say how the gate stands: when that changes, and now and then for who came late."""
        status, now_ns = self._gate.status, self._clock.monotonic_ns()
        last, self._status = self._status, status
        if last is not None and status.armed != last.armed:
            self._say.event(
                "gate_armed" if status.armed else "gate_disarmed",
                status.reason,
                level=Level.INFO if status.armed else Level.WARNING,
            )
        if status != last or now_ns >= self._next_status_ns:
            self._next_status_ns = now_ns + round(1e9 / _GATE_RATE_HZ)
            self._bus.publish("gate", status)

    # -- frames -------------------------------------------------------------------------------

    def _acquire(self) -> None:
        self._next_start_ns = self._clock.monotonic_ns() + round(
            self._options.frame_interval_s * 1e9
        )
        self._beat(busy=True)
        try:
            frame = self._expose()
        except AcquisitionStoppedError:
            self._say.event("frame_stopped", "the frame was stopped")
            return
        except MicroscopeError as error:
            if self._patient and isinstance(error, NotReadyError):
                self._await_person(error)
            else:
                self._fail(error)
            return
        finally:
            self._beat(busy=False)
        self._failures = 0
        self._awaited = ""
        self._exposed[frame.header.sequence] = frame.header.monotonic_ns
        if len(self._exposed) > _REMEMBERED_FRAMES:
            self._exposed.popitem(last=False)
        self._publish(frame)
        self._last_sequence = frame.header.sequence
        self._beat(busy=False)

    def _expose(self) -> Frame:
        self._exposing = True
        try:
            return self._microscope.acquire(self._options.frame_timeout_s)
        finally:
            with self._ending_frame:
                self._exposing = False

    def _publish(self, frame: Frame) -> None:
        now_ns = self._clock.monotonic_ns()
        header = frame.header
        faults = self._checker.check(frame, now_ns=now_ns)
        self._gate.observe(header.settings, now_ns=now_ns)
        if faults:
            header = msgspec.structs.replace(header, faults=faults)
        self._bus.publish("frame", header, frame.pixels)
        if faults:
            self._say.flagged(header)
        self._publish_gate()

    def _await_person(self, error: NotReadyError) -> None:
        """Say once what is missing, and look again later: a person may arm meanwhile."""
        later_ns = self._clock.monotonic_ns() + round(_NOT_READY_S * 1e9)
        self._next_start_ns = max(self._next_start_ns, later_ns)
        if self._awaited != str(error):
            self._awaited = str(error)
            self._disarm(f"no frame can be taken: {error}")
            self._publish_gate()
            self._say.event("not_ready", str(error), level=Level.WARNING)

    def _fail(self, error: MicroscopeError) -> None:
        self._failures += 1
        self._disarm(f"no frame could be taken: {error}")
        self._publish_gate()
        self._say.event(
            "acquire_failed",
            str(error),
            level=Level.ERROR,
            data={"in_a_row": self._failures, "allowed": self._options.max_failures},
        )
        if self._failures >= self._options.max_failures or isinstance(error, DisconnectedError):
            self.serve()  # what was asked during the frame is refused, and in the record
            raise error

    def _beat(self, *, busy: bool) -> None:
        self._bus.beat(busy=busy, processed=self._last_sequence, skipped=0)
