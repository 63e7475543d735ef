"""Synthetic micrographs and information bars for the reader tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

Image = npt.NDArray[Any]


def make_micrograph(height: int = 480, width: int = 640, seed: int = 0) -> Image:
    """Blobs of several sizes with noise: an ordinary specimen, uint8."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(height, width)).astype(np.float32)
    field = sum(cv2.GaussianBlur(noise, (0, 0), sigma) * sigma for sigma in (2.0, 8.0))
    noisy = 120 + 40 * field / field.std() + rng.normal(0, 8, (height, width))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def print_bar(image: Image, rows: int, ink: int = 255, paper: int = 0) -> Image:
    """Print an information bar of two lines of text over the bottom rows."""
    printed = image.copy()
    height, width = image.shape
    printed[height - rows :] = paper
    for line, words in enumerate(("HV 5.00 kV  det ETD  WD 4.9 mm", "mag 4 000 x  HFW 31.7 um")):
        baseline = height - rows + round(rows * (0.42 + 0.45 * line))
        cv2.putText(printed, words, (width // 20, baseline), 0, rows / 90, ink, 1, cv2.LINE_AA)
    return printed


@pytest.fixture(scope="session")
def micrograph() -> Image:
    return make_micrograph()


@pytest.fixture(scope="session")
def micrographs() -> Callable[..., Image]:
    return make_micrograph


@pytest.fixture(scope="session")
def with_bar() -> Callable[..., Image]:
    return print_bar


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a TIFF of 48 rows and 64 columns with private tags (code, type, data)."""

    def write_tiff(tags: list[tuple[int, int, bytes]], name: str = "image.tif") -> Path:
        path = tmp_path / name
        pixels = np.random.default_rng(0).integers(60, 180, (48, 64), np.uint8)
        extra = [(code, kind, len(data), data, True) for code, kind, data in tags]
        tifffile.imwrite(path, pixels, extratags=extra)
        return path

    return write_tiff
