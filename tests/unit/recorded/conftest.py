"""Recorded stacks of small frames, each filled with its own grey value."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

HEIGHT, WIDTH = 24, 32


def write_png(path: Path, level: int) -> Path:
    ok, data = cv2.imencode(".png", np.full((HEIGHT, WIDTH), level, np.uint8))
    assert ok
    path.write_bytes(data.tobytes())
    return path


def write_vendor_tiff(
    path: Path, level: int, working_distance_m: float | None = None, **options: Any
) -> Path:
    """A TIFF with a Thermo Fisher tag."""
    shape, dtype = options.get("shape", (HEIGHT, WIDTH)), options.get("dtype", np.uint8)
    lines = [
        "[Beam]",
        f"HV={options.get('voltage_v', 5000)}",
        *(f"Stigmator{axis}={value}" for axis, value in options.get("stigmator", {}).items()),
        "[EBeam]",
        *([] if working_distance_m is None else [f"WD={working_distance_m!r}"]),
        "[Scan]",
        f"PixelWidth={options.get('pixel_m', 1e-8)!r}",
    ]
    tag = "\n".join(lines).encode()
    tifffile.imwrite(
        path, np.full(shape, level, dtype), extratags=[(34682, 2, len(tag), tag, True)]
    )
    return path


@pytest.fixture
def png() -> Callable[..., Path]:
    return write_png


@pytest.fixture
def vendor_tiff() -> Callable[..., Path]:
    return write_vendor_tiff


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Write ``stack.csv`` with its images and return the folder."""

    def write(*lines: str, images: int = 5) -> Path:
        for index in range(images):
            write_png(tmp_path / f"f{index}.png", 10 * (index + 1))
        (tmp_path / "stack.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture
def five(table: Callable[..., Path]) -> Path:
    """Five frames from 5000 to 5008 µm, recorded in another order."""
    distances_um = (5004, 5000, 5002, 5008, 5006)
    rows = [f"f{index}.png,{distance}" for index, distance in enumerate(distances_um)]
    return table("file,working_distance_um", *rows)


@pytest.fixture
def grid(table: Callable[..., Path]) -> Path:
    """Three working distances at three settings of stigmator x and two of y."""
    rows = [
        f"f{index}.png,{distance},{x},{y}"
        for index, (distance, x, y) in enumerate(
            (distance, x, y)
            for distance in (5000, 5010, 5020)
            for x in (-0.1, 0.0, 0.1)
            for y in (0.0, 0.2)
        )
    ]
    return table("file,working_distance_um,stigmator_x,stigmator_y", *rows, images=18)
