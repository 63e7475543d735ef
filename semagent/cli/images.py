"""``score``, ``estimate`` and ``restore``: what can be said of images on disk."""

import json
from pathlib import Path
from typing import Any

import tifffile
from rich.progress import track

from semagent import __version__, registry
from semagent.cli import exits
from semagent.cli.output import Output, metres
from semagent.clock import SystemClock
from semagent.config import Part
from semagent.control import SpectralEstimator
from semagent.control.options import ControlOptions
from semagent.errors import EngineError, UsageError
from semagent.images import ImageFile, read_image
from semagent.ports import Engine
from semagent.signature import with_signature
from semagent.stack import as_recorded, config_for_stack
from semagent.types import (
    CONSISTENT,
    FocusBelief,
    Frame,
    FrameAnalysis,
    FrameHeader,
    Optics,
    Scan,
    StagePosition,
)


def score(paths: list[Path], *, engine: str, output: Output) -> int:
    """Score each image in the order given and return the exit code."""
    opened = registry.open_engine(engine, {})
    rows = []
    try:
        for sequence, path in enumerate(paths, start=1):
            image = read_image(path)
            for note in image.notes:
                output.warn(f"{path}: {note}")
            figures = opened.analyse(frame_of(image, sequence)).figures
            output.record(_score_record(path, figures))
            rows.append(_score_row(path, figures))
    finally:
        opened.close()
    columns = ["image", "score", "blur major", "minor", "angle", "noise", "time"]
    output.table(f"focus scores ({opened.name})", columns, rows)
    return exits.DONE


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


def _score_record(path: Path, figures: FrameAnalysis) -> dict[str, Any]:
    blur = figures.blur
    return {
        "path": str(path),
        "focus_score": figures.focus_score,
        "blur": None
        if blur is None
        else {
            "major_px": blur.major_px,
            "minor_px": blur.minor_px,
            "angle_rad": blur.angle_rad,
            "log_sigma": blur.log_sigma,
        },
        "noise": figures.noise,
        "engine": figures.engine,
        "latency_ms": figures.latency_s * 1e3,
    }


def _score_row(path: Path, figures: FrameAnalysis) -> list[str]:
    blur = figures.blur
    return [
        str(path),
        f"{figures.focus_score:.3f}",
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
        wanted = list(range(len(entries))) if frames is None else frames
        if len(wanted) < 2:
            raise UsageError("--frames: two frames or more are needed to tell where focus is")
        for index in wanted:
            if not 0 <= index < len(entries):
                raise UsageError(
                    f"--frames: there is no frame {index}; {stack} has 0 to {len(entries) - 1}"
                )
        options = config_for_stack(microscope, Part(name=engine)).control
        belief, name = _belief(microscope, wanted, engine, options, output)
        used = [entries[index].source for index in wanted]
    finally:
        microscope.close()
    known = belief is not None and belief.log_odds >= options.autofocus.min_log_odds
    output.record(
        {
            "focus_working_distance_m": belief.focus_m if belief and known else None,
            "sigma_m": belief.sigma_m if belief and known else None,
            "interval90_m": belief.interval90_m if belief and known else None,
            "stigmator_correction": belief.stigmator_correction if belief and known else None,
            "frames": used,
            "engine": name,
        }
    )
    if belief is None or not known or belief.interval90_m is None:
        output.say("held: these frames do not say where focus is")
        return exits.HELD
    low_m, high_m = belief.interval90_m
    output.say(
        f"focus at {metres(belief.focus_m)} ± {metres(belief.sigma_m)} "
        f"(90 % within {metres(low_m)} to {metres(high_m)}) from {len(wanted)} frames"
    )
    return exits.DONE


def _belief(
    microscope: Any, wanted: list[int], engine: str, options: ControlOptions, output: Output
) -> tuple[FocusBelief | None, str]:
    opened = registry.open_engine(engine, {})
    estimator = SpectralEstimator(options.estimator, options.scale)
    belief = None
    try:
        for index in track(
            wanted, "frames", console=output.people, transient=True, disable=output.json
        ):
            frame = microscope.frame(index)
            belief = estimator.update(with_signature(opened.analyse(frame), frame).figures)
    finally:
        opened.close()
    return belief, opened.name


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
        folder.mkdir(parents=True, exist_ok=True)
        for sequence, (path, target) in enumerate(zip(paths, targets, strict=True), start=1):
            record = _restore_one(opened, path, target, sequence, output)
            output.record(record)
            output.say(
                f"{target}: score {record['focus_score_before']:.3f} → "
                f"{record['focus_score_after']:.3f}, consistency {record['consistency']:.2f}"
            )
    finally:
        opened.close()
    return exits.DONE


def _restore_one(
    engine: Engine, path: Path, target: Path, sequence: int, output: Output
) -> dict[str, Any]:
    image = read_image(path)
    for note in image.notes:
        output.warn(f"{path}: {note}")
    frame = frame_of(image, sequence)
    analysis = engine.analyse(frame, restore=True)
    figures = analysis.figures
    if analysis.restored is None or figures.consistency is None:
        raise EngineError(f"{path}: the engine {engine.name!r} returned no restored frame")
    if not figures.trustworthy:
        low, high = CONSISTENT
        output.warn(
            f"{path}: do not trust this restoration, it does not explain the frame: consistency "
            f"{figures.consistency:.2f}, good is {low} to {high}"
        )
    description = {
        "derived": True,
        "by": f"semagent {__version__}",
        "engine": engine.name,
        "source": path.name,
        "consistency": figures.consistency,
        "trustworthy": figures.trustworthy,
    }
    tifffile.imwrite(target, analysis.restored, description=json.dumps(description))
    after = engine.analyse(Frame(frame.header, analysis.restored.copy())).figures
    return {
        "path": str(path),
        "output": str(target),
        "focus_score_before": figures.focus_score,
        "focus_score_after": after.focus_score,
        "consistency": figures.consistency,
        "engine": engine.name,
        "latency_ms": figures.latency_s * 1e3,
    }
