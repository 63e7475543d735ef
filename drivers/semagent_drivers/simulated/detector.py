"""From brightness to grey values: secondary emission, detector, amplifier, digitiser."""

import math
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from semagent.types import Pixels
from semagent_drivers.simulated.options import DetectorOptions

FloatImage = npt.NDArray[np.float32]

_ENOUGH_ELECTRONS = 10.0
"""Detected electrons per pixel, on average, from which the counts are drawn as continuous."""

_LONGEST_SMEAR_PX = 64


class Detector:
    """The detection chain of one microscope.

    A primary electron releases a Poisson number of detected secondaries with mean ``delta``,
    the yield at that place. With a Poisson number of primaries of mean N the sum is compound
    Poisson (Neyman type A): mean N delta, variance N delta (1 + delta), above the N delta of
    plain counting. See Reimer, Scanning Electron Microscopy, 2nd ed., ch. 5; Novak and Xue,
    "Modelling noise in SEM", describe the same chain.
    """

    def __init__(self, options: DetectorOptions) -> None:
        self._options = options
        self.name = options.name

    def detect(
        self,
        brightness: FloatImage,
        rng: np.random.Generator,
        *,
        primaries: float,
        dwell_s: float,
        averages: int = 1,
        collection: float = 1.0,
        offset: float = 0.0,
    ) -> FloatImage:
        """Grey values, as fractions of full scale and not yet limited to it.

        Args:
            brightness: of the specimen, 0 to 1, shape (height, width).
            rng: source of the noise.
            primaries: mean number of electrons per pixel, over all averages; 0 if blanked.
            dwell_s: dwell of one scan, which sets how far the bandwidth smears.
            averages: number of scans averaged.
            collection: relative change of the collected signal.
            offset: change of the grey offset.
        """
        options = self._options
        span = np.float32(options.yield_bright - options.yield_dark)
        mean = brightness * span
        mean += np.float32(options.yield_dark)
        mean *= np.float32(max(collection, 0.0))
        np.maximum(mean, 0, out=mean)
        if primaries <= 0:
            mean.fill(0)
            signal = mean
        else:
            signal = emit(mean, primaries, rng)
        signal = self._smear(signal, dwell_s)
        signal *= np.float32((options.white_level - options.black_level) / options.yield_bright)
        signal += np.float32(options.black_level + offset)
        height = signal.shape[0]
        if options.read_noise:
            noise = rng.standard_normal(signal.shape, dtype=np.float32)
            noise *= np.float32(options.read_noise / math.sqrt(averages))
            signal += noise
        if options.line_noise:
            lines = rng.standard_normal((height, 1), dtype=np.float32)
            signal += lines * np.float32(options.line_noise / math.sqrt(averages))
        return signal

    def _smear(self, signal: FloatImage, dwell_s: float) -> FloatImage:
        """Low-pass of the amplifier, which runs on from pixel to pixel along the line."""
        carried = math.exp(-2 * math.pi * self._options.bandwidth_mhz * 1e6 * dwell_s)
        if carried < 1e-3:
            return signal
        length = min(math.ceil(math.log(1e-3) / math.log(carried)), _LONGEST_SMEAR_PX)
        # filter2D correlates: the last tap is the pixel itself, those before it came earlier.
        taps = carried ** np.arange(length - 1, -1, -1, dtype=np.float64)
        taps /= taps.sum()
        smeared = cv2.filter2D(
            signal,
            -1,
            taps[np.newaxis, :].astype(np.float32),
            anchor=(length - 1, 0),
            borderType=cv2.BORDER_REPLICATE,
        )
        return np.asarray(smeared, np.float32)


def emit(delta: FloatImage, primaries: float, rng: np.random.Generator) -> FloatImage:
    """Draw detected electrons per primary for a mean yield ``delta``, of the same shape.

    With many electrons a continuous law stands in, with mean, variance and skewness of the
    compound Poisson one (second-order Cornish-Fisher expansion); with few, counts are drawn.
    """
    if float(delta.mean()) * primaries < _ENOUGH_ELECTRONS:
        landed = _landed(primaries, delta.shape, rng)
        return (rng.poisson(delta * landed) / primaries).astype(np.float32)
    z = rng.standard_normal(delta.shape, dtype=np.float32)
    one_more = delta + 1
    spread = delta * one_more
    spread *= np.float32(1 / primaries)
    np.sqrt(spread, out=spread)
    spread *= z
    # Third over second cumulant of the sum: (1 + 3 delta + delta^2) / (1 + delta).
    skew = delta / one_more
    skew += one_more
    skew *= np.float32(1 / (6 * primaries))
    z *= z
    z -= 1
    skew *= z
    spread += skew
    spread += delta
    np.maximum(spread, 0, out=spread)
    return spread


def _landed(
    primaries: float, shape: tuple[int, ...], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Poisson numbers of one mean for all pixels, by a table of 65536 equal parts of chance.

    A tenth of the time of drawing each by itself, and the tails end at one part in 131072.
    """
    counts = np.arange(math.ceil(primaries + 10 * math.sqrt(primaries) + 20), dtype=np.float64)
    log_factorial = np.cumsum(np.log(np.maximum(counts, 1)))
    below = np.cumsum(np.exp(counts * math.log(primaries) - primaries - log_factorial))
    table = np.searchsorted(below, (np.arange(65536) + 0.5) / 65536).astype(np.float32)
    return np.asarray(table[rng.integers(0, 65536, shape, dtype=np.uint16)], np.float32)


def quantise(grey: FloatImage, bit_depth: Literal[8, 16]) -> Pixels:
    """Digitise fractions of full scale; what lies outside saturates, as in any converter."""
    full = 2**bit_depth - 1
    levels = grey * np.float32(full)
    np.rint(levels, out=levels)
    np.clip(levels, 0, full, out=levels)
    return levels.astype(np.uint8) if bit_depth == 8 else levels.astype(np.uint16)
