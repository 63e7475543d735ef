"""Drawing batches ahead of the training, in other processes."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

from semagent_engines.data.batches import RESTORABLE, BatchSource, Draft, PairDraft, Ranges

Item = TypeVar("Item")


@dataclass(frozen=True)
class ViewDrafts(Dataset[Draft]):
    """Drafts of views.

    Attributes:
        source: what draws them.
        views: (count, edge in pixels), taken in turn.
        ranges: what is simulated.
    """

    source: BatchSource
    views: tuple[tuple[int, int], ...]
    ranges: Ranges = RESTORABLE

    def __getitem__(self, step: int) -> Draft:
        """The draft of a step, the same in any process."""
        count, edge_px = self.views[step % len(self.views)]
        return self.source.draft(step, count, edge_px, self.ranges)


@dataclass(frozen=True)
class PairDrafts(Dataset[PairDraft]):
    """Drafts of ``count`` pairs of ``edge_px`` square."""

    source: BatchSource
    count: int
    edge_px: int

    def __getitem__(self, step: int) -> PairDraft:
        """The draft of a step, the same in any process."""
        return self.source.draft_pairs(step, self.count, self.edge_px)


class Ahead(Generic[Item]):
    """The same drafts, drawn by other processes while this one computes.

    Args:
        drafts: what to draw.
        processes: how many draw; with 0 this one does when it is asked.
    """

    def __init__(self, drafts: Dataset[Item], processes: int = 0) -> None:
        self._drafts, self._processes = drafts, processes
        self._coming: Iterator[Item] = iter(())
        self._next = -1

    def __getitem__(self, step: int) -> Item:
        """The draft of a step; who asks for one after the other does not wait."""
        if self._processes == 0:
            return self._drafts[step]
        if step != self._next:
            self._coming = iter(self._from(step))
        self._next = step + 1
        return next(self._coming)

    def _from(self, step: int) -> DataLoader[Item]:
        return DataLoader(
            self._drafts,
            batch_size=None,
            sampler=range(step, sys.maxsize),
            num_workers=self._processes,
        )
