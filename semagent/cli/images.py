"""``score``, ``estimate`` and ``restore``: what can be said of images on disk."""

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tifffile
from rich.progress import track

from semagent import __version__, registry
from semagent.cli import exits
from semagent.cli.output import Output, metres
from semagent.clock import SystemClock
from semagent.config import Part, RunConfig
from semagent.control import SpectralEstimator
from semagent.control.options import AutofocusOptions
from semagent.ellipse import joint_ellipse
from semagent.errors import EngineError, FrameTooSmallError, InputFileError, UsageError
from semagent.images import ImageFile, read_detectors
from semagent.ports import Engine
from semagent.sanity import FrameChecker, SanityOptions
from semagent.signature import with_signature
from semagent.stack import RecordedMicroscope, as_recorded, config_for_stack, without_scale
from semagent.types import (
    CONSISTENT,
    Analysis,
    BlurEllipse,
    FocusBelief,
    Frame,
    FrameAnalysis,
    FrameFault,
    FrameHeader,
    Optics,
    Pixels,
    Scan,
    StagePosition,
)


def score(paths: list[Path], *, engine: str, output: Output) -> int:
    """Score each image in the order given and return the exit code."""
    opened = registry.open_engine(engine, {})
    rows, remarks = [], []
    try:
        for sequence, path in enumerate(paths, start=1):
            each = [_fit_for_use(opened, frame) for frame in _scan(path, sequence, output)]
            blur = joint_ellipse([figures.blur for figures in each if figures.blur is not None])
            for figures in each:
                record, label = _score_record(path, figures), str(path)
                if len(each) > 1:
                    detector = figures.header.detector
                    record |= {"detector": detector, "scan_blur": _blur_record(blur)}
                    label += f", {detector}"
                _doubt(label, figures, output)
                output.record(record)
                rows.append(_score_row(label, figures))
            if len(each) > 1 and blur is not None:
                remarks.append(
                    f"{path}: the blur in all detectors together is {blur.major_px:.2f} × "
                    f"{blur.minor_px:.2f} px at {blur.angle_rad:+.2f} rad"
                )
    finally:
        opened.close()
    columns = ["image", "score", "blur major", "minor", "angle", "noise", "time"]
    output.table(f"focus scores ({opened.name})", columns, rows)
    for remark in remarks:
        output.say(remark)
    return exits.DONE


def _scan(path: Path, sequence: int, output: Output) -> list[Frame]:
    """The frames of one scan, a detector each; says what had to be converted."""
    images = read_detectors(path)
    for note in dict.fromkeys(note for image in images for note in image.notes):
        output.warn(f"{path}: {note}")
    return [frame_of(image, sequence) for image in images]


def frame_of(image: ImageFile, sequence: int) -> Frame:
    """An image file as a frame, for an engine to look at."""
    metadata = image.metadata
    return Frame(
        FrameHeader(
            sequence=sequence,
            monotonic_ns=sequence,
            wall_ns=0,
            detector=metadata.detector or "unknown",
            scan=Scan(
                width_px=image.pixels.shape[1],
                height_px=image.pixels.shape[0],
                bit_depth=8 if image.pixels.itemsize == 1 else 16,
                pixel_size_m=metadata.pixel_size_m,
                dwell_s=metadata.dwell_s,
            ),
            optics=Optics(working_distance_m=metadata.working_distance_m or 0.0),
            stage=StagePosition(),
            settings_rev=1,
            info_bar_px=image.info_bar_px,
            source=str(image.path),
        ),
        image.pixels,
    )


def _fit_for_use(engine: Engine, frame: Frame) -> FrameAnalysis:
    """What the engine says of a frame, with its faults and without a blur if it has any."""
    figures = _analyse(engine, frame).figures
    faults = _faults(frame, SanityOptions())
    if not faults:
        return figures
    header = msgspec.structs.replace(figures.header, faults=faults)
    return msgspec.structs.replace(figures, header=header, blur=None)


def _faults(frame: Frame, options: SanityOptions) -> tuple[FrameFault, ...]:
    """Why the agent would not use this frame; it is compared with no other."""
    checker = FrameChecker(options, repeats_frames=True)
    return checker.check(frame, now_ns=frame.header.monotonic_ns)


