"""The part of control that has state: the current situation and the estimator."""

import msgspec

from semagent.control import hold
from semagent.control.decide import decide, noticed
from semagent.control.drift import Outcomes, Stabiliser
from semagent.control.estimator import SpectralEstimator
from semagent.control.options import ControlOptions
from semagent.control.situation import (
    Analysed,
    Autofocus,
    ControlState,
    Decision,
    Flagged,
    Follow,
    GateChanged,
    Observation,
    Replied,
    Requested,
    Ticked,
    says_something,
)
from semagent.memory import Memory
from semagent.ports import FocusEstimator
from semagent.types import (
    Capabilities,
    FocusBelief,
    FrameAnalysis,
    FrameHeader,
    GateStatus,
    Issuer,
    Mode,
    Outcome,
    Reply,
    Request,
    SetMode,
)


class Controller:
    """Feeds observations to the estimator and to `decide`, in the order in which they come.

    Deterministic: the same observations give the same decisions.

    Args:
        options: the section ``control`` of the configuration.
        capabilities: of the microscope.
        estimator: of focus.
        stabiliser: takes drift out while `decide` has nothing to do, if that is wanted.
        memory: what is remembered of the instrument; where frames carry no convergence angle,
            that of the memory stands in their headers for `decide`.
    """

    def __init__(
        self,
        options: ControlOptions,
        capabilities: Capabilities,
        estimator: FocusEstimator | None = None,
        stabiliser: Stabiliser | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._options = options
        self._capabilities = capabilities
        self._estimator = estimator or SpectralEstimator(options.estimator, options.scale, memory)
        self._memory = memory or Memory()
        self._state = ControlState(mode=options.mode)
        self._belief: FocusBelief | None = None
        self._stabiliser = stabiliser
        self._stabiliser_since_ns: int | None = None

    @property
    def state(self) -> ControlState:
        """The whole memory of control, frozen."""
        return self._state

    @property
    def belief(self) -> FocusBelief | None:
        """What the frames so far say; ``None`` before the first, or when earlier ones are void."""
        return self._belief

    def analysed(self, analysis: FrameAnalysis) -> Decision:
        """Take an analysed frame into account."""
        header = self._known(analysis.header)
        # A frame of a new field is the first of it that counts, not the last that does not.
        self._remember(noticed(self._state, header, self._options))
        follows = isinstance(self._state.task, Follow)
        searches = isinstance(self._state.task, Autofocus)
        if not follows and self._state.can_use(header) and says_something(analysis):
            self._belief = self._estimator.update(analysis)
        belief = self._belief or FocusBelief(
            sequence=header.sequence, settings_rev=header.settings_rev, frames=0
        )
        known = msgspec.structs.replace(analysis, header=header)
        decision = self._decide(Analysed(analysis=known, belief=belief))
        search = decision.state.task
        if not searches and isinstance(search, Autofocus) and search.focused is not None:
            first = self.analysed(analysis)  # it says how far focus is
            return msgspec.structs.replace(first, events=(*decision.events, *first.events))
        if isinstance(decision.state.task, Follow):
            self._belief = hold.belief_of(decision.state.task, header, belief.log_odds)
        if self._stabiliser is None:
            return decision
        mode = self._state.mode
        may_tell = mode is Mode.ADVISE or (mode is Mode.HOLD and not self._state.armed)
        # Also beside a step that follows focus: there may be one with every frame.
        free = self._state.pending is None or bool(decision.actions)
        seen = self._stabiliser.seen(
            analysis,
            follows=follows and isinstance(decision.state.task, Follow),
            may_act=self._may_correct and free,
            may_tell=may_tell,
        )
        return self._with(decision, seen)

    def flagged(self, header: FrameHeader) -> Decision:
        """Take note of a frame that has faults and was not analysed."""
        return self._decide(Flagged(header=self._known(header)))

    def replied(self, reply: Reply) -> Decision:
        """Take the answer to a command, of the agent or the operator, into account."""
        stabiliser = self._stabiliser
        decision = self._decide(Replied(reply=reply))
        if stabiliser is None or reply.command.issuer is not Issuer.AGENT:
            return decision
        own = stabiliser.pending == reply.command.action
        if own and self._state.expected is not None and reply.outcome is Outcome.APPLIED:
            # Nobody else has moved the stage.
            self._state = msgspec.structs.replace(self._state, expected=reply.state)
        free = self._state.pending is None
        replied = stabiliser.replied(
            reply, may_act=self._may_correct and free, may_restore=self._state.armed and free
        )
        return self._with(decision, replied)

    def requested(self, request: Request) -> Decision:
        """Do what the operator asks for."""
        if self._stabiliser is not None and isinstance(request, SetMode):
            self._stabiliser.reset()
        return self._decide(Requested(request=request))

    def gate_changed(self, status: GateStatus) -> Decision:
        """Take note of the safety gate."""
        return self._decide(GateChanged(status=status))

    def ticked(self, now_ns: int) -> Decision:
        """Let time pass: deadlines are measured between ticks."""
        decision, limit_s = self._decide(Ticked(now_ns=now_ns)), self._options.deadlines.reply_s
        since_ns = self._stabiliser_since_ns
        if self._stabiliser is None or since_ns is None or now_ns - since_ns <= limit_s * 1e9:
            return decision
        self._stabiliser_since_ns = None
        given_up = self._stabiliser.give_up(f"a command was not answered within {limit_s:g} s")
        return self._with(decision, given_up)

    @property
    def _may_correct(self) -> bool:
        """Whether the agent may act and has nothing else on its hands than to follow focus."""
        state, task = self._state, self._state.task
        follows = isinstance(task, Follow) and task.search_frames is None
        return (
            state.mode is Mode.HOLD
            and state.armed
            and not state.paused
            and (task is None or follows)
        )

    def _known(self, header: FrameHeader) -> FrameHeader:
        """The header with the angle that is remembered; what is remembered of the play counts."""
        header = self._memory.with_angle(header)
        play_m = self._memory.lens_play_m(header)
        self._state = msgspec.structs.replace(self._state, lens_play_m=play_m)
        return header

    def _with(self, decision: Decision, outcomes: Outcomes) -> Decision:
        """The decision, and what the stabiliser adds to it."""
        self._state = msgspec.structs.replace(decision.state, expected=self._state.expected)
        action = outcomes.action
        if action is not None:
            self._stabiliser_since_ns = self._state.now_ns
        elif self._stabiliser is not None and self._stabiliser.pending is None:
            self._stabiliser_since_ns = None
        return msgspec.structs.replace(
            decision,
            state=self._state,
            actions=decision.actions if action is None else (*decision.actions, action),
            events=(*decision.events, *outcomes.notices),
        )

    def _decide(self, observation: Observation) -> Decision:
        decision = decide(self._state, observation, self._options, self._capabilities)
        self._remember(decision.state)
        return decision

    def _remember(self, state: ControlState) -> None:
        if state.epoch != self._state.epoch:
            task = state.task
            self._estimator.reset(task.focused if isinstance(task, Autofocus) else None)
            self._belief = None
        self._state = state
