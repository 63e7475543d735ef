"""The values that flow between the parts: frozen, in SI units, with the unit in the name.

All but `Frame` and `Analysis`, which carry pixels, are `msgspec` structs, so that each has
exactly one encoding on the wire and on disk. Optional fields are ``None`` where an instrument
cannot say; they never hold a guess.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""A micrograph of shape (height, width), C-contiguous and read-only."""


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all values: immutable, compared by content."""


# -- what the microscope is set to ------------------------------------------------------------


class Region(Value, frozen=True, kw_only=True):
    """A part of the scan field, relative to it: 0 is the left or top edge, 1 the other."""

    left: float
    top: float
    width: float
    height: float


WHOLE_FIELD = Region(left=0.0, top=0.0, width=1.0, height=1.0)
TURNED_RAD = 1e-3
"""A scan or a stage that is turned by more shows another field."""


class Scan(Value, frozen=True, kw_only=True):
    """How a frame is scanned.

    Attributes:
        width_px: columns of the frame.
        height_px: rows of the frame.
        bit_depth: 8 or 16.
        pixel_size_m: edge of a pixel in the specimen plane.
        dwell_s: time the beam spends on a pixel.
        frame_averages: number of scans averaged into one frame.
        region: the part of the field that is scanned; ``None`` is all of it.
    """

    width_px: int
    height_px: int
    bit_depth: Literal[8, 16]
    pixel_size_m: float | None = None
    dwell_s: float | None = None
    frame_averages: int = 1
    region: Region | None = None


class Optics(Value, frozen=True, kw_only=True):
    """The electron column as *measured* when a frame was taken.

    Attributes:
        working_distance_m: distance from the pole piece to the plane the beam is focused on.
        stigmator_x: stigmator on the axes, as a fraction of its full range, -1 to 1.
        stigmator_y: stigmator at 45 degrees, as a fraction of its full range, -1 to 1.
        beam_shift_x_m: beam (image) shift along the fast scan axis.
        beam_shift_y_m: beam (image) shift along the slow scan axis.
        accelerating_voltage_v: landing energy in volts.
        beam_current_a: current on the specimen.
        convergence_angle_rad: half-angle of the beam cone.
        magnification: as the vendor reports it, for grouping settings only.
        blanked: whether the beam is kept off the specimen.
    """

    working_distance_m: float
    stigmator_x: float | None = None
    stigmator_y: float | None = None
    beam_shift_x_m: float | None = None
    beam_shift_y_m: float | None = None
    accelerating_voltage_v: float | None = None
    beam_current_a: float | None = None
    convergence_angle_rad: float | None = None
    magnification: float | None = None
    blanked: bool | None = None


FURTHEST_WORKING_DISTANCE_M = 0.2
"""No microscope has a longer one: what lies beyond was written in another unit."""


class StagePosition(Value, frozen=True, kw_only=True):
    """Where the stage is; an axis the instrument does not have or report is ``None``."""

    x_m: float | None = None
    y_m: float | None = None
    z_m: float | None = None
    rotation_rad: float | None = None
    tilt_rad: float | None = None

    def moved(self, before: "StagePosition", *axes: str) -> float:
        """Longest way along one of the named axes, in their unit; 0 along those not reported."""
        ends = ((getattr(before, axis), getattr(self, axis)) for axis in axes)
        return max((abs(now - then) for then, now in ends if None not in (then, now)), default=0.0)


class MicroscopeState(Value, frozen=True, kw_only=True):
    """Everything read back from the microscope at one moment.

    Attributes:
        settings_rev: grows when scan, beam energy, magnification or detector change; an estimate
            from frames of another revision is void.
        barred: why a gate beyond the driver, as on a microscope PC, lets no command through; empty
            where it does, or where there is none.
    """

    scan: Scan
    optics: Optics
    stage: StagePosition
    settings_rev: int
    barred: str = ""


class Capabilities(Value, frozen=True, kw_only=True):
    """What a driver's microscope can do.

    Attributes:
        driver: name of the driver's entry point.
        microscope: what the instrument calls itself.
        verified_on: the hardware this driver was run on, ``None`` if it never met its hardware.
        simulated: nothing physical moves and no specimen is exposed.
        stigmator: the stigmators can be set.
        beam_shift: the beam shift can be set.
        stage_axes: names of the stage axes that can be moved, as in `StagePosition`.
        blanker: the beam can be blanked.
        scan_control: `SetScan` works.
        repeats_frames: asking twice may return the same pixels, as a recorded stack does; the
            test for a frozen camera does not apply.
        working_distance_range_m: the range the instrument accepts, where it says so.
    """

    driver: str
    microscope: str
    verified_on: str | None
    simulated: bool = False
    stigmator: bool = False
    beam_shift: bool = False
    stage_axes: tuple[str, ...] = ()
    blanker: bool = False
    scan_control: bool = False
    repeats_frames: bool = False
    working_distance_range_m: tuple[float, float] | None = None


# -- frames -----------------------------------------------------------------------------------


class FrameFault(StrEnum):
    """What is wrong with a frame.

    The sanity checks find most; a driver may know of pixels that never came (`INCOMPLETE`), and
    of focus, stigmators, blanker, scan or beam that were changed during the exposure (`CHANGED`).
    Only the engine knows which frames are too small for it (`TOO_SMALL`); no record has that.
    """

    FROZEN = "frozen"
    INCOMPLETE = "incomplete"
    SATURATED = "saturated"
    BLANK = "blank"
    WRONG_SIZE = "wrong_size"
    STALE = "stale"
    CHANGED = "changed"
    NOT_A_NUMBER = "not_a_number"
    TOO_SMALL = "too_small"


class FrameHeader(Value, frozen=True, kw_only=True):
    """Everything known about a frame but its pixels.

    Attributes:
        sequence: counts the frames of one opened microscope, from 1, without gaps.
        monotonic_ns: end of the exposure on the acquiring machine's monotonic clock.
        wall_ns: the same moment since the Unix epoch, for people.
        detector: name of the detector.
        info_bar_px: rows at the bottom that are a burnt-in information bar, not specimen.
        source: file the frame was read from, if it was.
        faults: what the driver or the sanity checks found; a frame with faults is recorded,
            never used.
    """

    sequence: int
    monotonic_ns: int
    wall_ns: int
    detector: str
    scan: Scan
    optics: Optics
    stage: StagePosition
    settings_rev: int
    info_bar_px: int = 0
    source: str | None = None
    faults: tuple[FrameFault, ...] = ()

    @property
    def settings(self) -> MicroscopeState:
        """The settings measured along with the frame."""
        return MicroscopeState(
            scan=self.scan,
            optics=self.optics,
            stage=self.stage,
            settings_rev=self.settings_rev,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A raw frame: header and pixels of shape (height, width), uint8 or uint16.

    The constructor makes the pixels read-only; whoever made them hands them over for good.

    Raises:
        ValueError: pixels are not a C-contiguous 2-d array of uint8 or uint16.
    """

    header: FrameHeader
    pixels: Pixels

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"pixels are {pixels.dtype} of shape {pixels.shape}; "
                "a frame is (height, width) of uint8 or uint16"
            )
        if not pixels.flags.c_contiguous:
            raise ValueError("pixels are not C-contiguous")
        pixels.flags.writeable = False

    @property
    def specimen(self) -> Pixels:
        """The pixels above the information bar, shape (height - info_bar_px, width)."""
        rows = self.pixels.shape[0] - self.header.info_bar_px
        return self.pixels[: max(0, rows)]


