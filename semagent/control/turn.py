"""One turn of `decide`: what is being put together while an observation is worked through."""

import math
from typing import Any

import msgspec

from semagent.control.options import ControlOptions
from semagent.control.situation import (
    Autofocus,
    ControlState,
    Decision,
    Notice,
    Pending,
    Sample,
    Task,
)
from semagent.legs import legs, pair_legs
from semagent.types import (
    Basis,
    Capabilities,
    FocusResult,
    FrameAnalysis,
    Level,
    MicroscopeAction,
    MicroscopeState,
    SetStigmator,
    SetWorkingDistance,
)


class Turn:
    """Collects the parts of one `Decision`; lives no longer than one call of `decide`."""

    def __init__(
        self, state: ControlState, options: ControlOptions, capabilities: Capabilities
    ) -> None:
        self.state = state
        self.options = options
        self.capabilities = capabilities
        self.proposal: SetWorkingDistance | None = None
        self.result: FocusResult | None = None
        self._actions: tuple[MicroscopeAction, ...] = ()
        self._events: list[Notice] = []

    def decision(self) -> Decision:
        """What was put together."""
        header = self.state.header
        return Decision(
            state=self.state,
            actions=self._actions,
            basis=None
            if header is None
            else Basis(sequence=header.sequence, settings_rev=header.settings_rev),
            events=tuple(self._events),
            proposal=self.proposal,
            result=self.result,
        )

    def update(self, **changes: Any) -> None:
        """Change fields of the state."""
        self.state = msgspec.structs.replace(self.state, **changes)

    def set_task(self, task: Task | None) -> None:
        """Replace the task."""
        self.update(task=task)

    def tell(self, kind: str, message: str, level: Level = Level.INFO, **data: Any) -> None:
        """Add an event."""
        self._events.append(Notice(kind, level, message, data))

    def pause(self, reason: str) -> None:
        """Give no more commands until the next request, and warn why unless that was done."""
        self.update(paused=reason, task=None, expected=None, in_focus=None)
        until = "no commands until the next request"
        if any(event.level is not Level.INFO for event in self._events):
            self.tell("paused", until)
        else:
            self.tell("paused", f"{reason}; {until}", Level.WARNING)

    def command(self, action: MicroscopeAction, then: tuple[MicroscopeAction, ...] = ()) -> None:
        """Give a command, and when it was carried out the next; one at most is outstanding."""
        self._actions = (action,)
        task = self.state.task
        if isinstance(action, SetStigmator) and isinstance(task, Autofocus):
            self.set_task(msgspec.structs.replace(task, stigmated=True))
        self.update(pending=Pending(action=action, then=then, since_ns=self.state.now_ns))

    def go(
        self,
        target_m: float,
        stigmators: tuple[float, float] | None = None,
        *,
        straight: bool = False,
    ) -> None:
        """Go to a working distance, in several commands where backlash or limits ask for it.

        Where it is known to be already, no command is given, and the next frame is waited for.
        Stigmators are set first, if they are to be changed. ``straight`` does not mind the
        backlash.
        """
        approached_m = None if straight else target_m
        self.update(waiting_ns=self.state.now_ns, approached_m=approached_m)
        way = self._legs(self.working_distance_m, target_m, 0.0 if straight else self._approach_m)
        if not way and self.state.unconfirmed:
            way = (target_m,)
        moves: list[MicroscopeAction] = [
            SetWorkingDistance(working_distance_m=leg_m) for leg_m in way
        ]
        moves = [*(self._stigmator_legs(stigmators) if stigmators else ()), *moves]
        if moves:
            self.command(moves[0], then=tuple(moves[1:]))

    def take_up_play(self) -> bool:
        """Reach where focus stands from below, where the lens has more play than a search bears.

        Returns whether that has to be waited for; not where focus was reached so already.
        """
        here_m, options = self.working_distance_m, self.options.autofocus
        if self._approach_m <= options.approach * self._unit_m or here_m == self.state.approached_m:
            return False
        low_m = max(self._low_m, here_m - self._approach_m)
        way = *self._legs(here_m, low_m, 0.0), *self._legs(low_m, here_m, 0.0)
        moves = [SetWorkingDistance(working_distance_m=leg_m) for leg_m in way]
        if moves:
            self.update(epoch=self.state.epoch + 1, approached_m=here_m)
            self.command(moves[0], then=tuple(moves[1:]))
        return bool(moves)

    def stigmate(self, target: tuple[float, float]) -> None:
        """Set the stigmators, in several commands where limits ask for it."""
        if moves := self._stigmator_legs(target):
            self.command(moves[0], then=tuple(moves[1:]))

    def sample(self, analysis: FrameAnalysis) -> Sample:
        """The sharpness of a frame, with noise and the scatter between frames as its error."""
        return Sample(
            working_distance_m=analysis.header.optics.working_distance_m,
            sharpness=analysis.sharpness,
            sigma=math.hypot(analysis.sharpness_sigma, self.options.autofocus.scatter),
        )

    @property
    def measured(self) -> MicroscopeState | None:
        """The settings last read back, or measured with the last frame."""
        header = self.state.header
        measured = None if header is None else header.settings
        return self.state.expected or measured

    @property
    def working_distance_m(self) -> float:
        """The working distance last read back or measured; NaN before the first."""
        return self.measured.optics.working_distance_m if self.measured else float("nan")

    def _stigmator_legs(self, target: tuple[float, float]) -> list[SetStigmator]:
        optics = self.measured.optics if self.measured else None
        x, y = (optics.stigmator_x, optics.stigmator_y) if optics else (None, None)
        here = target if x is None or y is None else (x, y)
        if here == target:
            return []
        way = pair_legs(here, target, self.options.autofocus.max_stigmator_step)
        return [SetStigmator(x=x, y=y) for x, y in way]

    @property
    def _unit_m(self) -> float:
        header = self.state.header
        return self.options.scale.half_depth_of(header) if header else 0.0

    @property
    def _approach_m(self) -> float:
        return self.options.autofocus.approach_m(self._unit_m, self.state.lens_play_m)

    @property
    def _low_m(self) -> float:
        low_m, _ = self.capabilities.working_distance_range_m or (-math.inf, math.inf)
        return low_m

    def _legs(self, here_m: float, target_m: float, approach_m: float) -> tuple[float, ...]:
        return legs(
            here_m,
            target_m,
            approach=approach_m,
            max_step=self.options.autofocus.max_step_m,
            lowest=self._low_m,
        )
