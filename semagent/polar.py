"""Means of a power spectrum over bins of frequency and direction."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from semagent.spectrum import Array, Grid

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class PolarBins:
    """Which frequencies of a grid belong to which bin; empty bins have a mean of zero.

    Attributes:
        share: share of each bin in the mean over all frequencies; 0 if it is empty.
    """

    share: Array
    _filled: Indices
    _starts: Indices
    _frequencies: Indices
    _weights: Array
    _columns: Array

    @classmethod
    def of(cls, grid: Grid, used: Indices, bins: Indices, count: int) -> Self:
        """Bins that mean by the shares of their frequencies.

        Args:
            grid: the frequencies.
            used: flat indices of those that belong to a bin.
            bins: the bin of each.
            count: number of bins.
        """
        order = np.argsort(bins, kind="stable")
        frequencies, bins = used[order], bins[order]
        weights = grid.share.ravel()[frequencies]
        share = np.asarray(np.bincount(bins, weights, minlength=count), np.float64)
        weights = weights / share[bins]
        columns = np.zeros((count, grid.share.shape[1]))
        np.add.at(columns, (bins, frequencies % columns.shape[1]), weights)
        filled, starts = np.unique(bins, return_index=True)
        return cls(share, filled, starts, frequencies, weights, columns)

    def mean(self, plane: Array) -> Array:
        """The mean of a plane, shape (size, size // 2 + 1), in each bin."""
        result = np.zeros(len(self.share))
        values = plane.ravel().take(self._frequencies)
        values *= self._weights
        result[self._filled] = np.add.reduceat(values, self._starts)
        return result

    def mean_of_columns(self, row: Array) -> Array:
        """The mean in each bin of what depends on the frequency along x alone.

        Args:
            row: shape (1, size // 2 + 1).
        """
        # Not a matrix product: its threads wait for each other, far longer than this takes.
        return np.asarray(np.einsum("bc,c->b", self._columns, row[0]))
