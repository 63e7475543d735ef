"""The benchmarks are programs: their modules lie beside them."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from focusing.trials import Fields  # noqa: E402
from through_focus import SOURCES  # noqa: E402


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of the real micrographs, with drawn ones."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for source in SOURCES["train"]:
        (folder / "train" / source).mkdir(parents=True)
        for index in range(2):
            spots = cv2.GaussianBlur(rng.random((900, 1100), np.float32), (0, 0), 6)
            grey = 255 * (spots > np.median(spots))
            cv2.imwrite(str(folder / "train" / source / f"{index}.png"), grey.astype(np.uint8))
    return folder


@pytest.fixture(scope="session")
def fields(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Fields:
    return Fields(data, "train", tmp_path_factory.mktemp("cache"))
