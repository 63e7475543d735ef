"""OpenVINO on the CPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from semagent.errors import EngineError
from semagent.options import parse_options
from semagent_engines.runtime.artefact import DEFAULT, GRAPHS, Artefact, open_artefact
from semagent_engines.runtime.model_engine import ModelEngine, ModelOptions
from semagent_engines.runtime.warmup import warm_up

Floats = npt.NDArray[np.float32]


class OpenVino:
    """Executes an artefact with OpenVINO."""

    name = "openvino"

    def __init__(self, artefact: Artefact, threads: int | None) -> None:
        # Left to itself OpenVINO may choose bfloat16, which would break the golden tensors.
        settings: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._outputs = artefact.manifest.outputs
        core = openvino.Core()
        try:
            self._requests = {
                graph: core.compile_model(
                    str(artefact.graph(graph)), "CPU", settings
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


def open_engine(options: Mapping[str, Any]) -> ModelEngine:
    """The entry point ``openvino``; see `ModelOptions`."""
    chosen = parse_options(options, ModelOptions, where="engine openvino")
    artefact = open_artefact(Path(chosen.artefact) if chosen.artefact else DEFAULT)
    runtime = OpenVino(artefact, chosen.threads)
    return warm_up(ModelEngine(runtime, artefact, tiles=chosen.tiles))