def _analyse(engine: Engine, frame: Frame, *, restore: bool = False) -> Analysis:
    """What the engine says of a frame from a file.

    Raises:
        InputFileError: the frame is too small for the engine.
        EngineError: the engine failed.
    """
    try:
        return engine.analyse(frame, restore=restore)
    except FrameTooSmallError as error:
        raise InputFileError(f"{frame.header.source}: {error}") from error
    except EngineError as error:
        raise EngineError(f"{frame.header.source}: {error}") from error


def _doubt(label: str, figures: FrameAnalysis, output: Output) -> None:
    """Say so if a score is not to be had or says nothing."""
    needed = AutofocusOptions().min_structure
    if figures.header.faults:
        output.warn(f"{label}: no score, not fit for use: {', '.join(figures.header.faults)}")
    elif figures.structure < needed:
        output.warn(
            f"{label}: its score says nothing, there is nothing to focus on: structure over noise "
            f"{figures.structure:.2g}, {needed:.2g} is needed"
        )


def _score_record(path: Path, figures: FrameAnalysis) -> dict[str, Any]:
    faults = figures.header.faults
    return {
        "path": str(path),
        "focus_score": None if faults else figures.focus_score,
        "blur": _blur_record(figures.blur),
        "noise": figures.noise,
        "structure": figures.structure,
        "faults": list(faults),
        "engine": figures.engine,
        "latency_ms": figures.latency_s * 1e3,
    }


def _blur_record(blur: BlurEllipse | None) -> dict[str, float] | None:
    if blur is None:
        return None
    return {
        "major_px": blur.major_px,
        "minor_px": blur.minor_px,
        "angle_rad": blur.angle_rad,
        "log_sigma": blur.log_sigma,
    }


def _score_row(label: str, figures: FrameAnalysis) -> list[str]:
    blur = figures.blur
    return [
        label,
        "unusable" if figures.header.faults else f"{figures.focus_score:.3f}",
        "-" if blur is None else f"{blur.major_px:.2f} px",
        "-" if blur is None else f"{blur.minor_px:.2f} px",
        "-" if blur is None else f"{blur.angle_rad:+.2f} rad",
        f"{figures.noise:.4f}",
        f"{figures.latency_s * 1e3:.1f} ms",
    ]


def estimate(stack: str, *, frames: list[int] | None, engine: str, output: Output) -> int:
    """Say where focus is from some frames of a stack only and return the exit code."""
    microscope = as_recorded(
        registry.open_microscope("recorded", {"stack": stack}, clock=SystemClock())
    )
    try:
        entries = microscope.stack.entries
        wanted = _wanted(frames, len(entries), stack)
        config = config_for_stack(microscope, Part(name=engine))
        lacks = without_scale(microscope, config)
        belief, used, name = _belief(microscope, wanted, config, output)
    finally:
        microscope.close()
    distances_m = [entry.working_distance_m for entry in entries]
    span_m = max(distances_m) - min(distances_m)
    known = belief is not None and _say(used, belief, span_m, config.control.autofocus)
    output.record(
        {
            "focus_working_distance_m": belief.focus_m if belief and known else None,
            "sigma_m": belief.sigma_m if belief and known else None,
            "interval90_m": belief.interval90_m if belief and known else None,
            "stigmator_correction": belief.stigmator_correction if belief and known else None,
            "frames": [figures.header.source for figures in used],
            "engine": name,
        }
    )
    if belief is None or not known or belief.interval90_m is None:
        output.say("held: these frames do not say where focus is")
        if lacks:
            output.warn(lacks)
        return exits.HELD
    low_m, high_m = belief.interval90_m
    output.say(
        f"focus at {metres(belief.focus_m)} ± {metres(belief.sigma_m)} "
        f"(90 % within {metres(low_m)} to {metres(high_m)}) from {len(used)} frames"
    )
    return exits.DONE


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


def _belief(
    microscope: RecordedMicroscope, wanted: list[int], config: RunConfig, output: Output
) -> tuple[FocusBelief | None, list[FrameAnalysis], str]:
    """What the frames that are fit for use say together, what was seen in each, and the engine."""
    opened = registry.open_engine(config.engine.name, {})
    estimator = SpectralEstimator(config.control.estimator, config.control.scale)
    belief, used = None, []
    try:
        for index in track(
            wanted, "frames", console=output.people, transient=True, disable=output.json
        ):
            frame = microscope.frame(index)
            faults = _faults(frame, config.sanity)
            if faults:
                output.warn(f"{frame.header.source}: not fit for use: {', '.join(faults)}")
                continue
            figures = with_signature(_analyse(opened, frame), frame).figures
            used.append(figures)
            belief = estimator.update(figures)
    finally:
        opened.close()
    return belief, used, opened.name


