"""Compiling an artefact's graphs to TensorRT plans, with or without a GPU at hand.

Works with TensorRT for RTX (``tensorrt_rtx``, consumer and workstation GPUs, compiles without
a GPU) and with TensorRT (``tensorrt``, needs the GPU it compiles for); their interfaces agree
in what is used here. Networks are strongly typed: they compute in the types that the graphs state.
"""

import hashlib
import importlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from semagent.errors import EngineError
from semagent_engines.runtime import half
from semagent_engines.runtime.artefact import Artefact, file_hash

LIBRARIES = ("tensorrt_rtx", "tensorrt")

MOST_TILES = 32
"""A plan takes no more of them at once."""

_SMALLEST, _LARGEST = (1, 1, 128, 128), (MOST_TILES, 1, 512, 512)
_USUAL = {"score": (24, 1, 192, 192), "restore": (1, 1, 288, 288)}
_TILES = (1, 24, MOST_TILES)


@dataclass(frozen=True)
class Gpu:
    """What a plan is for.

    Attributes:
        capability: compute capability, such as ``SM89``.
        name: what the GPU calls itself; ``None`` for one that is not here.
    """

    capability: str
    name: str | None = None


def library() -> ModuleType:
    """The first installed of `LIBRARIES`.

    Raises:
        EngineError: none is installed.
    """
    for name in LIBRARIES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise EngineError(
        f"none of {', '.join(LIBRARIES)} is installed; install semagent with the extra `tensorrt`"
    )


def compile_plan(
    graph: Path, kind: str, *, precision: str = "fp32", capability: str | None = None
) -> bytes:
    """Compile one graph.

    Args:
        graph: ``.onnx`` file in single precision.
        kind: ``score``, ``restore`` or ``pair``; decides the shapes that are optimised for.
        precision: ``fp32``, or ``fp16`` for a restoration in half precision (see `half`); the
            readings are quick and stay in single precision.
        capability: name of a compute capability such as ``SM89``, for which no GPU has to be
            present; ``None`` compiles for the GPU at hand.

    Returns:
        The serialised plan.

    Raises:
        EngineError: the library is missing, refuses the graph or cannot build it.
    """
    trt = library()
    logger, errors = listen(trt)
    builder = trt.Builder(logger)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    halved = _is_halved(kind, precision)
    if not parser.parse(half.in_half_precision(graph) if halved else graph.read_bytes()):
        raise EngineError(f"{trt.__name__} cannot read {graph}: {'; '.join(errors)}")
    config = builder.create_builder_config()
    if capability is not None:
        _compile_for(trt, config, capability)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        profile.set_shape(tensor.name, *_shapes(kind, tuple(tensor.shape)))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{trt.__name__} cannot build {graph}: {'; '.join(errors)}")
    return bytes(plan)


def cached_plan(
    artefact: Artefact,
    kind: str,
    cache: Path,
    *,
    gpu: Gpu,
    precision: str,
) -> bytes:
    """The plan from ``cache``, compiled and stored there if it is not yet.

    The key is the GPU, the library with its version, the hash of the graph, the shapes it is
    optimised for and how it is halved: any other plan would be refused, or worse, run slowly.
    TensorRT for RTX compiles for a compute capability, so that its plans can be made elsewhere.
    A file's name also has the hash of its content: one that was damaged is not taken.

    Args:
        artefact: whose graph it is.
        kind: see `compile_plan`.
        cache: folder, made if it does not exist.
        gpu: which the plan is for; one without a name need not be here.
        precision: see `compile_plan`.
    """
    trt = library()
    graph = artefact.graph(kind)
    portable = hasattr(trt, "ComputeCapability")
    parts = (
        gpu.capability,
        "" if portable else gpu.name,
        trt.__name__,
        trt.__version__,
        artefact.manifest.hashes[graph.name],
        (_SMALLEST, _USUAL.get(kind), _LARGEST, _TILES),
        file_hash(Path(half.__file__)) if _is_halved(kind, precision) else "",
    )
    key = _digest("\n".join(map(str, parts)).encode())
    for path in sorted(cache.glob(f"{kind}-{key}-*.plan")):
        plan = path.read_bytes()
        if path.stem.endswith(_digest(plan)):
            return plan
    capability = gpu.capability if gpu.name is None else None
    plan = compile_plan(graph, kind, precision=precision, capability=capability)
    cache.mkdir(parents=True, exist_ok=True)
    # In a folder of its own, as another process may be making the same plan.
    with tempfile.TemporaryDirectory(dir=cache) as own:
        partial = Path(own) / f"{kind}-{key}-{_digest(plan)}.plan"
        partial.write_bytes(plan)
        partial.replace(cache / partial.name)
    return plan


class Loader:
    """Loads plans for the GPU at hand.

    Attributes:
        errors: what the library complained of since the last plan was loaded.
    """

    def __init__(self) -> None:
        self._library = library()
        self._logger, self.errors = listen(self._library)
        self._runtime = self._library.Runtime(self._logger)

    def load(self, plan: bytes, what: str) -> Any:
        """The library's engine of a plan.

        Args:
            plan: see `compile_plan`.
            what: name of the plan, for the error.

        Raises:
            EngineError: the plan is broken, or this GPU cannot run it.
        """
        self.errors.clear()
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            said = "; ".join(self.errors)
            raise EngineError(f"{self._library.__name__} cannot load {what}: {said}")
        return engine


def listen(trt: ModuleType) -> tuple[Any, list[str]]:
    """A logger for the library, and the list that its errors come into.

    By itself the library prints them, and whoever catches an error does not learn the reason.
    """
    errors: list[str] = []
    serious = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)

    class Listener(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in serious:
                errors.append(message)

    return Listener(), errors


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _is_halved(kind: str, precision: str) -> bool:
    return precision == "fp16" and kind == "restore"


def _compile_for(trt: ModuleType, config: Any, capability: str) -> None:
    known = getattr(trt, "ComputeCapability", None)
    chosen = getattr(known, capability, None)
    if chosen is None:
        raise EngineError(f"{trt.__name__} {trt.__version__} does not compile for {capability!r}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(chosen, 0)


def _shapes(kind: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Smallest, usual and largest shape of an input."""
    if kind in _USUAL:
        return _SMALLEST, _USUAL[kind], _LARGEST
    return tuple((count, *shape[1:]) for count in _TILES)
