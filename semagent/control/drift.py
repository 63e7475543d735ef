"""Keeps the picture where it is: drift is taken out by beam shift, then by the stage.

The displacement of each frame, as registration measures it, is made of what focus, stigmators,
beam shift and stage have done, which the calibration of the instrument explains, and of drift.
Where beam shift and stage have to be for the picture to stand still follows from the drift, and
from what following focus has done, so that errors do not add up from one correction to the next.

Each correction also tests the calibration (`semagent.control.refutation`): one that does not move
the picture as it says is not followed any further.

It never fights the operator: whatever somebody else changes, the picture that was wanted is from
then on the one there is. Pure and deterministic, like the rest of control.
"""

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from semagent.control.options import DriftOptions
from semagent.control.reach import BEYOND, Axis, Reach, beam_legs, solved, stage_legs
from semagent.control.refutation import Check, Sight, Vector
from semagent.control.situation import Notice, in_words
from semagent.lengths import show_length
from semagent.memory import Calibration, Matrix, Memory
from semagent.types import (
    FrameAnalysis,
    FrameHeader,
    ImageShift,
    Level,
    MicroscopeAction,
    MicroscopeState,
    MoveStage,
    Outcome,
    Reply,
    SetWorkingDistance,
)

_CERTAIN = 3.0  # standard deviations of the drift by which the picture has to be off
_BLIND_FRAMES = 10  # in a row that do not tell where the picture stands, before it is said
_DRAGGED_M = 1e-9
_FOR_NOW = {
    "expired",
    "frame_unknown",
    "stale",
    "settings_changed",
    "operator_first",
    "moved_by_hand",
    "disarmed",
}
"""Refusals of the gate that later frames do away with, or arming it."""


@dataclass(frozen=True, slots=True)
class _Anchor:
    """The picture that is wanted: settings, and where registration placed it."""

    header: FrameHeader
    shift: ImageShift
    calibration: Calibration
    by_beam: Matrix
    pixel_size_m: float


@dataclass(slots=True)
class Outcomes:
    """What follows from an observation."""

    action: MicroscopeAction | None = None
    notices: list[Notice] = field(default_factory=list)

    def tell(self, kind: str, message: str, level: Level = Level.INFO, **data: object) -> None:
        """Add news."""
        self.notices.append(Notice(kind, level, message, data))


