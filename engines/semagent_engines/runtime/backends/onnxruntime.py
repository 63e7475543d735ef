"""ONNX Runtime on the CPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as states

from semagent.errors import EngineError
from semagent.options import parse_options
from semagent_engines.runtime.artefact import DEFAULT, GRAPHS, Artefact, open_artefact
from semagent_engines.runtime.model_engine import ModelEngine, ModelOptions
from semagent_engines.runtime.warmup import warm_up

Floats = npt.NDArray[np.float32]

# They share no base below Exception.
_FAILURES = (
    states.Fail,
    states.InvalidArgument,
    states.InvalidGraph,
    states.InvalidProtobuf,
    states.NoSuchFile,
    states.RuntimeException,
    ValueError,
)


class OnnxRuntime:
    """Executes an artefact with ONNX Runtime."""

    name = "onnxruntime"

    def __init__(self, artefact: Artefact, threads: int | None) -> None:
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        if threads is not None:
            settings.intra_op_num_threads = threads
        try:
            self._sessions = {
                graph: onnxruntime.InferenceSession(
                    str(artefact.graph(graph)), settings, providers=["CPUExecutionProvider"]
                )
                for graph in GRAPHS
            }
        except _FAILURES as error:
            raise EngineError(f"ONNX Runtime cannot load {artefact.folder}: {error}") from error

    def run(self, graph: str, inputs: dict[str, Floats]) -> dict[str, Floats]:
        """See `Runtime`."""
        session = self._sessions[graph]
        names = [output.name for output in session.get_outputs()]
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except _FAILURES as error:
            raise EngineError(f"ONNX Runtime failed: {error}") from error

    def close(self) -> None:
        """Drop the sessions."""
        self._sessions = {}


def open_engine(options: Mapping[str, Any]) -> ModelEngine:
    """The entry point ``onnxruntime``; see `ModelOptions`."""
    chosen = parse_options(options, ModelOptions, where="engine onnxruntime")
    artefact = open_artefact(Path(chosen.artefact) if chosen.artefact else DEFAULT)
    runtime = OnnxRuntime(artefact, chosen.threads)
    return warm_up(ModelEngine(runtime, artefact, tiles=chosen.tiles))
