"""Writing an artefact from a checkpoint."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from semagent.errors import InputFileError
from semagent_engines.data.batches import BatchSource, Ranges, Views
from semagent_engines.export.card import MODEL_CARD, model_card
from semagent_engines.export.graphs import (
    TILE_RANGE_PX,
    TILE_STEP_PX,
    Calibration,
    PairGraph,
    RestoreGraph,
    ScoreGraph,
    export_pair,
    export_tiles,
)
from semagent_engines.export.quantise import WORST_LOSS_DB, loss_db, quantise
from semagent_engines.export.weights import name_weights
from semagent_engines.model.config import ModelConfig
from semagent_engines.model.network import SemModel, build
from semagent_engines.runtime.artefact import (
    FORMAT,
    GOLDEN,
    GRAPHS,
    MANIFEST,
    QUANTISED,
    Manifest,
    file_hash,
)
from semagent_engines.train.checkpoint import Checkpoint

INT8_TOLERANCE = 0.5
_MODEL = "model."
_OUTPUTS = {
    "score": {
        "blur": "ln of the blur's standard deviation in px (root mean square of the axes), and "
        "ln(major/minor) times (cos 2phi, sin 2phi); phi from +x to +y (down)",
        "blur_std": "standard deviations of blur",
        "score": "focus score in [0, 1], 1 is sharp",
        "noise": "standard deviation of the noise in the grey values of the input",
        "spectra": "log power spectra of the normalised tile: scale, then frequencies",
    },
    "restore": {
        "restored": "restored tile in the grey values of the input",
        "experts": "share of the tokens that each expert got",
    },
    "pair": {
        "difference": "asinh of 2/px^2 times the blur covariance of b minus that of a: "
        "(xx + yy) / 2, (xx - yy) / 2, xy",
        "difference_std": "standard deviations of difference",
    },
}


def model_of(checkpoint: Checkpoint) -> SemModel:
    """The model with the averaged weights of the checkpoint of a fine-tuning or of its heads.

    Raises:
        InputFileError: the checkpoint is of a pretraining.
    """
    weights = {
        name.removeprefix(_MODEL): value
        for name, value in checkpoint.average.items()
        if name.startswith(_MODEL)
    }
    if not weights:
        raise InputFileError("the checkpoint holds no fine-tuned model; run `train finetune` first")
    model = build(ModelConfig.from_dict(checkpoint.config))
    model.load_state_dict(weights)
    model.eval()
    return model.requires_grad_(False)


def write_artefact(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    calibration: Calibration,
    ranges: BatchSource,
    judged: Sequence[Views],
) -> Manifest:
    """Export all graphs with golden tensors, manifest and model card into ``folder``.

    The eight-bit form of the restoration is left out where it loses more than `WORST_LOSS_DB`.

    Args:
        checkpoint: of the last stage, the training of the heads.
        folder: made if it does not exist; files of an artefact in it are replaced.
        calibration: factors for the predicted standard deviations.
        ranges: training images, from which the eight-bit form takes its ranges.
        judged: validation images, on which its loss is measured.
    """
    model = model_of(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    score, restore = ScoreGraph(model, calibration), RestoreGraph(model)
    pair = PairGraph(model, calibration)
    weights = model.state_dict()
    export_tiles(score, folder / "score.onnx")
    export_tiles(restore, folder / "restore.onnx")
    export_pair(pair, folder / "pair.onnx")
    for graph in GRAPHS:
        name_weights(folder / f"{graph}.onnx", weights)
    tensors = golden_tensors(score, restore, pair)
    np.savez_compressed(folder / GOLDEN, allow_pickle=False, **tensors)
    files = [*(f"{graph}.onnx" for graph in GRAPHS), GOLDEN]
    tolerance = {"fp32": 1e-3, "fp16": 3e-2}
    quantised = folder / QUANTISED
    quantise(folder / "restore.onnx", quantised, ranges)
    loss = loss_db(folder / "restore.onnx", quantised, judged)
    if loss <= WORST_LOSS_DB:
        files.append(QUANTISED)
        tolerance["int8"] = INT8_TOLERANCE
    else:
        quantised.unlink()
    hashes = {name: file_hash(folder / name) for name in files}
    manifest = Manifest(
        format=FORMAT,
        name=f"{model.config.name}-{hashes['restore.onnx'][:8]}",
        hashes=hashes,
        input="pixels: float32 (tiles, 1, height, width), raw grey values of any linear scale",
        outputs=_OUTPUTS,
        tile_step_px=TILE_STEP_PX,
        smallest_tile_px=TILE_RANGE_PX[0],
        blur_range_px=Ranges().defocus,
        tolerance=tolerance,
        model=model.config.as_dict(),
        training={
            **checkpoint.record,
            "steps": checkpoint.step,
            "minutes": round(checkpoint.elapsed_s / 60, 1),
            "calibration": vars(calibration),
            "int8_loss_db": round(loss, 4),
        },
        revision=_revision(),
    )
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    (folder / MODEL_CARD).write_text(model_card(manifest), encoding="utf-8", newline="\n")
    return manifest


def golden_tensors(
    score: ScoreGraph, restore: RestoreGraph, pair: PairGraph
) -> dict[str, np.ndarray]:
    """Inputs and the outputs that every runtime has to reproduce.

    Procedural specimens only, so that an artefact carries no image of anybody. Names are
    ``graph/in/tensor`` and ``graph/out/tensor``.
    """
    source = BatchSource([], seed=7, procedural_count=2, procedural_px=320)
    frames = source.pairs(0, 1, 192)
    pixels = (torch.cat([frames.first.pixels, frames.second.pixels]) * 255).round()
    tensors: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, graph in (("score", score), ("restore", restore)):
            tensors[f"{name}/in/pixels"] = pixels
            for output, value in zip(graph.outputs, graph(pixels), strict=True):
                tensors[f"{name}/out/{output}"] = value
        sides = {
            name: tensors[f"score/out/{name[:-2]}"][row : row + 1]
            for name in pair.inputs
            for row in [("_a", "_b").index(name[-2:])]
        }
        tensors |= {f"pair/in/{name}": value for name, value in sides.items()}
        for output, value in zip(pair.outputs, pair(*sides.values()), strict=True):
            tensors[f"pair/out/{output}"] = value
    return {name: value.numpy() for name, value in tensors.items()}


def _revision() -> str:
    """Of this code; ``unknown`` where it is installed, be it inside somebody else's repository."""
    here = Path(__file__)
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return _git(here.parent, "describe", "--always", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    answer = subprocess.run(  # noqa: S603 - no word of it comes from elsewhere
        ["git", *arguments],  # noqa: S607 - any git will do
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.strip()
