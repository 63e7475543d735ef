import math

import msgspec
import numpy as np
import pytest

from semagent_drivers.simulated.beam import Beam, blur
from semagent_drivers.simulated.options import ChargingOptions, SpecimenOptions
from semagent_drivers.simulated.render import (
    Motion,
    Renderer,
    View,
    average_transfer,
    blur_levels,
    narrowed,
)
from semagent_drivers.simulated.specimen import Specimen, make_specimen

PIXEL_M = 10e-9
SHAPE = (96, 128)
BEAM = Beam(2.5e5, 0.7, a1_m=1e-6)
STILL = Motion()


def rng() -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(1))


def specimen(**options: object) -> Specimen:
    described = {"tile_px": 512, "feature_size_nm": 200.0, **options}
    return make_specimen(msgspec.convert(described, SpecimenOptions), PIXEL_M, 7)


def renderer(surface: Specimen | None = None, **charging: float) -> Renderer:
    return Renderer(surface or specimen(), PIXEL_M, ChargingOptions(**charging))


def view(
    x: float = 0.0, y: float = 0.0, *, rotation_rad: float = 0.0, tilt_rad: float = 0.0
) -> View:
    return View((x, y), (0, 0), SHAPE, rotation_rad, tilt_rad)


def mismatch(image: np.ndarray, expected: np.ndarray, edge: int = 12) -> float:
    """Root mean square difference over the contrast, away from the edges."""
    inner = (slice(edge, -edge), slice(edge, -edge))
    return float((image - expected)[inner].std() / expected[inner].std())


@pytest.mark.parametrize("defocus_m", [0.0, 6e-6, -6e-6, 50e-6])
def test_flat_specimen_is_blurred_by_the_beam(defocus_m: float) -> None:
    surface = specimen()
    image = renderer(surface).render(view(), BEAM, defocus_m, STILL, rng())
    expected = blur(surface.brightness, BEAM, defocus_m)[208:304, 192:320]
    assert image.shape == SHAPE
    np.testing.assert_allclose(image, expected, atol=2e-4)


@pytest.mark.parametrize("x", [0.5, 3.9, 4.1, 13.25, -250.75])
def test_views_between_pixels_are_exact(x: float) -> None:
    surface = specimen()
    image = renderer(surface).render(view(x, 1.5), BEAM, 4e-6, STILL, rng())
    moved = blur(np.pad(surface.brightness, 256, mode="symmetric"), BEAM, 4e-6, shift_px=(-x, -1.5))
    np.testing.assert_allclose(image, moved[464:560, 448:576], atol=2e-4)


def test_nothing_is_computed_twice() -> None:
    source = renderer()
    first = source.render(view(), BEAM, 4e-6, STILL, rng())
    assert source.render(view(), BEAM, 4e-6, STILL, rng()) is first
    assert not first.flags.writeable
    assert source.render(view(), BEAM, 5e-6, STILL, rng()) is not first


def test_cached_and_fresh_frames_are_the_same() -> None:
    used = renderer()
    used.render(view(3.0), BEAM, 1e-6, STILL, rng())
    used.render(view(), BEAM, 9e-6, STILL, rng())
    again = used.render(view(3.0), BEAM, 2e-6, STILL, rng())
    np.testing.assert_array_equal(again, renderer().render(view(3.0), BEAM, 2e-6, STILL, rng()))


def test_quarter_turn_of_the_stage_turns_the_image() -> None:
    surface = specimen()
    square = View((0.0, 0.0), (0, 0), (96, 96))
    turned = View((0.0, 0.0), (0, 0), (96, 96), rotation_rad=math.pi / 2)
    upright = renderer(surface).render(square, Beam(2.5e5, 1.0), 0.0, STILL, rng())
    image = renderer(surface).render(turned, Beam(2.5e5, 1.0), 0.0, STILL, rng())
    # Centre pixels lie at index 48, so turning leaves a row and a column over.
    expected = np.rot90(upright[1:, 1:], -1)
    assert mismatch(image[1:, 1:], expected) < 0.02