# -- what an engine says of a frame -----------------------------------------------------------


class BlurEllipse(Value, frozen=True, kw_only=True):
    """The blur of a frame as an ellipse of standard deviations, in pixels.

    Attributes:
        major_px: standard deviation along the longer axis.
        minor_px: standard deviation along the shorter axis.
        angle_rad: direction of the longer axis from +x (fast scan) towards +y (down), in
            (-pi/2, pi/2].
        log_sigma: predicted standard deviation of the natural logarithm of the axes.
    """

    major_px: float
    minor_px: float
    angle_rad: float
    log_sigma: float


class ImageShift(Value, frozen=True, kw_only=True):
    """How far the content of a frame has moved since the first frame of its field.

    Frames with one ``reference_sequence`` can be compared: the displacement between two of them
    is the difference of their shifts.

    Attributes:
        reference_sequence: the first frame of the field.
        x_px: along the fast axis, positive to the right, in pixels.
        y_px: along the slow axis, positive downwards.
        sigma_px: standard deviation of each.
    """

    reference_sequence: int
    x_px: float
    y_px: float
    sigma_px: float


class Signature(Value, frozen=True, kw_only=True):
    """The power spectrum of a frame on the polar grid of `semagent.signature`.

    Attributes:
        tile_px: edge of the tiles it was taken with, which fixes where the bins are.
        pixels: number of independent pixels it was taken from.
        log_power: natural logarithm of the mean power in each bin, 0 where a bin is empty.
        log_noise: the same of the part of it that is noise.
    """

    tile_px: int
    pixels: float
    log_power: tuple[float, ...]
    log_noise: tuple[float, ...]


