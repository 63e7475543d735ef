"""Regions on the grid of pixels, whole nanoseconds, and averaging without a wrap-around."""

import numpy as np
import pytest

from semagent.errors import ConfigError
from semagent.options import parse_options
from semagent.types import Region, SetScan
from semagent_drivers.adapter import Raster, RasterOptions


@pytest.fixture
def raster():
    return Raster(RasterOptions(width_px=1024, height_px=768, dwell_us=0.32))


def test_the_whole_field(raster):
    assert raster.window == (0, 0, 1023, 767)
    scan = raster.scan(10.24e-6)
    assert (scan.width_px, scan.height_px) == (1024, 768)
    assert scan.pixel_size_m == pytest.approx(10e-9)
    assert scan.dwell_s == 320e-9
    assert raster.frame_s == pytest.approx(1024 * 768 * 320e-9)


def test_a_region_keeps_the_pixel_size(raster):
    raster.set(SetScan(region=Region(left=0.5, top=0.25, width=0.5, height=0.5)))
    assert raster.window == (512, 192, 1023, 575)
    scan = raster.scan(10.24e-6)
    assert (scan.width_px, scan.height_px) == raster.window.shape[::-1] == (512, 384)
    assert scan.pixel_size_m == pytest.approx(10e-9)


def test_dwell_is_whole_nanoseconds(raster):
    raster.set(SetScan(dwell_s=1.2344e-6))
    assert raster.dwell_s == 1234e-9


@pytest.mark.parametrize(("bits", "white"), [(8, 255), (16, 65535)])
def test_averages_neither_wrap_nor_lose_half_a_level(bits, white):
    raster = Raster(RasterOptions(width_px=64, height_px=64, bit_depth=bits))
    raster.set(SetScan(frame_averages=2))
    dtype = np.uint8 if bits == 8 else np.uint16
    values = iter([white, white, 10, 11])
    expose = lambda: np.full((64, 64), next(values), dtype)  # noqa: E731
    bright, mixed = raster.averaged(expose), raster.averaged(expose)
    assert bright.dtype == dtype
    assert (bright == white).all()
    assert (mixed == 11).all()


def test_a_dwell_outside_its_own_range_is_an_error():
    with pytest.raises(ConfigError, match=r"dwell_us 5000\.0 must lie within .* 0\.1 to 1000\.0"):
        parse_options({"dwell_us": 5000}, RasterOptions, where="here")
