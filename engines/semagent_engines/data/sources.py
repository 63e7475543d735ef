"""Real micrographs from a folder with one sub-folder per source."""

import html
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile

from semagent.errors import InputFileError
from semagent.images import read_image
from semagent_engines.data.screening import is_truth, specimen_rows
from semagent_engines.data.specimen import Image

_SUFFIXES = {".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp"}
_BINNINGS = (2, 3, 4)
_PATCH_PX = 160
_WHITE_SHARE = 99.9  # per cent of the pixels, at most as bright as white
_DERIVED_FOLDER, _DERIVED_NAMES = "derived", ("-restored.", "-consistency.")
_MARKS = ('"derived": true', "semagent/derived", '"faults": ["')


@dataclass(frozen=True)
class Source:
    """The usable micrographs of one source, binned down until they are sharp and quiet.

    Attributes:
        name: name of the sub-folder.
        images: each (height, width), float32 in [0, 1].
        refused: how many files were blurred, noisy or flat at every binning.
    """

    name: str
    images: tuple[Image, ...]
    refused: int


@dataclass(frozen=True)
class Micrograph:
    """An image, and which part of it is specimen.

    Attributes:
        pixels: (height, width), float32; the specimen's grey values are in [0, 1].
        rows: those without information bar and burnt-in marks; see `specimen_rows`.
    """

    pixels: Image
    rows: slice

    @property
    def specimen(self) -> Image:
        """The pixels of these rows."""
        return self.pixels[self.rows]


def image_files(folder: Path) -> list[Path]:
    """Images anywhere below ``folder``, in order.

    Left out is what semagent made: it lies in a session's folder ``derived``, has a name that ends
    in ``-restored`` or ``-consistency``, or is a TIFF whose description says that it is derived.
    So are frames of a session with faults in their header.
    """
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in _SUFFIXES and not _is_left_out(path, folder)
    ]


def _is_left_out(path: Path, folder: Path) -> bool:
    if _DERIVED_FOLDER in path.relative_to(folder).parts[:-1]:
        return True
    if any(name in path.name for name in _DERIVED_NAMES):
        return True
    try:
        with tifffile.TiffFile(path) as tif:
            description = html.unescape(tif.pages.first.description)
    except (OSError, ValueError, LookupError, struct.error):
        return False  # no TIFF, or a damaged one: `read_image` says which
    return any(mark in description for mark in _MARKS)


def read_sources(folder: Path) -> tuple[Source, ...]:
    """Read and screen every source below ``folder``.

    Pixel-level sharpness differs between sources whatever the focus (JPEG, resampling), so each
    image is binned by 2, 3 or 4, whichever is the first that passes the screening. Patches
    too small to bin are taken as they are if they pass.

    Raises:
        InputFileError: the folder has no sub-folder with images, or a file cannot be read.
    """
    if not folder.is_dir():
        raise InputFileError(f"{folder}: no such folder; give one with a sub-folder per source")
    sources = []
    for sub in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = image_files(sub)
        if not files:
            continue
        candidates = [usable_image(read_micrograph(path).specimen) for path in files]
        images = tuple(image for image in candidates if image is not None)
        sources.append(Source(sub.name, images, refused=len(files) - len(images)))
    if not sources:
        raise InputFileError(f"{folder}: no images in its sub-folders; expected one per source")
    return tuple(sources)


def split_sources(
    sources: Sequence[Source], validation: Sequence[str]
) -> tuple[tuple[Source, ...], tuple[Source, ...]]:
    """Training and validation sources. The split is by source, never by image.

    Raises:
        InputFileError: a validation source does not exist, or one side has no usable image.
    """
    names = [source.name for source in sources]
    for name in validation:
        if name not in names:
            raise InputFileError(f"no source named {name!r}; there are {', '.join(names)}")
    held_out = tuple(source for source in sources if source.name in validation)
    rest = tuple(source for source in sources if source.name not in validation and source.images)
    if not rest:
        raise InputFileError("no source with usable images is left for training")
    if not any(source.images for source in held_out):
        raise InputFileError(
            f"no usable image in the validation sources {', '.join(validation) or '(none named)'}: "
            "all are blurred, noisy or flat; hold out another source"
        )
    return rest, held_out


def read_micrograph(path: Path) -> Micrograph:
    """Read one image; 16 bits are scaled to the white point of the specimen.

    Raises:
        InputFileError: it cannot be read, or nothing of it is specimen.
    """
    image = read_image(path)
    pixels = image.pixels.astype(np.float32)
    height = pixels.shape[0]
    deep = image.pixels.itemsize > 1
    # Bars are in the lowest third, and often brighter than everything else.
    white = _white_point(pixels[: 2 * height // 3 + 1]) if deep else 255.0
    grey = np.minimum(pixels * (255.0 / white), 255.0).astype(np.uint8)
    rows = specimen_rows(grey[: height - image.info_bar_px])
    specimen = pixels[rows]
    if not specimen.size:
        raise InputFileError(f"{path}: no specimen: information bar or burnt-in text everywhere")
    white = _white_point(specimen) if deep else 255.0
    return Micrograph(np.minimum(pixels / white, 1.0), rows)


def _white_point(pixels: Image) -> float:
    """Grey value that few pixels exceed: neither a hot pixel nor the depth of the file's type."""
    return max(float(np.percentile(pixels, _WHITE_SHARE)), 1.0)


def usable_image(specimen: Image) -> Image | None:
    """``specimen`` at the first binning that is sharp and quiet, or ``None``."""
    for image in _binned(specimen):
        if is_truth(image):
            return image
    return None


def _binned(specimen: Image) -> Iterator[Image]:
    height, width = specimen.shape
    if min(height, width) <= _PATCH_PX:
        yield specimen
        return
    for binning in _BINNINGS:
        size = (width // binning, height // binning)
        if min(size) < _PATCH_PX // 2:
            return
        cropped = specimen[: size[1] * binning, : size[0] * binning]
        yield cv2.resize(cropped, size, interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)
