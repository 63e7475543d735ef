"""Cutting frames into tiles and putting tiles together without seams."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from semagent.types import Pixels

Floats = npt.NDArray[np.float32]

_COARSE = 8
_LEAST_TOLD = 0.75


@dataclass(frozen=True)
class Layout:
    """Tiles of one size that cover a frame evenly.

    Attributes:
        height: of every tile, pixels.
        width: of every tile, pixels.
        rows: first row of each row of tiles.
        columns: first column of each column of tiles.
    """

    height: int
    width: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def corners(self) -> Iterator[tuple[int, int]]:
        """Top-left corner of every tile, row by row."""
        for row in self.rows:
            for column in self.columns:
                yield row, column


def lay_out(shape: tuple[int, int], *, tile_px: int, overlap_px: int, step_px: int) -> Layout:
    """Cover a frame with as few tiles as ``tile_px`` allows, of the smallest size that will do.

    Tiles are at most ``tile_px`` on an edge, multiples of ``step_px``, and overlap by at least
    ``overlap_px``. Where the frame is smaller than one step more than nothing fits, it hangs
    over at the bottom and the right, and `cut` mirrors it there.
    """
    height, rows = _divide(shape[0], tile_px, overlap_px, step_px)
    width, columns = _divide(shape[1], tile_px, overlap_px, step_px)
    return Layout(height, width, rows, columns)


def _divide(length: int, tile: int, overlap: int, step: int) -> tuple[int, tuple[int, ...]]:
    count = max(1, math.ceil((length - overlap) / (tile - overlap)))
    size = math.ceil((length + (count - 1) * overlap) / count / step) * step
    if count == 1:
        return size, (0,)
    return size, tuple(round(index * (length - size) / (count - 1)) for index in range(count))


def cut(pixels: Pixels, layout: Layout, corners: list[tuple[int, int]]) -> Floats:
    """Tiles (N, 1, height, width), float32, in the grey values of ``pixels``."""
    down = max(0, layout.height - pixels.shape[0])
    right = max(0, layout.width - pixels.shape[1])
    source: npt.NDArray[np.generic] = pixels
    if down or right:
        source = np.pad(pixels, ((0, down), (0, right)), mode="symmetric")
    tiles = np.empty((len(corners), 1, layout.height, layout.width), np.float32)
    for index, (row, column) in enumerate(corners):
        tiles[index, 0] = source[row : row + layout.height, column : column + layout.width]
    return tiles


class Stitcher:
    """Blends tiles into a frame with weights that fall to nothing at the tiles' edges.

    Args:
        shape: (height, width) of the frame.
        layout: the tiles.
    """

    def __init__(self, shape: tuple[int, int], layout: Layout) -> None:
        self._shape, self._layout = shape, layout
        full = (max(shape[0], layout.height), max(shape[1], layout.width))
        self._sum = np.zeros(full, np.float32)
        self._weight = np.zeros(full, np.float32)
        self._window = _ramp(layout.height, layout.rows)[:, None] * _ramp(
            layout.width, layout.columns
        )

    def add(self, corner: tuple[int, int], tile: Floats) -> None:
        """Add one tile of shape (height, width) at its corner."""
        place = (
            slice(corner[0], corner[0] + self._layout.height),
            slice(corner[1], corner[1] + self._layout.width),
        )
        self._sum[place] += tile * self._window
        self._weight[place] += self._window

    def frame(self) -> Floats:
        """The blended frame, (height, width)."""
        height, width = self._shape
        return self._sum[:height, :width] / self._weight[:height, :width]


def _ramp(size: int, starts: tuple[int, ...]) -> Floats:
    """Weights along one edge: raised cosines over the overlap, never quite 0."""
    if len(starts) == 1:
        return np.ones(size, np.float32)
    overlap = max(1, size - min(b - a for a, b in itertools.pairwise(starts)))
    distance = np.minimum(np.arange(size), np.arange(size)[::-1]) + 1.0
    rise = np.clip(distance / (overlap + 1.0), 0.0, 1.0)
    return (0.5 - 0.5 * np.cos(np.pi * rise)).astype(np.float32)


def telling(pixels: Pixels, block_px: int) -> npt.NDArray[np.bool_]:
    """Which blocks tell anything, (height // block_px, width // block_px).

    Neither those of one value, where there was no beam or too much, nor those whose mean is as dark
    or as bright as pixels can be.
    """
    return _blocks(pixels, block_px)[1]


def _blocks(pixels: Pixels, block_px: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Means of blocks, and which of them tell anything."""
    rows, columns = (length // block_px for length in pixels.shape)
    whole = pixels[: rows * block_px, : columns * block_px]
    mean = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    strips = whole.reshape(rows, block_px, columns * block_px)
    # The last axis is short, and numpy is slow along those.
    low, high = (
        np.moveaxis(edge.reshape(rows, columns, block_px), 2, 0).copy()
        for edge in (strips.min(axis=1), strips.max(axis=1))
    )
    unclipped = (mean > 0) & (mean < np.iinfo(pixels.dtype).max)
    told = unclipped & (low.min(axis=0) < high.max(axis=0))
    return np.asarray(mean, np.float32), np.asarray(told)


def informative_tiles(
    frames: Sequence[Pixels], layout: Layout, count: int
) -> list[tuple[int, int]]:
    """The tiles of a field with the most structure, most first.

    Structure is the variance of the frame after binning by 8, which neither noise nor moderate
    defocus changes much, so that frames of one field are read at the same places. Tiles with
    clearly fewer telling pixels than others are left out, however few there are: blur and noise
    would be read from blank ones.

    Args:
        frames: one or more of the field, of one size; the first is searched for structure.
        layout: the tiles.
        count: most tiles to choose.
    """
    binned = [_blocks(pixels, _COARSE) for pixels in frames]
    told = np.all([each for _, each in binned], axis=0)
    coarse = binned[0][0]
    corners = list(layout.corners())
    shares, structure = [], []
    for row, column in corners:
        place = (
            slice(row // _COARSE, (row + layout.height) // _COARSE),
            slice(column // _COARSE, (column + layout.width) // _COARSE),
        )
        shares.append(float(told[place].mean()))
        structure.append(float(coarse[place].var()) * shares[-1])
    least = _LEAST_TOLD * max(shares)
    order = np.argsort(structure, kind="stable")[::-1]
    return [corners[index] for index in order if shares[index] >= least][:count]
