"""The graphs of an artefact: what each takes and returns, and their export to ONNX."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.onnx import ONNXProgram

from semagent_engines.model.heads import Signature
from semagent_engines.model.network import SemModel
from semagent_engines.model.spectrum import FEATURES

OPSET = 20
TILE_STEP_PX = 16
TILE_RANGE_PX = (128, 1024)
_EXAMPLE_PX = 256  # edge of the tile that is traced


@dataclass(frozen=True)
class Calibration:
    """Factors that bring predicted standard deviations to the errors seen on validation sources.

    Attributes:
        blur: for the blur ellipse of single frames.
        pair: for differences of two frames.
    """

    blur: float = 1.0
    pair: float = 1.0


class ScoreGraph(nn.Module):
    """Tiles in, readings out; the encoder takes no part."""

    inputs = ("pixels",)
    outputs = ("blur", "blur_std", "score", "noise", "spectra")

    def __init__(self, model: SemModel, calibration: Calibration) -> None:
        super().__init__()
        self.model = model
        self.factor = calibration.blur

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(N, 1, H, W) float32 grey values to the tensors named in ``outputs``."""
        seen = self.model(pixels, restore=False)
        reading = seen.reading
        blur_std = reading.blur_std * self.factor
        return reading.blur, blur_std, seen.score, seen.noise_grey, seen.signature.spectra


class RestoreGraph(nn.Module):
    """Tiles in, restored tiles out."""

    inputs = ("pixels",)
    outputs = ("restored", "experts")

    def __init__(self, model: SemModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 1, H, W) float32 grey values to restored tiles and each expert's share, (N, E)."""
        restored = self.model.restore(pixels)
        return restored.tiles, restored.shares


class PairGraph(nn.Module):
    """Two frames' readings in, the difference of their blur covariances out."""

    inputs = ("spectra_a", "blur_a", "blur_std_a", "spectra_b", "blur_b", "blur_std_b")
    outputs = ("difference", "difference_std")

    def __init__(self, model: SemModel, calibration: Calibration) -> None:
        super().__init__()
        self.head = model.pair_head
        self.config = model.config
        self.calibration = calibration

    def forward(
        self,
        spectra_a: Tensor,
        blur_a: Tensor,
        blur_std_a: Tensor,
        spectra_b: Tensor,
        blur_b: Tensor,
        blur_std_b: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Difference on the scale of `PairHead` and its standard deviation, both (N, 3)."""
        # The head was trained on deviations as they are before calibration.
        back = 1.0 / self.calibration.blur
        first = Signature(spectra_a, blur_a, blur_std_a * back)
        second = Signature(spectra_b, blur_b, blur_std_b * back)
        mean, std = self.head(first, second)
        return mean, std * self.calibration.pair


def export_tiles(graph: ScoreGraph | RestoreGraph, path: Path) -> None:
    """Export a graph of tiles with dynamic count, height and width.

    Args:
        graph: what to export.
        path: ``.onnx`` file to write.
    """
    _write(tiles_program(graph), path, graph.outputs)


def tiles_program(graph: ScoreGraph | RestoreGraph) -> ONNXProgram:
    """What `export_tiles` writes.

    Args:
        graph: what to export. On the device ``meta`` its weights have no values, and cannot be
            written; constants are not folded then.
    """
    device = next(graph.parameters()).device
    graph.model.set_dense(True)
    graph.eval()
    low, high = (edge // TILE_STEP_PX for edge in TILE_RANGE_PX)
    rows, columns = Dim("rows", min=low, max=high), Dim("columns", min=low, max=high)
    # Two tiles of unequal edges: an example with 1 or with equal edges would be specialised.
    example = torch.rand(2, 1, _EXAMPLE_PX, _EXAMPLE_PX + TILE_STEP_PX, device=device)
    tiles = Dim("tiles", min=1, max=1024)
    shapes = ({0: tiles, 2: TILE_STEP_PX * rows, 3: TILE_STEP_PX * columns},)
    return _program(graph, (example,), shapes, fold=device.type != "meta")


def export_pair(graph: PairGraph, path: Path) -> None:
    """Export the comparison of two frames, with a dynamic number of tiles."""
    graph.eval()
    sides = ((2, graph.config.scales, FEATURES), (2, 3), (2, 3))
    # Every input a tensor of its own: the exporter takes one tensor twice for one input.
    example = tuple(torch.rand(shape) + 0.1 for shape in sides * 2)
    program = _program(graph, example, ({0: Dim("tiles", min=1, max=1024)},) * len(example))
    _write(program, path, graph.outputs)


def _program(
    graph: ScoreGraph | RestoreGraph | PairGraph,
    example: tuple[Tensor, ...],
    shapes: tuple[dict[int, Dim], ...],
    *,
    fold: bool = True,
) -> ONNXProgram:
    with torch.no_grad(), warnings.catch_warnings(), _silent_on_torchvision():
        # The exporter's remarks on its own workings; what matters is checked below.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=shapes,
            optimize=fold,
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"torch gave no program for {type(graph).__name__}")
    return program


@contextmanager
def _silent_on_torchvision() -> Iterator[None]:
    """Drop the exporter's lines on operators of torchvision, of which the model has none."""

    def keep(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _write(program: ONNXProgram, path: Path, outputs: tuple[str, ...]) -> None:
    program.save(str(path), external_data=False)
    _strip(path)
    _check(path, outputs)


def _strip(path: Path) -> None:
    """Take out where each node came from: source lines and paths of the exporting machine."""
    model = onnx.load(path)
    for part in (model.graph, *model.functions):
        for item in (part, *part.node, *part.value_info):
            item.ClearField("doc_string")
            item.ClearField("metadata_props")
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("doc_string")
        value.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.ClearField("metadata_props")
    onnx.save(model, path)


def _check(path: Path, outputs: tuple[str, ...]) -> None:
    """Make sure that the graph is what was asked for.

    Raises:
        RuntimeError: the number of tiles became fixed, or outputs lost their names.
    """
    exported = onnx.load(path).graph
    names = tuple(value.name for value in exported.output)
    if names != outputs:
        raise RuntimeError(f"{path.name}: outputs are {names} and not {outputs}")
    for value in exported.input:
        if not value.type.tensor_type.shape.dim[0].dim_param:
            raise RuntimeError(
                f"{path.name}: the exporter fixed the first dimension of {value.name}"
            )
