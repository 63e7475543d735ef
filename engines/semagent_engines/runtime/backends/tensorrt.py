"""TensorRT and TensorRT for RTX.

Compilation is tested. Execution has met one GPU, an NVIDIA H200, for which TensorRT for RTX 1.7.1
is not made: it refused to load the plans. Until a plan has run, ``VERIFIED_ON`` stays ``None`` and
opening the engine warns.
"""

import ctypes
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from cuda.bindings import runtime as cuda

from semagent.errors import EngineError
from semagent.options import parse_options
from semagent_engines.runtime.artefact import GRAPHS, Artefact
from semagent_engines.runtime.model_engine import ModelEngine, ModelOptions
from semagent_engines.runtime.opening import open_model_engine
from semagent_engines.runtime.plans import MOST_TILES, Gpu, Loader, cached_plan
from semagent_engines.runtime.tiling import Floats

VERIFIED_ON: str | None = None


class TensorRtOptions(ModelOptions, frozen=True, kw_only=True):
    """Options of the engine.

    Attributes:
        cache: folder for compiled plans.
        device: number of the GPU.
        precision: of the restoration; with ``fp16`` gates and norms stay in single precision.
    """

    cache: str = "plans"
    device: Annotated[int, msgspec.Meta(ge=0)] = 0
    precision: Literal["fp16", "fp32"] = "fp16"


class _Buffer:
    """Memory on the GPU and its pinned twin here, from which copies do not wait."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.device = _check(cuda.cudaMalloc(size))
        self._host = _check(cuda.cudaHostAlloc(size, cuda.cudaHostAllocDefault))
        held = (ctypes.c_float * (size // 4)).from_address(int(self._host))
        self._values: Floats = np.ctypeslib.as_array(held)

    def view(self, shape: tuple[int, ...]) -> Floats:
        """The pinned memory as an array of ``shape``; written to again by the next run."""
        values: Floats = self._values[: math.prod(shape)].reshape(shape)
        return values

    def free(self) -> None:
        _check(cuda.cudaFree(self.device))
        _check(cuda.cudaFreeHost(self._host))


class _Graph:
    """One plan with the buffers of the largest shapes it has seen."""

    def __init__(self, engine: Any, stream: Any, errors: list[str]) -> None:
        self._engine, self._stream, self._errors = engine, stream, errors
        self._context = engine.create_execution_context()
        self._names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self._buffers: dict[str, _Buffer] = {}

    def run(self, inputs: dict[str, Floats]) -> dict[str, Floats]:
        for name, value in inputs.items():
            if not self._context.set_input_shape(name, value.shape):
                raise self._refused(f"{name} of shape {value.shape}")
        shapes = {name: tuple(self._context.get_tensor_shape(name)) for name in self._names}
        for name, shape in shapes.items():
            self._context.set_tensor_address(name, int(self._buffer(name, shape).device))
        to_device = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        to_host = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        for name, value in inputs.items():
            self._buffers[name].view(value.shape)[...] = value
            self._copy(name, shapes[name], to_device)
        if not self._context.execute_async_v3(int(self._stream)):
            raise self._refused("to execute a plan")
        outputs = [name for name in self._names if name not in inputs]
        for name in outputs:
            self._copy(name, shapes[name], to_host)
        _check(cuda.cudaStreamSynchronize(self._stream))
        return {name: self._buffers[name].view(shapes[name]).copy() for name in outputs}

    def _refused(self, what: str) -> EngineError:
        return EngineError(f"TensorRT refused {what}: {'; '.join(self._errors)}")

    def free(self) -> None:
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers = {}

    def _copy(self, name: str, shape: tuple[int, ...], kind: Any) -> None:
        buffer = self._buffers[name]
        here = buffer.view(shape)
        ends = (buffer.device, here.ctypes.data)
        if kind == cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost:
            ends = ends[::-1]
        _check(cuda.cudaMemcpyAsync(*ends, here.nbytes, kind, self._stream))

    def _buffer(self, name: str, shape: tuple[int, ...]) -> _Buffer:
        size = 4 * math.prod(shape)
        known = self._buffers.get(name)
        if known is None or known.size < size:
            if known is not None:
                known.free()
            self._buffers[name] = known = _Buffer(size)
        return known


class TensorRt:
    """Executes an artefact on one GPU, on one stream."""

    name = "tensorrt"

    def __init__(self, artefact: Artefact, options: TensorRtOptions) -> None:
        gpu = gpu_of(options.device)
        _check(cuda.cudaSetDevice(options.device))
        self._stream = _check(cuda.cudaStreamCreate())
        self._loader = Loader()
        self._graphs = {}
        for graph in GRAPHS:
            plan = cached_plan(
                artefact, graph, Path(options.cache), gpu=gpu, precision=options.precision
            )
            engine = self._loader.load(plan, f"the plan of {graph} on {gpu.name}")
            self._graphs[graph] = _Graph(engine, self._stream, self._loader.errors)

    def run(self, graph: str, inputs: dict[str, Floats]) -> dict[str, Floats]:
        """See `Runtime`. More tiles than a plan takes are run one part after the other."""
        count = len(next(iter(inputs.values())))
        parts = [
            self._graphs[graph].run(
                {name: value[start : start + MOST_TILES] for name, value in inputs.items()}
            )
            for start in range(0, count, MOST_TILES)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        """Free buffers and stream."""
        for graph in self._graphs.values():
            graph.free()
        self._graphs = {}
        _check(cuda.cudaStreamDestroy(self._stream))


def gpu_of(device: int) -> Gpu:
    """The GPU with this number.

    Raises:
        EngineError: there is none.
    """
    found = _check(cuda.cudaGetDeviceProperties(device))
    return Gpu(f"SM{found.major}{found.minor}", str(found.name.decode()))


def _check(answer: tuple[Any, ...]) -> Any:
    """The value of a CUDA call.

    Raises:
        EngineError: the call failed.
    """
    status, *values = answer
    if int(status) != 0:
        raise EngineError(f"CUDA: {cuda.cudaGetErrorString(status)[1].decode()}")
    return values[0] if values else None


OPTIONS = TensorRtOptions


def open_runtime(artefact: Artefact, options: TensorRtOptions) -> TensorRt:
    """Compile the graphs, or take them from the cache, and load them.

    Raises:
        EngineError: no library, no GPU, or the library refuses a graph.
    """
    if VERIFIED_ON is None:
        warnings.warn("the engine tensorrt has not been verified on any GPU yet", stacklevel=2)
    return TensorRt(artefact, options)


def open_engine(options: Mapping[str, Any]) -> ModelEngine:
    """The entry point ``tensorrt``; see `TensorRtOptions`."""
    chosen = parse_options(options, TensorRtOptions, where="engine tensorrt")
    return open_model_engine(chosen, open_runtime)
