import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semagent.errors import InputFileError
from semagent.images import read_headers, read_image

SIXTEEN = (np.arange(48 * 64, dtype=np.uint16) * 20).reshape(48, 64)
EIGHT = (SIXTEEN >> 8).astype(np.uint8)


def encode(path, pixels):
    ok, data = cv2.imencode(path.suffix, pixels)
    assert ok
    path.write_bytes(data.tobytes())
    return path


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd", "jpeg2000"])
@pytest.mark.parametrize("pixels", [EIGHT, SIXTEEN], ids=["8 bit", "16 bit"])
def test_tiff_of_any_compression_is_read_exactly(tmp_path, compression, pixels):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, pixels, compression=compression)
    image = read_image(path)
    assert image.pixels.dtype == pixels.dtype
    assert np.array_equal(image.pixels, pixels)
    assert image.path == path
    assert image.notes == ()
    (header,) = read_headers(path)
    assert (header.height, header.width, header.bit_depth) == (48, 64, pixels.itemsize * 8)


@pytest.mark.parametrize("ending", [".png", ".bmp"])
def test_lossless_formats_are_read_exactly(tmp_path, ending):
    assert np.array_equal(read_image(encode(tmp_path / f"i{ending}", EIGHT)).pixels, EIGHT)


def test_png_of_16_bits_is_read_exactly(tmp_path):
    image = read_image(encode(tmp_path / "image.png", SIXTEEN))
    assert image.pixels.dtype == np.uint16
    assert np.array_equal(image.pixels, SIXTEEN)


def test_jpeg_is_read_nearly(tmp_path, micrograph):
    image = read_image(encode(tmp_path / "image.jpg", micrograph))
    assert image.pixels.shape == micrograph.shape
    assert np.abs(image.pixels.astype(int) - micrograph).mean() < 4


def test_content_decides_not_the_ending(tmp_path):
    path = encode(tmp_path / "image.png", EIGHT).rename(tmp_path / "image.tif")
    assert np.array_equal(read_image(path).pixels, EIGHT)


def test_a_path_beyond_ascii_is_opened(tmp_path):
    assert read_image(encode(tmp_path / "Größe µm 電子.png", EIGHT)).pixels.shape == (48, 64)


def test_12_bits_in_16_keep_their_grey_values(tmp_path):
    path = tmp_path / "twelve.tif"
    tifffile.imwrite(path, SIXTEEN >> 4)
    assert read_image(path).pixels.max() == (SIXTEEN >> 4).max() < 4096


def test_big_endian_becomes_native(tmp_path):
    path = tmp_path / "big.tif"
    tifffile.imwrite(path, SIXTEEN, byteorder=">")
    image = read_image(path)
    assert image.pixels.dtype.isnative
    assert np.array_equal(image.pixels, SIXTEEN)


def test_pixels_are_read_only_and_contiguous(tmp_path):
    pixels = read_image(encode(tmp_path / "image.png", EIGHT)).pixels
    assert pixels.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        pixels[0, 0] = 1


# -- colours ----------------------------------------------------------------------------------


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colours_become_grey_with_a_note(tmp_path, planar):
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 200
    path = tmp_path / "red.tif"
    data = red if planar == "contig" else np.moveaxis(red, -1, 0).copy()
    tifffile.imwrite(path, data, photometric="rgb", planarconfig=planar)
    image = read_image(path)
    assert image.notes == ("colours converted to grey",)
    assert np.all(image.pixels == round(200 * 0.299))


def test_colours_of_png_are_in_the_right_order(tmp_path):
    blue_first = np.zeros((48, 64, 3), np.uint8)
    blue_first[..., 2] = 200  # red
    image = read_image(encode(tmp_path / "red.png", blue_first))
    assert np.all(image.pixels == round(200 * 0.299))
    assert image.notes == ("colours converted to grey",)


