"""Quality of a restoration without a truth, from repeated frames of one field.

Marcos-Morales et al., "Evaluating Unsupervised Denoising Requires Unsupervised Metrics", ICML
2023: with noisy copies ``a``, ``b``, ``c`` of one clean image beside the one that was processed,
``mean (f - a)² - mean (b - c)² / 2`` is an unbiased estimate of the mean squared error of ``f``,
since the independent noise of ``a`` adds exactly its variance. Here ``f`` is the restoration
blurred again with the blur that was read, so the clean image is the noise-free frame.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semagent.errors import EngineError, UsageError
from semagent.types import Frame, Pixels
from semagent_engines.runtime.consistency import reblur
from semagent_engines.runtime.model_engine import ModelEngine

FEWEST = 4
_BLOCK_PX = 32
MARGIN_PX = 16


@dataclass(frozen=True)
class Unsupervised:
    """Estimates against the noise-free frame, which nobody has seen.

    Attributes:
        umse: mean squared error of the re-blurred restoration, as a fraction of full scale squared.
        umse_error: its standard error, from the scatter between parts of the frame.
        umse_raw: mean squared error of a raw frame, the variance of its noise.
    """

    umse: float
    umse_error: float
    umse_raw: float

    @property
    def upsnr_db(self) -> float | None:
        """Peak signal-to-noise ratio; ``None`` where the error is below what can be told."""
        return None if self.umse <= 2 * self.umse_error else float(-10 * np.log10(self.umse))

    @property
    def upsnr_raw_db(self) -> float:
        """The same of a raw frame."""
        return float(-10 * np.log10(self.umse_raw))


def unsupervised(engine: ModelEngine, frames: Sequence[Frame]) -> Unsupervised:
    """Judge the engine's restoration of the first of some repeated frames.

    Args:
        engine: what restores.
        frames: at least four of one field with the same settings, nothing moved between them.

    Raises:
        UsageError: there are too few, they differ in size or depth, or two are the same.
        EngineError: the engine failed.
    """
    if len(frames) < FEWEST:
        raise UsageError(f"{len(frames)} frames; at least {FEWEST} repeats of one field are needed")
    first, *others = (frame.specimen for frame in frames)
    for index, other in enumerate(others, start=2):
        if (other.shape, other.dtype) != (first.shape, first.dtype):
            raise UsageError(
                f"frame {index} is {other.dtype} of shape {other.shape}, the first {first.dtype} "
                f"of shape {first.shape}; repeats of one field are alike"
            )
    for (one, before), (two, after) in itertools.combinations(enumerate([first, *others], 1), 2):
        if np.array_equal(before, after):
            raise UsageError(
                f"frames {one} and {two} are the same; repeats of one field have noise of their own"
            )
    return judged(blurred_again(engine, frames[0]), others)


def judged(again: npt.NDArray[np.float32], others: Sequence[Pixels]) -> Unsupervised:
    """Judge an estimate of a frame without its noise by repeats it was not made from.

    Args:
        again: (height, width), as a fraction of full scale; see `blurred_again`.
        others: two or more of the same shape, in grey values.
    """
    copies = [_scaled(other) for other in others]
    errors = np.mean([_blocks((again - copy) ** 2) for copy in copies], axis=0)
    noises = [_blocks((b - c) ** 2) / 2 for b, c in itertools.pairwise(copies)]
    noise = np.mean(noises, axis=0)
    parts = errors - noise
    return Unsupervised(
        umse=float(parts.mean()),
        umse_error=float(parts.std() / np.sqrt(parts.size)),
        umse_raw=float(noise.mean()),
    )


def blurred_again(engine: ModelEngine, frame: Frame) -> npt.NDArray[np.float32]:
    """The engine's restoration with the blur that its network read, as a fraction of full scale.

    Returns:
        (height, width) without the information bar; an estimate of the frame without its noise.

    Raises:
        EngineError: the engine failed.
    """
    restored = engine.analyse(frame, restore=True).restored
    if restored is None:
        raise EngineError(f"{engine.name} returned no restored frame")
    specimen = restored[: frame.specimen.shape[0]]
    again = reblur(specimen.astype(np.float32), engine.read(frame, fit=False).covariance)
    return np.asarray(again / np.iinfo(specimen.dtype).max, np.float32)


def _scaled(pixels: Pixels) -> npt.NDArray[np.float32]:
    return np.asarray(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max, np.float32)


def _blocks(squared: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Means over blocks, without the frame's edges, where re-blurring has to guess."""
    inner = squared[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX].astype(np.float64)
    rows, columns = inner.shape[0] // _BLOCK_PX, inner.shape[1] // _BLOCK_PX
    cut = inner[: rows * _BLOCK_PX, : columns * _BLOCK_PX]
    blocks = cut.reshape(rows, _BLOCK_PX, columns, _BLOCK_PX)
    return np.asarray(blocks.mean(axis=(1, 3)))
