"""The part of a frame that the beam was on."""

import numpy as np

from semagent.types import Pixels


def exposed_part(*frames: Pixels, least_px: int) -> tuple[slice, slice]:
    """Rows and columns of frames of one size without the blank ones at their edges.

    Blank is what holds one value only in any of the frames: a scan was ended early, or the beam was
    off for a while. Such an edge is sharp whatever the focus, and would be read as blur.

    Args:
        frames: (height, width) each.
        least_px: where fewer rows or columns would be left, all are.
    """
    parts = []
    for axis in (1, 0):
        held = np.all([one.min(axis) < one.max(axis) for one in frames], axis=0)
        found = np.flatnonzero(held)
        part = slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0)
        parts.append(part if part.stop - part.start >= least_px else slice(0, len(held)))
    return parts[0], parts[1]