def test_grey_stored_as_colours_loses_nothing_and_needs_no_note(tmp_path):
    stored = np.dstack([SIXTEEN] * 3)
    path = tmp_path / "grey.tif"
    tifffile.imwrite(path, stored, photometric="rgb")
    image = read_image(path)
    assert np.array_equal(image.pixels, SIXTEEN)
    assert image.notes == ()


def test_opacity_is_dropped(tmp_path):
    stored = np.dstack([EIGHT, EIGHT, EIGHT, np.full_like(EIGHT, 7)])
    assert np.array_equal(read_image(encode(tmp_path / "image.png", stored)).pixels, EIGHT)


def test_grey_with_opacity_is_read(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path, np.dstack([EIGHT, EIGHT]), photometric="minisblack", extrasamples=["unassalpha"]
    )
    assert np.array_equal(read_image(path).pixels, EIGHT)


def test_a_ramp_palette_is_grey_already(tmp_path):
    path = tmp_path / "palette.tif"
    ramp = np.repeat(np.arange(256, dtype=np.uint16)[None] * 257, 3, axis=0)
    tifffile.imwrite(path, EIGHT, photometric="palette", colormap=ramp)
    image = read_image(path)
    assert np.array_equal(image.pixels, EIGHT)
    assert image.notes == ()


def test_another_palette_is_looked_up(tmp_path):
    path = tmp_path / "palette.tif"
    inverted = np.repeat(np.arange(255, -1, -1, dtype=np.uint16)[None] * 257, 3, axis=0)
    tifffile.imwrite(path, EIGHT, photometric="palette", colormap=inverted)
    assert np.array_equal(read_image(path).pixels, 255 - EIGHT)


@pytest.mark.parametrize("pixels", [EIGHT, SIXTEEN], ids=["8 bit", "16 bit"])
def test_white_as_zero_is_turned_round(tmp_path, pixels):
    path = tmp_path / "white.tif"
    tifffile.imwrite(path, pixels, photometric="miniswhite")
    image = read_image(path)
    assert np.array_equal(image.pixels, np.iinfo(pixels.dtype).max - pixels)
    assert image.notes == ("0 meant white in the file; grey values turned round",)


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint32, np.float32, np.float64, bool])
@pytest.mark.parametrize("read", [read_image, read_headers])
def test_other_types_are_refused_by_name(tmp_path, dtype, read):
    path = tmp_path / "strange.tif"
    tifffile.imwrite(path, EIGHT.astype(dtype))
    with pytest.raises(InputFileError, match=r"strange\.tif: has pixels of type .*8 and 16 bits"):
        read(path)


@pytest.mark.parametrize("read", [read_image, read_headers])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"no image at all, only text", "is no TIFF, PNG, JPEG or BMP"),
        (b"II*\0" + bytes(8), "damaged or cut short"),
        (b"II*\0\x08\0\0\0", "damaged or cut short"),
        (b"\x89PNG\r\n\x1a\n", "cut short"),
    ],
)
def test_content_that_is_no_image_is_refused(tmp_path, read, content, reason):
    path = tmp_path / "broken.tif"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=rf"broken\.tif: .*{reason}"):
        read(path)


@pytest.mark.parametrize("read", [read_image, read_headers])
def test_missing_files_and_folders_are_refused(tmp_path, read):
    with pytest.raises(InputFileError, match=r"absent\.tif: no such file"):
        read(tmp_path / "absent.tif")
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(InputFileError, match=r"folder\.tif: (is a folder|may not be read)"):
        read(tmp_path / "folder.tif")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
@pytest.mark.parametrize("read", [read_image, read_headers])
def test_pipes_and_devices_are_refused_and_not_waited_for(tmp_path, read):
    pipe = tmp_path / "pipe.tif"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(InputFileError, match=f"{path}: is a pipe or a device"):
            read(path)