def test_tilt_foreshortens_and_defocuses_rows() -> None:
    tilt = math.radians(60)
    surface = specimen(kind="target")
    source = renderer(surface)
    defocus = source.defocus_map(view(tilt_rad=tilt), 2e-6)
    assert defocus is not None
    rows = (np.arange(96) - 48) * PIXEL_M * math.tan(tilt)
    np.testing.assert_allclose(defocus, np.tile((2e-6 + rows)[:, None], (1, 128)), rtol=1e-5)
    image = source.render(view(tilt_rad=tilt), Beam(1.0, 1.0), 0.0, STILL, rng())
    taller = View((0.0, 0.0), (0, 0), (192, 128))
    plain = renderer(surface).render(taller, Beam(1.0, 1.0), 0.0, STILL, rng())
    foreshortened = np.corrcoef(image[48:].mean(1), plain[96::2].mean(1))[0, 1]
    upright = np.corrcoef(image[48:].mean(1), plain[96:144].mean(1))[0, 1]
    assert foreshortened > 0.9 > upright


def test_mount_slope_changes_focus_with_the_stage() -> None:
    source = renderer(specimen(mount_tilt_x_deg=10.0))
    slope = math.tan(math.radians(10))
    near, far = (source.defocus_map(view(x), 0.0) for x in (0.0, 1000.0))
    assert near is not None
    assert far is not None
    np.testing.assert_allclose(far - near, 1000 * PIXEL_M * slope, rtol=1e-4)
    assert near[0, -1] - near[0, 0] == pytest.approx(127 * PIXEL_M * slope, rel=1e-4)


def test_mount_slope_turns_with_the_stage() -> None:
    source = renderer(specimen(mount_tilt_x_deg=10.0))
    turned = source.defocus_map(view(rotation_rad=math.pi / 2), 0.0)
    assert turned is not None
    assert np.ptp(turned, axis=1).max() < 1e-12
    assert abs(turned[-1, 0] - turned[0, 0]) == pytest.approx(95 * PIXEL_M * 0.17633, rel=1e-3)


def test_relief_defocuses_high_places_upwards() -> None:
    surface = specimen(relief_um=4.0)
    defocus = renderer(surface).defocus_map(view(), 1e-6)
    assert defocus is not None
    assert surface.height_m is not None
    np.testing.assert_allclose(defocus, 1e-6 + surface.height_m[208:304, 192:320], atol=1e-12)


def test_blending_levels_matches_exact_blur_of_each_row() -> None:
    """Row by row, the blended image agrees with the image blurred by that row's own defocus."""
    surface = specimen(kind="porous")
    source = renderer(Specimen(surface.brightness, None, 0.0, math.tan(math.radians(60))))
    image = source.render(view(), BEAM, 0.0, STILL, rng())
    defocus = source.defocus_map(view(), 0.0)
    assert defocus is not None
    assert np.ptp(defocus) * BEAM.slope_px_per_m > 0.3
    steep = Beam(BEAM.slope_px_per_m * 12, 0.7)  # a blur of -2.5 to 2.5 px over the field
    image = source.render(view(), steep, 0.0, STILL, rng())
    exact = np.stack(
        [
            blur(surface.brightness, steep, float(z))[208 + row, 192:320]
            for row, z in enumerate(defocus[:, 0])
            if row % 8 == 4
        ]
    )
    assert mismatch(image[4::8], exact, edge=1) < 0.03


def test_astigmatism_shows_on_both_sides_of_a_tilted_field() -> None:
    surface = specimen(kind="porous")
    source = renderer(Specimen(surface.brightness, None, 0.0, math.tan(math.radians(60))))
    steep = Beam(2.5e6, 0.7, a1_m=0.5e-6)
    image = source.render(view(), steep, 0.0, STILL, rng())
    sharper_along_x = [
        np.diff(part, axis=1).std() / np.diff(part, axis=0).std()
        for part in (image[:32], image[64:])
    ]
    assert sharper_along_x[0] > 1.2 * sharper_along_x[1]


