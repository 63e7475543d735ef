"""What control sees, remembers and decides: frozen values."""

import math
from typing import Any, Literal, NamedTuple

from semagent.signature import is_sound
from semagent.types import (
    Action,
    Basis,
    FocusBelief,
    FocusResult,
    FrameAnalysis,
    FrameHeader,
    GateStatus,
    ImageShift,
    Level,
    MicroscopeAction,
    MicroscopeState,
    Mode,
    Reply,
    Request,
    SetWorkingDistance,
    Signature,
    Value,
)

# -- what control sees ------------------------------------------------------------------------


class Analysed(Value, frozen=True, kw_only=True):
    """A frame was analysed, and the estimator took it into account if it was usable."""

    analysis: FrameAnalysis
    belief: FocusBelief


class Flagged(Value, frozen=True, kw_only=True):
    """A frame has faults and was not analysed."""

    header: FrameHeader


class Replied(Value, frozen=True, kw_only=True):
    """A command, of the agent or the operator, was answered."""

    reply: Reply


class Requested(Value, frozen=True, kw_only=True):
    """The operator asks for something."""

    request: Request


class GateChanged(Value, frozen=True, kw_only=True):
    """The safety gate was armed or disarmed, or says again what it is."""

    status: GateStatus


class Ticked(Value, frozen=True, kw_only=True):
    """Time has passed; deadlines are measured between ticks and by nothing else."""

    now_ns: int


Observation = Analysed | Flagged | Replied | Requested | GateChanged | Ticked


def says_something(analysis: FrameAnalysis) -> bool:
    """Whether an engine could say how sharp a frame is, and all that it says is possible."""
    figures = (analysis.sharpness, analysis.sharpness_sigma, analysis.structure)
    signature = analysis.signature
    return all(map(math.isfinite, figures)) and (signature is None or is_sound(signature))


def in_words(action: Action) -> str:
    """What kind of action it is, as an operator would say it: ``set working distance``."""
    name = type(action).__name__
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


# -- what control remembers -------------------------------------------------------------------


class Sample(Value, frozen=True, kw_only=True):
    """The sharpness found at one working distance.

    Attributes:
        sharpness: natural logarithm of the focus measure.
        sigma: its standard deviation, from noise and the scatter between frames.
    """

    working_distance_m: float
    sharpness: float
    sigma: float


class Pending(Value, frozen=True, kw_only=True):
    """A command that was given and not yet answered.

    Attributes:
        then: commands to go on with once it was carried out.
        since_ns: last tick before it was given, ``None`` before the first tick.
    """

    action: MicroscopeAction
    then: tuple[MicroscopeAction, ...] = ()
    since_ns: int | None = None


