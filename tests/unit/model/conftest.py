"""A model small enough to train, export and run within seconds."""

from pathlib import Path

import pytest
import torch
from filelock import FileLock

from semagent_engines.data.batches import BatchSource
from semagent_engines.export.artefact import write_artefact
from semagent_engines.export.graphs import Calibration
from semagent_engines.export.weights import model_of_artefact
from semagent_engines.model.config import ModelConfig
from semagent_engines.model.network import SemModel, build, load_part
from semagent_engines.runtime.artefact import DEFAULT, Artefact, open_artefact
from semagent_engines.train.checkpoint import Checkpoint
from semagent_engines.train.finetune import Objective

SMALL = ModelConfig(
    name="small",
    dim=32,
    depth=2,
    heads=2,
    expert_blocks=1,
    experts=3,
    expert_ratio=1.0,
    stem_channels=16,
    decoder_blocks=(1, 1, 1),
    mask_dim=32,
    mask_depth=1,
)


@pytest.fixture(scope="session")
def small() -> ModelConfig:
    return SMALL


@pytest.fixture
def model(small: ModelConfig) -> SemModel:
    torch.manual_seed(0)
    made = build(small)
    # The last layer starts at zero, which would hide errors in the restoration.
    torch.nn.init.normal_(made.restorer.out.weight, std=0.05)
    return made.eval()


@pytest.fixture(scope="session")
def procedural() -> BatchSource:
    """Batches without any file."""
    return BatchSource([], seed=3, procedural_count=4, procedural_px=320)


@pytest.fixture(scope="session")
def artefact(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str, procedural: BatchSource
) -> Artefact:
    """An artefact of the small model: restoration untrained, blur read by the head that ships.

    Exporting takes long: of processes that share the tests, the first to need it makes it for all.
    """
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    folder = shared / "small-artefact"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            made = tmp_path_factory.mktemp("made")
            _write_artefact(made, procedural)
            made.rename(folder)
    return open_artefact(folder)


def _write_artefact(folder: Path, procedural: BatchSource) -> None:
    torch.manual_seed(0)
    objective = Objective(build(SMALL))
    head = model_of_artefact(open_artefact(DEFAULT)).blur_head.state_dict()
    load_part(objective.model, {f"blur_head.{name}": value for name, value in head.items()})
    for parameter in objective.model.restorer.out.parameters():
        torch.nn.init.normal_(parameter, std=0.03)
    weights = objective.state_dict()
    checkpoint = Checkpoint(
        config=SMALL.as_dict(),
        weights=weights,
        average=weights,
        optimizer={},
        step=0,
        elapsed_s=0.0,
        record={"validation": {}},
    )
    write_artefact(
        checkpoint,
        folder,
        calibration=Calibration(blur=1.5, pair=2.0),
        ranges=procedural,
        judged=[procedural.views(0, 2, 128)],
    )