def _say(
    used: list[FrameAnalysis], belief: FocusBelief, span_m: float, options: AutofocusOptions
) -> bool:
    """Whether the frames say where focus is, by what an autofocus asks for.

    They have to show a specimen, whose blur depends on the working distance, and to leave focus
    no more open than it was before anybody looked: somewhere in the stack.
    """
    low_m, high_m = belief.interval90_m or (-math.inf, math.inf)
    return (
        len(used) > 1
        and options.shows_structure([figures.structure for figures in used])
        and belief.log_odds >= options.min_log_odds
        and high_m - low_m <= span_m
    )


def restore(
    paths: list[Path], *, folder: Path, engine: str, artefact: Path | None, output: Output
) -> int:
    """Write restored copies, marked as derived, and return the exit code.

    Raises:
        UsageError: the engine cannot restore, or a copy is there already.
    """
    opened = registry.open_engine(engine, {} if artefact is None else {"artefact": str(artefact)})
    try:
        if not opened.restores:
            raise UsageError(
                f"the engine {opened.name!r} cannot restore: that needs a model, and it has none"
            )
        targets = [folder / f"{path.stem}-restored.tif" for path in paths]
        for target in targets:
            if target.exists() or targets.count(target) > 1:
                raise UsageError(f"{target}: would be overwritten; name another --output")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"--output: {folder}: no folder can be made there ({error.strerror})"
            ) from error
        for sequence, (path, target) in enumerate(zip(paths, targets, strict=True), start=1):
            for record in _restore_one(opened, path, target, sequence, output):
                output.record(record)
                detector = f", {record['detector']}" if "detector" in record else ""
                output.say(
                    f"{target}{detector}: score {record['focus_score_before']:.3f} → "
                    f"{record['focus_score_after']:.3f}, consistency {record['consistency']:.2f}"
                )
    finally:
        opened.close()
    return exits.DONE


def _restore_one(
    engine: Engine, path: Path, target: Path, sequence: int, output: Output
) -> list[dict[str, Any]]:
    """Restore what each detector recorded, write one file, and return a record of each.

    Each is restored by itself, and its consistency is judged with the blur that was read in it.
    """
    restored, judged, records = [], [], []
    frames = _scan(path, sequence, output)
    for frame in frames:
        of = {"detector": frame.header.detector} if len(frames) > 1 else {}
        label = ", ".join((str(path), *of.values()))
        analysis = _analyse(engine, frame, restore=True)
        figures, pixels = analysis.figures, analysis.restored
        if pixels is None or figures.consistency is None:
            raise EngineError(f"{label}: the engine {engine.name!r} returned no restored frame")
        if not figures.trustworthy:
            low, high = CONSISTENT
            output.warn(
                f"{label}: do not trust this restoration, it does not explain the frame: "
                f"consistency {figures.consistency:.2f}, good is {low} to {high}"
            )
        restored.append(pixels)
        judgement = {"consistency": figures.consistency, "trustworthy": figures.trustworthy}
        judged.append({**of, **judgement})
        after = engine.analyse(Frame(frame.header, pixels.copy())).figures
        records.append(
            {
                "path": str(path),
                **of,
                "output": str(target),
                "focus_score_before": figures.focus_score,
                "focus_score_after": after.focus_score,
                "consistency": figures.consistency,
                "engine": engine.name,
                "latency_ms": figures.latency_s * 1e3,
            }
        )
    description = {
        "derived": True,
        "by": f"semagent {__version__}",
        "engine": engine.name,
        "source": path.name,
    }
    if len(frames) == 1:
        tifffile.imwrite(target, restored[0], description=json.dumps(description | judged[0]))
    else:
        _write_channels(target, restored, frames, description | {"detectors": judged})
    return records


def _write_channels(
    target: Path, restored: list[Pixels], frames: list[Frame], description: dict[str, Any]
) -> None:
    """An OME-TIFF with the channels of the raw file, in which the description has its place."""
    tifffile.imwrite(
        target,
        np.stack(restored),
        ome=True,
        photometric="minisblack",
        metadata={
            "axes": "CYX",
            "Name": f"{target.stem} (derived)",
            "Description": json.dumps(description),
            "Channel": {"Name": [frame.header.detector for frame in frames]},
        },
    )