class Stabiliser:
    """Follows the drift of one field and says how to take it out.

    Args:
        options: the section ``control.drift``.
        memory: what is known of the instrument.
        reach: what may be moved, and how far.
    """

    def __init__(self, options: DriftOptions, memory: Memory, reach: Reach) -> None:
        self._options = options
        self._memory = memory
        self._reach = reach
        self._anchor: _Anchor | None = None
        # Two at least, so that they have a rate.
        self._sights: deque[Sight] = deque(maxlen=max(2, options.average_frames))
        self._check = Check()
        self._refuted = ""
        self._known: MicroscopeState | None = None
        self._queue: deque[MicroscopeAction] = deque()
        self._pending: MicroscopeAction | None = None
        self._wanted_m = 0.0
        self._focus_m = 0.0
        self._left_m = 0.0  # change of focus by searches and hands: what it displaces is left alone
        self._first_sequence = 0
        self._blind = 0
        self._stopped = ""
        self._proposed: Vector | None = None

    def reset(self) -> None:
        """Start anew with the next frame, whatever went wrong before.

        A command that is on its way stays its own: what it does is no hand's doing.
        """
        self._anchor = None
        self._queue.clear()
        self._check = Check()
        self._blind = 0
        self._stopped = self._refuted = ""

    def seen(
        self, analysis: FrameAnalysis, *, follows: bool, may_act: bool, may_tell: bool
    ) -> Outcomes:
        """Take a frame into account.

        Args:
            analysis: of the frame.
            follows: since the frame before, focus has followed the specimen.
            may_act: a correction may be made now.
            may_tell: otherwise it may be proposed.
        """
        outcomes = Outcomes()
        header, shift = analysis.header, analysis.shift
        before_m, self._focus_m = self._focus_m, header.optics.working_distance_m
        if not follows:
            self._left_m += self._focus_m - before_m
        if self._pending or header.sequence < self._first_sequence:
            return outcomes
        if may_act or may_tell:
            self._count_blind(header, shift, outcomes)
        if shift is None:
            return outcomes
        anchor = self._anchored(header, shift, outcomes)
        if anchor is None:
            return outcomes
        sight = self._sight(anchor, header, shift)
        self._judge(self._check.saw(sight, **_plays(anchor.calibration)), outcomes)
        self._sights.append(sight)
        last = list(self._sights)[-self._options.average_frames :]
        if len(last) < self._options.average_frames or self._stopped:
            return outcomes
        mean = np.mean([each.drift + each.by_focus for each in last], axis=0)
        sigma_m = max(each.sigma_m for each in last) / math.sqrt(len(last))
        off = mean + sight.by_beam + sight.by_stage
        field_m = anchor.pixel_size_m * header.scan.width_px
        if float(np.hypot(*off)) < max(self._options.deadband * field_m, _CERTAIN * sigma_m):
            return outcomes
        if may_act:
            self._plan(anchor, header, sight, mean, outcomes)
        elif may_tell:
            self._propose(off, field_m, outcomes)
        return outcomes

    def replied(self, reply: Reply, *, may_act: bool, may_restore: bool) -> Outcomes:
        """Take the answer to a command of the agent into account.

        Only those to own ones matter, and where a step that follows focus has led before.

        Args:
            reply: the answer.
            may_act: what was begun may be gone on with.
            may_restore: a working distance may be put back that the stage has dragged along.
        """
        outcomes = Outcomes()
        if self._pending is None or reply.command.action != self._pending:
            if reply.state is not None:
                self._wanted_m = reply.state.optics.working_distance_m
            return outcomes
        action, self._pending = self._pending, None
        self._first_sequence = reply.next_sequence
        if reply.outcome is not Outcome.APPLIED or reply.state is None:
            self._queue.clear()
            self._sights.clear()
            self._check.forget()
            if reply.code in _FOR_NOW:
                return outcomes
            self._stop(
                f"the command to {in_words(action)} was {reply.outcome}: {reply.reason}", outcomes
            )
            return outcomes
        self._known = reply.state
        if not may_act:
            self._queue.clear()
        if isinstance(action, MoveStage):
            self._sights.clear()  # the play of the stage is not known that well
            dragged_m = reply.state.optics.working_distance_m - self._wanted_m
            if may_restore and abs(dragged_m) > _DRAGGED_M:
                outcomes.tell(
                    "working_distance_restored",
                    "the stage move changed the working distance by "
                    f"{show_length(dragged_m, sign=True)}",
                )
                self._queue.appendleft(SetWorkingDistance(working_distance_m=self._wanted_m))
        self._next(outcomes)
        return outcomes

    def give_up(self, reason: str) -> Outcomes:
        """No answer has come, or none will."""
        outcomes = Outcomes()
        if self._pending is not None:
            self._pending = None
            self._queue.clear()
            self._check.forget()
            self._stop(reason, outcomes)
        return outcomes

    @property
    def pending(self) -> MicroscopeAction | None:
        """A command of its own that is on its way."""
        return self._pending

    # -- the picture that is wanted -----------------------------------------------------------

    def _count_blind(
        self, header: FrameHeader, shift: ImageShift | None, outcomes: Outcomes
    ) -> None:
        """Say once that the picture may wander unseen; the first frame of a field tells nothing."""
        told = shift is not None and shift.reference_sequence != header.sequence
        self._blind = 0 if told else self._blind + 1
        if self._blind == _BLIND_FRAMES and not self._stopped:
            outcomes.tell(
                "drift_unknown",
                f"the last {_BLIND_FRAMES} frames do not tell how far the picture has drifted, so "
                "it is not corrected: structure that repeats, or too little of it. Where later "
                "frames tell, the picture that there is then is held",
                Level.WARNING,
            )

    def _anchored(
        self, header: FrameHeader, shift: ImageShift, outcomes: Outcomes
    ) -> _Anchor | None:
        anchor = self._anchor
        untouched = (
            anchor is not None
            and anchor.header.settings_rev == header.settings_rev
            and not self._changed_by_others(header)
        )
        if anchor and untouched and anchor.shift.reference_sequence == shift.reference_sequence:
            return anchor
        if untouched and self._check.watched:
            self._judge("a correction has taken the picture out of sight", outcomes)
        self._check.forget()
        self._sights.clear()
        self._known = header.settings
        self._proposed = None
        calibration = self._calibration(header, outcomes)
        pixel_size_m = header.scan.pixel_size_m
        by_beam = calibration.image_shift_per_beam_shift if calibration else None
        self._anchor = None
        if calibration is not None and by_beam is not None and pixel_size_m is not None:
            self._stopped = ""
            self._left_m = 0.0
            self._anchor = _Anchor(header, shift, calibration, by_beam, pixel_size_m)
        return None

    def _calibration(self, header: FrameHeader, outcomes: Outcomes) -> Calibration | None:
        """What is known of this instrument at these settings, if that is enough."""
        entry = self._memory.at(header)
        calibration = entry.calibration if entry else None
        why = ""
        if self._refuted:
            why = self._refuted
        elif self._reach.beam_shift is None:
            why = "the safety envelope does not allow the beam to be shifted (beam_shift_m)"
        elif header.optics.beam_shift_x_m is None or header.optics.beam_shift_y_m is None:
            why = "the microscope does not report its beam shift"
        elif not header.scan.pixel_size_m:
            why = "frames carry no pixel size"
        elif calibration is None or calibration.image_shift_per_beam_shift is None:
            why = "what beam shift does at these settings is not known: run semagent calibrate"
        if why:
            self._stop(why, outcomes)
            return None
        return calibration

    def _changed_by_others(self, header: FrameHeader) -> bool:
        """Whether beam shift or stage are not where they were left."""
        if self._known is None:
            return True
        was, now = self._known, header.settings
        pairs: tuple[tuple[float | None, float | None, Axis | None], ...] = (
            (was.optics.beam_shift_x_m, now.optics.beam_shift_x_m, self._reach.beam_shift),
            (was.optics.beam_shift_y_m, now.optics.beam_shift_y_m, self._reach.beam_shift),
            (was.stage.x_m, now.stage.x_m, self._reach.stage_x),
            (was.stage.y_m, now.stage.y_m, self._reach.stage_y),
        )
        return any(
            abs((after or 0.0) - (before or 0.0)) > (axis.tolerance if axis else 0.0)
            for before, after, axis in pairs
        )

    # -- the drift ----------------------------------------------------------------------------

    def _sight(self, anchor: _Anchor, header: FrameHeader, shift: ImageShift) -> Sight:
        """The drift that a frame shows, and what is said to have been done about it."""
        pixels = np.array([shift.x_px - anchor.shift.x_px, shift.y_px - anchor.shift.y_px])
        before, now, known = anchor.header.optics, header.optics, anchor.calibration
        by_beam, by_stage = self._moved(anchor, header)
        explained, by_focus = by_beam + by_stage, np.zeros(2)
        if known.image_shift_per_focus is not None:
            away_m = now.working_distance_m - before.working_distance_m
            per = np.array([known.image_shift_per_focus.x, known.image_shift_per_focus.y])
            explained, by_focus = explained + away_m * per, (away_m - self._left_m) * per
        stigmators = _change(
            (before.stigmator_x, before.stigmator_y), (now.stigmator_x, now.stigmator_y)
        )
        if known.image_shift_per_stigmator is not None:
            explained = explained + known.image_shift_per_stigmator @ stigmators
        return Sight(
            time_ns=header.monotonic_ns,
            drift=np.asarray(pixels * anchor.pixel_size_m - explained, np.float64),
            by_focus=by_focus,
            sigma_m=shift.sigma_px * anchor.pixel_size_m,
            by_beam=by_beam,
            by_stage=by_stage,
        )

    @staticmethod
    def _moved(anchor: _Anchor, header: FrameHeader) -> tuple[Vector, Vector]:
        """Displacements that beam shift and stage have made since the anchor."""
        by_stage = anchor.calibration.image_shift_per_stage
        beam = _change(_beam_shift(anchor.header), _beam_shift(header))
        before, now = anchor.header.stage, header.stage
        stage = _change((before.x_m, before.y_m), (now.x_m, now.y_m))
        return (
            np.array(anchor.by_beam @ beam),
            np.zeros(2) if by_stage is None else np.array(by_stage @ stage),
        )

    def _judge(self, contradiction: str, outcomes: Outcomes) -> None:
        """Trust the calibration no longer once corrections have contradicted it."""
        if not contradiction:
            return
        self._sights.clear()
        if self._check.missed():
            self._refuted = (
                f"{contradiction}; run semagent calibrate, with scan and stage turned as now"
            )
            self._stop(self._refuted, outcomes)

    # -- what to do about it ------------------------------------------------------------------

    def _plan(
        self,
        anchor: _Anchor,
        header: FrameHeader,
        sight: Sight,
        drift: Vector,
        outcomes: Outcomes,
    ) -> None:
        known, axis = anchor.calibration, self._reach.beam_shift
        assert axis is not None  # noqa: S101 - without it there is no anchor
        here, home = _beam_shift(header), _beam_shift(anchor.header)
        change = solved(anchor.by_beam, -drift - sight.by_stage)
        target = None if change is None else (home[0] + change[0], home[1] + change[1])
        way = "beam shift"
        if target is None or not all(axis.holds(value) for value in target):
            way, target = "stage", home
            if not self._options.stage:
                reason = f"{BEYOND}; control.drift.stage lets the stage take over"
                self._stop(reason, outcomes)
                return
            planned = stage_legs(self._reach, known, anchor.header.stage, header.stage, -drift)
            if isinstance(planned, str):
                self._stop(planned, outcomes)
                return
            self._queue.extend(planned)
        self._queue.extend(beam_legs(here, target, axis.max_step))
        self._check.expect(self._sights, stage=way == "stage")
        self._wanted_m = header.optics.working_distance_m
        x_m, y_m = drift
        outcomes.tell(
            "drift_corrected",
            f"drift of {x_m * 1e9:+.0f}, {y_m * 1e9:+.0f} nm is taken out by {way}",
            drift_m=[float(x_m), float(y_m)],
        )
        self._next(outcomes)

    def _next(self, outcomes: Outcomes) -> None:
        if self._queue:
            self._pending = outcomes.action = self._queue.popleft()

    def _propose(self, off: Vector, field_m: float, outcomes: Outcomes) -> None:
        """Say how far the picture has drifted, once for each step of the deadband."""
        last = self._proposed
        if last is not None and np.hypot(*(off - last)) < self._options.deadband * field_m:
            return
        self._proposed = off
        outcomes.tell(
            "drift_proposal",
            f"the picture has drifted by {off[0] * 1e9:+.0f}, {off[1] * 1e9:+.0f} nm",
            drift_m=[float(off[0]), float(off[1])],
        )

    def _stop(self, reason: str, outcomes: Outcomes) -> None:
        """Correct nothing on this field until `reset`, and say why, once for each reason."""
        if reason != self._stopped:
            outcomes.tell("drift_uncorrected", f"drift is not corrected: {reason}", Level.WARNING)
        self._stopped = reason


def _plays(calibration: Calibration) -> dict[str, float]:
    """How far the play of stage and lens may displace the picture, as `Check.saw` takes them."""
    stage, lens = calibration.stage_backlash_m, calibration.focus_hysteresis_m
    per = calibration.image_shift_per_focus
    by_lens = lens.value * math.hypot(per.x, per.y) if lens and per else 0.0
    return {"play_m": stage.value if stage else 0.0, "lens_m": by_lens}


def _beam_shift(header: FrameHeader) -> tuple[float, float]:
    return _pair(header.optics.beam_shift_x_m, header.optics.beam_shift_y_m)


def _pair(x: float | None, y: float | None) -> tuple[float, float]:
    return x or 0.0, y or 0.0


def _change(
    before: tuple[float | None, float | None], now: tuple[float | None, float | None]
) -> tuple[float, float]:
    (x0, y0), (x1, y1) = _pair(*before), _pair(*now)
    return x1 - x0, y1 - y0
