"""Recorded stacks as a microscope: the settings under which one is focused."""

import itertools
import math
from collections.abc import Sequence
from typing import Protocol, cast

from semagent.config import Part, RunConfig
from semagent.control import ControlOptions
from semagent.control.options import AutofocusOptions, EstimatorOptions, ScaleOptions
from semagent.errors import InputFileError
from semagent.lengths import show_length
from semagent.ports import Microscope
from semagent.safety import AxisLimits, Envelope, ReadbackTolerance
from semagent.types import FURTHEST_WORKING_DISTANCE_M, Frame

_MOST_STEPS = 40  # steps of the search that a stack is long; finer ones show no difference
_LEAST_DEPTHS = 8  # half depths of field that a stack is long, if it shows any blur


class StackEntry(Protocol):
    """What the core needs to know of one recorded frame."""

    @property
    def working_distance_m(self) -> float:
        """Where it was taken."""
        ...

    @property
    def source(self) -> str:
        """The file it comes from."""
        ...


class _Stack(Protocol):
    @property
    def entries(self) -> Sequence[StackEntry]: ...


class RecordedMicroscope(Microscope, Protocol):
    """A microscope whose frames can also be had one by one, without moving."""

    @property
    def stack(self) -> _Stack:
        """The recorded frames."""
        ...

    def frame(self, index: int) -> Frame:
        """The frame of ``stack.entries[index]``."""
        ...


def as_recorded(microscope: Microscope) -> RecordedMicroscope:
    """The microscope as one whose frames can be had one by one.

    Raises:
        InputFileError: it is not a recorded stack.
    """
    if not microscope.capabilities.repeats_frames or not hasattr(microscope, "stack"):
        raise InputFileError(f"{microscope.capabilities.microscope} is not a recorded stack")
    return cast(RecordedMicroscope, microscope)


def config_for_stack(microscope: RecordedMicroscope, engine: Part) -> RunConfig:
    """The configuration under which a recorded stack is focused.

    Nothing can be harmed here, so the envelope is the stack's own range.
    """
    distances_m = sorted({entry.working_distance_m for entry in microscope.stack.entries})
    gaps_m = [high - low for low, high in itertools.pairwise(distances_m)]
    span_m = distances_m[-1] - distances_m[0]
    widest_m, typical_m = max(gaps_m), sorted(gaps_m)[len(gaps_m) // 2]
    focus = AxisLimits(
        min=max(distances_m[0] - widest_m, -FURTHEST_WORKING_DISTANCE_M),
        max=min(distances_m[-1] + widest_m, FURTHEST_WORKING_DISTANCE_M),
        max_step=span_m + 2 * widest_m,
        max_travel=1e6 * span_m,
    )
    stigmator = AxisLimits(min=-1.0, max=1.0, max_step=2.0, max_travel=1e6)
    return RunConfig(
        semagent=1,
        instrument=microscope.capabilities.microscope,
        driver=Part(name="recorded"),
        engine=engine,
        safety=Envelope(
            specimen_holder="none: recorded frames",
            working_distance_m=focus,
            stigmator=stigmator if microscope.capabilities.stigmator else None,
            beam_shift_m=None,
            stage_x_m=None,
            stage_y_m=None,
            stage_z_m=None,
            stage_rotation_rad=None,
            stage_tilt_rad=None,
            scan=None,
            allow_unblank=False,
            keep_out=(),
            travel_window_s=60.0,
            max_evidence_age_s=600.0,
            operator_hold_s=0.0,
            heartbeat_timeout_s=60.0,
            # What is read back is the nearest recorded frame, half a step away at most.
            readback_tolerance=ReadbackTolerance(
                working_distance_m=min(widest_m, FURTHEST_WORKING_DISTANCE_M),
                stigmator=1.0,
                beam_shift_m=0.0,
                stage_x_m=0.01,
                stage_y_m=0.01,
                stage_z_m=0.01,
                stage_rotation_rad=0.05,
                stage_tilt_rad=0.05,
                dwell_s=0.0,
                region=0.0,
            ),
        ),
        control=_control(microscope, typical_m, span_m),
    )


def without_scale(microscope: RecordedMicroscope, config: RunConfig) -> str:
    """What the frames do not carry and focusing would need, for people; empty if nothing."""
    unit_m = config.control.scale.half_depth_m
    if microscope.read_state().scan.pixel_size_m or unit_m is None:
        return ""
    return (
        f"the stack carries no pixel size, so {show_length(unit_m)} had to stand for half a depth "
        "of field: give pixel_size_nm in stack.csv, or PhysicalSizeX in an OME-TIFF"
    )


def _control(microscope: RecordedMicroscope, step_m: float, span_m: float) -> ControlOptions:
    """How focus is looked for in a stack of this step and length.

    Where the frames carry no pixel size, the step stands for half a depth of field, unless there
    are very many, and the blur for each step is the less certain the more there are. Focus is
    expected, and looked for, by the step of the stack, however few or many depths of field it
    spans, and beside an estimate by no less than a step.
    """
    scale, estimator, search = ScaleOptions(), EstimatorOptions(), AutofocusOptions()
    fine_m = max(step_m, span_m / _MOST_STEPS)
    slope_sigma = estimator.unknown_slope_sigma
    state = microscope.read_state()
    if state.scan.pixel_size_m:
        unit_m = scale.half_depth_of(state)
    else:
        unit_m = fine_m
        slope_sigma = max(slope_sigma, math.log(span_m / unit_m / _LEAST_DEPTHS))
    step = fine_m / unit_m
    return ControlOptions(
        scale=ScaleOptions(half_depth_m=unit_m),
        estimator=EstimatorOptions(
            prior_half_range=step * estimator.prior_half_range, unknown_slope_sigma=slope_sigma
        ),
        autofocus=AutofocusOptions(
            range_half_depths=max(1.0, step) * search.range_half_depths,
            fine_step=max(step, min(1.0, step) * search.fine_step),
        ),
    )
