"""ONNX Runtime on the CPU."""

from collections.abc import Mapping
from typing import Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as states

from semagent.errors import EngineError
from semagent.options import parse_options
from semagent_engines.runtime.artefact import GRAPHS, Artefact
from semagent_engines.runtime.model_engine import ModelEngine
from semagent_engines.runtime.opening import CpuOptions, open_model_engine, precision_of
from semagent_engines.runtime.tiling import Floats

onnxruntime.disable_telemetry_events()  # on Windows; elsewhere see `semagent_engines`

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
    """Executes an artefact with ONNX Runtime.

    Raises:
        EngineError: it cannot load the graphs.
    """

    name = "onnxruntime"

    def __init__(self, artefact: Artefact, threads: int | None, precision: str = "fp32") -> None:
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        # Threads that wait for the next frame by spinning take most of a core from the other roles.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            settings.intra_op_num_threads = threads
        try:
            self._sessions = {
                graph: onnxruntime.InferenceSession(
                    str(artefact.graph(graph, precision)),
                    settings,
                    providers=["CPUExecutionProvider"],
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


OPTIONS = CpuOptions


def open_runtime(artefact: Artefact, options: CpuOptions) -> OnnxRuntime:
    """Load the graphs; see `CpuOptions`."""
    return OnnxRuntime(artefact, options.threads, precision_of(artefact, options))


def open_engine(options: Mapping[str, Any]) -> ModelEngine:
    """The entry point ``onnxruntime``; see `CpuOptions`."""
    chosen = parse_options(options, CpuOptions, where="engine onnxruntime")
    return open_model_engine(chosen, open_runtime)