@pytest.mark.parametrize("content", [b"II*\0" + bytes([99] * 8), b"GIF89a" + bytes(40)])
def test_the_libraries_print_nothing_of_their_own(tmp_path, content):
    """In a process of its own: the test runner catches what is logged."""
    path = tmp_path / "broken.tif"
    path.write_bytes(content)
    program = "import sys; from semagent.images import read_image; read_image(sys.argv[1])"
    run = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=False
    )
    traceback, _, said = run.stderr.rpartition("InputFileError: ")
    assert traceback.startswith("Traceback")
    assert said.startswith(f"{path}: is ")


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="permissions do not bind this user"
)
def test_a_file_without_permission_is_refused(tmp_path):
    path = encode(tmp_path / "secret.png", EIGHT)
    path.chmod(0)
    with pytest.raises(InputFileError, match=r"secret\.png: may not be read"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, read_headers])
@pytest.mark.parametrize("ending", [".tif", ".png", ".jpg", ".bmp"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.98])
def test_a_file_that_was_cut_short_is_refused(tmp_path, read, micrograph, ending, kept):
    path = tmp_path / f"cut{ending}"
    if ending == ".tif":
        tifffile.imwrite(path, micrograph)
    else:
        encode(path, micrograph)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InputFileError, match=rf"cut\{ending}: .*cut short"):
        read(path)


@pytest.mark.parametrize("size", [(1 << 20, 1 << 20), (128, 1 << 22), (1 << 22, 96)])
def test_a_size_beyond_reason_is_refused_before_memory_is_taken(tmp_path, size):
    width, height = size
    path = tmp_path / "vast.tif"
    tifffile.imwrite(path, EIGHT, rowsperstrip=48)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages[0].tags["ImageWidth"].overwrite(width)
        tif.pages[0].tags["ImageLength"].overwrite(height)
    with pytest.raises(InputFileError, match=rf"vast\.tif: claims {width} x {height} pixels"):
        read_image(path)


def test_a_page_that_is_not_there_is_refused(tmp_path):
    path = encode(tmp_path / "image.png", EIGHT)
    with pytest.raises(InputFileError, match=r"image\.png: has one image; there is no page 1"):
        read_image(path, page=1)
    tifffile.imwrite(tmp_path / "image.tif", EIGHT)
    with pytest.raises(InputFileError, match=r"image\.tif: has 1 pages; there is no page 3"):
        read_image(tmp_path / "image.tif", page=3)


def test_further_pages_are_noted_and_can_be_asked_for(tmp_path):
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(EIGHT)
        tif.write(EIGHT + 1)
    assert read_image(path).notes == ("holds 2 pages, of which number 0 is read",)
    assert np.array_equal(read_image(path, page=1).pixels, EIGHT + 1)
    assert len(read_headers(path)) == 1


@pytest.fixture(scope="module", params=["zlib", None, "ome"])
def whole_file(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "whole.ome.tif"
    if request.param == "ome":
        metadata = {"axes": "ZYX", "PhysicalSizeX": 0.1, "PhysicalSizeZ": 1.0}
        tifffile.imwrite(path, np.stack([EIGHT] * 3), metadata=metadata)
    else:
        tag = b"0\r\n0\r\nAP_WD\r\nWD = 6.2 mm\r\n"
        extra = [(34118, 1, len(tag), tag, True)]
        tifffile.imwrite(path, EIGHT, compression=request.param, ome=False, extratags=extra)
    return path


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6))
@pytest.mark.filterwarnings("ignore")
def test_damage_anywhere_is_an_error_that_names_the_file_or_harmless(whole_file, damage):
    data = bytearray(whole_file.read_bytes())
    for place, value in damage:
        # The square makes the headers at the beginning more likely than the pixels.
        data[int(place * place * (len(data) - 1))] = value
    path = whole_file.with_name("damaged.tif")
    path.write_bytes(data)
    image = message = None
    try:
        image = read_image(path)
    except InputFileError as error:
        message = str(error)
    if image is None:
        assert "damaged.tif: " in message
    else:
        assert image.pixels.ndim == 2
        assert image.pixels.dtype in (np.uint8, np.uint16)
        assert 0 <= image.info_bar_px < image.pixels.shape[0]
