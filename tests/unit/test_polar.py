import numpy as np

from semagent.polar import PolarBins
from semagent.spectrum import grid_of, measure_spectrum


def test_a_bin_is_the_mean_over_its_frequencies_by_their_shares() -> None:
    grid = grid_of(64)
    used = np.flatnonzero(grid.share > 0)[::3]
    index = np.random.default_rng(0).integers(0, 9, len(used))
    index[index == 4] = 5
    bins = PolarBins.of(grid, used, index, 9)
    plane = np.random.default_rng(1).random(grid.share.shape)
    for each in range(9):
        mine = used[index == each]
        share = grid.share.ravel()[mine]
        expected = (share @ plane.ravel()[mine]) / share.sum() if len(mine) else 0.0
        np.testing.assert_allclose(bins.mean(plane)[each], expected)
        np.testing.assert_allclose(bins.share[each], share.sum())


def test_what_depends_on_one_axis_has_the_mean_of_its_plane() -> None:
    rng = np.random.default_rng(0)
    spectrum = measure_spectrum(rng.integers(0, 256, (128, 160), np.uint8))
    grid = spectrum.grid
    used = np.flatnonzero(grid.share > 0)
    bins = PolarBins.of(grid, used, rng.integers(0, 20, len(used)), 20)
    plane = np.broadcast_to(spectrum.noise, spectrum.power.shape)
    np.testing.assert_allclose(bins.mean_of_columns(spectrum.noise), bins.mean(plane))
