from pathlib import Path

import cv2
import numpy as np
import pytest

from semagent.errors import ConfigError
from semagent_drivers.simulated.options import SpecimenKind, SpecimenOptions
from semagent_drivers.simulated.patterns import PATTERNS
from semagent_drivers.simulated.specimen import Specimen, make_specimen

PIXEL_M = 10e-9
IDENTITY = np.eye(2)


def save(path: Path, image: np.ndarray) -> str:
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return str(path)


def texture(shape: tuple[int, int], dtype: type = np.uint8) -> np.ndarray:
    high = np.iinfo(dtype).max
    return np.random.default_rng(5).integers(0, high, shape, endpoint=True).astype(dtype)


@pytest.mark.parametrize("kind", PATTERNS)
def test_patterns_are_in_range_and_seeded(kind: SpecimenKind) -> None:
    options = SpecimenOptions(kind=kind, tile_px=256, relief_um=2.0)
    first, again, other = (make_specimen(options, PIXEL_M, seed) for seed in (1, 1, 2))
    assert first.brightness.shape == (256, 256)
    assert first.brightness.dtype == np.float32
    assert 0 <= first.brightness.min() <= first.brightness.max() <= 1
    np.testing.assert_array_equal(first.brightness, again.brightness)
    if kind == "flat":
        assert np.ptp(first.brightness) == 0
        assert first.height_m is None
    else:
        assert first.brightness.std() > 0.05
        assert (first.brightness != other.brightness).any()
        assert first.height_m is not None
        assert np.ptp(first.height_m) == pytest.approx(2e-6, rel=1e-3)


def test_without_relief_there_are_no_heights() -> None:
    assert make_specimen(SpecimenOptions(tile_px=128), PIXEL_M, 0).height_m is None


def test_larger_features_mean_a_smoother_image() -> None:
    def roughness(feature_nm: float) -> float:
        options = SpecimenOptions(kind="grains", tile_px=512, feature_size_nm=feature_nm)
        brightness = make_specimen(options, PIXEL_M, 3).brightness
        return float(np.abs(np.diff(brightness)).mean())

    assert roughness(1000) < roughness(200)


def test_contrast_zero_is_uniform() -> None:
    specimen = make_specimen(SpecimenOptions(tile_px=128, contrast=0.0), PIXEL_M, 0)
    assert np.ptp(specimen.brightness) == 0


@pytest.mark.parametrize("nm", [10.0, 6400.0])
def test_features_must_fit(nm: float) -> None:
    with pytest.raises(ConfigError, match=r"feature_size_nm.*2 to half of tile_px"):
        make_specimen(SpecimenOptions(tile_px=512, feature_size_nm=nm), PIXEL_M, 0)


def test_sampling_at_whole_pixels_is_a_mirrored_cut() -> None:
    layer = np.random.default_rng(0).random((40, 60), np.float32)
    specimen = Specimen(layer, None, 0.0, 0.0)
    endless = np.pad(layer, ((400, 400), (600, 600)), mode="symmetric")
    for x, y in [(30, 20), (0, 0), (-17, 95), (333, -250)]:
        patch = specimen.sample(layer, (float(x), float(y)), IDENTITY, (32, 48))
        top, left = 400 + y - 16, 600 + x - 24
        np.testing.assert_array_equal(patch, endless[top : top + 32, left : left + 48])


