"""One frame as one OME-TIFF."""

import contextlib
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import ome_types
import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from semagent.errors import InputFileError
from semagent.session.jsontext import to_json
from semagent.session.layout import DerivedRecord, derived_file, frame_file
from semagent.session.ometiff import encode_derived, encode_raw, read_frame_file
from semagent.types import (
    Frame,
    FrameAnalysis,
    FrameFault,
    FrameHeader,
    Optics,
    Region,
    Scan,
    StagePosition,
)

MakeFrame = Callable[..., Frame]
MakeFigures = Callable[[FrameHeader], FrameAnalysis]

MAYBE = st.none() | st.floats()
STAMP = st.integers(-(2**63), 2**63 - 1)
HEADERS = st.builds(
    FrameHeader,
    sequence=st.integers(1, 2**53),
    monotonic_ns=STAMP,
    wall_ns=STAMP,
    detector=st.text(),
    scan=st.builds(
        Scan,
        width_px=st.integers(1, 9),
        height_px=st.integers(1, 9),
        bit_depth=st.sampled_from([8, 16]),
        pixel_size_m=MAYBE,
        dwell_s=MAYBE,
        frame_averages=st.integers(1, 1000),
        region=st.none() | st.builds(Region),
    ),
    optics=st.builds(
        Optics,
        working_distance_m=st.floats(),
        stigmator_x=MAYBE,
        magnification=MAYBE,
        blanked=st.none() | st.booleans(),
    ),
    stage=st.builds(StagePosition, x_m=MAYBE, y_m=MAYBE, tilt_rad=MAYBE),
    settings_rev=st.integers(0, 2**31),
    info_bar_px=st.integers(0, 100),
    source=st.none() | st.text(),
    faults=st.lists(st.sampled_from(FrameFault), max_size=2).map(tuple),
)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    header = draw(HEADERS)
    shape = (header.scan.height_px, header.scan.width_px)
    size = shape[0] * shape[1] * header.scan.bit_depth // 8
    data = draw(st.binary(min_size=size, max_size=size))
    if header.scan.bit_depth == 8:
        return Frame(header, np.frombuffer(data, np.uint8).reshape(shape).copy())
    return Frame(header, np.frombuffer(data, np.uint16).reshape(shape).copy())


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Frame], Path]:
    def save(frame: Frame) -> Path:
        path = tmp_path / "frame.ome.tif"
        path.write_bytes(encode_raw(frame))
        return path

    return save


@given(frames())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_pixels_and_header_come_back_bit_for_bit(
    saved: Callable[[Frame], Path], frame: Frame
) -> None:
    path = saved(frame)

    back = read_frame_file(path)

    assert back.pixels.dtype == frame.pixels.dtype
    assert np.array_equal(back.pixels, frame.pixels)
    assert to_json(back.header) == to_json(frame.header)
    assert np.array_equal(np.atleast_2d(tifffile.imread(path)).reshape(-1), frame.pixels.ravel())


