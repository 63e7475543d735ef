"""OpenVINO on the CPU."""

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino

from semagent.errors import EngineError
from semagent.options import parse_options
from semagent_engines.runtime.artefact import GRAPHS, Artefact
from semagent_engines.runtime.model_engine import ModelEngine
from semagent_engines.runtime.opening import CpuOptions, open_model_engine, precision_of
from semagent_engines.runtime.tiling import Floats


class OpenVino:
    """Executes an artefact with OpenVINO.

    Raises:
        EngineError: it cannot load the graphs.
    """

    name = "openvino"

    def __init__(self, artefact: Artefact, threads: int | None, precision: str = "fp32") -> None:
        # Left to itself OpenVINO may choose bfloat16, which would break the golden tensors.
        settings: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._outputs = artefact.manifest.outputs
        core = openvino.Core()
        # Else it keeps kernels for every size of tile it has met, for as long as it runs. The
        # property works since 2022, but is not documented: where it is gone, memory grows again.
        with contextlib.suppress(RuntimeError):
            core.set_property("CPU", {"CPU_RUNTIME_CACHE_CAPACITY": "0"})
        try:
            self._requests = {
                graph: core.compile_model(
                    str(artefact.graph(graph, precision)), "CPU", settings
                ).create_infer_request()
                for graph in GRAPHS
            }
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot load {artefact.folder}: {error}") from error

    def run(self, graph: str, inputs: dict[str, Floats]) -> dict[str, Floats]:
        """See `Runtime`."""
        try:
            found = self._requests[graph].infer(inputs)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed: {error}") from error
        # The request owns these arrays and writes to them again.
        wanted = self._outputs[graph].keys()
        return {(port.names & wanted).pop(): np.array(value) for port, value in found.items()}

    def close(self) -> None:
        """Drop the compiled graphs."""
        self._requests = {}


OPTIONS = CpuOptions


def open_runtime(artefact: Artefact, options: CpuOptions) -> OpenVino:
    """Load the graphs; see `CpuOptions`."""
    return OpenVino(artefact, options.threads, precision_of(artefact, options))


def open_engine(options: Mapping[str, Any]) -> ModelEngine:
    """The entry point ``openvino``; see `CpuOptions`."""
    chosen = parse_options(options, CpuOptions, where="engine openvino")
    return open_model_engine(chosen, open_runtime)
