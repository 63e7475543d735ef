import math

import numpy as np
import pytest

from semagent.spectrum import measure_spectrum
from semagent_engines.sharpness.measures import DEFAULT_MEASURE, MEASURES
from semagent_engines.sharpness.multiscale import structure_over_noise
from semagent_engines.sharpness.reading import FAINTEST, Reading

from .conftest import Micrograph

DEFAULT = MEASURES[DEFAULT_MEASURE]
CLASSICAL = sorted(set(MEASURES) - {DEFAULT_MEASURE, "spectral_entropy"})


def read(name: str, pixels: np.ndarray) -> Reading:
    return MEASURES[name].read(pixels, measure_spectrum(pixels))


def structure(pixels: np.ndarray) -> float:
    return structure_over_noise(measure_spectrum(pixels))


def featureless(shape: tuple[int, int], kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    v, u = (axis / max(shape) - 0.5 for axis in np.mgrid[: shape[0], : shape[1]])
    field = np.full(shape, 128.0)
    if kind == "ramp":
        field += 60 * u + 40 * v
    if kind == "vignette":
        field -= 60 * (u**2 + v**2)
    if kind == "streaks":
        field += rng.normal(0, 1.0, shape[0]).cumsum()[:, None]
    if kind == "lines":
        field += rng.normal(0, 3.0, shape[0])[:, None]
    return np.clip(np.rint(field + rng.normal(0, 8.0, shape)), 0, 255).astype(np.uint8)


# -- definitions ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSICAL)
def test_without_noise_every_measure_falls_with_blur(micrograph: Micrograph, name: str) -> None:
    values = [
        read(name, micrograph(blur, shape=(384, 512), noise=0.0)).sharpness
        for blur in (0.5, 1, 2, 4, 8)
    ]
    assert values == sorted(values, reverse=True)


def test_the_classical_measures_follow_their_definitions(micrograph: Micrograph) -> None:
    pixels = micrograph(1.0, shape=(256, 300))
    grey = pixels / 255
    centred = grey - grey.mean()
    inner = grey[1:-1, 1:-1]
    expected = {
        "normalised_variance": grey.var() / grey.mean(),
        "brenner": np.mean((grey[:, 2:] - grey[:, :-2]) ** 2),
        "vollath_f4": np.mean(centred[:, :-2] * centred[:, 1:-1])
        - np.mean(centred[:, :-2] * centred[:, 2:]),
        "variance_of_laplacian": np.var(
            grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
        ),
    }
    for name, value in expected.items():
        # The Laplacian is also taken at the border, where OpenCV mirrors the frame.
        assert read(name, pixels).value == pytest.approx(value, rel=0.02), name


def test_entropy_is_one_for_white_noise(micrograph: Micrograph) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (1024, 1024)).astype(np.uint8)
    assert read("spectral_entropy", noise).value == pytest.approx(1.0, abs=0.01)
    assert read("spectral_entropy", micrograph(2.0, shape=(1024, 1024), noise=0)).value < 0.9


# -- the default ------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [1.0, 8.0, 25.0])
def test_it_falls_all_the_way_to_a_blur_of_20_px(micrograph: Micrograph, noise: float) -> None:
    blurs = (0.5, 1.5, 3, 5, 8, 12, 16, 20)
    values = [
        read(DEFAULT_MEASURE, micrograph(blur, shape=(768, 1024), noise=noise, seed=3)).sharpness
        for blur in blurs
    ]
    steps = -np.diff(values)
    assert steps.min() > 0.1


@pytest.mark.parametrize(("gain", "offset"), [(0.5, 0), (0.5, 100), (1.0, -20), (1.2, -30)])
def test_brightness_and_contrast_do_not_move_it(
    micrograph: Micrograph, gain: float, offset: float
) -> None:
    wide = micrograph(2.0, shape=(512, 512), noise=8.0).astype(np.uint16) * 128 + 8192
    one = read(DEFAULT_MEASURE, wide)
    other = read(DEFAULT_MEASURE, np.rint(wide * gain + 128 * offset).astype(np.uint16))
    assert other.sharpness == pytest.approx(one.sharpness, abs=1e-3)
    assert other.relative_std == pytest.approx(one.relative_std, rel=0.01)


def test_an_image_shift_moves_it_less_than_half_a_pixel_of_blur(
    micrograph: Micrograph,
) -> None:
    field = micrograph(2.0, shape=(600, 700), noise=0.0)
    values = [
        read(DEFAULT_MEASURE, np.ascontiguousarray(field[y : y + 512, x : x + 640])).sharpness
        for y, x in ((0, 0), (20, 15), (40, 60), (88, 0))
    ]
    softer = read(DEFAULT_MEASURE, micrograph(2.5, shape=(600, 700), noise=0.0)).sharpness
    assert max(values) - min(values) < values[0] - softer