def test_sampling_far_away_is_still_exact() -> None:
    layer = np.random.default_rng(0).random((40, 60), np.float32)
    specimen = Specimen(layer, None, 0.0, 0.0)
    near = specimen.sample(layer, (7.0, 9.0), IDENTITY, (16, 16))
    far = specimen.sample(layer, (7.0 + 120 * 10**5, 9.0 - 80 * 10**5), IDENTITY, (16, 16))
    np.testing.assert_array_equal(near, far)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_image_is_stretched_to_its_range(tmp_path: Path, dtype: type) -> None:
    path = save(tmp_path / "größe µ.png", texture((64, 96), dtype) // 4)
    specimen = make_specimen(SpecimenOptions(kind="image", path=path), PIXEL_M, 0)
    assert specimen.brightness.shape == (64, 96)
    assert specimen.brightness.min() == 0
    assert specimen.brightness.max() == 1


def test_image_is_cropped_then_binned(tmp_path: Path) -> None:
    image = np.full((100, 128), 60, np.uint8)
    image[:64] = np.kron(texture((32, 64)), np.ones((2, 2), np.uint8))
    path = save(tmp_path / "field.png", image)
    options = SpecimenOptions(kind="image", path=path, image_bin=2, crop_bottom_px=36)
    brightness = make_specimen(options, PIXEL_M, 0).brightness
    small = image[:64:2, ::2].astype(np.float64)
    assert brightness.shape == (32, 64)
    assert np.corrcoef(brightness.ravel(), small.ravel())[0, 1] > 0.999


def test_image_is_scaled_to_the_pixels_of_the_scan(tmp_path: Path) -> None:
    path = save(tmp_path / "field.png", texture((64, 80)))
    options = SpecimenOptions(kind="image", path=path, image_pixel_size_nm=20.0)
    assert make_specimen(options, PIXEL_M, 0).brightness.shape == (128, 160)


def test_information_bar_is_left_out(tmp_path: Path) -> None:
    pixels = texture((240, 256))
    pixels[200:] = 0
    cv2.putText(pixels, "WD 5 mm", (8, 230), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    path = save(tmp_path / "bar.png", pixels)
    options = SpecimenOptions(kind="image", path=path)
    assert make_specimen(options, PIXEL_M, 0).brightness.shape == (200, 256)
    everything = SpecimenOptions(kind="image", path=path, crop_bottom_px=0)
    assert make_specimen(everything, PIXEL_M, 0).brightness.shape == (240, 256)


def test_vendor_files_are_specimens(shared_data: Path) -> None:
    path = shared_data / "test" / "nanoballs-fei34680" / "R5 K3K4Me3 SiO2_2-2.TIF"
    options = SpecimenOptions(kind="image", path=str(path), image_bin=2)
    assert make_specimen(options, PIXEL_M, 0).brightness.std() > 0.05


@pytest.mark.parametrize("size", [128, 256])
def test_height_map_is_taken_from_its_file(tmp_path: Path, size: int) -> None:
    ramp = np.tile(np.linspace(0, 255, size).astype(np.uint8), (size, 1))
    path = save(tmp_path / "height.png", ramp)
    options = SpecimenOptions(tile_px=256, relief_um=3.0, height_map=path)
    height_m = make_specimen(options, PIXEL_M, 0).height_m
    assert height_m is not None
    assert height_m.shape == (256, 256)
    assert height_m[:, -1].mean() - height_m[:, 0].mean() == pytest.approx(3e-6, rel=0.02)
    assert height_m.mean() == pytest.approx(0, abs=1e-9)


def test_bad_image_files_are_named(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no image")
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    small = save(tmp_path / "small.png", texture((20, 64)))
    grey = save(tmp_path / "grey.png", np.full((64, 64), 9, np.uint8))
    for path, reason in [
        (str(tmp_path / "absent.png"), "no such file"),
        (str(text), r"text\.png"),
        (str(empty), r"empty\.png"),
        (small, "at least 32 x 32"),
        (grey, "uniform"),
    ]:
        with pytest.raises(ConfigError, match=reason) as caught:
            make_specimen(SpecimenOptions(kind="image", path=path), PIXEL_M, 0)
        assert Path(path).name in str(caught.value)


def test_crop_and_size_limits(tmp_path: Path) -> None:
    path = save(tmp_path / "field.png", texture((64, 64)))
    with pytest.raises(ConfigError, match="after 500 rows were cut off"):
        make_specimen(SpecimenOptions(kind="image", path=path, crop_bottom_px=500), PIXEL_M, 0)
    with pytest.raises(ConfigError, match=r"allowed are 32 to 8192.*image_bin"):
        make_specimen(SpecimenOptions(kind="image", path=path, image_bin=4), PIXEL_M, 0)
    with pytest.raises(ConfigError, match=r"allowed are 32 to 8192"):
        make_specimen(
            SpecimenOptions(kind="image", path=path, image_pixel_size_nm=5000.0), PIXEL_M, 0
        )
