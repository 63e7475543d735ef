"""What a user may set about focusing, with units, meanings and defaults.

Lengths that scale with the optics are given in *half depths of field*: the defocus p/alpha at
which the blur disc of a beam of half-angle alpha grows to two pixels of size p. One set of
defaults then serves 2 nm and 100 nm pixels alike.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import msgspec

from semagent.options import Count, Finite, Metres, NotNegative, Options, Positive
from semagent.types import LEAST_STRUCTURE, FrameHeader, MicroscopeState, Mode

USUAL_SLOPE = 0.5
"""Blur in pixels per half depth of field, where half a depth of field is p/alpha."""

_PLAYS = 3.0  # half-widths of the play of the lens that an approach takes up surely
_START_FRAMES_AT_MOST = 3  # times ``start_frames``


class ScaleOptions(Options, frozen=True, kw_only=True):
    """How long half a depth of field is.

    Attributes:
        half_depth_m: half depth of field in metres, where it is known better than from the
            frame's pixel size and convergence angle; ``None`` derives it.
        assumed_convergence_angle_rad: half-angle taken where the instrument reports none, and
            none is remembered of it.
        assumed_half_depth_m: taken where the frame carries no pixel size either (2 µm is 10 nm
            pixels at 5 mrad).
    """

    half_depth_m: Metres | None = None
    assumed_convergence_angle_rad: Annotated[float, msgspec.Meta(gt=0, le=1)] = 5e-3
    assumed_half_depth_m: Metres = 2e-6

    def half_depth_of(self, frame: FrameHeader | MicroscopeState) -> float:
        """Half the depth of field of a frame, p/alpha, in metres."""
        if self.half_depth_m is not None:
            return self.half_depth_m
        pixel_size_m = frame.scan.pixel_size_m
        if not pixel_size_m:
            return self.assumed_half_depth_m
        angle_rad = frame.optics.convergence_angle_rad or self.assumed_convergence_angle_rad
        return pixel_size_m / angle_rad

    def slope_of(self, frame: FrameHeader) -> float | None:
        """Blur in pixels per half depth of field; ``None`` where the frame does not tell."""
        pixel_size_m, angle_rad = frame.scan.pixel_size_m, frame.optics.convergence_angle_rad
        if not (pixel_size_m and angle_rad):
            return None
        return angle_rad / (2 * pixel_size_m) * self.half_depth_of(frame)


class EstimatorOptions(Options, frozen=True, kw_only=True):
    """What the estimator assumes before it has seen anything.

    Attributes:
        prior_half_range: standard deviation, in half depths of field, of where focus is expected
            around the first frame.
        astigmatism: the same of the two components of astigmatism.
        slope_sigma: relative error of the blur per defocus that pixel size and convergence angle
            of the frame give.
        unknown_slope_sigma: the same where the frame does not carry them.
        aging_per_frame: standard deviation of the log power that a frame's evidence gains with
            every later frame, because specimens drift and contaminate.
        memory_frames: places kept; frames taken at the same place are averaged.
    """

    prior_half_range: Positive = 40.0
    astigmatism: Positive = 2.0
    slope_sigma: Positive = 0.1
    unknown_slope_sigma: Positive = 0.7
    aging_per_frame: NotNegative = 0.004
    memory_frames: Annotated[int, msgspec.Meta(ge=3, le=32)] = 8


class AutofocusOptions(Options, frozen=True, kw_only=True):
    """The one-shot search.

    Attributes:
        max_frames: frames one autofocus may use, the verifying one included.
        max_dose_e_nm2: electrons a square nanometre that one autofocus may cost the field, the
            verifying frame included; it stops before an exposure that would exceed it. Needs a
            microscope that reports beam current, dwell time and pixel size. ``None`` is no limit.
        range_m: half-width in metres of the range searched around the start, and never left;
            ``None`` takes ``range_half_depths``.
        range_half_depths: the same in half depths of field.
        fine_step: distance, in half depths of field, of the frames left and right of the
            estimate that pin it down.
        finest_step_m: steps finer than this are not asked for, and focus is not claimed to be
            known better; 0 leaves it to the depth of field.
        approach: distance in half depths of field by which moves that would arrive from above
            go too far and come back, so that every frame of the search, and the final point,
            are reached from below: lenses have hysteresis. Where a calibration has found that a
            lens needs more, moves go further, and a search begins by such a move. 0 moves directly.
        max_step_m: longest single move in metres; longer ones are made in several commands.
            Set it below the step limit of the safety envelope. ``None`` is no limit.
        stigmator_range: lowest and highest value either stigmator is set to, as a fraction of
            its full range; ``None`` leaves them alone.
        max_stigmator_step: longest single move of a stigmator; ``None`` is no limit.
        probe_stigmator: by how much a stigmator is changed, as a fraction of its full range, to
            learn what it does where there is no calibration, down to half of it where the limits
            ask for that; 0 leaves them alone then.
        min_structure: `FrameAnalysis.structure` below which there is nothing to focus on; the mean
            of n frames at the start needs this over the square root of n. Noise reaches 0.25.
        start_frames: frames at the start that have to agree that there is nothing. Where so faint
            a structure may show in up to three times as many, these are taken first.
        blind_search: look for focus even where the frames at the start show nothing: far from focus
            a faint specimen does not show. Where there is none, that costs up to ``max_frames``
            frames, and focus goes and comes back.
        significance: standard deviations by which focus has to be off for advice or a correction
            of mode hold.
        scatter: standard deviation of log sharpness between frames of one field at one focus
            beyond the noise the engine states: drift, charging, brightness.
        min_log_odds: logarithm of the odds that blur depends on the working distance, against
            a beam that it does not change, that an estimate needs to be believed.
        confidence: probability of being nearer to focus than the start was, at which a result is
            kept.
        max_flagged: frames in a row that may be unusable before the search gives up.
    """

    max_frames: Annotated[int, msgspec.Meta(ge=4)] = 16
    max_dose_e_nm2: Positive | None = None
    range_m: Metres | None = None
    range_half_depths: Positive = 120.0
    fine_step: Positive = 4.0
    finest_step_m: NotNegative = 0.0
    approach: NotNegative = 4.0
    max_step_m: Metres | None = None
    stigmator_range: tuple[float, float] | None = (-1.0, 1.0)
    max_stigmator_step: Positive | None = None
    probe_stigmator: NotNegative = 0.15
    min_structure: NotNegative = LEAST_STRUCTURE
    start_frames: Count = 3
    blind_search: bool = False
    significance: Positive = 2.0
    scatter: NotNegative = 0.01
    min_log_odds: Finite = 3.0
    confidence: Annotated[float, msgspec.Meta(gt=0.5, lt=1)] = 0.95
    max_flagged: Count = 5

    def approach_m(self, unit_m: float, play_m: float) -> float:
        """How far moves that would arrive from above go too far, with a play that is known."""
        return max(self.approach * unit_m, _PLAYS * play_m) if self.approach else 0.0

    def shows_structure(self, structures: Sequence[float]) -> bool:
        """Whether frames show a specimen: what several agree on may be fainter."""
        return sum(structures) / math.sqrt(len(structures)) >= self.min_structure

    def may_show_structure(self, structures: Sequence[float]) -> bool:
        """Whether more frames may show a specimen that these frames do not show yet."""
        count = len(structures)
        mean, most = sum(structures) / count, _START_FRAMES_AT_MOST * self.start_frames
        return count < self.start_frames or mean * math.sqrt(most) >= self.min_structure


class HoldOptions(Options, frozen=True, kw_only=True):
    """Following a specimen that drifts.

    Lengths are in half depths of field.

    Attributes:
        follow: follow in mode hold; ``False`` moves only for an autofocus that is asked for.
        dither: furthest that a frame is taken beside focus, to tell which way focus moves, but
            for one after a jump. 0 leaves it to chance and astigmatism.
        drift: standard deviation of the drift that is expected, for each frame.
        max_sigma: standard deviation of focus beyond which it is looked for again.
        search_frames: frames such a search may use before it gives up.
    """

    follow: bool = True
    dither: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.45
    drift: Positive = 0.1
    max_sigma: Positive = 1.2
    search_frames: Annotated[int, msgspec.Meta(ge=4)] = 12


class DeadlineOptions(Options, frozen=True, kw_only=True):
    """How long anything is waited for, in seconds.

    Attributes:
        reply_s: for the answer to a command.
        frame_s: for a usable frame while a task waits for one; above the longest scan.
        task_s: for a whole autofocus.
    """

    reply_s: Positive = 15.0
    frame_s: Positive = 60.0
    task_s: Positive = 900.0


class OperatorOptions(Options, frozen=True, kw_only=True):
    """When a change counts as made by somebody at the microscope.

    Attributes:
        working_distance_half_depths: change of the measured working distance, in half depths
            of field.
        stigmator: change of a measured stigmator, as a fraction of its range.
        field_fraction: stage travel as a fraction of the width of the field.
    """

    working_distance_half_depths: Positive = 0.5
    stigmator: Positive = 0.01
    field_fraction: Positive = 0.25


class DriftOptions(Options, frozen=True, kw_only=True):
    """Keeping the picture where it is, by beam shift and stage.

    Attributes:
        correct: do it, in mode hold; in mode advise only say how far the picture has drifted.
        deadband: smallest displacement that is corrected, as a fraction of the width of the field.
        average_frames: frames the drift is averaged over.
        stage: let the stage take over where the beam shift has no range left.
    """

    correct: bool = False
    deadband: Positive = 0.01
    average_frames: Count = 3
    stage: bool = False


class ControlOptions(Options, frozen=True, kw_only=True):
    """The section ``control`` of a configuration.

    Attributes:
        mode: what the agent may do when it starts.
    """

    mode: Mode = Mode.OBSERVE
    scale: ScaleOptions = ScaleOptions()
    estimator: EstimatorOptions = EstimatorOptions()
    autofocus: AutofocusOptions = AutofocusOptions()
    hold: HoldOptions = HoldOptions()
    deadlines: DeadlineOptions = DeadlineOptions()
    operator: OperatorOptions = OperatorOptions()
    drift: DriftOptions = DriftOptions()
