"""Running plans of TensorRT for RTX, with the library and the GPU played by fakes.

What the fakes cannot tell is whether the real ones do as their documentation says.
"""

import ctypes
import importlib
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from semagent.errors import ConfigError, EngineError
from semagent_engines.runtime import half, plans
from semagent_engines.runtime.artefact import DEFAULT, Artefact, open_artefact
from semagent_engines.runtime.cli import compile_main
from semagent_engines.runtime.plans import Gpu, cached_plan

BACKEND = "semagent_engines.runtime.backends.tensorrt"


class Cuda(ModuleType):
    """`cuda.bindings.runtime` with the memory of this machine as that of the GPU."""

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.cudaHostAllocDefault = 0
        self.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
        self.held: dict[int, Any] = {}

    def cudaGetDeviceProperties(self, device: int) -> tuple[int, SimpleNamespace]:
        return 0, SimpleNamespace(major=8, minor=9, name=b"NVIDIA Fake 4090")

    def cudaSetDevice(self, device: int) -> tuple[int]:
        return (0,)

    def cudaStreamCreate(self) -> tuple[int, int]:
        return 0, 7

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        return (0,)

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        return (0,)

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        memory = ctypes.create_string_buffer(size)
        self.held[ctypes.addressof(memory)] = memory
        return 0, ctypes.addressof(memory)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[int, int]:
        return self.cudaMalloc(size)

    def cudaFree(self, address: int) -> tuple[int]:
        del self.held[address]
        return (0,)

    def cudaFreeHost(self, address: int) -> tuple[int]:
        return self.cudaFree(address)

    def cudaMemcpyAsync(self, to: int, of: int, size: int, kind: int, stream: int) -> tuple[int]:
        ctypes.memmove(to, of, size)
        return (0,)


class Plan:
    """A loaded plan, and its own context: the output is the mean of each tile, (N,)."""

    num_io_tensors = 2

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}
        self.counts: list[int] = []

    def create_execution_context(self) -> "Plan":
        return self

    def get_tensor_name(self, index: int) -> str:
        return ("pixels", "mean")[index]

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return shape[0] <= 32 and max(shape[2:]) <= 512

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape if name == "pixels" else self.shape[:1]

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        values = np.prod(self.shape, dtype=int) * ctypes.c_float
        pixels = np.ctypeslib.as_array(values.from_address(self.addresses["pixels"]))
        means = (self.shape[0] * ctypes.c_float).from_address(self.addresses["mean"])
        means[:] = pixels.reshape(self.shape[0], -1).mean(axis=1).tolist()
        self.counts.append(self.shape[0])
        return True


