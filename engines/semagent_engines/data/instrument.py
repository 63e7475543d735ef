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
from semagent.registration import Shift, fingerprint, shift_between
from semagent_engines.data.batches import Views
from semagent_engines.data.sources import image_files, read_micrograph, usable_image

Image = npt.NDArray[np.float32]

_FEWEST = 4
_COLUMNS = ("defocused", "focused")
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
        folder: a recorded session, or any folder with images; see `image_files`.

    Raises:
        InputFileError: there are too few frames, or no sharp one on either side.
    """
    if not folder.is_dir():
        raise InputFileError(f"{folder}: no such folder; give a recorded session or images")
    files = image_files(folder)
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

    The focused frame is moved onto the defocused one, see `semagent.registration`, and brought to
    its grey scale. What is information bar or burnt-in text in one of them is cut off both.

    Raises:
        InputFileError: the table or a file cannot be used, two files differ in size or cannot be
            registered, or too little of their field is in both.
    """
    try:
        # Excel begins its tables with a byte order mark.
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputFileError(f"{table}: not a CSV table: {error}") from error
    if not set(_COLUMNS) <= set(columns):
        raise InputFileError(
            f"{table}: the columns are {', '.join(columns) or 'none'}; "
            f"expected {' and '.join(_COLUMNS)}, separated by a comma"
        )
    if not rows:
        raise InputFileError(f"{table}: no pair below the names of the columns")
    pairs = []
    for line, row in enumerate(rows, start=2):
        if not all(row[column] for column in _COLUMNS):
            raise InputFileError(f"{table}: line {line} does not name two files")
        pairs.append(_pair(*(table.parent / row[column] for column in _COLUMNS)))
    return tuple(pairs)


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
        image = read_micrograph(path).specimen
        _check_size(path, image, "of specimen")
        raw.append(image)
        usable = usable_image(image)
        if usable is not None:
            sharp.append(usable)
    return Frames(tuple(raw), tuple(sharp))


def _pair(defocused: Path, focused: Path) -> RealPair:
    both = [read_micrograph(path) for path in (defocused, focused)]
    shapes = [micrograph.pixels.shape for micrograph in both]
    if shapes[0] != shapes[1]:
        raise InputFileError(
            f"{focused}: {shapes[1][1]} x {shapes[1][0]} pixels, but {defocused.name} has "
            f"{shapes[0][1]} x {shapes[0][0]}"
        )
    common = slice(
        max(micrograph.rows.start for micrograph in both),
        min(micrograph.rows.stop for micrograph in both),
    )
    blurred, truth = (micrograph.pixels[common] for micrograph in both)
    _check_size(focused, truth, f"of specimen shared with {defocused.name}")
    shift = _shift(truth, blurred)
    if shift is None:
        raise InputFileError(
            f"{focused}: cannot be registered with {defocused.name}: no field, too much blur or "
            "noise, or a pattern that repeats"
        )
    moved = cv2.warpAffine(
        truth,
        np.array([[1, 0, shift.x_px], [0, 1, shift.y_px]], np.float32),
        truth.shape[::-1],
        borderMode=cv2.BORDER_REFLECT_101,
    )
    # Coarse structure is the same in both, whatever the focus: it gives contrast and brightness.
    coarse = [cv2.GaussianBlur(image, (0, 0), 12.0) for image in (moved, blurred)]
    gain, offset = np.polyfit(coarse[0].ravel(), coarse[1].ravel(), 1)
    margin = int(np.ceil(max(abs(shift.x_px), abs(shift.y_px)))) + 1
    inner = (slice(margin, -margin), slice(margin, -margin))
    graded = (gain * moved + offset).astype(np.float32)
    _check_size(focused, graded[inner], f"of field shared with {defocused.name}")
    return RealPair(np.ascontiguousarray(blurred[inner]), np.ascontiguousarray(graded[inner]))


def _shift(before: Image, after: Image) -> Shift | None:
    prints = [fingerprint(np.rint(65535 * image).astype(np.uint16)) for image in (before, after)]
    if prints[0] is None or prints[1] is None:
        return None
    return shift_between(prints[0], prints[1])


def _check_size(path: Path, image: Image, what: str) -> None:
    if min(image.shape) < _SMALLEST_PX:
        raise InputFileError(
            f"{path}: {image.shape[1]} x {image.shape[0]} pixels {what}; "
            f"{_SMALLEST_PX} x {_SMALLEST_PX} are needed"
        )
