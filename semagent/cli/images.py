"""``score`` and ``restore``: what can be said of images on disk."""

import contextlib
import io
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import tifffile

from semagent import __version__, registry
from semagent.cli import exits
from semagent.cli.output import Output
from semagent.ellipse import joint_ellipse
from semagent.errors import EngineError, FrameTooSmallError, InputFileError, UsageError
from semagent.images import ImageFile, in_words, read_detectors
from semagent.ports import Engine
from semagent.sanity import FrameChecker, SanityOptions
from semagent.session.storage import mapped_errors, write_whole
from semagent.types import (
    CONSISTENT,
    LEAST_STRUCTURE,
    Analysis,
    BlurEllipse,
    Frame,
    FrameAnalysis,
    FrameFault,
    FrameHeader,
    Optics,
    Pixels,
    Scan,
    StagePosition,
)

_Z90 = 1.645
_SHOWN = (
    "consistency: reduced chi-square of the restored frame, blurred again, against the raw one, "
    "part by part; NaN where nothing was restored"
)


def score(paths: list[Path], *, engine: str, output: Output) -> int:
    """Score each image in the order given and return the exit code."""
    folders = {path.parent for path in paths}
    rows, remarks = [], []
    with (
        contextlib.closing(registry.open_engine(engine, {})) as opened,
        output.track(paths, len(paths), "scoring") as tracked,
    ):
        for sequence, path in enumerate(tracked, start=1):
            each = [_analyse(opened, frame).figures for frame in _scan(path, sequence, output)]
            blur = joint_ellipse([figures.blur for figures in each if figures.blur is not None])
            for figures in each:
                record, of = _score_record(path, figures), ""
                if len(each) > 1:
                    detector = figures.header.detector
                    record |= {"detector": detector, "scan_blur": _blur_record(blur)}
                    of = f", {detector}"
                _doubt(f"{path}{of}", "its score says nothing", figures, output)
                output.record(record)
                name = path.name if len(folders) == 1 else str(path)
                rows.append(_score_row(f"{name}{of}", figures))
            if len(each) > 1 and blur is not None:
                remarks.append(
                    f"{path}: the blur in all detectors together is {blur.major_px:.2f} × "
                    f"{blur.minor_px:.2f} px at {blur.angle_rad:+.2f} rad"
                )
    columns = ["image", "score", "blur, px", "90 %\n× or ÷", "angle,\nrad", "noise", "ms"]
    where = f" in {folders.pop()}" if len(folders) == 1 and Path() not in folders else ""
    output.table(f"focus scores{where} ({opened.name})", columns, rows, figures=True)
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
            source=in_words(image.path),
        ),
        image.pixels,
    )


def _analyse(engine: Engine, frame: Frame, *, restore: bool = False) -> Analysis:
    """What the engine says of a frame, with its faults and without a blur if it has any."""
    analysis = analyse_file(engine, frame, restore=restore)
    faults = faults_of(frame, SanityOptions())
    if not faults:
        return analysis
    header = msgspec.structs.replace(analysis.figures.header, faults=faults)
    figures = msgspec.structs.replace(analysis.figures, header=header, blur=None)
    return replace(analysis, figures=figures)


def faults_of(frame: Frame, options: SanityOptions) -> tuple[FrameFault, ...]:
    """Why the agent would not use this frame; it is compared with no other."""
    checker = FrameChecker(options, repeats_frames=True)
    return checker.check(frame, now_ns=frame.header.monotonic_ns)


def analyse_file(engine: Engine, frame: Frame, *, restore: bool = False) -> Analysis:
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


def _doubt(label: str, moral: str, figures: FrameAnalysis, output: Output) -> None:
    """Say so if there is no score, or nothing in the frame that one could speak of."""
    if figures.header.faults:
        output.warn(f"{label}: no score, not fit for use: {', '.join(figures.header.faults)}")
    elif figures.empty:
        output.warn(
            f"{label}: {moral}, there is nothing to focus on: structure over noise "
            f"{figures.structure:.2g}, {LEAST_STRUCTURE:.2g} is needed"
        )


def _focus_score(figures: FrameAnalysis) -> float | None:
    return None if figures.header.faults else figures.focus_score


