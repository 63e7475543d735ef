"""The first focus estimator: fits the through-focus curve of the engine's sharpness.

It uses `FrameAnalysis.sharpness` alone. Blur ellipses of single frames are left out on purpose:
they carry a bias of the specimen that one field shares in all its frames, which takes an
estimator that has this bias in its state.
"""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from semagent.control.options import EstimatorOptions, ScaleOptions
from semagent.control.posterior import locate_peak
from semagent.types import FocusBelief, FrameAnalysis, FrameHeader

_SAME_PLACE = 0.05  # half depths of field
_MAX_RUN = 5  # frames kept of a run at one place: more would push the rest of the curve out


@dataclass(frozen=True, slots=True)
class _Sample:
    position: float
    sharpness: float
    sigma: float
    age: int = 0


class SharpnessEstimator:
    """A `FocusEstimator` for frames of one field taken with one ``settings_rev``.

    Lengths are counted in half depths of field from the first frame on. The same frame seen
    twice, as from a recorded stack, counts once.
    """

    def __init__(self, options: EstimatorOptions, scale: ScaleOptions) -> None:
        self._options = options
        self._scale = scale
        self._samples: list[_Sample] = []
        self._first: FrameHeader | None = None

    def reset(self) -> None:
        """Forget all frames."""
        self._samples = []
        self._first = None

    def update(self, analysis: FrameAnalysis) -> FocusBelief:
        """Take one frame into account and say what is now believed.

        Raises:
            ValueError: the sharpness or its standard deviation is not finite.
        """
        header = analysis.header
        if not (math.isfinite(analysis.sharpness) and math.isfinite(analysis.sharpness_sigma)):
            raise ValueError(
                f"frame {header.sequence}: sharpness {analysis.sharpness} ± "
                f"{analysis.sharpness_sigma} is not finite"
            )
        if self._first is not None and self._first.settings_rev != header.settings_rev:
            self.reset()
        if self._first is None:
            self._first = header
        unit_m = self._scale.half_depth_of(self._first)
        origin_m = self._first.optics.working_distance_m
        position = (header.optics.working_distance_m - origin_m) / unit_m
        self._take(_Sample(position, analysis.sharpness, analysis.sharpness_sigma))
        return self._belief(header, origin_m, unit_m)

    def _take(self, sample: _Sample) -> None:
        key = (sample.position, sample.sharpness)
        if any((known.position, known.sharpness) == key for known in self._samples):
            return
        self._samples = [replace(known, age=known.age + 1) for known in self._samples]
        self._samples.append(sample)
        run = itertools.takewhile(
            lambda known: abs(known.position - sample.position) < _SAME_PLACE,
            reversed(self._samples),
        )
        if sum(1 for _ in run) > _MAX_RUN:
            del self._samples[-_MAX_RUN - 1]
        del self._samples[: -self._options.memory_frames]

    def _belief(self, header: FrameHeader, origin_m: float, unit_m: float) -> FocusBelief:
        positions = np.array([sample.position for sample in self._samples])
        aging = self._options.aging_per_frame * np.array([s.age for s in self._samples])
        reach = self._options.prior_half_range
        peak = locate_peak(
            positions,
            np.array([sample.sharpness for sample in self._samples]),
            np.hypot([sample.sigma for sample in self._samples], aging),
            (
                min(-reach, float(positions.min()) - reach / 3),
                max(reach, float(positions.max()) + reach / 3),
            ),
        )
        return FocusBelief(
            sequence=header.sequence,
            settings_rev=header.settings_rev,
            frames=len(self._samples),
            focus_m=origin_m + peak.mean * unit_m,
            sigma_m=peak.sigma * unit_m,
            interval90_m=(origin_m + peak.low * unit_m, origin_m + peak.high * unit_m),
            log_odds=peak.log_odds,
        )
