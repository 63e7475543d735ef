"""Eight-bit arithmetic for the convolutions of the restoration, where it costs no quality.

Only the residual blocks are quantised: they take most of the time, and what they get wrong is
added to an input that stays in single precision. Weights per channel, activations per tensor,
ranges from what training images give (Nagel et al., "A White Paper on Neural Network
Quantization", 2021).
"""

import io
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from semagent_engines.data.batches import BatchSource, Views
from semagent_engines.runtime.tiling import Floats

onnxruntime.disable_telemetry_events()  # on Windows; elsewhere see `semagent_engines`

WORST_LOSS_DB = 0.1
_RESIDUAL = re.compile(r"restorer\.(before|middle|after)\.\d+\.(first|second)\.weight$")
_PERCENTILE = 99.999
_BATCHES, _PER_BATCH, _EDGE_PX = 24, 4, 128
_GREY = 255.0


class _Tiles:
    """What ONNX Runtime takes for a ``CalibrationDataReader``."""

    def __init__(self, batches: Sequence[Views]) -> None:
        self._left: Iterator[Views] = iter(batches)

    def get_next(self) -> dict[str, Floats] | None:
        """The next input, as ONNX Runtime asks for it."""
        views = next(self._left, None)
        return None if views is None else {"pixels": _grey(views)}


def quantise(graph: Path, output: Path, training: BatchSource) -> None:
    """Write an eight-bit version of ``restore.onnx``.

    Args:
        graph: the graph in single precision.
        output: ``.onnx`` file to write.
        training: gives the tiles that the ranges of the activations are taken from.
    """
    batches = [training.views(step, _PER_BATCH, _EDGE_PX) for step in range(_BATCHES)]
    # Windows does not delete a file that is still mapped. What ONNX Runtime prints of its
    # histograms meanwhile would stand between the results on standard output.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        redirect_stdout(io.StringIO()),
    ):
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node
        quantize_static(
            prepared,
            output,
            _Tiles(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_quantize=[
                node.name
                for node in nodes
                if node.op_type == "Conv" and _RESIDUAL.search(node.input[1])
            ],
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": _PERCENTILE},
        )


def loss_db(graph: Path, quantised: Path, batches: Sequence[Views]) -> float:
    """How much PSNR the second graph loses against the first, mean over the tiles, dB."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    means = []
    for path in (graph, quantised):
        session = onnxruntime.InferenceSession(
            str(path), settings, providers=["CPUExecutionProvider"]
        )
        errors = []
        for views in batches:
            restored = session.run(["restored"], {"pixels": _grey(views)})[0] / _GREY
            errors.append(np.square(restored - views.truth.numpy()).mean(axis=(1, 2, 3)))
        means.append(float(-10 * np.log10(np.concatenate(errors)).mean()))
    return means[0] - means[1]


def _grey(views: Views) -> Floats:
    return np.asarray(views.pixels.numpy() * _GREY, np.float32)