class Grid(Value, frozen=True, kw_only=True):
    """A map over a frame's specimen, in even parts.

    Attributes:
        rows: parts from top to bottom.
        columns: parts from left to right.
        values: row by row; several a part where there are ``len(values) > rows * columns``.
    """

    rows: int
    columns: int
    values: tuple[float, ...]


class FrameAnalysis(Value, frozen=True, kw_only=True):
    """What an engine says of one frame, and where in its field it lies.

    Attributes:
        header: the header of the analysed frame.
        engine: name of the engine and, where it has one, of its measure or artefact.
        focus_score: in [0, 1], 1 is sharp; comparable between frames of one field. Low also where
            there is nothing to see.
        sharpness: natural logarithm of the engine's focus measure: an interval scale, on which
            differences between frames of one field mean the same at any contrast.
        sharpness_sigma: standard deviation of ``sharpness`` from noise alone.
        structure: variance of the specimen's structure over the variance of the noise in the
            band the engine looks at; below about 1 there is nothing to focus on.
        noise: standard deviation of the noise as a fraction of the full grey scale.
        blur: the blur ellipse, ``None`` where the frame does not carry it.
        expert_weights: share of each expert of a mixture-of-experts model.
        consistency: reduced chi-square of the re-blurred restoration against the raw frame.
        consistency_map: the same, part by part.
        expert_map: shares of the experts, part by part.
        signature: the power spectrum that focus is estimated from; `semagent.signature` takes
            it from the frame where an engine leaves it ``None``.
        latency_s: time the engine took.
        shift: displacement of the frame; ``None`` where registration cannot tell.
    """

    header: FrameHeader
    engine: str
    focus_score: float
    sharpness: float
    sharpness_sigma: float
    structure: float
    noise: float
    latency_s: float
    blur: BlurEllipse | None = None
    expert_weights: tuple[float, ...] | None = None
    consistency: float | None = None
    consistency_map: Grid | None = None
    expert_map: Grid | None = None
    shift: ImageShift | None = None
    signature: Signature | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to see in the frame, or it is not fit for use."""
        return bool(self.header.faults) or self.structure < LEAST_STRUCTURE

    @property
    def trustworthy(self) -> bool | None:
        """Whether the restoration explains what is in the frame; ``None`` without a restoration.

        Above `CONSISTENT` it left out or invented something, below it took noise for structure.
        What is smooth explains noise and blank frames well, so of an empty one nothing is vouched.
        """
        if self.consistency is None:
            return None
        low, high = CONSISTENT
        return not self.empty and low <= self.consistency <= high


LEAST_STRUCTURE = 0.45
"""Structure over noise below which there is nothing to see in a single frame."""

CONSISTENT = (0.7, 1.3)
"""Reduced chi-squares at which a restoration may be called good. Of the simulated frames of
micrographs that were never trained on, 80 % lie between 0.88 and 1.07 (docs/model-card.md)."""


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """An engine's result: the figures and, if it restores, the restored pixels.

    ``restored`` has the shape, dtype and grey scale of the raw pixels. It is derived data and
    never takes their place.
    """

    figures: FrameAnalysis
    restored: Pixels | None = None


class FocusMode(Value, frozen=True, kw_only=True):
    """One place where focus may be: a normal distribution of working distances.

    Attributes:
        weight: probability that focus is there.
        focus_m: its mean.
        sigma_m: its standard deviation.
    """

    weight: float
    focus_m: float
    sigma_m: float


class FocusBelief(Value, frozen=True, kw_only=True):
    """What the frames so far say about where focus is.

    Attributes:
        sequence: the last frame the belief rests on.
        settings_rev: settings under which it holds.
        frames: number of frames it rests on.
        focus_m: posterior mean of the working distance that focuses this field.
        sigma_m: posterior standard deviation of ``focus_m``.
        interval90_m: central 90 % credible interval.
        astigmatism_m: (a1, a2) that is left: half the difference of the working distances that
            focus two directions at right angles.
        astigmatism_sigma_m: standard deviation of each.
        stigmator_correction: change of (stigmator_x, stigmator_y) from those of the last frame
            that removes astigmatism; ``None`` where it is not known what the stigmators do.
        stigmator_sigma: standard deviation of each.
        log_odds: natural logarithm of the odds that there is a focus in the range at all,
            against a field whose sharpness does not depend on the working distance.
        motion_m: how far focus itself moves from frame to frame, if it moves at all.
        motion_log_odds: natural logarithm of the odds that it does, against a specimen at rest;
            0 as long as focus is not known well enough to ask.
        modes: the posterior as a mixture, the likeliest first: two frames often leave two
            places, mirror images of each other.

    ``focus_m``, ``sigma_m`` and ``interval90_m`` are ``None`` as long as nothing is known.
    """

    sequence: int
    settings_rev: int
    frames: int
    focus_m: float | None = None
    sigma_m: float | None = None
    interval90_m: tuple[float, float] | None = None
    astigmatism_m: tuple[float, float] | None = None
    astigmatism_sigma_m: tuple[float, float] | None = None
    stigmator_correction: tuple[float, float] | None = None
    stigmator_sigma: tuple[float, float] | None = None
    log_odds: float = 0.0
    motion_m: float = 0.0
    motion_log_odds: float = 0.0
    modes: tuple[FocusMode, ...] = ()

    @property
    def mixture(self) -> tuple[FocusMode, ...]:
        """The modes; where none are recorded, a bell of mean and standard deviation."""
        if self.modes or self.focus_m is None or self.sigma_m is None:
            return self.modes
        return (FocusMode(weight=1.0, focus_m=self.focus_m, sigma_m=self.sigma_m),)

    def below(self, place_m: float) -> float:
        """Probability that focus is below a working distance; 0 as long as nothing is known."""
        return sum(
            mode.weight * 0.5 * math.erfc((mode.focus_m - place_m) / (mode.sigma_m * math.sqrt(2)))
            for mode in self.mixture
        )


# -- commands ---------------------------------------------------------------------------------


class SetWorkingDistance(Value, frozen=True, kw_only=True, tag="set_working_distance"):
    """Focus on the plane this far below the pole piece."""

    working_distance_m: float


class SetStigmator(Value, frozen=True, kw_only=True, tag="set_stigmator"):
    """Set both stigmators, as fractions of their full range, -1 to 1."""

    x: float
    y: float


class SetBeamShift(Value, frozen=True, kw_only=True, tag="set_beam_shift"):
    """Shift the beam, and so the image, without moving the stage."""

    x_m: float
    y_m: float


class MoveStage(Value, frozen=True, kw_only=True, tag="move_stage"):
    """Move the named axes to absolute positions; axes left ``None`` stay where they are."""

    x_m: float | None = None
    y_m: float | None = None
    z_m: float | None = None
    rotation_rad: float | None = None
    tilt_rad: float | None = None


class SetScan(Value, frozen=True, kw_only=True, tag="set_scan"):
    """Change how the next frames are scanned; fields left ``None`` stay as they are."""

    dwell_s: float | None = None
    frame_averages: int | None = None
    region: Region | None = None


class SetBlanked(Value, frozen=True, kw_only=True, tag="set_blanked"):
    """Keep the beam off the specimen, or let it on."""

    blanked: bool


class Stop(Value, frozen=True, kw_only=True, tag="stop"):
    """End what is going on at once, and disarm. Always passes the gate."""


MicroscopeAction = (
    SetWorkingDistance | SetStigmator | SetBeamShift | MoveStage | SetScan | SetBlanked
)
"""What a driver's ``apply`` takes."""


