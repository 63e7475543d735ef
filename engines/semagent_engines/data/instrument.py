"""Frames of one instrument, as a session or a folder of images holds them, for adapting to it."""

import csv
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from semagent.errors import InputFileError
from semagent.registration import Fingerprint, Shift, fingerprint, shift_between
from semagent_engines.data.batches import Views
from semagent_engines.data.sources import image_files, read_micrograph
from semagent_engines.data.specimen import Image

_COLUMNS = ("defocused", "focused")
_SMALLEST_PX, _SMALLEST_FRAME_PX = 128, 192


@dataclass(frozen=True)
class RealPair:
    """A defocused frame and a focused one of the same field, registered, on one grey scale."""

    defocused: Image
    focused: Image


def frame_files(folder: Path) -> list[Path]:
    """Frames of an instrument, in order.

    Args:
        folder: a recorded session, or any folder with images; see `image_files`.

    Raises:
        InputFileError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputFileError(f"{folder}: no such folder; give a recorded session or images")
    files = image_files(folder)
    if not files:
        raise InputFileError(f"{folder}: no image; give a recorded session or images")
    return files


def read_frame(path: Path) -> Image:
    """A frame without information bar, (height, width), float32 in [0, 1].

    Raises:
        InputFileError: it cannot be read, or is too small.
    """
    image = read_micrograph(path).specimen
    _check_size(path, image, "of specimen", _SMALLEST_FRAME_PX)
    return image


def kept_on_disk(images: Iterable[Image], folder: Path) -> list[Image]:
    """The same images, mapped from a file in ``folder`` that vanishes with them.

    A hundred frames are more than some computers' memory; crops of them are not.
    """
    kept = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for image in images:
            start = file.seek(0, os.SEEK_END)
            file.write(image.tobytes())
            file.flush()
            kept.append(np.asarray(np.memmap(file, np.float32, "r", start, image.shape)))
    return kept


def by_field(images: Sequence[Image]) -> list[list[int]]:
    """Indices of the images of each field, in order; two that register show one field."""
    groups: list[list[int]] = []
    shown: list[Fingerprint | None] = []
    for index, image in enumerate(images):
        new = _fingerprint(image)
        for group, known in zip(groups, shown, strict=True):
            if new is not None and known is not None and shift_between(known, new) is not None:
                group.append(index)
                break
        else:
            groups.append([index])
            shown.append(new)
    return groups


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
    prints = [_fingerprint(image) for image in (before, after)]
    if prints[0] is None or prints[1] is None:
        return None
    return shift_between(prints[0], prints[1])


def _fingerprint(image: Image) -> Fingerprint | None:
    return fingerprint(np.rint(65535 * image).astype(np.uint16))


def _check_size(path: Path, image: Image, what: str, smallest_px: int = _SMALLEST_PX) -> None:
    if min(image.shape) < smallest_px:
        raise InputFileError(
            f"{path}: {image.shape[1]} x {image.shape[0]} pixels {what}; "
            f"{smallest_px} x {smallest_px} are needed"
        )