@pytest.fixture(scope="module")
def artefact() -> Artefact:
    return open_artefact(DEFAULT)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Kind and capability of every plan that was compiled, by nobody; the library is a fake."""
    made: list[tuple[str, str | None]] = []

    def compile_plan(graph: Path, kind: str, *, precision: str, capability: str | None) -> bytes:
        made.append((kind, capability))
        return b"plan"

    fake = SimpleNamespace(__name__="tensorrt_rtx", __version__="1.7.1", ComputeCapability=object)
    monkeypatch.setattr(plans, "library", lambda: fake)
    monkeypatch.setattr(plans, "compile_plan", compile_plan)
    return made


@pytest.fixture
def backend(compiled: list[Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    cuda = Cuda()
    bindings = ModuleType("cuda.bindings")
    monkeypatch.setattr(bindings, "runtime", cuda, raising=False)
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.delitem(sys.modules, BACKEND, raising=False)
    module = importlib.import_module(BACKEND)
    loader = SimpleNamespace(errors=["said so"], load=lambda plan, what: Plan())
    monkeypatch.setattr(module, "Loader", lambda: loader)
    yield module
    sys.modules.pop(BACKEND)


def opened(backend: Any, artefact: Artefact, cache: Path) -> Any:
    with pytest.warns(UserWarning, match="not been verified"):
        return backend.open_runtime(artefact, backend.TensorRtOptions(cache=str(cache)))


def test_plans_made_elsewhere_are_used(
    backend: Any, compiled: list[Any], artefact: Artefact, tmp_path: Path
) -> None:
    compile_main([str(artefact.folder), "--capability", "SM89", "--cache", str(tmp_path)])
    assert compiled == [("score", "SM89"), ("restore", "SM89"), ("pair", "SM89")]
    opened(backend, artefact, tmp_path).close()
    assert len(compiled) == 3


def test_the_gpu_at_hand_is_compiled_for_as_it_is_and_named(
    backend: Any,
    compiled: list[Any],
    artefact: Artefact,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    compile_main([str(artefact.folder), "--cache", str(tmp_path), "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["gpu"] for row in rows} == {"NVIDIA Fake 4090"}
    assert compiled == [("score", None), ("restore", None), ("pair", None)]


def test_a_plan_compiled_otherwise_is_not_used(
    compiled: list[Any], artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(kind: str, capability: str = "SM89", precision: str = "fp16") -> int:
        before = len(compiled)
        cached_plan(artefact, kind, tmp_path, gpu=Gpu(capability), precision=precision)
        return len(compiled) - before

    assert [made("score"), made("score"), made("restore"), made("restore")] == [1, 0, 1, 0]
    assert made("score", capability="SM86") == 1
    assert made("restore", precision="fp32") == 1
    assert made("score", precision="fp32") == 0, "only the restoration is halved"
    changed = tmp_path / "half.py"
    changed.write_text("another recipe")
    monkeypatch.setattr(half, "__file__", str(changed))
    assert [made("restore"), made("score")] == [1, 0]
    monkeypatch.setattr(plans, "_LARGEST", (64, 1, 512, 512))
    assert [made("score"), made("score")] == [1, 0]


@pytest.mark.parametrize("kept", [0, 2])
def test_a_plan_that_was_cut_short_is_compiled_anew(
    compiled: list[Any], artefact: Artefact, tmp_path: Path, kept: int
) -> None:
    plan_of = partial(cached_plan, artefact, "pair", tmp_path, gpu=Gpu("SM89"), precision="fp16")
    plan_of()
    [path] = tmp_path.glob("*.plan")
    path.write_bytes(path.read_bytes()[:kept])
    assert plan_of() == plan_of() == b"plan"
    assert len(compiled) == 2


def test_two_processes_may_make_one_plan_at_once(
    compiled: list[Any], artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_of = partial(cached_plan, artefact, "pair", tmp_path, gpu=Gpu("SM89"), precision="fp16")
    write = Path.write_bytes

    def overtaken(path: Path, data: bytes) -> int:
        monkeypatch.setattr(Path, "write_bytes", write)
        size = path.write_bytes(data)
        assert plan_of() == b"plan"
        return size

    monkeypatch.setattr(Path, "write_bytes", overtaken)
    assert plan_of() == b"plan"
    assert len(compiled) == 2
    [path] = tmp_path.iterdir()
    assert path.suffix == ".plan"


def test_more_tiles_than_a_plan_takes_are_run_in_parts(
    backend: Any, artefact: Artefact, tmp_path: Path
) -> None:
    runtime = opened(backend, artefact, tmp_path)
    pixels = np.random.default_rng(0).random((70, 1, 16, 32), np.float32)
    found = runtime.run("score", {"pixels": pixels})
    np.testing.assert_allclose(found["mean"], pixels.mean(axis=(1, 2, 3)), rtol=1e-5)
    assert runtime._graphs["score"]._context.counts == [32, 32, 6]
    runtime.close()
    assert not backend.cuda.held, "everything is freed"


def test_a_shape_that_the_plan_refuses_is_an_error(
    backend: Any, artefact: Artefact, tmp_path: Path
) -> None:
    runtime = opened(backend, artefact, tmp_path)
    with pytest.raises(EngineError, match=r"pixels of shape \(1, 1, 528, 16\): said so"):
        runtime.run("score", {"pixels": np.zeros((1, 1, 528, 16), np.float32)})
    runtime.close()


def test_a_gpu_that_cannot_be_is_refused(backend: Any) -> None:
    with pytest.raises(ConfigError, match="device"):
        backend.open_engine({"device": -1})