class Autofocus(Value, frozen=True, kw_only=True):
    """A search for focus that is going on.

    Attributes:
        max_frames: frames it may use.
        focused: how the field looks in focus, where that is known.
        for_hold: started by mode hold itself, not asked for.
        instead: what mode hold goes on with where there is structure and focus is not found;
            ``None`` to rest then.
        stigmation: set the stigmators too, where that can be done.
        start: the first usable frame; ``None`` until it came.
        poor: structure of the frames at the start, while there was too little of it.
        samples: what was measured, in order; the first is the start.
        flagged: unusable frames since the last usable one.
        frames: frames used, unusable ones included.
        counted: number of the last frame whose dose was counted; ``None`` before the first.
        dose_e_nm2: what the field has taken since it began, where there is a budget; ``None``
            where the microscope does not report enough to tell.
        frames_affordable: frames more that the dose budget allows; ``None`` without one.
        moves: commands carried out.
        trims: how often the stigmators were changed.
        probes: how many stigmators were changed to learn what they do.
        trimmed_at: number of samples before the last probe or trim.
        stigmated: stigmators were commanded, if only to put them back.
        verified: the frame that was in focus, where another is taken beside it for the stigmators.
        astigmatism_open: it ends because structure along one direction tells no more of focus.
        ways_m: working distances asked for, and what was read back: a recorded stack has only its
            own.
        last: the last frame that was used; ``None`` before the first.
        sigma_m: standard deviation of the last belief.
        since_ns: last tick before it began.
    """

    max_frames: int
    focused: Signature | None = None
    for_hold: bool = False
    instead: "Follow | None" = None
    stigmation: bool = False
    start: FrameHeader | None = None
    poor: tuple[float, ...] = ()
    samples: tuple[Sample, ...] = ()
    flagged: int = 0
    frames: int = 0
    counted: int | None = None
    dose_e_nm2: float | None = 0.0
    frames_affordable: int | None = None
    moves: int = 0
    trims: int = 0
    probes: int = 0
    trimmed_at: int = 0
    stigmated: bool = False
    verified: Sample | None = None
    astigmatism_open: bool = False
    ways_m: tuple[tuple[float, float], ...] = ()
    last: FrameAnalysis | None = None
    sigma_m: float | None = None
    since_ns: int | None = None

    @property
    def changed_stigmators(self) -> bool:
        """Whether the stigmators are others than at the start."""
        return self.trims + self.probes > 0

    @property
    def as_trimmed(self) -> int | None:
        """Samples since the last probe or trim; ``None`` with the stigmators of the start."""
        return len(self.samples) - self.trimmed_at if self.changed_stigmators else None

    @property
    def places_m(self) -> tuple[float, ...]:
        """Working distances of its samples."""
        return tuple(sample.working_distance_m for sample in self.samples)

    @property
    def frames_left(self) -> int:
        """Frames it may still take."""
        left = max(self.max_frames - self.frames, 0)
        return left if self.frames_affordable is None else min(left, self.frames_affordable)


class Seen(Value, frozen=True, kw_only=True):
    """What one frame told of focus, compared with the reference; see `semagent.control.reading`.

    Attributes:
        time_ns: when it was taken.
        place: working distance, in half depths of field from where following began.
        signature: of the frame.
        change: of u², 2 u a1 and 2 u a2, in half depths of field squared.
        covariance: of these, row by row, without that of the reference.
        shift: where its content lies; ``None`` where that cannot be told.
        by_content: as in `semagent.control.reading.Readings`.
        focus: where focus was then, for frames from before a jump; ``None`` for those since.
    """

    time_ns: int
    place: float
    signature: Signature
    change: tuple[float, ...]
    covariance: tuple[float, ...]
    shift: ImageShift | None = None
    by_content: float = 0.0
    focus: float | None = None


class Track(Value, frozen=True, kw_only=True):
    """Where focus is and how it drifts, as a normal distribution.

    Attributes:
        focus: in half depths of field from where following began.
        rate: the same a frame.
        covariance: of focus, of both, of the rate.
    """

    focus: float
    rate: float
    covariance: tuple[float, float, float]

    @property
    def std(self) -> float:
        """Standard deviation of focus."""
        return math.sqrt(self.covariance[0])


class Follow(Value, frozen=True, kw_only=True):
    """Following a drifting specimen from a point that was in focus.

    Attributes:
        home: the working point, and the settings to go back to.
        origin_m: working distance from which places are counted.
        half_depth_m: half depth of field.
        slope: blur in pixels for each half depth of field.
        slope_known: it comes from pixel size and convergence angle.
        begun: what was known of focus at the first frame, or of a jump at the first after it.
        track: what is known of it at the last.
        begun_ns: time of that first frame; ``None`` before.
        at_ns: time of the last frame; ``None`` before the first.
        blind: frames since the last one that told something.
        reference: spectrum that frames are compared with; ``None`` before the first.
        seen: what the last frames told, in order.
        first: the first frames, to tell when the last ones are far more blurred.
        frames: frames that told something.
        search_frames: a search of so many frames begins with the next frame.
        search_stigmation: that search sets the stigmators too.
        searched: focus was not found once, and following has gone on all the same.
    """

    home: MicroscopeState
    origin_m: float
    half_depth_m: float
    slope: float
    slope_known: bool
    begun: Track
    track: Track
    begun_ns: int | None = None
    at_ns: int | None = None
    blind: int = 0
    reference: Signature | None = None
    seen: tuple[Seen, ...] = ()
    first: tuple[Seen, ...] = ()
    frames: int = 0
    search_frames: int | None = None
    search_stigmation: bool = False
    searched: bool = False