@given(frames())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=10
)
def test_any_header_makes_valid_ome_xml(saved: Callable[[Frame], Path], frame: Frame) -> None:
    ome_types.from_tiff(saved(frame), validate=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_standard_places_hold_what_is_known(
    saved: Callable[[Frame], Path], make_frame: MakeFrame, dtype: Any
) -> None:
    frame = make_frame(dtype=dtype, detector="In-lens <µ>")

    path = saved(frame)
    ome = ome_types.from_tiff(path, validate=True)
    image = ome.images[0]
    plane = image.pixels.planes[0]

    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert tiff.series[0].shape == frame.pixels.shape
        assert tiff.pages.first.compression == tifffile.COMPRESSION.NONE
        assert tiff.pages.first.tags["XResolution"].value == (2_500_000, 1)  # pixels a centimetre
    assert image.pixels.type.value == np.dtype(dtype).name
    assert image.pixels.physical_size_x == pytest.approx(4.0)
    assert image.pixels.physical_size_y == pytest.approx(4.0)
    assert image.pixels.physical_size_x_unit.value == "nm"
    assert (plane.position_x, plane.position_y) == pytest.approx((1.0, -2.0))
    assert plane.position_z == pytest.approx(5.2)
    assert plane.position_z_unit.value == "mm"
    assert plane.exposure_time == pytest.approx(1e-6 * frame.pixels.size * 2)
    assert image.pixels.channels[0].name == "In-lens <µ>"
    assert ome.instruments[0].detectors[0].model == "In-lens <µ>"
    assert image.acquisition_date == datetime(2025, 10, 9, 8, 53, 20, 123456, tzinfo=UTC)


def test_what_is_unknown_is_left_out(saved: Callable[[Frame], Path], make_frame: MakeFrame) -> None:
    frame = make_frame(
        scan=Scan(width_px=8, height_px=6, bit_depth=8),
        optics=Optics(working_distance_m=math.nan),
        stage=StagePosition(),
    )

    pixels = ome_types.from_tiff(saved(frame), validate=True).images[0].pixels

    assert pixels.physical_size_x is None
    plane = pixels.planes[0]
    assert plane.position_x is plane.position_y is plane.position_z is plane.exposure_time is None


@pytest.mark.parametrize("pixel_size_m", [0.0, -4e-9, math.inf, math.nan, 1e-160, 1e-30, 1e30])
def test_an_impossible_pixel_size_does_not_stop_the_recording(
    saved: Callable[[Frame], Path], make_frame: MakeFrame, pixel_size_m: float
) -> None:
    scan = Scan(width_px=8, height_px=6, bit_depth=8, pixel_size_m=pixel_size_m)

    path = saved(make_frame(scan=scan))

    ome_types.from_tiff(path, validate=True)
    back = read_frame_file(path).header.scan.pixel_size_m
    assert back == pytest.approx(pixel_size_m, rel=0, nan_ok=True)


def test_a_frame_without_pixels_is_refused(make_frame: MakeFrame) -> None:
    with pytest.raises(ValueError, match=r"frame 1 has no pixels, its shape is \(0, 8\)"):
        encode_raw(make_frame(shape=(0, 8)))


def test_a_restored_frame_says_what_it_is(
    tmp_path: Path, make_frame: MakeFrame, make_figures: MakeFigures
) -> None:
    frame = make_frame(7)
    record = DerivedRecord(
        file=derived_file(7),
        sha256="cd" * 32,
        raw_file=frame_file(7),
        sequence=7,
        engine="restorer/v1",
    )
    path = tmp_path / "restored.ome.tif"
    figures, parameters = make_figures(frame.header), {"strength": 0.5}
    path.write_bytes(encode_derived(frame.header, frame.pixels, record, figures, parameters))
    ome = ome_types.from_tiff(path, validate=True)

    assert "derived" in str(ome.images[0].name)
    description = str(ome.images[0].description)
    assert description.startswith("DERIVED DATA")
    assert frame_file(7) in description
    assert "by restorer/v1." in description
    assert ome.structured_annotations is not None
    notes = {note.namespace: note.value for note in ome.structured_annotations}
    assert '"strength": 0.5' in notes["semagent/derived"]
    assert '"sharpness": {"$float": "-Infinity"}' in notes["semagent/derived"]
    assert np.array_equal(tifffile.imread(path), frame.pixels)
    with pytest.raises(InputFileError, match="restored frame, not a raw one"):
        read_frame_file(path)


def test_a_file_cut_anywhere_is_an_error_that_names_it(
    tmp_path: Path, make_frame: MakeFrame
) -> None:
    whole = bytes(encode_raw(make_frame()))
    path = tmp_path / "cut.ome.tif"
    for length in {*range(0, len(whole), 11), *range(len(whole) - 60, len(whole))}:
        path.write_bytes(whole[:length])
        with pytest.raises(InputFileError, match=r"cut\.ome\.tif"):
            read_frame_file(path)


@given(position=st.integers(0, 2000), value=st.integers(0, 255))
@example(position=33, value=189)  # a width of 23 GiB
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_damaged_file_is_read_or_refused_but_never_crashes(
    tmp_path: Path, make_frame: MakeFrame, position: int, value: int
) -> None:
    data = bytearray(encode_raw(make_frame()))
    data[position % len(data)] = value
    path = tmp_path / "damaged.ome.tif"
    path.write_bytes(data)

    with contextlib.suppress(InputFileError):
        assert read_frame_file(path).pixels.ndim == 2


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.tif"
    with pytest.raises(InputFileError, match=r"other\.tif"):
        read_frame_file(path)
    tifffile.imwrite(path, np.zeros((4, 4), np.uint8))
    with pytest.raises(InputFileError, match="not OME-XML"):
        read_frame_file(path)
    tifffile.imwrite(path, np.zeros((4, 4), np.uint8), ome=True)
    with pytest.raises(InputFileError, match="no frame of a semagent session"):
        read_frame_file(path)
