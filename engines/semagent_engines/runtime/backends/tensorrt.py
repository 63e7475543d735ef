"""TensorRT and TensorRT for RTX.

Compilation is tested. Execution has never met a GPU: until it has, ``VERIFIED_ON`` stays
``None`` and opening the engine warns.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda.bindings import runtime as cuda

from semagent.errors import EngineError
from semagent.options import parse_options
from semagent_engines.runtime.artefact import DEFAULT, GRAPHS, Artefact, open_artefact
from semagent_engines.runtime.model_engine import ModelEngine, ModelOptions
from semagent_engines.runtime.plans import cached_plan, library
from semagent_engines.runtime.warmup import warm_up

Floats = npt.NDArray[np.float32]

VERIFIED_ON: str | None = None


class TensorRtOptions(ModelOptions, frozen=True, kw_only=True):
    """Options of the engine.

    Attributes:
        cache: folder for compiled plans.
        device: number of the GPU.
    """

    cache: str = "plans"
    device: int = 0


class _Graph:
    """One plan with the buffers of the largest shapes it has seen."""

    def __init__(self, engine: Any, stream: Any) -> None:
        self._engine, self._stream = engine, stream
        self._context = engine.create_execution_context()
        self._names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self._device: dict[str, tuple[Any, int]] = {}

    def run(self, inputs: dict[str, Floats]) -> dict[str, Floats]:
        arrays = {name: np.ascontiguousarray(value, np.float32) for name, value in inputs.items()}
        for name, value in arrays.items():
            self._context.set_input_shape(name, value.shape)
        outputs = {
            name: np.empty(tuple(self._context.get_tensor_shape(name)), np.float32)
            for name in self._names
            if name not in arrays
        }
        for name, value in (arrays | outputs).items():
            self._context.set_tensor_address(name, int(self._buffer(name, value.nbytes)))
        to_device = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        to_host = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        for name, value in arrays.items():
            pointer = self._device[name][0]
            _check(
                cuda.cudaMemcpyAsync(
                    pointer, value.ctypes.data, value.nbytes, to_device, self._stream
                )
            )
        if not self._context.execute_async_v3(int(self._stream)):
            raise EngineError("TensorRT refused to execute a plan; its log says why")
        for name, value in outputs.items():
            pointer = self._device[name][0]
            _check(
                cuda.cudaMemcpyAsync(
                    value.ctypes.data, pointer, value.nbytes, to_host, self._stream
                )
            )
        _check(cuda.cudaStreamSynchronize(self._stream))
        return outputs

    def free(self) -> None:
        for pointer, _ in self._device.values():
            _check(cuda.cudaFree(pointer))
        self._device = {}

    def _buffer(self, name: str, size: int) -> Any:
        pointer, capacity = self._device.get(name, (None, 0))
        if capacity < size:
            if pointer is not None:
                _check(cuda.cudaFree(pointer))
            pointer = _check(cuda.cudaMalloc(size))
            self._device[name] = (pointer, size)
        return pointer


class TensorRt:
    """Executes an artefact on one GPU, on one stream."""

    name = "tensorrt"

    def __init__(self, artefact: Artefact, options: TensorRtOptions) -> None:
        trt = library()
        _check(cuda.cudaSetDevice(options.device))
        gpu = _check(cuda.cudaGetDeviceProperties(options.device)).name.decode()
        self._stream = _check(cuda.cudaStreamCreate())
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._graphs = {}
        for graph in GRAPHS:
            plan = cached_plan(artefact, graph, Path(options.cache), gpu=gpu)
            engine = self._runtime.deserialize_cuda_engine(plan)
            if engine is None:
                raise EngineError(f"{trt.__name__} cannot load the plan of {graph} on {gpu}")
            self._graphs[graph] = _Graph(engine, self._stream)

    def run(self, graph: str, inputs: dict[str, Floats]) -> dict[str, Floats]:
        """See `Runtime`."""
        return self._graphs[graph].run(inputs)

    def close(self) -> None:
        """Free buffers and stream."""
        for graph in self._graphs.values():
            graph.free()
        self._graphs = {}
        _check(cuda.cudaStreamDestroy(self._stream))


def _check(answer: tuple[Any, ...]) -> Any:
    """The value of a CUDA call.

    Raises:
        EngineError: the call failed.
    """
    status, *values = answer
    if int(status) != 0:
        raise EngineError(f"CUDA: {cuda.cudaGetErrorString(status)[1].decode()}")
    return values[0] if values else None


def open_engine(options: Mapping[str, Any]) -> ModelEngine:
    """The entry point ``tensorrt``; see `TensorRtOptions`."""
    chosen = parse_options(options, TensorRtOptions, where="engine tensorrt")
    if VERIFIED_ON is None:
        warnings.warn("the engine tensorrt has not been verified on any GPU yet", stacklevel=2)
    artefact = open_artefact(Path(chosen.artefact) if chosen.artefact else DEFAULT)
    return warm_up(ModelEngine(TensorRt(artefact, chosen), artefact, tiles=chosen.tiles))
