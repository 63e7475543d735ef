import cv2
import numpy as np
import numpy.typing as npt
import pytest

from semagent_engines.data.screening import band_powers, is_truth, specimen_rows
from semagent_engines.data.specimen import procedural_specimen

Grey = npt.NDArray[np.uint8]


@pytest.fixture
def micrograph() -> Grey:
    sharp = procedural_specimen(np.random.default_rng(1), 256)
    return (40 + 170 * sharp).astype(np.uint8)


def with_bar(image: Grey, rows: int, background: int, text: int) -> Grey:
    bar = np.full((rows, image.shape[1]), background, np.uint8)
    cv2.putText(bar, "5.00 kV 10 mm", (8, rows - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, text)
    return np.concatenate([image, bar])


@pytest.mark.parametrize(("background", "text"), [(0, 255), (255, 0)], ids=["black", "white"])
@pytest.mark.parametrize("rows", [24, 40])
def test_a_bar_is_cut_off(micrograph: Grey, rows: int, background: int, text: int) -> None:
    found = specimen_rows(with_bar(micrograph, rows, background, text))
    assert found == slice(0, 256)


def test_burnt_in_text_is_cut_off_with_everything_below(micrograph: Grey) -> None:
    image = np.minimum(micrograph, 200).repeat(2, axis=0).repeat(2, axis=1)
    for index in range(12):
        cv2.rectangle(image, (20 + 20 * index, 490), (26 + 20 * index, 500), 255, -1)
    found = specimen_rows(image)
    assert found.start == 0
    assert 470 <= found.stop < 490


@pytest.mark.parametrize("ink", [0, 255], ids=["black", "white"])
@pytest.mark.parametrize("baseline", [40, 200, 490], ids=["top", "middle", "bottom"])
def test_the_larger_side_of_burnt_in_text_is_kept(
    micrograph: Grey, ink: int, baseline: int
) -> None:
    image = micrograph.repeat(2, axis=0).repeat(2, axis=1)
    cv2.putText(image, "5.0kV 10.2mm x20.0k", (20, baseline), cv2.FONT_HERSHEY_SIMPLEX, 0.7, ink, 2)
    found = specimen_rows(image)
    if baseline < 256:
        assert found.start > baseline
        assert found.stop == 512
    else:
        assert found == slice(0, found.stop)
        assert 460 <= found.stop <= baseline - 12


@pytest.mark.parametrize("ink", [0, 255], ids=["black", "white"])
@pytest.mark.parametrize("quality", [None, 85], ids=["lossless", "jpeg"])
def test_a_scale_bar_is_cut_off_with_its_label(
    micrograph: Grey, ink: int, quality: int | None
) -> None:
    image = micrograph.repeat(2, axis=0).repeat(2, axis=1)
    cv2.rectangle(image, (380, 470), (480, 476), ink, -1)
    cv2.putText(image, "10 um", (395, 462), cv2.FONT_HERSHEY_SIMPLEX, 0.7, ink, 2)
    if quality is not None:
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.uint8)
    found = specimen_rows(image)
    assert found.start == 0
    assert 400 <= found.stop < 445


def test_white_particles_of_any_size_are_specimen() -> None:
    image = np.full((512, 512), 60, np.uint8)
    for x, y, radius in np.random.default_rng(0).integers((0, 0, 3), (512, 512, 20), (100, 3)):
        cv2.circle(image, (int(x), int(y)), int(radius), 255, -1, cv2.LINE_AA)
    assert specimen_rows(image) == slice(0, 512)


def test_a_pattern_of_white_particles_is_no_text() -> None:
    image = np.full((512, 512), 60, np.uint8)
    for x, y in np.ndindex(7, 7):
        cv2.circle(image, (40 + 72 * x, 40 + 72 * y), 5, 255, -1)
    assert specimen_rows(image) == slice(0, 512)


def test_a_plain_micrograph_is_kept_whole(micrograph: Grey) -> None:
    assert specimen_rows(np.minimum(micrograph, 240)) == slice(0, 256)


def test_a_dark_specimen_is_not_a_bar() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 90, (256, 256)).astype(np.uint8)
    assert specimen_rows(image) == slice(0, 256)


def test_sharp_is_truth_but_blurred_noisy_and_flat_are_not(micrograph: Grey) -> None:
    sharp = cv2.resize(micrograph, (192, 192), interpolation=cv2.INTER_AREA).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 40, sharp.shape).astype(np.float32)
    assert is_truth(sharp)
    assert not is_truth(cv2.GaussianBlur(sharp, (0, 0), 2.5))
    assert not is_truth(sharp + noise)
    assert not is_truth(np.full((192, 192), 90.0, np.float32))


def test_an_image_too_small_to_judge_is_refused() -> None:
    assert not is_truth(np.random.default_rng(0).random((63, 200), np.float32))


def test_white_noise_has_equal_power_in_all_bands() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (512, 512)).astype(np.float32)
    powers = band_powers(noise)
    np.testing.assert_allclose(powers / powers.mean(), 1.0, atol=0.1)