class Arm(Value, frozen=True, kw_only=True, tag="arm"):
    """Let commands through the gate. Only a person may send it."""


class Disarm(Value, frozen=True, kw_only=True, tag="disarm"):
    """Refuse every further command until a person arms again."""

    reason: str


Action = MicroscopeAction | Stop | Arm | Disarm
"""Everything that can be asked of the acquire role: a closed union."""


class Issuer(StrEnum):
    """Who asks; the operator beats the agent."""

    AGENT = "agent"
    OPERATOR = "operator"


class Basis(Value, frozen=True, kw_only=True):
    """The evidence a command rests on."""

    sequence: int
    settings_rev: int


class Command(Value, frozen=True, kw_only=True):
    """A request to the acquire role.

    Attributes:
        id: unique in a run; the reply carries it.
        basis: the frame the decision rests on; required of the agent.
        expires_ns: moment on the acquiring machine's monotonic clock after which the command
            is void, taken from the stamp of the basis frame.
    """

    id: str
    issuer: Issuer
    action: Action
    basis: Basis | None = None
    expires_ns: int | None = None


class Outcome(StrEnum):
    """What became of a command."""

    APPLIED = "applied"
    REFUSED = "refused"
    FAILED = "failed"


class Reply(Value, frozen=True, kw_only=True):
    """The answer to a command, with what was read back.

    Attributes:
        command: the command this answers.
        code: short fixed word for a refusal or failure, empty if applied.
        reason: sentence for people with value, unit, limit and what to do.
        state: what was read back after the action; ``None`` if that failed too.
        next_sequence: the first frame exposed after the action was complete.
    """

    command: Command
    outcome: Outcome
    monotonic_ns: int
    next_sequence: int
    code: str = ""
    reason: str = ""
    state: MicroscopeState | None = None