def _score_record(path: Path, figures: FrameAnalysis) -> dict[str, Any]:
    faults = figures.header.faults
    return {
        "path": str(path),
        "focus_score": _focus_score(figures),
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
    axes = ["-"] * 3
    if blur is not None:
        factor = math.exp(_Z90 * blur.log_sigma)
        axes = [
            f"{blur.major_px:.2f} × {blur.minor_px:.2f}",
            f"{factor:.1f}",
            f"{blur.angle_rad:+.2f}",
        ]
    return [
        label,
        "unusable" if figures.header.faults else f"{figures.focus_score:.3f}",
        *axes,
        f"{figures.noise:.4f}",
        f"{figures.latency_s * 1e3:.1f}",
    ]


def restore(
    paths: list[Path],
    *,
    folder: Path,
    engine: str,
    artefact: Path | None,
    consistency_map: bool,
    output: Output,
) -> int:
    """Write restored copies, marked as derived, and return the exit code.

    Args:
        paths: the images.
        folder: where the copies go.
        engine: name of an engine that restores.
        artefact: its model; ``None`` is the one that ships.
        consistency_map: write a map beside each copy, too.
        output: where to report.

    Raises:
        UsageError: the engine cannot restore, or a file to be written is there already.
    """
    options = {} if artefact is None else {"artefact": str(artefact)}
    with contextlib.closing(registry.open_engine(engine, options)) as opened:
        if not opened.restores:
            raise UsageError(
                f"the engine {opened.name!r} cannot restore: that needs a model, and it has none"
            )
        kinds = ("restored", "consistency") if consistency_map else ("restored",)
        targets = [[folder / f"{path.stem}-{kind}.tif" for kind in kinds] for path in paths]
        every = list(itertools.chain.from_iterable(targets))
        for target in every:
            if target.exists() or every.count(target) > 1:
                raise UsageError(f"{target}: would be overwritten; name another --output")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"--output: {folder}: no folder can be made there ({error.strerror})"
            ) from error
        pairs = list(zip(paths, targets, strict=True))
        with output.track(pairs, len(pairs), "restoring") as tracked:
            for sequence, (path, files) in enumerate(tracked, start=1):
                for record in _restore_one(opened, path, files, sequence, output):
                    output.record(record)
                    detector = f", {record['detector']}" if "detector" in record else ""
                    scores = [record[f"focus_score_{when}"] for when in ("before", "after")]
                    shown = " → ".join("-" if each is None else f"{each:.3f}" for each in scores)
                    consistency = f"consistency {record['consistency']:.2f}"
                    output.say(f"{files[0]}{detector}: score {shown}, {consistency}")
    return exits.DONE


def _restore_one(
    engine: Engine, path: Path, targets: list[Path], sequence: int, output: Output
) -> list[dict[str, Any]]:
    """Restore what each detector recorded, write the files, and return a record of each.

    Each is restored by itself, and its consistency is judged with the blur that was read in it.

    Args:
        engine: restores.
        path: the raw image.
        targets: the restored file, and that of the consistency map if there shall be one.
        sequence: number of the image.
        output: where to warn.
    """
    mapped = {"consistency_map": str(targets[1])} if targets[1:] else {}
    restored, maps, judged, records = [], [], [], []
    frames = _scan(path, sequence, output)
    for frame in frames:
        of = {"detector": frame.header.detector} if len(frames) > 1 else {}
        label = ", ".join((str(path), *of.values()))
        analysis = _analyse(engine, frame, restore=True)
        figures, pixels = analysis.figures, analysis.restored
        if pixels is None or figures.consistency is None:
            raise EngineError(f"{label}: the engine {engine.name!r} returned no restored frame")
        _doubt(label, "do not trust this restoration", figures, output)
        if not (figures.empty or figures.trustworthy):
            low, high = CONSISTENT
            output.warn(
                f"{label}: do not trust this restoration, it does not explain the frame: "
                f"consistency {figures.consistency:.2f}, good is {low} to {high}"
            )
        restored.append(pixels)
        if mapped:
            maps.append(_consistency_plane(engine, frame, figures))
        judgement = {"consistency": figures.consistency, "trustworthy": figures.trustworthy}
        judged.append({**of, **judgement})
        after = engine.analyse(Frame(figures.header, pixels.copy())).figures
        records.append(
            {
                "path": str(path),
                **of,
                "output": str(targets[0]),
                **mapped,
                "focus_score_before": _focus_score(figures),
                "focus_score_after": _focus_score(after),
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
    _write(targets[0], restored, frames, description, judged)
    for target in targets[1:]:
        about = description | {"shows": _SHOWN}
        _write(target, maps, frames, about, judged, compression="zlib")
    return records


def _consistency_plane(
    engine: Engine, frame: Frame, figures: FrameAnalysis
) -> npt.NDArray[np.float32]:
    """The consistency map at the size of the frame, NaN in the information bar."""
    grid = figures.consistency_map
    if grid is None:
        raise EngineError(
            f"{frame.header.source}: the engine {engine.name!r} returned no consistency map"
        )
    parts = np.reshape(np.array(grid.values, np.float32), (grid.rows, grid.columns))
    height, width = frame.specimen.shape
    plane = np.full(frame.pixels.shape, np.nan, np.float32)
    plane[:height] = cv2.resize(parts, (width, height), interpolation=cv2.INTER_NEAREST)
    return plane


def _write(
    target: Path,
    planes: Sequence[Pixels | npt.NDArray[np.float32]],
    frames: list[Frame],
    description: dict[str, Any],
    judged: list[dict[str, Any]],
    *,
    compression: Literal["zlib"] | None = None,
) -> None:
    """One plane as a TIFF; several as an OME-TIFF with the channels of the raw file.

    The description, with what was judged of each plane, has its place in either.

    Raises:
        UsageError: it cannot be written; then there is no part of it either.
    """
    file = io.BytesIO()
    if len(planes) == 1:
        about = json.dumps(description | judged[0])
        tifffile.imwrite(file, planes[0], description=about, compression=compression)
    else:
        tifffile.imwrite(
            file,
            np.stack(planes),
            ome=True,
            compression=compression,
            photometric="minisblack",
            metadata={
                "axes": "CYX",
                "Name": f"{target.stem} (derived)",
                "Description": json.dumps(description | {"detectors": judged}),
                "Channel": {"Name": [frame.header.detector for frame in frames]},
            },
        )
    with mapped_errors(target, UsageError), file.getbuffer() as data:
        write_whole(target, data, sync=False)
