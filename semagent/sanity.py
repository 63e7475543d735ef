"""Is a frame fit for use? Checks that need no knowledge of the specimen.

A frame with a fault is recorded and counted, and nothing is concluded from it. The information
bar is never looked at.
"""

import math
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from semagent.options import Count, NotNegative, Options, Positive
from semagent.types import Frame, FrameFault, FrameHeader, Pixels, Scan

PROBE_COLUMNS = 32
"""Rows are compared in this many columns first, and in full only where these agree."""

Rows = npt.NDArray[np.bool_]

Fraction = Annotated[float, msgspec.Meta(gt=0, le=1)]


class SanityOptions(Options, frozen=True, kw_only=True):
    """When a frame is not fit for use.

    Attributes:
        max_age_s: longest time, in seconds, between the end of the exposure and the check. A
            stamp as far in the future is a fault too.
        max_black_fraction: largest share of pixels at the lowest grey value. Generous: holes
            and background may rightly be black.
        max_white_fraction: largest share of pixels at the highest grey value, of 8 to 16 bits.
        max_unwritten_rows: rows one below the other that may, across the whole width, be of one
            value, repeat the row above, or be those of the previous frame. Rows of one value
            are let pass where their surroundings fade into that value, as on dark specimens.
        blank_std_levels: standard deviation, in grey levels of the frame's own depth, up to
            which a frame is blank; flicker between two neighbouring levels has at most 0.5.
    """

    max_age_s: Positive = 5.0
    max_black_fraction: Fraction = 0.7
    max_white_fraction: Fraction = 0.3
    max_unwritten_rows: Count = 7
    blank_std_levels: NotNegative = 0.5


class FrameChecker:
    """Checks the frames of one microscope, in the order they come; remembers the last one.

    Args:
        options: the limits.
        repeats_frames: the source may rightly give the same pixels twice, as a recorded stack
            does (`Capabilities.repeats_frames`): nothing is compared with the previous frame.
    """

    def __init__(self, options: SanityOptions, *, repeats_frames: bool = False) -> None:
        self._options = options
        self._repeats_frames = repeats_frames
        self._previous: Pixels | None = None

    def check(self, frame: Frame, *, now_ns: int) -> tuple[FrameFault, ...]:
        """What is wrong with the frame, in the order of `FrameFault`; empty if nothing is.

        Faults that the driver has found itself are among them.

        Args:
            frame: a frame of this microscope; it counts as the previous one afterwards.
            now_ns: when it arrived, on the clock of its stamp.
        """
        options = self._options
        previous, self._previous = self._previous, frame.pixels
        faults = set(frame.header.faults)
        if abs(now_ns - frame.header.monotonic_ns) > options.max_age_s * 1e9:
            faults.add(FrameFault.STALE)
        if not _is_shape_of(frame.header.scan, frame.pixels):
            faults.add(FrameFault.WRONG_SIZE)
        if not _is_finite(frame.header):
            faults.add(FrameFault.NOT_A_NUMBER)

        pixels = frame.specimen
        if pixels.size == 0:
            return _ordered(faults | {FrameFault.WRONG_SIZE})
        import cv2  # noqa: PLC0415 - see `_is_saturated`

        if cv2.meanStdDev(pixels)[1].item() <= options.blank_std_levels:
            faults.add(FrameFault.BLANK)
        if self._is_saturated(pixels):
            faults.add(FrameFault.SATURATED)
        kept = self._kept_rows(frame, previous)
        if kept.all():
            faults.add(FrameFault.FROZEN)
        elif FrameFault.BLANK not in faults and self._is_incomplete(pixels, kept):
            faults.add(FrameFault.INCOMPLETE)
        return _ordered(faults)

    def _is_saturated(self, pixels: Pixels) -> bool:
        # Here, not above: a microscope PC that only serves reads the options and checks no frame.
        import cv2  # noqa: PLC0415

        black = pixels.size - cv2.countNonZero(pixels)
        # Ten, twelve or fourteen bits often stand in sixteen.
        brightest = int(pixels.max())
        full_scale = brightest >= 255 and brightest & (brightest + 1) == 0
        white = np.count_nonzero(pixels == brightest) if full_scale else 0
        return bool(
            black > self._options.max_black_fraction * pixels.size
            or white > self._options.max_white_fraction * pixels.size
        )

    def _kept_rows(self, frame: Frame, previous: Pixels | None) -> Rows:
        """Which rows of the specimen are those of the previous frame."""
        pixels = frame.specimen
        if (
            self._repeats_frames
            or previous is None
            or previous.shape != frame.pixels.shape
            or previous.dtype != pixels.dtype
        ):
            return np.zeros(len(pixels), bool)
        return _equal_rows(pixels, previous[: len(pixels)])

    def _is_incomplete(self, pixels: Pixels, kept: Rows) -> bool:
        allowed = self._options.max_unwritten_rows
        constant = _equal_rows(pixels, pixels[:, :1])
        repeated = np.zeros(len(pixels), bool)
        repeated[1:] = _equal_rows(pixels[1:], pixels[:-1])
        blocks = _long_runs(constant, allowed)
        return (
            any(not _fades(pixels, start, stop) for start, stop in blocks)
            or bool(_long_runs(repeated & ~constant, allowed))
            or bool(_long_runs(kept & ~constant, allowed))
        )


def _is_shape_of(scan: Scan, pixels: Pixels) -> bool:
    return (*pixels.shape, 8 * pixels.itemsize) == (scan.height_px, scan.width_px, scan.bit_depth)


def _is_finite(header: FrameHeader) -> bool:
    """Whether all that focus and dose are reckoned from are numbers, where it is reported."""
    told = (*msgspec.structs.astuple(header.optics), *msgspec.structs.astuple(header.scan))
    return all(math.isfinite(value) for value in told if isinstance(value, float))


def _ordered(faults: set[FrameFault]) -> tuple[FrameFault, ...]:
    return tuple(fault for fault in FrameFault if fault in faults)


def _equal_rows(pixels: Pixels, others: Pixels) -> Rows:
    """Which rows of ``pixels`` equal those of ``others``, which may be one column wide."""
    step = max(1, pixels.shape[1] // PROBE_COLUMNS)
    equal = np.asarray((pixels[:, ::step] == others[:, ::step]).all(axis=1))
    candidates = np.flatnonzero(equal)
    equal[candidates] = (pixels[candidates] == others[candidates]).all(axis=1)
    return equal


def _long_runs(rows: Rows, allowed: int) -> list[tuple[int, int]]:
    """Start and stop of the runs of ``True`` longer than ``allowed``."""
    edges = np.flatnonzero(np.diff(rows, prepend=False, append=False))
    return [
        (int(start), int(stop))
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
        if stop - start > allowed
    ]


def _fades(pixels: Pixels, start: int, stop: int) -> bool:
    """Whether a block of one value lies in surroundings that mostly have this value too.

    The row next to the block is passed over: it may be the one in which writing stopped.
    """
    near = [row for row in (start - 2, stop + 1) if 0 <= row < len(pixels)]
    return any(
        np.count_nonzero(pixels[row] == pixels[start, 0]) > pixels.shape[1] / 2 for row in near
    )
