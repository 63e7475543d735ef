import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from semagent_engines.data.batches import BatchSource
from semagent_engines.export.graphs import Calibration, PairGraph, export_pair
from semagent_engines.export.quantise import quantise
from semagent_engines.model.network import SemModel
from semagent_engines.runtime.artefact import Artefact


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the exporter of PyTorch says of the operators it knows."""
    texts: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addHandler(handler)
    yield texts
    logger.removeHandler(handler)


def test_an_export_says_nothing_of_libraries_that_it_does_not_need(
    model: SemModel, tmp_path: Path, said: list[str]
) -> None:
    export_pair(PairGraph(model, Calibration()), tmp_path / "pair.onnx")
    assert said == []


def test_standard_output_is_left_to_results(
    artefact: Artefact, procedural: BatchSource, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantise(artefact.folder / "restore.onnx", tmp_path / "restore.int8.onnx", procedural)
    assert capsys.readouterr().out == ""
