from pathlib import Path

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from semagent.errors import InputFileError
from semagent.session.ometiff import encode_raw
from semagent.testing.engines import frame_of
from semagent.types import Frame, FrameFault
from semagent_engines.data.sources import (
    Source,
    image_files,
    read_micrograph,
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
    sources = read_sources(folder)
    with pytest.raises(InputFileError, match="left for training"):
        split_sources(sources, ["alloy", "fibres"])
    soft = Source("soft", (), refused=2)
    with pytest.raises(InputFileError, match="left for training"):
        split_sources([sources[0], soft], ["alloy"])
    with pytest.raises(InputFileError, match="no usable image in the validation sources soft"):
        split_sources([*sources, soft], ["soft"])


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


@pytest.mark.parametrize("grey", [60, 128, 220])
def test_a_grey_information_bar_is_no_specimen(grey: int, tmp_path: Path) -> None:
    specimen = (30 + 180 * procedural_specimen(np.random.default_rng(1), 512)).astype(np.uint8)
    bar = np.full((48, 512), grey, np.uint8)
    ink = 230 if grey < 100 else 0
    cv2.putText(bar, "5.0kV 10.2mm x20.0k", (20, 34), cv2.FONT_HERSHEY_SIMPLEX, 1.0, ink, 2)
    cv2.imwrite(str(tmp_path / "a.png"), np.concatenate([specimen, bar]))
    read = read_micrograph(tmp_path / "a.png")
    assert read.rows == slice(0, 512)
    np.testing.assert_allclose(read.specimen, specimen / 255, atol=1e-6)


def with_hot_pixel(image: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    hot = image.copy()
    hot[5, 5] = 65535
    return hot


def with_white_bar(image: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    bar = np.full((64, image.shape[1]), 255, np.uint8)
    cv2.putText(bar, "HV 5 kV WD 10 mm", (8, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 0, 2)
    return np.concatenate([image, bar.astype(np.uint16) * 257])


@pytest.mark.parametrize("spoil", [lambda image: image, with_hot_pixel, with_white_bar])
def test_sixteen_bits_are_scaled_to_what_the_specimen_uses(spoil: object, tmp_path: Path) -> None:
    assert callable(spoil)
    twelve_bits = 200 + 3000 * procedural_specimen(np.random.default_rng(1), 512)
    cv2.imwrite(str(tmp_path / "deep.png"), spoil(twelve_bits.astype(np.uint16)))
    read = read_micrograph(tmp_path / "deep.png")
    assert read.rows == slice(0, 512)
    assert read.pixels.dtype == np.float32
    assert read.specimen.max() == 1.0
    scaled = np.minimum(twelve_bits / np.percentile(twelve_bits, 99.9), 1.0)
    assert np.quantile(np.abs(read.specimen - scaled), 0.9999) < 1e-3


def test_an_empty_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "e.png").write_bytes(b"")
    with pytest.raises(InputFileError, match=r"e\.png"):
        read_micrograph(tmp_path / "e.png")


def test_an_image_full_of_text_is_an_error_that_names_it(tmp_path: Path) -> None:
    image = np.full((120, 120), 128, np.uint8)
    for row in range(2, 120, 10):
        for column in range(2, 116, 6):
            cv2.rectangle(image, (column, row), (column + 2, row + 6), 255, -1)
    cv2.imwrite(str(tmp_path / "text.png"), image)
    with pytest.raises(InputFileError, match=r"text\.png: no specimen"):
        read_micrograph(tmp_path / "text.png")


def test_what_semagent_restored_is_no_micrograph(tmp_path: Path) -> None:
    """A folder of the user's own may be called derived, and files may end in .TIF."""
    folder, pixels = tmp_path / "derived" / "mine", np.zeros((64, 64), np.uint8)
    made = ("session/derived/f.tif", "a-restored.tif", "b.ome-restored.tif", "a-consistency.png")
    for name in ("raw.tif", "upper.TIF", *made):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / name, pixels)
    marked = '{"derived": true, "by": "semagent"}'
    tifffile.imwrite(folder / "renamed.tif", pixels, description=marked)
    channels = {"axes": "CYX", "Description": marked}
    tifffile.imwrite(
        folder / "renamed.ome.tif", np.stack([pixels] * 2), ome=True, metadata=channels
    )
    assert [path.name for path in image_files(folder)] == ["raw.tif", "upper.TIF"]


def test_frames_of_a_session_that_were_not_fit_for_use_are_left_out(tmp_path: Path) -> None:
    frame = frame_of(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    for name, faults in (("1", ()), ("2", (FrameFault.INCOMPLETE,)), ("3", tuple(FrameFault))):
        header = msgspec.structs.replace(frame.header, faults=faults)
        (tmp_path / f"{name}.ome.tif").write_bytes(encode_raw(Frame(header, frame.pixels)))
    assert [path.name for path in image_files(tmp_path)] == ["1.ome.tif"]


def test_patches_too_small_to_bin_are_taken_as_they_are() -> None:
    image = usable_image(procedural_specimen(np.random.default_rng(3), 128))
    assert image is not None
    assert image.shape == (128, 128)
