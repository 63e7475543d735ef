import cv2
import numpy as np
import pytest

from semagent.images import ImageMetadata, find_info_bar

BLACK_ON_WHITE = {"ink": 0, "paper": 255}


@pytest.mark.parametrize("style", [{}, BLACK_ON_WHITE, {"ink": 250, "paper": 60}])
@pytest.mark.parametrize("rows", [28, 40, 60])
@pytest.mark.parametrize("seed", range(3))
def test_a_printed_bar_is_found_to_the_row(micrographs, with_bar, style, rows, seed):
    assert find_info_bar(with_bar(micrographs(seed=seed), rows, **style)) == rows


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(480, 640), (128, 128), (1024, 768)])
def test_an_ordinary_specimen_has_no_bar(micrographs, shape, seed):
    assert find_info_bar(micrographs(*shape, seed=seed)) == 0


def test_16_bits_and_12_bits_in_16_are_the_same(micrograph, with_bar):
    printed = with_bar(micrograph, 40)
    assert find_info_bar(printed.astype(np.uint16) * 257) == 40
    assert find_info_bar(printed.astype(np.uint16) * 16) == 40


def test_a_bar_survives_jpeg(micrograph, with_bar):
    _, data = cv2.imencode(".jpg", with_bar(micrograph, 48), [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert abs(find_info_bar(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)) - 48) <= 1


def test_a_ruled_frame_belongs_to_the_bar(micrograph, with_bar):
    printed = with_bar(micrograph, 40)
    printed[-43:-40] = 255
    printed[-2:] = 255
    assert find_info_bar(printed) == 43


def test_a_bar_that_floats_counts_with_the_rows_below(micrograph, with_bar):
    printed = micrograph.copy()
    height, width = printed.shape
    bar = with_bar(micrograph, 40)[-40:, : int(width * 0.8)]
    printed[height - 60 : height - 20, width // 20 : width // 20 + bar.shape[1]] = bar
    assert find_info_bar(printed) == 60


def test_a_bar_in_the_middle_is_none(micrograph, with_bar):
    printed = micrograph.copy()
    printed[200:240] = with_bar(micrograph, 40)[-40:]
    assert find_info_bar(printed) == 0


def test_a_constant_band_without_text_is_none(micrograph):
    dark = micrograph.copy()
    dark[-60:] = 0
    assert find_info_bar(dark) == 0


def test_a_saturated_hole_with_a_ragged_edge_is_none(micrograph):
    hole = micrograph.copy()
    columns = np.arange(hole.shape[1])
    edge = 380 + 25 * np.sin(columns / 37) + 10 * np.sin(columns / 9)
    hole[np.arange(hole.shape[0])[:, None] > edge] = 0
    for x, y in ((100, 450), (300, 460), (500, 440)):
        cv2.circle(hole, (x, y), 8, 220, -1)
    assert find_info_bar(hole) == 0


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_blank_image_has_no_bar(grey):
    assert find_info_bar(np.full((200, 300), grey, np.uint8)) == 0
    assert find_info_bar(np.zeros((200, 300), np.uint16)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (20, 640), (640, 20)])
def test_an_image_too_small_for_text_has_no_bar(shape):
    assert find_info_bar(np.zeros(shape, np.uint8)) == 0


def test_what_the_file_says_comes_first(micrograph, with_bar):
    printed = with_bar(micrograph, 40)
    assert find_info_bar(printed, ImageMetadata(info_bar_px=33)) == 33
    assert find_info_bar(printed, ImageMetadata(info_bar_px=0)) == 0
    assert find_info_bar(printed, ImageMetadata()) == 40


def test_the_image_is_not_changed(micrograph, with_bar):
    printed = with_bar(micrograph, 40)
    before = printed.copy()
    find_info_bar(printed)
    assert np.array_equal(printed, before)
