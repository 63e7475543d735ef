"""Whether the picture goes where a calibration says, told by the corrections themselves.

A calibration holds for the rotation of scan and stage it was measured at, and no microscope has
to report these. If it is wrong by more than 60° or a factor of two, each correction takes the
picture further away, and the next one is larger. So the last frame before a correction and the
first one after it are compared: what lies between them beyond the steady drift is an error of
what beam shift and stage are said to have done.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]

_WRONG = 0.75  # of the way that beam shift and stage are said to have gone
_SIGMAS = 3.0  # standard deviations of registration that are no error of the calibration
_MISSES = 2
"""Corrections by beam shift that have to fail in a row: a specimen can jump, but hardly twice
together with one. Of the stage, which moves seldom and far, one is enough."""


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What one frame says; lengths in metres, vectors of shape (2,) along x and y.

    Attributes:
        time_ns: when it was taken.
        drift: displacement of the content that nothing known of explains.
        by_focus: displacement that the calibration says following focus has made.
        sigma_m: standard deviation of it, along each axis.
        by_beam: displacement that the calibration says beam shift has made.
        by_stage: the same of the stage.
    """

    time_ns: int
    drift: Vector
    by_focus: Vector
    sigma_m: float
    by_beam: Vector
    by_stage: Vector


class Check:
    """Compares what corrections do with what they were to do."""

    def __init__(self) -> None:
        self._before: Sight | None = None
        self._rate = np.zeros(2)  # drift in metres a nanosecond
        self._span_ns = 0
        self._stage = False
        self._misses = 0

    @property
    def watched(self) -> bool:
        """Whether a correction was begun that must be seen in the next frames.

        One by stage may go so far that registration takes it for another field.
        """
        return self._before is not None and not self._stage

    def expect(self, sights: Sequence[Sight], *, stage: bool) -> None:
        """A correction, by stage or not, follows these frames; two at least, to know the rate."""
        self._stage = stage
        first, last = sights[0], sights[-1]
        self._span_ns = last.time_ns - first.time_ns
        self._before = last if self._span_ns > 0 else None
        if self._span_ns > 0:
            self._rate = (last.drift - first.drift) / self._span_ns

    def forget(self) -> None:
        """The correction cannot be judged: somebody else has moved something."""
        self._before = None

    def saw(self, after: Sight, *, play_m: float, lens_m: float = 0.0) -> str:
        """Judge the correction by the first frame after it.

        Args:
            after: what that frame says.
            play_m: of the stage.
            lens_m: how far the play of the lens displaces the picture.

        Returns:
            What contradicts the calibration; empty if nothing does.
        """
        before, self._before = self._before, None
        if before is None:
            return ""
        beam, stage = after.by_beam - before.by_beam, after.by_stage - before.by_stage
        way_m = math.hypot(*beam) + math.hypot(*stage)
        if way_m == 0:
            return ""
        since_ns = after.time_ns - before.time_ns
        error = after.drift - before.drift - self._rate * since_ns
        noise_m = _SIGMAS * max(before.sigma_m, after.sigma_m) + lens_m
        noise_m *= 2 + 2 * since_ns / self._span_ns
        allowed_m = _WRONG * way_m + noise_m + (play_m if stage.any() else 0.0)
        if math.hypot(*error) <= allowed_m:
            self._misses = 0
            return ""
        wanted, went = (beam + stage) * 1e9, (beam + stage + error) * 1e9
        return (
            f"the picture went by {went[0]:+.0f}, {went[1]:+.0f} nm where the calibration says "
            f"{wanted[0]:+.0f}, {wanted[1]:+.0f} nm"
        )

    def missed(self) -> bool:
        """Count one more contradiction; whether they are enough to refute the calibration."""
        self._before = None
        self._misses += 1
        return self._stage or self._misses >= _MISSES
