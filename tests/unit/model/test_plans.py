"""Half precision and TensorRT: what of it needs no GPU."""

import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from semagent.errors import EngineError
from semagent_engines.export.graphs import RestoreGraph, export_tiles, tiles_program
from semagent_engines.model.config import preset
from semagent_engines.model.network import SemModel, build
from semagent_engines.runtime.artefact import DEFAULT, Artefact, open_artefact
from semagent_engines.runtime.cli import compile_main
from semagent_engines.runtime.half import in_half_precision
from semagent_engines.runtime.plans import Loader, compile_plan, library

_LARGE = pytest.mark.skipif(
    "SEMAGENT_LARGE" not in os.environ, reason="takes 7 GB of memory: set SEMAGENT_LARGE=1"
)


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("score", "fp32"), ("restore", "fp32"), ("restore", "fp16"), ("pair", "fp32")],
)
def test_every_graph_that_ships_compiles_for_a_gpu_that_is_not_here(
    kind: str, precision: str
) -> None:
    pytest.importorskip("tensorrt_rtx")
    graph = open_artefact(DEFAULT).graph(kind)
    plan = compile_plan(graph, kind, precision=precision, capability="SM89")
    assert len(plan) > 1_000_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["base", pytest.param("large", marks=_LARGE)])
def test_larger_presets_are_exported_and_compile_for_a_gpu_that_is_not_here(
    tmp_path: Path, name: str
) -> None:
    """Their restoration, which all of the encoder takes part in."""
    pytest.importorskip("tensorrt_rtx")
    model = build(preset(name)).eval().requires_grad_(False)
    graph = tmp_path / "restore.onnx"
    export_tiles(RestoreGraph(model), graph)
    plan = compile_plan(graph, "restore", capability="SM89")
    assert len(plan) > 100_000_000
    # They are large, and pytest keeps the folders of three runs.
    graph.unlink()


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_large_is_exported_but_for_the_values_of_its_weights() -> None:
    """With these it takes too much memory and time for every run of the tests: see above."""
    with torch.device("meta"):
        model = SemModel(preset("large")).requires_grad_(False)
    graph = tiles_program(RestoreGraph(model)).model.graph
    (pixels,), (restored, experts) = graph.inputs, graph.outputs
    assert [str(size) for size in pixels.shape] == ["tiles", "1", "16*rows", "16*columns"]
    assert (restored.name, restored.shape) == ("restored", pixels.shape)
    assert (experts.name, experts.shape[1]) == ("experts", 4)
    held = sum(math.prod(weight.shape.numpy()) for weight in graph.initializers.values())
    assert held == pytest.approx(368e6, rel=0.02)


def test_half_precision_is_nearly_single_and_keeps_the_gates(artefact: Artefact) -> None:
    halved = in_half_precision(artefact.graph("restore"))
    types = {item.name: item.data_type for item in onnx.load_from_string(halved).graph.initializer}
    gates = [name for name in types if ".gate." in name]
    assert gates
    assert all(types[name] == onnx.TensorProto.FLOAT for name in gates)
    assert types["restorer.stem.weight/half"] == onnx.TensorProto.FLOAT16
    session = onnxruntime.InferenceSession(halved, providers=["CPUExecutionProvider"])
    with np.load(artefact.golden) as golden:
        expected = golden["restore/out/restored"]
        [found] = session.run(["restored"], {"pixels": golden["restore/in/pixels"]})
    allowed = artefact.manifest.tolerance["fp16"]
    assert np.abs(found - expected).max() < allowed * expected.std()


def test_compile_fills_the_cache_once(
    artefact: Artefact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    arguments = [str(artefact.folder), "--capability", "SM89", "--cache", str(tmp_path), "--json"]
    compile_main(arguments)
    compile_main(arguments)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["graph"] for row in rows] == ["score", "restore", "pair"] * 2
    assert len(list(tmp_path.glob("*.plan"))) == 3
    assert all(row["seconds"] < 1.0 for row in rows[3:])


def test_compiling_for_the_gpu_of_a_machine_without_one_asks_which(
    artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "semagent_engines.runtime.backends.tensorrt", None)
    with pytest.raises(EngineError, match="give --capability"):
        compile_main([str(artefact.folder), "--cache", str(tmp_path)])


def test_an_unknown_gpu_is_refused(artefact: Artefact) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(EngineError, match="'SM1'"):
        compile_plan(artefact.graph("pair"), "pair", capability="SM1")


def test_a_graph_that_cannot_be_built_says_why(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    floats = onnx.TensorProto.FLOAT
    wrong = onnx.helper.make_graph(
        [onnx.helper.make_node("Reshape", ["pixels", "shape"], ["reshaped"])],
        "wrong",
        [onnx.helper.make_tensor_value_info("pixels", floats, [1, 4])],
        [onnx.helper.make_tensor_value_info("reshaped", floats, [3])],
        [onnx.helper.make_tensor("shape", onnx.TensorProto.INT64, [1], [3])],
    )
    path = tmp_path / "wrong.onnx"
    onnx.save(onnx.helper.make_model(wrong), path)
    with pytest.raises(EngineError, match=r"wrong\.onnx: .*Reshaping \[1,4\] to \[3\]"):
        compile_plan(path, "score", capability="SM89")


def test_a_plan_that_cannot_be_loaded_says_why() -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(EngineError, match=r"cannot load the plan of score: .*magicTag"):
        Loader().load(b"no plan" * 40, "the plan of score")


def test_a_missing_compiler_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semagent_engines.runtime.plans.LIBRARIES", ("no_such_compiler",))
    with pytest.raises(EngineError, match=r"no_such_compiler.*extra `tensorrt`"):
        library()
