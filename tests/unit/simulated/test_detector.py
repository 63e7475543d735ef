from typing import Literal

import msgspec
import numpy as np
import pytest
from scipy.stats import skew

from semagent_drivers.simulated.detector import Detector, emit, quantise
from semagent_drivers.simulated.options import DetectorOptions

SHAPE = (256, 256)


def rng() -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(1))


def silent(**options: float) -> Detector:
    quiet = {"read_noise": 0.0, "line_noise": 0.0, **options}
    return Detector(msgspec.convert(quiet, DetectorOptions))


@pytest.mark.parametrize("primaries", [3.0, 20.0, 31.0, 312.0, 5000.0])
@pytest.mark.parametrize("delta", [0.15, 0.45, 0.9])
def test_emission_has_the_moments_of_the_compound_poisson(primaries: float, delta: float) -> None:
    drawn = emit(np.full((512, 512), delta, np.float32), primaries, rng()).astype(np.float64)
    variance = delta * (1 + delta) / primaries
    assert drawn.mean() == pytest.approx(delta, abs=5 * np.sqrt(variance) / 512)
    assert drawn.var() == pytest.approx(variance, rel=0.02)
    third = (1 + 3 * delta + delta**2) / np.sqrt(primaries * delta * (1 + delta) ** 3)
    assert skew(drawn, axis=None) == pytest.approx(third, abs=0.1)
    assert drawn.min() >= 0


def test_variance_is_above_plain_counting() -> None:
    delta, primaries = 0.8, 100.0
    counts = emit(np.full(SHAPE, delta, np.float32), primaries, rng()) * primaries
    assert counts.var() > 1.6 * counts.mean()


def test_dark_places_are_less_noisy() -> None:
    brightness = np.zeros(SHAPE, np.float32)
    brightness[:, 128:] = 1
    grey = silent().detect(brightness, rng(), primaries=300, dwell_s=1e-6)
    assert grey[:, :128].std() < 0.6 * grey[:, 128:].std()


def test_grey_scale_does_not_depend_on_the_dose() -> None:
    brightness = np.full(SHAPE, 0.5, np.float32)
    means = [
        silent().detect(brightness, rng(), primaries=n, dwell_s=1e-6).mean() for n in (50, 5000)
    ]
    assert means[0] == pytest.approx(means[1], abs=0.003)


def test_brightest_specimen_reaches_the_white_level() -> None:
    grey = silent().detect(np.ones(SHAPE, np.float32), rng(), primaries=1e6, dwell_s=1e-6)
    assert grey.mean() == pytest.approx(0.9, abs=1e-3)


def test_without_beam_there_is_the_black_level_and_read_noise_only() -> None:
    detector = Detector(DetectorOptions(read_noise=0.01, line_noise=0.0, black_level=0.1))
    brightness = np.linspace(0, 1, 256, dtype=np.float32) * np.ones(SHAPE, np.float32)
    grey = detector.detect(brightness, rng(), primaries=0, dwell_s=1e-6)
    assert grey.mean() == pytest.approx(0.1, abs=1e-3)
    assert grey.std() == pytest.approx(0.01, rel=0.02)
    assert abs(np.corrcoef(grey.ravel(), brightness.ravel())[0, 1]) < 0.02


def test_line_noise_is_common_to_a_line() -> None:
    detector = Detector(DetectorOptions(read_noise=0.0, line_noise=0.02))
    grey = detector.detect(np.ones(SHAPE, np.float32), rng(), primaries=0, dwell_s=1e-6)
    assert np.ptp(grey, axis=1).max() == 0
    assert grey[:, 0].std() == pytest.approx(0.02, rel=0.2)


def test_averaging_lowers_the_read_noise() -> None:
    detector = Detector(DetectorOptions(read_noise=0.02, line_noise=0.0))
    grey = detector.detect(
        np.ones(SHAPE, np.float32), rng(), primaries=0, dwell_s=1e-6, averages=16
    )
    assert grey.std() == pytest.approx(0.005, rel=0.03)


def test_bandwidth_smears_the_noise_along_the_line_at_fast_dwell_only() -> None:
    def correlation(dwell_s: float) -> tuple[float, float]:
        grey = silent(bandwidth_mhz=1.0).detect(
            np.full(SHAPE, 0.5, np.float32), rng(), primaries=300, dwell_s=dwell_s
        )
        noise = grey - grey.mean()
        along = (noise[:, 1:] * noise[:, :-1]).mean() / noise.var()
        across = (noise[1:] * noise[:-1]).mean() / noise.var()
        return float(along), float(across)

    along, across = correlation(0.1e-6)
    # An exponential filter leaves exp(-2 pi B t) between neighbours.
    assert along == pytest.approx(np.exp(-2 * np.pi * 0.1), abs=0.02)
    assert abs(across) < 0.02
    assert abs(correlation(5e-6)[0]) < 0.02


def test_smear_trails_behind_and_keeps_the_mean() -> None:
    brightness = np.zeros((16, 64), np.float32)
    brightness[:, 30] = 1
    detector = silent(bandwidth_mhz=2.0, yield_dark=0.0, black_level=0.0)
    grey = detector.detect(brightness, rng(), primaries=1e7, dwell_s=0.1e-6).mean(axis=0)
    assert grey[29] < 1e-3
    assert grey[30] > grey[31] > grey[32] > 0
    assert grey.sum() == pytest.approx(0.9, rel=0.01)


def test_collection_and_offset_change_signal_and_ground() -> None:
    detector, brightness = silent(), np.full(SHAPE, 0.5, np.float32)

    def mean(collection: float = 1.0, offset: float = 0.0) -> float:
        grey = detector.detect(
            brightness,
            rng(),
            primaries=1e6,
            dwell_s=1e-6,
            collection=collection,
            offset=offset,
        )
        return float(grey.mean())

    assert mean(offset=0.1) == pytest.approx(mean() + 0.1, abs=1e-3)
    assert mean(collection=0.5) - 0.06 == pytest.approx((mean() - 0.06) / 2, abs=1e-3)


@pytest.mark.parametrize(("depth", "full", "dtype"), [(8, 255, np.uint8), (16, 65535, np.uint16)])
def test_quantise_rounds_and_saturates(depth: Literal[8, 16], full: int, dtype: type) -> None:
    grey = np.array([[-1.0, 0.0, 0.4 / full, 0.6 / full, 0.5, 1.0, 7.0]], np.float32)
    pixels = quantise(grey, depth)
    assert pixels.dtype == dtype
    assert pixels.tolist() == [[0, 0, 0, 1, round(full / 2), full, full]]