@pytest.mark.parametrize(("low", "high"), [(-1e-6, 3e-5), (2e-6, 9e-6), (-4e-5, -1e-6)])
def test_blur_levels_span_the_range_in_small_steps(low: float, high: float) -> None:
    levels = np.array(blur_levels(low, high, 2.5e5))
    assert levels[0] == low
    assert levels[-1] == high
    sigma = 2.5e5 * levels
    steps = np.diff(sigma)
    assert (steps > 0).all()
    outer = np.maximum(np.abs(sigma[1:]), np.abs(sigma[:-1]))
    assert (steps <= np.hypot(0.62, 0.33 * outer)).all()


def test_one_level_is_enough_for_an_even_field() -> None:
    assert blur_levels(3e-6, 3.05e-6, 2.5e5) == [3.025e-6]


def test_narrowing_never_makes_a_probe_imaginary() -> None:
    assert narrowed(BEAM, 1.0).sigma0_px == 0
    assert narrowed(BEAM, 0.0) == BEAM


def test_drift_shears_the_frame() -> None:
    still = renderer().render(view(), BEAM, 2e-6, STILL, rng())
    image = renderer().render(view(), BEAM, 2e-6, Motion(step_px=(6.0, 0.0)), rng())
    # The last line is scanned 3 px further along than the middle one, the first 3 px before it.
    np.testing.assert_allclose(image[-1, 10:-10], still[-1, 13:-7], atol=0.05)
    np.testing.assert_allclose(image[0, 10:-10], still[0, 7:-13], atol=0.05)
    np.testing.assert_allclose(image[48], still[48], atol=0.02)


def test_drift_along_the_slow_axis_stretches_the_frame() -> None:
    still = renderer().render(view(), BEAM, 2e-6, STILL, rng())
    image = renderer().render(view(), BEAM, 2e-6, Motion(step_px=(0.0, 8.0)), rng())
    np.testing.assert_allclose(image[12], still[9], atol=0.1)
    np.testing.assert_allclose(image[84], still[87], atol=0.1)


def test_jitter_displaces_lines_and_averages_out() -> None:
    def unrest(motion: Motion) -> float:
        image = renderer().render(view(), BEAM, 2e-6, motion, rng())
        still = renderer().render(view(), BEAM, 2e-6, STILL, rng())
        slope = np.gradient(still, axis=1)[:, 8:-8]
        moved = (image - still)[:, 8:-8]
        lines = (moved * slope).sum(1) / (slope * slope).sum(1)
        return float(lines.std())

    assert unrest(Motion(jitter_px=0.5)) == pytest.approx(0.5, rel=0.3)
    assert unrest(Motion(jitter_px=0.5, averages=16)) < 0.2


def test_charging_draws_shadows_behind_bright_features() -> None:
    brightness = np.full((256, 256), 0.3, np.float32)
    brightness[:, 120:130] = 0.9
    surface = Specimen(brightness, None, 0.0, 0.0)
    plain = renderer(surface).render(view(), BEAM, 0.0, STILL, rng())
    shaded = renderer(surface, strength=0.5, length_px=20.0).render(view(), BEAM, 0.0, STILL, rng())
    change = (shaded - plain)[48]
    behind, before = change[68:76].mean(), change[40:50].mean()
    assert behind < before - 0.03
    assert change[68:70].mean() < change[90:92].mean()  # the charge leaks away
    bright = renderer(surface, strength=-0.5).render(view(), BEAM, 0.0, STILL, rng())
    assert (bright - plain)[48, 68:76].mean() > 0.02


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_averaging_is_the_mean_of_shifted_scans(count: int) -> None:
    shape = (32, 48)
    fx = np.fft.rfftfreq(48)[None, :]
    fy = np.fft.fftfreq(32)[:, None]
    phases = [
        np.exp(-2j * np.pi * (fx * 0.8 - fy * 1.0) * (k - (count - 1) / 2)) for k in range(count)
    ]
    expected = np.mean(phases, axis=0)
    np.testing.assert_allclose(average_transfer((0.8, -1.0), count, shape), expected, atol=1e-5)


def test_region_is_a_part_of_the_field() -> None:
    source = renderer()
    whole = source.render(view(1.3, 0.4), BEAM, 3e-6, STILL, rng())
    part = View((1.3, 0.4), (-16, 8), (32, 64))
    np.testing.assert_allclose(
        source.render(part, BEAM, 3e-6, STILL, rng()), whole[40:72, 16:80], atol=1e-3
    )
