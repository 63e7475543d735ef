"""What a tile scan asks of the microscope, one thing at a time, beside the control role."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import msgspec

from semagent.clock import Clock
from semagent.config import RunConfig
from semagent.control.reach import PLAYS
from semagent.display import show_alike
from semagent.errors import GateRefusedError
from semagent.legs import legs, put_back
from semagent.lockstep import Lockstep, next_frame, require_applied
from semagent.places import Place
from semagent.safety import STAGE_X, STAGE_Y, Code
from semagent.safety.axes import Axis, targets
from semagent.safety.travel import Track
from semagent.types import (
    Arm,
    Basis,
    Cancel,
    Command,
    FocusBelief,
    FocusResult,
    FrameAnalysis,
    FrameHeader,
    Issuer,
    MicroscopeAction,
    MicroscopeState,
    Mode,
    MoveStage,
    Outcome,
    Reply,
    SetMode,
    SetWorkingDistance,
    StartAutofocus,
)

_TRIES = 5  # frames in a row that may be unfit for use
_FRESH = 0.5  # of the life of evidence: a new frame is taken before a command after that
_AT_FOCUS_M = 1e-9
_FOCUS_ONLY = StartAutofocus(stigmation=False)


class Look(NamedTuple):
    """A frame that is fit for use, or the last of several that are not.

    Attributes:
        analysis: ``None`` if the frame is not fit for use.
        fault: why it is not.
    """

    header: FrameHeader
    analysis: FrameAnalysis | None
    fault: str = ""


def for_survey(config: RunConfig) -> RunConfig:
    """The configuration of a tile scan or a program of one's own: it focuses when asked to."""
    hold = msgspec.structs.replace(config.control.hold, follow=False)
    drift = msgspec.structs.replace(config.control.drift, correct=False)
    control = msgspec.structs.replace(config.control, hold=hold, drift=drift, mode=Mode.HOLD)
    return msgspec.structs.replace(config, control=control)


def usual_approach_m(config: RunConfig) -> float:
    """How far stage moves go beyond their target: past any play that a calibration has found."""
    plays = [
        entry.calibration.stage_backlash_m.value
        for entry in config.remembered.entries
        if entry.calibration is not None and entry.calibration.stage_backlash_m is not None
    ]
    return PLAYS * max(plays, default=0.0)


