"""The part of control that has state: the current situation and the estimator."""

from semagent.control.decide import decide
from semagent.control.estimator import SharpnessEstimator
from semagent.control.options import ControlOptions
from semagent.control.situation import (
    Analysed,
    ControlState,
    Decision,
    Flagged,
    GateChanged,
    Observation,
    Replied,
    Requested,
    Ticked,
    is_finite,
)
from semagent.ports import FocusEstimator
from semagent.types import (
    Capabilities,
    FocusBelief,
    FrameAnalysis,
    FrameHeader,
    GateStatus,
    Reply,
    Request,
)


class Controller:
    """Feeds observations to the estimator and to `decide`, in the order in which they come.

    Deterministic: the same observations give the same decisions.
    """

    def __init__(
        self,
        options: ControlOptions,
        capabilities: Capabilities,
        estimator: FocusEstimator | None = None,
    ) -> None:
        self._options = options
        self._capabilities = capabilities
        self._estimator = estimator or SharpnessEstimator(options.estimator, options.scale)
        self._state = ControlState(mode=options.mode)
        self._belief: FocusBelief | None = None

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
        header = analysis.header
        if self._state.can_use(header) and is_finite(analysis):
            self._belief = self._estimator.update(analysis)
        belief = self._belief or FocusBelief(
            sequence=header.sequence, settings_rev=header.settings_rev, frames=0
        )
        return self._decide(Analysed(analysis=analysis, belief=belief))

    def flagged(self, header: FrameHeader) -> Decision:
        """Take note of a frame that has faults and was not analysed."""
        return self._decide(Flagged(header=header))

    def replied(self, reply: Reply) -> Decision:
        """Take the answer to a command, of the agent or the operator, into account."""
        return self._decide(Replied(reply=reply))

    def requested(self, request: Request) -> Decision:
        """Do what the operator asks for."""
        return self._decide(Requested(request=request))

    def gate_changed(self, status: GateStatus) -> Decision:
        """Take note of the safety gate."""
        return self._decide(GateChanged(status=status))

    def ticked(self, now_ns: int) -> Decision:
        """Let time pass: deadlines are measured between ticks."""
        return self._decide(Ticked(now_ns=now_ns))

    def _decide(self, observation: Observation) -> Decision:
        decision = decide(self._state, observation, self._options, self._capabilities)
        if decision.state.epoch != self._state.epoch:
            self._estimator.reset()
            self._belief = None
        self._state = decision.state
        return decision
