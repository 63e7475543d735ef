"""Real micrographs from a folder with one sub-folder per source."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from semagent.errors import InputFileError
from semagent_engines.data.screening import is_truth, specimen_rows

Image = npt.NDArray[np.float32]

IMAGE_SUFFIXES = {".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp"}
_BINNINGS = (2, 3, 4)
_PATCH_PX = 160


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
        files = sorted(path for path in sub.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            continue
        candidates = [usable_image(read_grey(path)) for path in files]
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
        InputFileError: a validation source does not exist, or nothing is left to train on.
    """
    names = [source.name for source in sources]
    for name in validation:
        if name not in names:
            raise InputFileError(f"no source named {name!r}; there are {', '.join(names)}")
    held_out = tuple(source for source in sources if source.name in validation)
    rest = tuple(source for source in sources if source.name not in validation and source.images)
    if not rest:
        raise InputFileError("no source with usable images is left for training")
    return rest, held_out


def read_grey(path: Path) -> npt.NDArray[np.uint8]:
    """Read one image as 8-bit grey, (height, width); deeper images are scaled to their maximum.

    Raises:
        InputFileError: it cannot be decoded.
    """
    data = np.frombuffer(path.read_bytes(), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    if image is None:
        raise InputFileError(f"{path}: not an image that can be read")
    if image.dtype != np.uint8:
        image = (image.astype(np.float32) * (255.0 / max(float(image.max()), 1.0))).astype(np.uint8)
    return np.asarray(image, np.uint8)


def usable_image(grey: npt.NDArray[np.uint8]) -> Image | None:
    """The specimen part of ``grey`` at the first binning that is sharp and quiet, or ``None``."""
    specimen = grey[specimen_rows(grey)].astype(np.float32) / 255.0
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
