import numpy as np
import pytest

from semagent.errors import EngineError
from semagent.spectrum import (
    MAX_TILES,
    grid_of,
    measure_spectrum,
    tile_origins,
    tile_size,
)


def white(shape: tuple[int, int], std: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(128, std, shape)
    return np.clip(np.rint(noise), 0, 255).astype(np.uint8)


def test_white_noise_has_its_variance_at_every_frequency() -> None:
    spectrum = measure_spectrum(white((768, 1024), 10))
    variance = (10**2 + 1 / 12) / 255**2
    for low, high in ((0.1, 0.5), (0.5, 1.5), (1.5, 3.0), (3.0, 4.4)):
        ring = (spectrum.grid.k > low) & (spectrum.grid.k < high)
        assert spectrum.power[ring].mean() == pytest.approx(variance, rel=0.05)
    assert spectrum.noise_std == pytest.approx(variance**0.5, rel=0.01)


@pytest.mark.parametrize("shape", [(64, 64), (100, 333), (240, 320), (512, 512), (1000, 700)])
def test_the_noise_is_found_on_frames_of_any_size(shape: tuple[int, int]) -> None:
    spectrum = measure_spectrum(white(shape, 20))
    assert spectrum.noise_std == pytest.approx(20 / 255, rel=0.15)


def test_the_packed_layout_is_read_right() -> None:
    rows, columns = np.mgrid[:512, :512]
    for cycles_x, cycles_y in ((40, 0), (0, 40), (40, 25), (40, -25), (256, 30), (30, 256)):
        wave = np.cos(2 * np.pi * (cycles_x * columns + cycles_y * rows) / 512)
        pixels = np.rint(128 + 80 * wave).astype(np.uint8)
        # Half overlapping tiles of 384 px: the peak is three quarters of the cycles out.
        power = measure_spectrum(pixels).power
        peak_y, peak_x = np.unravel_index(power.argmax(), power.shape)
        size = power.shape[0]
        scale = size / 512
        expected = (round(cycles_y * scale) % size, round(cycles_x * scale))
        mirrored = (-expected[0] % size, expected[1])
        # A wave along one axis is its own mirror image.
        assert (peak_y, peak_x) in ({expected, mirrored} if cycles_x in (0, 256) else {expected})


def test_a_sum_over_the_spectrum_is_the_variance() -> None:
    spectrum = measure_spectrum(white((768, 1024), 30))
    total = (spectrum.grid.share * spectrum.power).sum()
    assert total == pytest.approx(spectrum.noise_std**2, rel=0.02)


def test_noise_smeared_along_the_lines_is_still_noise() -> None:
    rng = np.random.default_rng(1)
    raw = rng.normal(0, 30, (768, 1028))
    smeared = sum(raw[:, shift : shift + 1024] for shift in range(4)) / 4
    spectrum = measure_spectrum(np.rint(128 + smeared).astype(np.uint8))
    assert spectrum.noise_std == pytest.approx(15 / 255, rel=0.05)
    # The columns follow the detector: much at low frequency along x, little at its zero.
    noise = spectrum.noise[0]
    assert noise[10] > 5 * noise[len(noise) // 2]


def test_brightness_gradients_are_taken_out() -> None:
    rows, columns = np.mgrid[:384, :512]
    ramp = (20 + 0.2 * rows + 0.2 * columns).astype(np.uint16) * 256
    flat = np.full((384, 512), 20 * 256, np.uint16)
    spectra = [measure_spectrum(each) for each in (ramp, flat)]
    energies = [(each.grid.share * each.power).sum() for each in spectra]
    # What is left is the rounding to whole steps of 1/256.
    assert energies[0] - energies[1] < 2 / 12 / 256**2


def test_depth_does_not_matter() -> None:
    eight = white((256, 256), 20)
    one, other = (measure_spectrum(each) for each in (eight, eight.astype(np.uint16) * 257))
    np.testing.assert_allclose(one.power, other.power, rtol=1e-3, atol=1e-12)


def test_a_constant_frame_has_no_power() -> None:
    spectrum = measure_spectrum(np.full((256, 300), 77, np.uint8))
    assert spectrum.power.max() < 1e-12
    assert spectrum.noise_std < 1e-6


@pytest.mark.parametrize("shape", [(63, 64), (64, 63), (0, 512), (1, 1)])
def test_too_small_a_frame_is_refused_with_the_least_size(shape: tuple[int, int]) -> None:
    with pytest.raises(EngineError, match="at least 64 px"):
        measure_spectrum(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("height", "width"), [(64, 64), (70, 4000), (768, 1024), (1536, 2048), (4096, 6144)]
)
def test_tiles_cover_the_frame_from_edge_to_edge(height: int, width: int) -> None:
    size = tile_size(height, width)
    origins = tile_origins(height, width, size)
    rows, columns = ({origin[axis] for origin in origins} for axis in (0, 1))
    assert len(origins) <= MAX_TILES
    assert min(rows) == 0
    assert min(columns) == 0
    assert max(rows) == height - size
    assert max(columns) == width - size


def test_the_stated_scatter_of_a_mean_is_the_one_seen() -> None:
    grid = grid_of(192)
    weight = grid.k**2 * np.exp(-4 * grid.k**2)
    spectra = [measure_spectrum(white((256, 256), 20, seed)) for seed in range(60)]
    means = [(grid.share * weight * each.power).sum() for each in spectra]
    stated = np.mean([each.variance_of_mean(weight, each.pixels) for each in spectra])
    assert np.var(means, ddof=1) == pytest.approx(stated, rel=0.5)


def test_weights_without_noise_answer_nothing_to_white_noise() -> None:
    grid = grid_of(256)
    weight = grid.without_noise(grid.k**2)
    assert abs((grid.share * weight).sum()) < 1e-12


def test_folding_keeps_sums_with_weights_alike_at_both_signs() -> None:
    grid = grid_of(64)
    plane = np.random.default_rng(0).random(grid.k.shape)
    folded = grid.folded(plane)
    assert folded.shape == (33, 33)
    assert (folded * grid.k[:33]).sum() == pytest.approx((plane * grid.k).sum())