class Return(Value, frozen=True, kw_only=True):
    """Going back to where a task began.

    Attributes:
        home: the settings to restore.
        task: what ended.
        status: how it ended.
        reason: why, for people.
        done: which of the settings were dealt with.
        straight: the way around the backlash was refused once.
        barred: why a part of the way could not be gone; empty if all could so far.
        told: what people are told instead of the reason, where that has been said already.
    """

    home: MicroscopeState
    task: Autofocus | Follow
    status: Literal["focused", "held", "failed"]
    reason: str
    done: tuple[Literal["focus", "stigmators"], ...] = ()
    straight: bool = False
    barred: str = ""
    told: str = ""


Task = Autofocus | Follow | Return


class ControlState(Value, frozen=True, kw_only=True):
    """The whole memory of control; the estimator keeps its own.

    Attributes:
        now_ns: the last tick.
        header: the last frame seen: the basis of commands.
        field: the epoch, and the settings of its first frame, with which the field in view began.
        first_sequence: earlier frames were exposed before the last command took effect.
        expected: settings as last read back, to tell when somebody else changes them; ``None``
            while the agent has no stake in them.
        unconfirmed: the last command may have moved something, and nothing was read back since, or
            something else than was commanded.
        waiting_ns: the tick since which a usable frame is waited for.
        paused: why no commands are given until the next request; empty if they are.
        proposed_m: the working distance last proposed.
        declined: the one the operator last declined, and the epoch to which that applies.
        in_focus: settings that the last autofocus left in focus; ``None`` when unknown.
        verified: the last frame of that autofocus.
        detector: of the last frame that was used; empty before.
        epoch: grows when evidence so far stops counting; the estimator is reset.
        lens_play_m: half-width of the play of the lens, where a calibration has found one.
        approached_m: the working distance that was gone to last, from below.
    """

    mode: Mode
    gate: GateStatus | None = None
    now_ns: int | None = None
    header: FrameHeader | None = None
    field: tuple[int, MicroscopeState] | None = None
    first_sequence: int = 0
    expected: MicroscopeState | None = None
    unconfirmed: bool = False
    pending: Pending | None = None
    waiting_ns: int | None = None
    task: Task | None = None
    paused: str = ""
    proposed_m: float | None = None
    declined: tuple[float, int] | None = None
    in_focus: MicroscopeState | None = None
    verified: FrameAnalysis | None = None
    detector: str = ""
    epoch: int = 0
    lens_play_m: float = 0.0
    approached_m: float | None = None

    @property
    def armed(self) -> bool:
        """Whether the gate is known to let commands through."""
        return self.gate is not None and self.gate.armed

    def can_use(self, header: FrameHeader) -> bool:
        """Whether a frame was exposed with no command of ours in between."""
        return self.pending is None and header.sequence >= self.first_sequence


# -- what control decides ---------------------------------------------------------------------


class Notice(NamedTuple):
    """An `Event` without role and time, which the control role adds."""

    kind: str
    level: Level
    message: str
    data: dict[str, Any]


class Decision(Value, frozen=True, kw_only=True):
    """What follows from an observation.

    Attributes:
        state: what to remember.
        actions: none or one command to give.
        basis: the frame the command rests on.
        events: news, in order.
        proposal: what the agent would do if it were allowed to.
        result: how an autofocus ended.
    """

    state: ControlState
    actions: tuple[MicroscopeAction, ...] = ()
    basis: Basis | None = None
    events: tuple[Notice, ...] = ()
    proposal: SetWorkingDistance | None = None
    result: FocusResult | None = None
