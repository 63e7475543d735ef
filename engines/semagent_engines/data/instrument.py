"""Frames of one instrument, as a session or a folder of images holds them, for adapting to it."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from semagent.errors import InputFileError
from semagent_engines.data.batches import Views
from semagent_engines.data.screening import specimen_rows
from semagent_engines.data.sources import IMAGE_SUFFIXES, read_grey, usable_image

Image = npt.NDArray[np.float32]

_FEWEST = 4
_DERIVED = "derived"
_SMALLEST_PX = 128


@dataclass(frozen=True)
class Frames:
    """Some frames of an instrument.

    Attributes:
        raw: each (height, width), float32 in [0, 1], without information bar.
        sharp: those of them that are sharp and quiet once binned down, at that binning.
    """

    raw: tuple[Image, ...]
    sharp: tuple[Image, ...]


@dataclass(frozen=True)
class RealPair:
    """A defocused frame and a focused one of the same field, registered, on one grey scale."""

    defocused: Image
    focused: Image


def read_frames(folder: Path) -> tuple[Frames, Frames]:
    """Frames to adapt on, and every fourth frame to judge by.

    Args:
        folder: a recorded session, or any folder with images; derived frames are left out.

    Raises:
        InputFileError: there are too few frames, or no sharp one on either side.
    """
    if not folder.is_dir():
        raise InputFileError(f"{folder}: no such folder; give a recorded session or images")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and _DERIVED not in path.relative_to(folder).parts
    )
    if len(files) < _FEWEST:
        raise InputFileError(f"{folder}: {len(files)} frames; at least {_FEWEST} are needed")
    sides = [
        _frames([path for index, path in enumerate(files) if (index % _FEWEST == 1) is judged])
        for judged in (False, True)
    ]
    for side, use in zip(sides, ("to adapt on", "held out to judge by"), strict=True):
        if not side.sharp:
            raise InputFileError(
                f"{folder}: none of the {len(side.raw)} frames {use} is sharp and quiet, "
                "even binned by 4; record some frames in focus"
            )
    return sides[0], sides[1]


def read_pairs(table: Path) -> tuple[RealPair, ...]:
    """Pairs from a CSV table with the columns ``defocused`` and ``focused``, files beside it.

    The focused frame is moved onto the defocused one (phase correlation, sub-pixel) and brought
    to its grey scale.

    Raises:
        InputFileError: the table or a file cannot be used, or two files differ in size.
    """
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        names = [(table.parent / row["defocused"], table.parent / row["focused"]) for row in rows]
    except (OSError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputFileError(
            f"{table}: not a table with the columns defocused and focused: {error}"
        ) from error
    return tuple(_pair(*both) for both in names)


def crops(pairs: Sequence[RealPair], rng: np.random.Generator, count: int, edge_px: int) -> Views:
    """Random squares of some pairs; their blur and noise are not known and stand as 0."""
    pixels, truth = [], []
    for index in rng.integers(len(pairs), size=count):
        pair = pairs[int(index)]
        top, left = (int(rng.integers(length - edge_px + 1)) for length in pair.focused.shape)
        place = (slice(top, top + edge_px), slice(left, left + edge_px))
        pixels.append(pair.defocused[place])
        truth.append(pair.focused[place])
    return Views(
        torch.from_numpy(np.stack(pixels))[:, None],
        torch.from_numpy(np.stack(truth))[:, None],
        torch.zeros(count, 3),
        torch.zeros(count),
    )


def _frames(files: Sequence[Path]) -> Frames:
    raw, sharp = [], []
    for path in files:
        grey = read_grey(path)
        image = grey[specimen_rows(grey)].astype(np.float32) / 255.0
        if min(image.shape) < _SMALLEST_PX:
            raise InputFileError(
                f"{path}: {image.shape[1]} x {image.shape[0]} pixels of specimen; "
                f"{_SMALLEST_PX} x {_SMALLEST_PX} are needed"
            )
        raw.append(image)
        usable = usable_image(grey)
        if usable is not None:
            sharp.append(usable)
    return Frames(tuple(raw), tuple(sharp))


def _pair(defocused: Path, focused: Path) -> RealPair:
    blurred, truth = (read_grey(path).astype(np.float32) / 255.0 for path in (defocused, focused))
    if blurred.shape != truth.shape:
        raise InputFileError(
            f"{focused}: {truth.shape[1]} x {truth.shape[0]} pixels, but {defocused.name} has "
            f"{blurred.shape[1]} x {blurred.shape[0]}"
        )
    window = cv2.createHanningWindow(truth.shape[::-1], cv2.CV_32F)
    (x, y), _ = cv2.phaseCorrelate(truth, blurred, window)
    moved = cv2.warpAffine(
        truth,
        np.array([[1, 0, x], [0, 1, y]], np.float32),
        truth.shape[::-1],
        borderMode=cv2.BORDER_REFLECT_101,
    )
    # Coarse structure is the same in both, whatever the focus: it gives contrast and brightness.
    coarse = [cv2.GaussianBlur(image, (0, 0), 12.0) for image in (moved, blurred)]
    gain, offset = np.polyfit(coarse[0].ravel(), coarse[1].ravel(), 1)
    margin = int(np.ceil(max(abs(x), abs(y)))) + 1
    inner = (slice(margin, -margin), slice(margin, -margin))
    graded = (gain * moved + offset).astype(np.float32)
    return RealPair(np.ascontiguousarray(blurred[inner]), np.ascontiguousarray(graded[inner]))