def test_more_noise_leaves_it_where_it_is(micrograph: Micrograph) -> None:
    quiet, noisy = (
        read(DEFAULT_MEASURE, micrograph(2.0, shape=(768, 1024), noise=noise)) for noise in (2, 20)
    )
    assert noisy.sharpness == pytest.approx(quiet.sharpness, abs=0.25)
    assert noisy.relative_std > 3 * quiet.relative_std
    laplacian = [
        read("variance_of_laplacian", micrograph(2.0, shape=(768, 1024), noise=noise)).sharpness
        for noise in (2, 20)
    ]
    assert laplacian[1] - laplacian[0] > 3


@pytest.mark.parametrize("name", ["multiscale_gradient", "tenengrad", "smoothed_tenengrad"])
@pytest.mark.parametrize("blur", [0.7, 4.0, 14.0])
def test_the_stated_scatter_holds_repeated_noise_at_its_rate(
    micrograph: Micrograph, name: str, blur: float
) -> None:
    clean = micrograph(blur, shape=(320, 400), noise=0.0, seed=5).astype(float)
    rng = np.random.default_rng(6)
    readings = []
    for _ in range(40):
        noisy = np.rint(clean + rng.normal(0, 12, clean.shape))
        readings.append(read(name, np.clip(noisy, 0, 255).astype(np.uint8)))
    values = np.array([reading.sharpness for reading in readings])
    stated = np.array([reading.relative_std for reading in readings])
    inside = np.abs(values - values.mean()) < 1.645 * stated
    assert inside.mean() >= 0.80
    # Not by stating far too much, either.
    assert np.mean(stated) < 1.7 * values.std(ddof=1)


def test_a_score_is_one_half_at_half_and_grows_with_the_value() -> None:
    for measure in MEASURES.values():
        values = measure.half * np.array([1e-9, 0.3, 1, 3, 1e9])
        scores = [measure.score(Reading(value=float(value), relative_std=1e-4)) for value in values]
        assert scores == sorted(scores)
        assert scores[2] == pytest.approx(0.5)
        assert 0 <= scores[0] < 1e-9
        assert 1 - 1e-9 < scores[-1] <= 1


def test_a_value_that_noise_could_give_scores_next_to_nothing() -> None:
    for measure in MEASURES.values():
        high = 10 * measure.half
        clear, faint, none = (
            measure.score(Reading(value=high, relative_std=std)) for std in (0.05, 0.25, 1.0)
        )
        assert clear == pytest.approx(measure.score(Reading(value=high, relative_std=0)), abs=1e-3)
        assert none < 0.01 < faint < clear


@pytest.mark.parametrize("name", sorted(MEASURES))
@pytest.mark.parametrize("fill", ["zero", "full", "checker", "one_pixel", "half"])
def test_degenerate_frames_give_finite_figures(name: str, fill: str) -> None:
    pixels = np.zeros((96, 128), np.uint16)
    if fill == "full":
        pixels[:] = 65535
    if fill == "checker":
        pixels[::2, ::2] = pixels[1::2, 1::2] = 65535
    if fill == "one_pixel":
        pixels[40, 50] = 65535
    if fill == "half":
        pixels[:, 64:] = 65535
    reading = read(name, pixels)
    assert reading.value > 0
    assert math.isfinite(reading.sharpness)
    assert math.isfinite(reading.relative_std)
    assert reading.relative_std > 0
    assert math.isfinite(structure(pixels))


def test_a_reading_is_never_below_its_own_uncertainty() -> None:
    assert Reading.of(-3.0, 0.5) == Reading(value=0.5, relative_std=1.0)
    assert Reading.of(4.0, 0.5) == Reading(value=4.0, relative_std=0.125)
    assert Reading.of(0.0, 0.0) == Reading(value=FAINTEST, relative_std=1.0)


# -- structure --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flat", "ramp", "vignette", "streaks", "lines"])
@pytest.mark.parametrize(("shape", "limit"), [((768, 1024), 0.2), ((256, 256), 0.7)])
def test_there_is_none_on_featureless_fields(
    kind: str, shape: tuple[int, int], limit: float
) -> None:
    assert max(structure(featureless(shape, kind, seed)) for seed in range(4)) < limit


@pytest.mark.parametrize("noise", [4.0, 20.0])
def test_there_is_on_a_specimen_even_at_20_px_of_blur(micrograph: Micrograph, noise: float) -> None:
    assert structure(micrograph(0.7, shape=(768, 1024), noise=noise)) > 100
    assert structure(micrograph(20.0, shape=(768, 1024), noise=noise)) > 1


def test_fine_structure_counts_without_any_coarse_one() -> None:
    rows, columns = np.mgrid[:512, :512]
    lattice = 20 * np.cos(2 * np.pi * columns / 7) * np.cos(2 * np.pi * rows / 9)
    noise = np.random.default_rng(0).normal(128, 15, lattice.shape)
    assert structure(np.clip(lattice + noise, 0, 255).astype(np.uint8)) > 1
