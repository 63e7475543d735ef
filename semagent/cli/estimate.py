"""``estimate``: where focus is, from recorded frames only."""

import math
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec

from semagent import registry
from semagent.cli import exits
from semagent.cli.images import analyse_file, faults_of
from semagent.cli.output import Output, counted
from semagent.clock import Clock, SystemClock
from semagent.config import Part
from semagent.control import SpectralEstimator
from semagent.control.options import ControlOptions, EstimatorOptions
from semagent.errors import UsageError
from semagent.lengths import show_distance, show_length
from semagent.parts import make_writer
from semagent.ports import Engine
from semagent.report.story import ESTIMATED
from semagent.sanity import SanityOptions
from semagent.session import SessionWriter
from semagent.signature import with_signature
from semagent.stack import as_recorded, config_for_stack, without_scale
from semagent.types import Event, FocusBelief, Frame, FrameAnalysis


def estimate(
    stack: str, *, frames: list[int] | None, engine: str, record: Path | None, output: Output
) -> int:
    """Say where focus is from some frames of a stack only and return the exit code."""
    clock = SystemClock()
    with ExitStack() as opened:
        microscope = as_recorded(
            registry.open_microscope("recorded", {"stack": stack}, clock=clock)
        )
        opened.callback(microscope.close)
        entries = microscope.stack.entries
        wanted = _wanted(frames, len(entries), stack)
        config = config_for_stack(microscope, Part(name=engine))
        lacks = without_scale(microscope, config)
        looks = opened.enter_context(closing(registry.open_engine(config.engine.name, {})))
        writer = None
        if record is not None:
            capabilities = microscope.capabilities
            writer = make_writer(record, config, capabilities, looks.name, clock)
            opened.enter_context(writer)
        estimator = SpectralEstimator(config.control.estimator, config.control.scale)
        used: list[FrameAnalysis] = []
        belief: FocusBelief | None = None
        with output.track(wanted, len(wanted), "reading frames") as tracked:
            for index in tracked:
                figures = _look(looks, microscope.frame(index), config.sanity, writer, output)
                if figures is None:
                    continue
                used.append(figures)
                belief = estimator.update(figures)
                if writer is not None:
                    writer.write_value("belief", belief, figures.header.monotonic_ns)
        distances_m = [entry.working_distance_m for entry in entries]
        span_m = max(distances_m) - min(distances_m)
        pixel_size_m = microscope.read_state().scan.pixel_size_m
        silent = _silent(used, belief, span_m, pixel_size_m, config.control)
        if silent:
            belief = None
        sentence = (
            f"held: these frames do not say where focus is: {silent}"
            if belief is None
            else _sentence(belief, len(used))
        )
        if writer is not None:
            _note(writer, sentence, clock)
    output.record(
        {
            "focus_working_distance_m": belief and belief.focus_m,
            "sigma_m": belief and belief.sigma_m,
            "interval90_m": belief and belief.interval90_m,
            "stigmator_correction": belief and belief.stigmator_correction,
            "frames": [figures.header.source for figures in used],
            "engine": looks.name,
        }
    )
    output.say(sentence)
    if record is not None:
        output.say(f"recorded in {record}")
    if belief is None and lacks:
        output.warn(lacks)
    return exits.HELD if belief is None else exits.DONE


def _look(
    engine: Engine,
    frame: Frame,
    options: SanityOptions,
    writer: SessionWriter | None,
    output: Output,
) -> FrameAnalysis | None:
    """What is seen in a frame; ``None`` if it is not fit for use. Both are recorded."""
    faults = faults_of(frame, options)
    if writer is not None:
        header = msgspec.structs.replace(frame.header, faults=faults)
        writer.write_frame(Frame(header, frame.pixels))
    if faults:
        output.warn(f"{frame.header.source}: not fit for use: {', '.join(faults)}")
        return None
    figures = with_signature(analyse_file(engine, frame), frame).figures
    if writer is not None:
        writer.write_value("analysis", figures, frame.header.monotonic_ns)
    return figures


def _sentence(belief: FocusBelief, count: int) -> str:
    low_m, high_m = belief.interval90_m or (None, None)
    return (
        f"focus at {show_distance(belief.focus_m)} ± {show_length(belief.sigma_m)} "
        f"(90 % within {show_distance(low_m)} to {show_distance(high_m)}) from {count} frames"
    )


def _note(writer: SessionWriter, sentence: str, clock: Clock) -> None:
    now_ns = clock.monotonic_ns()
    event = Event(
        kind=ESTIMATED,
        role="estimate",
        message=sentence,
        monotonic_ns=now_ns,
        wall_ns=clock.wall_ns(),
    )
    writer.write_value("event", event, now_ns)


def _wanted(frames: list[int] | None, count: int, stack: str) -> list[int]:
    """Which frames of a stack are asked for.

    Raises:
        UsageError: they are too few, one is not there, or one is named twice.
    """
    if frames is None:
        return list(range(count))
    if len(frames) < 2:
        raise UsageError("--frames: two frames or more are needed to tell where focus is")
    for index in frames:
        if not 0 <= index < count:
            raise UsageError(f"--frames: there is no frame {index}; {stack} has 0 to {count - 1}")
        if frames.count(index) > 1:
            raise UsageError(f"--frames: {index} is there twice; a frame counts once")
    return frames


def _silent(
    used: list[FrameAnalysis],
    belief: FocusBelief | None,
    span_m: float,
    pixel_size_m: float | None,
    options: ControlOptions,
) -> str:
    """Why the frames do not say where focus is, by what an autofocus asks for; empty if they do.

    They have to show a specimen, whose blur depends on the working distance, and to leave focus
    no more open than it was before anybody looked: somewhere in the stack, and by what their
    pixel size says of the blur.
    """
    if belief is None or len(used) < 2:
        return f"{counted(len(used), 'frame')} can be used, two are needed"
    if not options.autofocus.shows_structure([figures.structure for figures in used]):
        return "there is nothing in them to focus on"
    unit_m, sigma_m = options.scale.half_depth_m or 0.0, belief.sigma_m or 0.0
    scale = (
        ""
        if pixel_size_m is None
        else (
            f"; by their pixel size of {pixel_size_m * 1e9:g} nm half a depth of field is "
            f"{show_length(unit_m)}: is that right?"
        )
    )
    if belief.log_odds < options.autofocus.min_log_odds:
        blind = "their blur does not depend on the working distance"
        return blind + scale if span_m < unit_m else blind
    low_m, high_m = belief.interval90_m or (-math.inf, math.inf)
    if high_m - low_m > span_m:
        return (
            f"it may be anywhere within more than the {show_length(span_m)} of the stack; take "
            "frames further apart"
        )
    if scale and sigma_m > EstimatorOptions().prior_half_range * unit_m:
        return f"they leave it uncertain by {show_length(sigma_m)}{scale}"
    return ""
