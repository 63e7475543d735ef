"""The gate itself: who may act now, and what closes it."""

from semagent.display import show, show_alike
from semagent.safety.axes import AXES, Axis, targets
from semagent.safety.envelope import Envelope
from semagent.safety.evidence import check_evidence
from semagent.safety.limits import check_action, check_position
from semagent.safety.readback import differing_axis, differing_setting
from semagent.safety.refusal import Code, Refusal
from semagent.safety.travel import Track
from semagent.types import (
    Arm,
    Command,
    Disarm,
    GateStatus,
    Issuer,
    MicroscopeAction,
    MicroscopeState,
    SetBlanked,
    Stop,
)


class SafetyGate:
    """The last step before the driver. It rejects; it never changes a command.

    It starts disarmed, and whatever disarms it stays in force, with its reason, until a person
    arms it again. It belongs to the one thread that calls the driver, which has to

    - call `heartbeat` for what it has received from the control role, then `check_liveness`;
    - call `observe` with the settings measured with each frame;
    - read the state, call `check`, and call the driver only if that returned ``None``;
    - call `applied` with what is read back, even if the driver failed half-way. A driver that
      raised `CommandRefusedError` has changed nothing: then `applied` is left out.

    All times are on the acquiring machine's monotonic clock and never decrease.
    """

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._armed = False
        self._reason = "not armed since the microscope was opened"
        self._code = ""
        self._since_ns = 0
        self._tracks: dict[Axis, Track] = {}
        self._refused = 0
        self._applied = 0
        # Arming sets these, and nothing asks for them before.
        self._heartbeat_ns: int
        self._evidence_after_ns: int
        self._blanked_by_command: bool

    @property
    def status(self) -> GateStatus:
        """A snapshot; its time is that of the last arming or disarming, 0 before the first."""
        return GateStatus(
            armed=self._armed,
            reason=self._reason,
            monotonic_ns=self._since_ns,
            code=self._code,
            refused=self._refused,
            applied=self._applied,
        )

    # -- commands -----------------------------------------------------------------------------

    def check(
        self,
        command: Command,
        *,
        now_ns: int,
        state: MicroscopeState | None,
        basis_ns: int | None,
    ) -> Refusal | None:
        """Judge a command; ``None`` lets it pass. `Stop`, `Arm` and `Disarm` take effect here.

        Args:
            command: what is asked.
            now_ns: the moment.
            state: the settings read from the microscope just before; ``None`` if that failed,
                and then only `Stop` and `Disarm` pass.
            basis_ns: end of exposure of the command's basis frame, ``None`` if it has none or
                the frame is not known.
        """
        action = command.action
        if isinstance(action, Stop):
            self.disarm(f"stopped by the {command.issuer}", now_ns=now_ns)
            return None
        if isinstance(action, Disarm):
            self.disarm(f"disarmed by the {command.issuer}: {action.reason}", now_ns=now_ns)
            return None
        refusal = self._check_command(command, action, now_ns, state, basis_ns)
        if refusal:
            self._refused += 1
        return refusal

    def applied(
        self, command: Command, *, after: MicroscopeState | None, now_ns: int
    ) -> Refusal | None:
        """Book a command that passed `check` and was sent, and compare what was read back.

        Args:
            command: what was asked.
            after: the settings read back; ``None`` if that failed.
            now_ns: the moment of the read-back.

        Returns:
            Why the gate has disarmed itself: something was not taken as commanded, something
            else has changed, or nobody knows.

        Raises:
            ValueError: the command is not one that is sent to a microscope.
        """
        action = command.action
        if isinstance(action, Stop | Arm | Disarm):
            raise ValueError(f"{action} is not sent to a microscope")
        self._applied += 1
        for axis, target in targets(action).items():
            self._tracks[axis].book(target, now_ns)
        if isinstance(action, SetBlanked):
            self._blanked_by_command = action.blanked
        if command.issuer is Issuer.OPERATOR:
            self._evidence_after_ns = now_ns + _ns(self._envelope.operator_hold_s)
        difference = self._difference(action, after)
        if difference:
            return self._latch(Code.READBACK_DIFFERS, difference, now_ns)
        return None

    def disarm(self, reason: str, *, now_ns: int) -> None:
        """Let nothing more pass until a person arms again. The first reason stays."""
        if self._armed:
            self._armed = False
            self._reason = reason
            self._since_ns = now_ns

    # -- what else disarms --------------------------------------------------------------------

    def observe(self, state: MicroscopeState, *, now_ns: int) -> Refusal | None:
        """Take note of measured settings, in the order in which they were measured.

        Returns:
            Why the gate has disarmed itself: an axis is not where it was sent, or where it
            stood when the gate was armed, so somebody has moved it.
        """
        if not self._armed:
            return None
        tolerance = self._envelope.readback_tolerance
        difference = differing_axis(self._tracks, state, tolerance)
        if difference:
            reason = f"moved by hand or by the microscope itself: {difference}"
            return self._latch(Code.MOVED_BY_HAND, reason, now_ns)
        self._follow(state)
        return None

    def heartbeat(self, now_ns: int) -> None:
        """Note a sign of life of the control role, given at ``now_ns`` on this machine's clock."""
        self._heartbeat_ns = now_ns

    def check_liveness(self, now_ns: int) -> Refusal | None:
        """Return why the gate has disarmed itself, if the control role has fallen silent."""
        if not self._armed:
            return None
        limit_s = self._envelope.heartbeat_timeout_s
        silence_ns = now_ns - self._heartbeat_ns
        if 0 <= silence_ns <= _ns(limit_s):
            return None
        silence, limit = show_alike("time", silence_ns / 1e9, limit_s)
        return self._latch(
            Code.HEARTBEAT_LOST,
            f"the last sign of life of the control role is {silence} old where 0 to {limit} is "
            "allowed (heartbeat_timeout_s)",
            now_ns,
        )

    # -- rules --------------------------------------------------------------------------------

    def _check_command(
        self,
        command: Command,
        action: MicroscopeAction | Arm,
        now_ns: int,
        state: MicroscopeState | None,
        basis_ns: int | None,
    ) -> Refusal | None:
        if command.expires_ns is not None and now_ns > command.expires_ns:
            late = show("time", (now_ns - command.expires_ns) / 1e9)
            return Refusal(Code.EXPIRED, f"the command expired {late} ago; decide again")
        if state is None:
            return Refusal(
                Code.STATE_UNKNOWN,
                "the settings of the microscope cannot be read, so no command can be judged; "
                "check the connection",
            )
        if isinstance(action, Arm):
            return self._arm(command.issuer, now_ns, state)
        changed = self.check_liveness(now_ns) or self.observe(state, now_ns=now_ns)
        if changed:
            return changed
        if not self._armed:
            return Refusal(
                Code.DISARMED,
                f"the safety gate is disarmed: {self._reason}. Look at the microscope, then arm",
            )
        if action == SetBlanked(blanked=True):
            return None  # takes the dose away and moves nothing: needs no evidence
        if command.issuer is Issuer.AGENT:
            refusal = check_evidence(
                command.basis,
                basis_ns=basis_ns,
                now_ns=now_ns,
                limit_ns=_ns(self._envelope.max_evidence_age_s),
                after_ns=self._evidence_after_ns,
                state=state,
            )
            if refusal:
                return refusal
        if isinstance(action, SetBlanked):
            return self._check_unblank(command.issuer)
        return check_action(self._envelope, action, state, self._tracks, now_ns)

    def _arm(self, issuer: Issuer, now_ns: int, state: MicroscopeState) -> Refusal | None:
        if issuer is not Issuer.OPERATOR:
            return Refusal(Code.NOT_OPERATOR, "only a person may arm the safety gate")
        if state.barred:
            return Refusal(Code.REMOTE_GATE, state.barred)
        refusal = check_position(self._envelope, state)
        if refusal:
            return refusal
        self._armed = True
        self._reason = f"armed by the operator for {self._envelope.specimen_holder}"
        self._code = ""
        self._since_ns = now_ns
        # A person has just looked: what went before counts no more.
        self._tracks.clear()
        self._follow(state)
        self._heartbeat_ns = now_ns
        self._evidence_after_ns = now_ns
        self._blanked_by_command = False
        return None

    def _check_unblank(self, issuer: Issuer) -> Refusal | None:
        if not self._envelope.allow_unblank:
            return Refusal(
                Code.UNBLANK,
                "semagent may not let the beam on the specimen: allow_unblank is false in the "
                "safety envelope; unblank at the microscope's own console",
            )
        if issuer is Issuer.AGENT and not self._blanked_by_command:
            return Refusal(
                Code.UNBLANK,
                "the agent may only undo a blanking that semagent commanded since the gate was "
                "armed; any other is for the operator to undo",
            )
        return None

    def _difference(self, action: MicroscopeAction, after: MicroscopeState | None) -> str | None:
        if after is None:
            return "the settings could not be read back after a command"
        for axis in targets(action):
            if axis.read(after) is None:
                return f"the microscope no longer reports {axis.name} after a command to move it"
        tolerance = self._envelope.readback_tolerance
        difference = differing_axis(self._tracks, after, tolerance) or differing_setting(
            action, after, tolerance
        )
        if difference:
            return f"not carried out as commanded, or changed by hand meanwhile: {difference}"
        return None

    def _follow(self, state: MicroscopeState) -> None:
        """Keep track of every axis from the moment the microscope first reports it."""
        for axis in AXES:
            measured = axis.read(state)
            if measured is not None and axis not in self._tracks:
                self._tracks[axis] = Track(measured, _ns(self._envelope.travel_window_s))

    def _latch(self, code: Code, reason: str, now_ns: int) -> Refusal:
        if self._armed:
            self._code = code
        self.disarm(reason, now_ns=now_ns)
        return Refusal(
            code, f"{reason}. The safety gate is disarmed; look at the microscope, then arm again"
        )


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
