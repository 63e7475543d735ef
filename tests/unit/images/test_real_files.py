"""Readers against micrographs as microscopes wrote them."""

import pytest
import tifffile

from semagent.images import find_info_bar, read_headers, read_image

ZEISS = {
    "aquami-zeiss34118/Sample.tif": ((768, 1024), 6.238265e-3, 543e-12, 51.2e-6, 1, 77),
    "fibresem-zeiss34118/sample.01_img08.tif": (
        *((1536, 2048), 4.590597e-3, 9.766e-9),
        *(25.6e-6, 1, 166),
    ),
    "fibresem-zeiss34118/sample.02_img20.tif": (
        *((1536, 2048), 4.85622e-3, 48.83e-9),
        *(1.6e-6, 10, 166),
    ),
    "micromechanics-zeiss34118/Zeiss.tif": ((768, 1024), 4.628052e-3, 158.7e-9, 6.4e-6, 11, 0),
}


@pytest.mark.parametrize("name", ZEISS)
def test_zeiss(shared_data, name):
    image = read_image(shared_data / "test" / name)
    settings = image.metadata
    assert settings.vendor == "ZEISS"
    assert image.notes == ()
    assert (
        image.pixels.shape,
        settings.working_distance_m,
        settings.pixel_size_m,
        settings.dwell_s,
        settings.frame_averages,
        image.info_bar_px,
    ) == ZEISS[name]


def test_zeiss_details(shared_data):
    settings = read_image(shared_data / "test/micromechanics-zeiss34118/Zeiss.tif").metadata
    assert settings.beam_current_a == 181e-12
    assert (settings.stigmator_x, settings.stigmator_y) == (-0.032, -0.003)
    assert settings.detector == "SESI"
    assert settings.magnification == 704
    assert settings.stage.x_m == 48.8984e-3
    assert settings.stage.tilt_rad == pytest.approx(0.0122173)


THERMO = {
    "gift-fei34682/10%_gelatin_fibers.tif": ((943, 1024), 8, 10.4771e-3, 31.0059e-9, 59),
    "gift-fei34682/15%_gelatin_fibers.tif": ((943, 1024), 8, 10.4336e-3, 31.0059e-9, 59),
    "gift-fei34682/20%_gelatin_fibers.tif": ((943, 1024), 8, 10.2186e-3, 31.0059e-9, 59),
    "sem2surface-fei34682-16bit/P33_scale1_detectorA.tif": (
        *((1103, 1536), 16, 4.99405e-3, 325.521e-9),
        79,
    ),
    "sem2surface-fei34682-16bit/P33_scale2s3_detectorC.tif": (
        *((1103, 1536), 16, 4.99997e-3, 65.1042e-9),
        79,
    ),
}


@pytest.mark.parametrize("name", THERMO)
def test_thermo(shared_data, name):
    path = shared_data / "test" / name
    image = read_image(path)
    settings = image.metadata
    assert settings.vendor == "Thermo Fisher"
    assert (
        image.pixels.shape,
        image.pixels.itemsize * 8,
        settings.working_distance_m,
        settings.pixel_size_m,
        image.info_bar_px,
    ) == THERMO[name]
    (header,) = read_headers(path)
    assert header.metadata == settings


def test_fei_xl(shared_data):
    files = sorted((shared_data / "test/nanoballs-fei34680").glob("*.TIF"))
    assert len(files) == 9
    for file in files:
        image = read_image(file)
        settings = image.metadata
        assert settings.vendor == "FEI"
        assert 4.8e-3 < settings.working_distance_m < 5e-3
        assert settings.accelerating_voltage_v == 5000
        assert image.info_bar_px == 61
        assert image.notes == ("pixels are not square: height is 1.104 times width",)


def test_fei_xl_pixel_agrees_with_the_drawn_micron_bar(shared_data):
    image = read_image(shared_data / "test/nanoballs-fei34680/R5 K3Me3 SiO2_3-2.TIF")
    bar = image.pixels[430, 290:406]  # drawn with its end marks, for 2 µm
    assert bar.min() >= 200
    assert bar.size * image.metadata.pixel_size_m == pytest.approx(2e-6, rel=0.03)


def test_every_bar_is_found_from_the_pixels_too(shared_data):
    files = [path for path in (shared_data / "test").rglob("*") if path.suffix.lower() == ".tif"]
    assert len(files) == 25
    for file in files:
        image = read_image(file)
        assert find_info_bar(tifffile.imread(file)) == image.info_bar_px, file.name


def test_specimens_without_bar_have_none(shared_data):
    folders = ("nasa-coatings-superalloys", "microplastics", "axons", "shale-noisy-256")
    for folder in folders:
        files = sorted((shared_data / "train" / folder).rglob("*.png"))[:20]
        assert files
        for file in files:
            assert read_image(file).info_bar_px == 0, file.name
