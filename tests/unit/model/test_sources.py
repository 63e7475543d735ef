from pathlib import Path

import cv2
import numpy as np
import pytest

from semagent.errors import InputFileError
from semagent_engines.data.sources import (
    read_grey,
    read_sources,
    split_sources,
    usable_image,
)
from semagent_engines.data.specimen import procedural_specimen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for source, seed in (("alloy", 1), ("fibres", 2)):
        (tmp_path / source).mkdir()
        sharp = procedural_specimen(np.random.default_rng(seed), 256)
        grey = (20 + 200 * sharp).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
        cv2.imwrite(str(tmp_path / source / "a.png"), grey)
        soft = cv2.GaussianBlur(grey, (0, 0), 16.0)
        cv2.imwrite(str(tmp_path / source / "b.png"), soft)
        (tmp_path / source / "LICENSE.txt").write_text("free")
    return tmp_path


def test_sharp_images_are_kept_binned_and_soft_ones_refused(folder: Path) -> None:
    sources = read_sources(folder)
    assert [source.name for source in sources] == ["alloy", "fibres"]
    for source in sources:
        assert source.refused == 1
        assert [image.shape for image in source.images] == [(256, 256)]
        assert source.images[0].dtype == np.float32
        assert 0.0 <= source.images[0].min() <= source.images[0].max() <= 1.0


def test_the_split_is_by_source(folder: Path) -> None:
    training, validation = split_sources(read_sources(folder), ["fibres"])
    assert [source.name for source in training] == ["alloy"]
    assert [source.name for source in validation] == ["fibres"]


def test_an_unknown_validation_source_is_named_with_those_there_are(folder: Path) -> None:
    with pytest.raises(InputFileError, match="'bones'; there are alloy, fibres"):
        split_sources(read_sources(folder), ["bones"])


def test_nothing_left_to_train_on_is_an_error(folder: Path) -> None:
    with pytest.raises(InputFileError, match="left for training"):
        split_sources(read_sources(folder), ["alloy", "fibres"])


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir], ids=["missing", "empty"])
def test_a_folder_without_images_is_an_error_that_names_it(make: object, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert callable(make)
    make(folder)
    with pytest.raises(InputFileError, match="data"):
        read_sources(folder)


def test_a_broken_image_is_an_error_that_names_it(folder: Path) -> None:
    broken = folder / "alloy" / "c.png"
    broken.write_bytes(b"not a picture")
    with pytest.raises(InputFileError, match=r"c\.png"):
        read_sources(folder)


def test_sixteen_bit_images_are_brought_to_eight(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    ramp = np.linspace(0, 40000, 64, dtype=np.uint16).repeat(64).reshape(64, 64)
    cv2.imwrite(str(path), ramp)
    grey = read_grey(path)
    assert grey.dtype == np.uint8
    assert grey.max() == 255
    np.testing.assert_allclose(grey, ramp / 40000 * 255, atol=1)


def test_patches_too_small_to_bin_are_taken_as_they_are() -> None:
    sharp = procedural_specimen(np.random.default_rng(3), 128)
    image = usable_image((255 * sharp).astype(np.uint8))
    assert image is not None
    assert image.shape == (128, 128)
