"""Frames to give to commands, and folders of them."""

from pathlib import Path

import cv2
import numpy as np


def stack_of(folder: Path, frames: list[np.ndarray]) -> Path:
    """A folder with these frames and the table of where they were taken."""
    folder.mkdir()
    rows = ["file,working_distance_um"]
    for index, pixels in enumerate(frames):
        cv2.imwrite(str(folder / f"{index}.png"), pixels)
        rows.append(f"{index}.png,{5000 + 2.5 * index}")
    (folder / "stack.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder


def flat(grey: float, noise: float) -> list[np.ndarray]:
    """Frames of an empty field."""
    rng = np.random.default_rng(4)
    return [rng.normal(grey, noise, (256, 256)).clip(0, 255).astype(np.uint8) for _ in range(3)]