class GateStatus(Value, frozen=True, kw_only=True):
    """The safety gate as people see it.

    Attributes:
        code: fixed word for why it has disarmed itself, `semagent.safety.Code`; empty while it is
            armed, and where it was told to disarm.
    """

    armed: bool
    reason: str
    monotonic_ns: int
    code: str = ""
    refused: int = 0
    applied: int = 0


# -- control ----------------------------------------------------------------------------------


class Mode(StrEnum):
    """How much the agent may do by itself."""

    OBSERVE = "observe"
    ADVISE = "advise"
    HOLD = "hold"


class SetMode(Value, frozen=True, kw_only=True, tag="set_mode"):
    """Change the agent's mode."""

    mode: Mode


class StartAutofocus(Value, frozen=True, kw_only=True, tag="start_autofocus"):
    """Focus once, from where the microscope is now."""

    max_frames: int | None = None
    stigmation: bool = True


class Cancel(Value, frozen=True, kw_only=True, tag="cancel"):
    """Give up what is going on and put focus and stigmators back.

    Attributes:
        planned: the run ends as was asked for when it began: from here on control only watches.
    """

    reason: str = "cancelled by the operator"
    planned: bool = False


class Decline(Value, frozen=True, kw_only=True, tag="decline"):
    """Do not propose this working distance, or one as good, for this field again."""

    working_distance_m: float


class Note(Value, frozen=True, kw_only=True, tag="note"):
    """A remark of the operator for the record."""

    text: str


