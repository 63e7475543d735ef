"""The control role: belief and state machine, fed from the bus."""

from semagent.bus import Bus
from semagent.clock import Clock
from semagent.control import Controller, Decision, intent_of
from semagent.roles.base import Announcer
from semagent.types import (
    Cancel,
    Command,
    Event,
    FrameAnalysis,
    Heard,
    HeardKind,
    Intent,
    Issuer,
    Reply,
    Request,
)

CONTROL_IDS = "agent-"
"""How the ids of control's own commands begin; a procedure beside it takes others."""

_INTENT_RATE_HZ = 1.0


class ControlRole:
    """Passes what happens to the `Controller` and its decisions on, and nothing else.

    What it takes up, and in which order, is published as `Heard`, so that a recorded session
    can be run through it again and must give the same commands.

    Args:
        command_lifetime_s: a command is void this long after the frame it rests on was exposed.
    """

    def __init__(
        self, bus: Bus, controller: Controller, clock: Clock, *, command_lifetime_s: float
    ) -> None:
        self._bus = bus
        self._controller = controller
        self._clock = clock
        self._lifetime_ns = round(command_lifetime_s * 1e9)
        self._say = Announcer(bus, clock)
        self._analyses = bus.subscribe("analysis")
        self._events = bus.subscribe("event")
        self._gate = bus.subscribe("gate")
        self._replies = bus.subscribe("reply")
        bus.serve("request")
        self._tick_ns = 0
        self._commands = 0
        self._requests = 0
        self._processed = 0
        self._proposed: Decision | None = None
        self._intent: Intent | None = None
        self._next_intent_ns = 0

    def step(self) -> bool:
        """See `RoleLoop`."""
        self._beat(busy=True)
        worked = self._take_news() | self._take_requests()
        while (message := self._analyses.take()) is not None:
            self._take_analysis(message.value)
            worked = True
        self._tick()
        self._publish_intent()
        self._beat(busy=False)
        return worked

    def cancel(self, reason: str) -> None:
        """End what goes on, without being asked: focus and stigmators are put back."""
        self._take_up(Cancel(reason=reason))

    @property
    def at_rest(self) -> bool:
        """Whether nothing is going on, and so nothing has to be put back."""
        return self._controller.state.task is None

    def close(self) -> None:
        """See `RoleLoop`."""

    def _take_news(self) -> bool:
        worked = False
        while (message := self._gate.take()) is not None:
            self._heard("gate", message.value.monotonic_ns)
            self._carry_out(self._controller.gate_changed(message.value))
            worked = True
        while (message := self._events.take()) is not None:
            event: Event = message.value
            if (header := event.flagged) is not None:
                self._heard("flagged", header.sequence)
                self._carry_out(self._controller.flagged(header))
                worked = True
        # Every reply is news, to the operator's commands too: an operator's hand pauses the
        # agent. The answers to our own commands say the same once more.
        self._bus.answers()
        while (message := self._replies.take()) is not None:
            reply: Reply = message.value
            self._heard("reply", reply.command.id)
            self._carry_out(self._controller.replied(reply))
            worked = True
        return worked

    def _take_requests(self) -> bool:
        deliveries = self._bus.deliveries()
        for delivered in deliveries:
            decision = self._take_up(delivered.value)
            refusal = next(
                (said for said in decision.events if said.kind == "request_refused"), None
            )
            delivered.answer(
                self._say.compose(
                    "request_refused" if refusal else "request_taken",
                    refusal.message if refusal else type(delivered.value).__name__,
                )
            )
        return bool(deliveries)

    def _take_up(self, request: Request) -> Decision:
        self._requests += 1
        self._bus.publish("request", request)
        self._heard("request", self._requests)
        decision = self._controller.requested(request)
        self._carry_out(decision)
        return decision

    def _take_analysis(self, analysis: FrameAnalysis) -> None:
        self._processed += 1
        self._heard("analysis", analysis.header.sequence)
        decision = self._controller.analysed(analysis)
        self._proposed = decision if decision.proposal else None
        if self._controller.belief is not None:
            self._bus.publish("belief", self._controller.belief)
        self._carry_out(decision)

    def _tick(self) -> None:
        now_ns = self._clock.monotonic_ns()
        decision = self._controller.ticked(now_ns)
        self._tick_ns = now_ns
        if decision.actions or decision.events or decision.result is not None:
            # A deadline has passed. Ticks that change nothing are not worth a line.
            self._heard("tick", 0)
        self._carry_out(decision)

    def _publish_intent(self) -> None:
        """Say what is going on: when that changes, and now and then for who came late."""
        state = self._controller.state
        if self._proposed and (self._proposed.state.mode is not state.mode or state.paused):
            self._proposed = None
        intent, now_ns = intent_of(state, self._proposed), self._clock.monotonic_ns()
        if intent != self._intent or now_ns >= self._next_intent_ns:
            self._intent = intent
            self._next_intent_ns = now_ns + round(1e9 / _INTENT_RATE_HZ)
            self._bus.publish("intent", intent)

    def _beat(self, *, busy: bool) -> None:
        self._bus.beat(busy=busy, processed=self._processed, skipped=self._analyses.skipped)

    def _heard(self, kind: HeardKind, key: int | str) -> None:
        self._bus.publish("heard", Heard(kind=kind, key=key, tick_ns=self._tick_ns))

    def _carry_out(self, decision: Decision) -> None:
        for notice in decision.events:
            self._say.event(notice.kind, notice.message, level=notice.level, data=notice.data)
        header = decision.state.header
        for action in decision.actions:
            self._commands += 1
            command = Command(
                id=f"{CONTROL_IDS}{self._commands}",
                issuer=Issuer.AGENT,
                action=action,
                basis=decision.basis,
                expires_ns=None if header is None else header.monotonic_ns + self._lifetime_ns,
            )
            self._bus.send("command", command)
        if decision.result is not None:
            self._bus.publish("result", decision.result)