class Pilot:
    """Moves stage and focus and takes frames.

    Args:
        lockstep: the roles, under the configuration of `for_survey`.
        config: that configuration.
        clock: what time it is.
        approach_m: distance by which stage moves go too far and come back.
        on_frame: told of every frame; may raise to end the scan.
    """

    def __init__(
        self,
        lockstep: Lockstep,
        config: RunConfig,
        clock: Clock,
        *,
        approach_m: float,
        on_frame: Callable[[FrameHeader], None] = lambda _header: None,
    ) -> None:
        self._lockstep = lockstep
        self._config = config
        self._clock = clock
        self._approach_m = approach_m
        self._on_frame = on_frame
        self._ids = itertools.count(1)
        self._frames = lockstep.listen("frame")
        self._analyses = lockstep.listen("analysis")
        self._results = lockstep.listen("result")
        self._beliefs = lockstep.listen("belief")
        self._replies = lockstep.listen("reply")
        self.last: FrameHeader | None = None
        self.state: MicroscopeState | None = None
        self._left: MicroscopeState | None = None
        self._tracks: dict[Axis, Track] = {}
        self._told = False  # that the gate is shut
        self.moved = False

    def arm(self) -> None:
        """Arm the gate in the name of the person who asked for it, and let the agent focus.

        Raises:
            GateRefusedError: the gate will not be armed.
        """
        reply = self._lockstep.operate(Arm())
        if reply.outcome is not Outcome.APPLIED:
            raise GateRefusedError(f"not armed: {reply.reason}")
        window_ns = round(self._config.safety.travel_window_s * 1e9)
        for axis in (STAGE_X, STAGE_Y):
            here_m = None if reply.state is None else axis.read(reply.state)
            if here_m is not None:
                self._tracks[axis] = Track(here_m, window_ns)
        self._lockstep.request(SetMode(mode=Mode.HOLD))

    def look(self) -> Look:
        """Expose frames until one is fit for use, though no more than a few.

        Raises:
            MicroscopeError: there are no frames.
        """
        for _ in range(_TRIES):
            header = self._next_frame()
            message = self._analyses.take()
            if not header.faults and message is not None:
                return Look(header, message.value)
        return Look(header, None, ", ".join(header.faults) or "the engine can say nothing of it")

    def focus(
        self, request: StartAutofocus = _FOCUS_ONLY
    ) -> tuple[FocusResult, FocusBelief | None]:
        """Have the agent focus here: how it ended, and what is believed.

        Focus is left within the depth of field; the belief says more precisely where it is.

        Raises:
            MicroscopeError: there are no frames.
        """
        self.moved = True
        self._lockstep.request(request)
        try:
            while (message := self._results.take()) is None:
                self._next_frame()
        except BaseException as error:
            self._lockstep.request(Cancel(reason="ended by the program that asked for it"))
            self._lockstep.settle()
            self._read_back()
            self.state = self._left
            if (ended := self._results.take()) is not None:
                error.add_note(ended.value.reason)
            raise
        result: FocusResult = message.value
        self.state = None
        belief = self._beliefs.take()
        return result, None if belief is None else belief.value

    def go(self, place: Place | None, working_distance_m: float) -> None:
        """Go to a place, if one is given, from the same side as always, then to a working distance.

        The working distance is read back after the stage has moved, and set where it is not what
        it should be: on many instruments the one drags the other along.

        Raises:
            CommandRefusedError: the gate or the microscope refused a move.
            MicroscopeError: one failed.
        """
        if place is not None:
            self._stage_to(place)
        self._focus_to(working_distance_m)

    def require_way_home(self, place: Place, home: Place) -> None:
        """Find out whether the stage may go to a place, and home from there.

        The gate keeps travel for the way back to where the stage stood when its window began: in
        a long scan that is not home.

        Raises:
            CommandRefusedError: not both.
        """
        safety = self._config.safety
        for axis, there_m, home_m in zip((STAGE_X, STAGE_Y), place, home, strict=True):
            track, limits = self._tracks[axis], safety.limits(axis.key)
            plan = track.plan(home_m, self._clock.monotonic_ns())
            there = self._axis_legs(axis, track.position, there_m)
            stops = (track.position, *there, *self._axis_legs(axis, there_m, home_m))
            way_m = sum(abs(after - before) for before, after in itertools.pairwise(stops))
            total_m = float(plan.past + plan.back) + way_m
            if limits is not None and total_m > limits.max_travel:
                total, limit = show_alike(axis.quantity, total_m, limits.max_travel)
                raise GateRefusedError(
                    f"{axis.name}: with the way there and home it would travel {total} within "
                    f"{safety.travel_window_s:g} s, more than the {limit} of {axis.key}.max_travel"
                )

    def put_back(self, place: Place, working_distance_m: float) -> None:
        """Go to a place and to a working distance, each whatever becomes of the other.

        Raises:
            MicroscopeError: what could not be put back, and why.
        """
        # Where the record is lost no frame can be taken any more to read the settings back.
        self.state = self.state or self._left
        put_back(partial(self._stage_to, place), partial(self._focus_to, working_distance_m))

    def _stage_to(self, place: Place, straight: bool = False) -> None:
        """Go to a place, along both axes at once; the one that is there first waits."""
        stage = self._here().stage
        x = self._axis_legs(STAGE_X, stage.x_m, place.x_m, straight)
        y = self._axis_legs(STAGE_Y, stage.y_m, place.y_m, straight)
        last_x, last_y = x[-1] if x else place.x_m, y[-1] if y else place.y_m
        for x_m, y_m in itertools.zip_longest(x, y):
            self._do(
                MoveStage(
                    x_m=last_x if x_m is None else x_m,
                    y_m=last_y if y_m is None else y_m,
                )
            )

    def _focus_to(self, working_distance_m: float, straight: bool = False) -> None:
        """Go to a working distance, from below."""
        safety = self._config.safety
        limits = safety.working_distance_m
        approach_m = self._config.approach_m(self.last) if self.last and not straight else 0.0
        here_m = self._here().optics.working_distance_m
        if abs(here_m - working_distance_m) <= _AT_FOCUS_M:
            return
        for leg_m in legs(
            here_m,
            working_distance_m,
            approach=approach_m,
            max_step=safety.longest_step("working_distance_m"),
            lowest=limits.min if limits else 0.0,
        ):
            self._do(SetWorkingDistance(working_distance_m=leg_m))

    def _axis_legs(
        self, axis: Axis, here_m: float | None, target_m: float, straight: bool = False
    ) -> tuple[float, ...]:
        safety = self._config.safety
        limits = safety.limits(axis.key)
        if here_m is None or limits is None:
            raise GateRefusedError(
                "the safety envelope does not allow the stage to be moved along x and y "
                "(stage_x_m, stage_y_m), or the stage does not report where it is"
            )
        return legs(
            here_m,
            target_m,
            approach=0.0 if straight else self._approach_m,
            max_step=safety.longest_step(axis.key),
            lowest=limits.min,
        )

    def _here(self) -> MicroscopeState:
        """The settings last read back."""
        return self.state or self.look().header.settings

    def _read_back(self) -> None:
        """Learn from the replies where everything was left."""
        while (message := self._replies.take()) is not None:
            reply: Reply = message.value
            self._left = reply.state

    def _do(self, action: MicroscopeAction) -> None:
        reply = self._ask(action)
        if reply.code == Code.SETTINGS_CHANGED:
            reply = self._ask(action)
        if reply.outcome is not Outcome.REFUSED:
            self.moved = True
            for axis, target_m in targets(action).items():
                if axis in self._tracks:
                    self._tracks[axis].book(target_m, reply.monotonic_ns)
        told, self._told = self._told, not self._lockstep.gate.armed
        require_applied(reply, told=told)

    def _ask(self, action: MicroscopeAction) -> Reply:
        last = self.last
        if last is None or not self._tells_of_now(last):
            # Fit for use or not, it says how the microscope stands: enough to go elsewhere.
            last = self.look().header
        reply = self._lockstep.carry_out(
            Command(
                id=f"scan-{next(self._ids)}",
                issuer=Issuer.AGENT,
                action=action,
                basis=Basis(sequence=last.sequence, settings_rev=last.settings_rev),
            )
        )
        self.state = reply.state
        return reply

    def _tells_of_now(self, frame: FrameHeader) -> bool:
        """Whether a command may rest on it: it is not old, and the settings are still the same."""
        here, limit_s = self.state or self._left, _FRESH * self._config.safety.max_evidence_age_s
        changed = here is not None and here.settings_rev != frame.settings_rev
        old = self._clock.monotonic_ns() - frame.monotonic_ns > round(limit_s * 1e9)
        return not (old or changed)

    def _next_frame(self) -> FrameHeader:
        wait_s = self._config.acquire.longest_wait_s
        message = next_frame(self._frames, self._cycle, self._clock, wait_s)
        header: FrameHeader = message.value
        self.last, self.state = header, header.settings
        self._left = header.settings
        self._read_back()  # what was done because of this frame
        self._on_frame(header)
        return header

    def _cycle(self) -> None:
        self._read_back()
        self._lockstep.cycle()