Request = SetMode | StartAutofocus | Cancel | Decline | Note
"""Everything that can be asked of the control role."""


class Intent(Value, frozen=True, kw_only=True):
    """What control is doing, why, and what it would do if it were allowed to.

    Attributes:
        mode: how much it may do by itself.
        doing: one word for what is going on.
        why: sentence for people: what it is waiting for or working on.
        frames: frames the task that is going on has used, ``None`` if there is no task.
        max_frames: frames it may use.
        moves: commands it has had carried out.
        target_m: working distance of the command that is on its way.
        proposal_m: working distance it proposes and does not go to.
        basis: the frame the proposal rests on.
    """

    mode: Mode
    doing: Literal["watching", "focusing", "holding", "returning", "paused"]
    why: str
    frames: int | None = None
    max_frames: int | None = None
    moves: int | None = None
    target_m: float | None = None
    proposal_m: float | None = None
    basis: Basis | None = None


class FocusResult(Value, frozen=True, kw_only=True):
    """How one autofocus ended.

    Attributes:
        status: ``held`` and ``failed`` are back at the start, or say in the reason why not.
        reason: sentence for people.
        astigmatism_open: there is structure along one direction only, which does not tell focus
            from astigmatism. If it is focused all the same, what shows is as sharp as it can be.
        start_working_distance_m: where it began.
        final_working_distance_m: where the microscope was left.
        sigma_m: standard deviation of focus as last believed; ``None`` when nothing was.
        frames_used: frames it took, unusable ones included.
        moves: commands that were carried out.
        engine: name of the engine; empty when no frame was analysed.
    """

    status: Literal["focused", "held", "failed"]
    reason: str
    astigmatism_open: bool = False
    start_working_distance_m: float
    final_working_distance_m: float
    sigma_m: float | None
    frames_used: int
    moves: int
    engine: str

    @property
    def verified(self) -> bool:
        """Whether it is in focus to within half a depth of field, as a frame there agrees."""
        return self.status == "focused" and not self.astigmatism_open


HeardKind = Literal["analysis", "flagged", "gate", "reply", "request", "tick"]


class Heard(Value, frozen=True, kw_only=True):
    """What the control role took up, in its order: enough to run it again and compare.

    Attributes:
        kind: what it was.
        key: where to find it in the record: the sequence of a frame, the id of a command, the
            number among the requests, the stamp of a gate status.
        tick_ns: what time control knew it was; 0 if it had not looked yet.
    """

    kind: HeardKind
    key: int | str
    tick_ns: int


# -- news and liveness ------------------------------------------------------------------------


class Level(StrEnum):
    """How much an event matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Event(Value, frozen=True, kw_only=True):
    """Something that happened.

    Attributes:
        kind: short fixed word, e.g. ``frame_flagged``.
        role: who says so.
        message: sentence for people.
        data: details for programs.
    """

    kind: str
    role: str
    message: str
    monotonic_ns: int
    wall_ns: int
    level: Level = Level.INFO
    data: dict[str, Any] = {}

    @property
    def flagged(self) -> FrameHeader | None:
        """Header of the frame that is said not to be fit for use; ``None`` in any other event."""
        if self.kind != FRAME_FLAGGED:
            return None
        return msgspec.convert(self.data["header"], FrameHeader)


FRAME_FLAGGED = "frame_flagged"
"""Kind of the event that says so of a frame, with its header in ``data``."""


class Heartbeat(Value, frozen=True, kw_only=True):
    """A sign of life.

    Attributes:
        busy_since_ns: start of the call that is going on, ``None`` when idle: finds a vendor
            call or a kernel that hangs while the process lives.
        processed: frames this role has dealt with.
        skipped: frames it did not look at because newer ones had come.
        missing: messages that were sent to it and never came.
        refused: messages that could not be read, or of another wire version.
        rss_bytes: resident memory of the process.
    """

    role: str
    monotonic_ns: int
    busy_since_ns: int | None = None
    processed: int = 0
    skipped: int = 0
    missing: int = 0
    refused: int = 0
    rss_bytes: int = 0
