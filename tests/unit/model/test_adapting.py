"""Adapting to an instrument: what it reads, what it learns, and when it keeps the old weights."""

import shutil
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from semagent.errors import InputFileError, UsageError
from semagent_engines.data.batches import Views
from semagent_engines.data.instrument import crops, frame_files, read_pairs
from semagent_engines.data.specimen import procedural_specimen
from semagent_engines.export.weights import model_of_artefact
from semagent_engines.model.network import SemModel
from semagent_engines.runtime.artefact import DEFAULT, Artefact, open_artefact
from semagent_engines.runtime.backends.onnxruntime import open_engine
from semagent_engines.train import adapt
from semagent_engines.train.adapt import (
    Focused,
    Live,
    Session,
    exposed_again,
    inconsistency,
    judge,
    read_session,
    reblurred,
)
from semagent_engines.train.checkpoint import load_checkpoint
from semagent_engines.train.cli import main

Image = npt.NDArray[np.float32]


def fields(count: int, edge_px: int = 384) -> list[Image]:
    rng = np.random.default_rng(5)
    return [procedural_specimen(rng, edge_px) for _ in range(count)]


def write(path: Path, image: Image, *, blur_px: float = 0.0, seed: int = 0) -> None:
    if blur_px:
        image = cv2.GaussianBlur(image, (0, 0), blur_px)
    noise = np.random.default_rng(seed).normal(0, 0.03, image.shape)
    grey = np.clip(np.rint(255 * (image + noise)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), grey)


@pytest.fixture(scope="session")
def reader() -> Artefact:
    """What ships; it tells what is in focus."""
    return open_artefact(DEFAULT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A session: eight fields in focus, two of them out of it too, and a frame that is derived."""
    folder = tmp_path / "session"
    for index, image in enumerate(fields(8)):
        write(folder / "frames" / f"{index}.png", image, seed=index)
        if index < 2:
            write(folder / "frames" / f"{index}-out.png", image, blur_px=4.0, seed=20 + index)
    write(folder / "derived" / "0-restored.png", fields(1)[0])
    return folder


def test_every_second_field_is_held_out_and_frames_out_of_focus_are_no_truth(
    reader: Artefact, folder: Path
) -> None:
    session = read_session(model_of_artefact(reader), folder, folder.parent)
    assert (len(session.learned), len(session.held_out), len(session.others)) == (4, 4, 2)


def test_what_semagent_restored_is_not_adapted_on(folder: Path) -> None:
    for index, image in enumerate(fields(8)):
        write(folder / "images" / "restored" / f"{index}-restored.png", image)
    assert len(frame_files(folder)) == 10


def test_memory_does_not_grow_with_the_number_of_frames(reader: Artefact, folder: Path) -> None:
    model, frame_bytes = model_of_artefact(reader), 4 * 384**2
    for copy in range(60):
        shutil.copy(folder / "frames" / "0-out.png", folder / "frames" / f"9-{copy:02d}.png")
    tracemalloc.start()
    try:
        session = read_session(model, folder, folder.parent)
        used_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(session.held_out), len(session.others)) == (4, 32)
    assert used_bytes < 30 * frame_bytes
    assert list(folder.parent.iterdir()) == [folder]


def test_no_field_is_overlooked_where_fields_take_turns(
    reader: Artefact, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index, image in enumerate(fields(8)):
        write(folder / "frames" / f"again-{index}.png", image, seed=90 + index)
    monkeypatch.setattr(adapt, "_MOST_IN_FOCUS", 12)
    session = read_session(model_of_artefact(reader), folder, folder.parent)
    assert [len(session.learned), len(session.held_out)] == [4, 4]
    assert sum(map(len, (*session.learned, *session.held_out))) == 12


def test_frames_of_one_field_count_as_one(reader: Artefact, folder: Path) -> None:
    for index, image in enumerate(fields(8)):
        write(folder / "frames" / f"{index}-again.png", np.roll(image, (9, -5), (0, 1)), seed=90)
    session = read_session(model_of_artefact(reader), folder, folder.parent)
    assert [len(each) for each in (*session.learned, *session.held_out)] == [2] * 8


def test_too_few_fields_and_frames_out_of_focus_are_refused(
    reader: Artefact, tmp_path: Path
) -> None:
    model = model_of_artefact(reader)
    with pytest.raises(InputFileError, match="no such folder"):
        read_session(model, tmp_path / "nowhere", tmp_path)
    for index, image in enumerate(fields(7)):
        write(tmp_path / f"{index}.png", image)
    write(tmp_path / "7.png", fields(8)[7], blur_px=4.0)
    with pytest.raises(InputFileError, match="7 fields are in focus, in 7 of 8 frames; 8 are"):
        read_session(model, tmp_path, tmp_path)
    write(tmp_path / "8.png", fields(1, 160)[0])
    with pytest.raises(InputFileError, match=r"8\.png: 160 x 160 pixels of specimen; 192 x 192"):
        read_session(model, tmp_path, tmp_path)


def test_what_is_exposed_again_is_as_noisy_as_the_frame_and_its_truth_is_independent() -> None:
    rng = np.random.default_rng(0)
    flat = np.full((512, 512), 0.5, np.float32)
    frame = Focused((flat + rng.normal(0, 0.05, flat.shape)).astype(np.float32), 0.05)
    views = exposed_again([frame], rng, 32)
    noise, other = views.pixels - 0.5, views.truth - 0.5
    assert float(noise.std()) == pytest.approx(0.05, rel=0.08)
    # White, as the frame's is, although part of it went through the blur.
    coarse = torch.nn.functional.avg_pool2d(noise, 8)
    assert float(coarse.std()) == pytest.approx(0.05 / 8, rel=0.15)
    assert abs(float((noise * other).mean())) < 0.02 * float(noise.std() * other.std())
    assert float(other.std()) == pytest.approx(0.05 * 5**0.5, rel=0.03)


def held_out(model: SemModel, folder: Path) -> tuple[Session, list[Views]]:
    """A session, and views of its held-out fields."""
    session, rng = read_session(model, folder, folder.parent), np.random.default_rng(0)
    return session, [exposed_again(each, rng, 4) for each in session.held_out]


def test_a_field_counts_once_however_many_crops_it_gives(reader: Artefact, folder: Path) -> None:
    before, after = (model_of_artefact(reader) for _ in range(2))
    for parameter in after.restorer.out.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    session, views = held_out(before, folder)
    few = judge(before, after, views, session.others, seed=0)
    many = judge(before, after, [_twice(each) for each in views], session.others, seed=0)
    assert many.error_db == pytest.approx(few.error_db, rel=1e-3)
    assert few.fields == 4


def _twice(views: Views) -> Views:
    return Views(*(torch.cat([value, value]) for value in vars(views).values()))


def write_pair(folder: Path, focused: Image, defocused: Image, *, blur_px: float) -> Path:
    write(folder / "sharp.png", focused)
    write(folder / "blurred.png", defocused, blur_px=blur_px, seed=1)
    return write_table(folder, "blurred.png", "sharp.png")


def write_table(folder: Path, *names: str, encoding: str = "utf-8") -> Path:
    table = folder / "pairs.csv"
    table.write_text("\n".join(("defocused,focused", ",".join(names))), encoding=encoding)
    return table


def test_real_pairs_are_registered_and_brought_to_one_scale(tmp_path: Path) -> None:
    [field] = fields(1)
    moved = np.roll(field, (5, -3), axis=(0, 1))
    table = write_pair(tmp_path, field, 0.6 * moved + 0.2, blur_px=2.0)
    [pair] = read_pairs(table)
    again = cv2.GaussianBlur(pair.focused, (0, 0), 2.0)
    inner = (slice(20, -20), slice(20, -20))
    error = again[inner] - pair.defocused[inner]
    assert float(np.abs(error.mean())) < 0.01
    assert float(error.std()) < 0.045
    views = crops([pair], np.random.default_rng(0), 3, 128)
    assert views.pixels.shape == views.truth.shape == (3, 1, 128, 128)


@pytest.mark.parametrize("bar", [None, 0, 128, 255])
def test_pairs_are_registered_on_the_specimen_to_a_fraction_of_a_pixel(
    bar: int | None, tmp_path: Path
) -> None:
    [field] = fields(1, 640)
    focused, defocused = field[20:500, 20:620], 0.6 * field[15:495, 28:628] + 0.2
    table = write_pair(tmp_path, focused, defocused, blur_px=4.0)
    if bar is not None:
        for name in ("sharp.png", "blurred.png"):
            specimen = cv2.imread(str(tmp_path / name), cv2.IMREAD_GRAYSCALE)
            strip = np.full((48, 600), bar, np.uint8)
            ink = 0 if bar else 255
            cv2.putText(strip, "HV 5.00 kV WD 10.2 mm", (8, 34), cv2.FONT_HERSHEY_PLAIN, 2, ink, 2)
            cv2.imwrite(str(tmp_path / name), np.concatenate([specimen, strip]))
    [pair] = read_pairs(table)
    height, width = pair.focused.shape
    assert 480 - height == 600 - width <= 20  # 8 px a side, and less than two for the fraction
    again = cv2.GaussianBlur(pair.focused, (0, 0), 4.0)
    window = cv2.createHanningWindow((width, height), cv2.CV_32F)
    residual, _ = cv2.phaseCorrelate(again, cv2.GaussianBlur(pair.defocused, (0, 0), 1.0), window)
    assert np.hypot(*residual) < 0.2


def test_frames_of_two_fields_are_no_pair(tmp_path: Path) -> None:
    one, other = fields(2)
    with pytest.raises(InputFileError, match=r"sharp\.png: cannot be registered with blurred"):
        read_pairs(write_pair(tmp_path, one, other, blur_px=2.0))


def test_pairs_of_too_little_specimen_are_refused(tmp_path: Path) -> None:
    [field] = fields(1, 200)
    with pytest.raises(InputFileError, match=r"sharp\.png: 110 x 110 pixels of specimen"):
        read_pairs(write_pair(tmp_path, field[:110, :110], field[:110, :110], blur_px=1.0))
    with pytest.raises(InputFileError, match=r"sharp\.png: .* of field shared with blurred"):
        read_pairs(write_pair(tmp_path, field[:150, :150], field[:150, 20:170], blur_px=1.0))


def test_a_table_that_excel_wrote_is_read(tmp_path: Path) -> None:
    [field] = fields(1)
    write_pair(tmp_path, field, field, blur_px=1.0)
    assert len(read_pairs(write_table(tmp_path, "blurred.png", "sharp.png", encoding="utf-8-sig")))


def test_a_table_that_names_no_pair_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("defocused,focused\n", encoding="utf-8")
    with pytest.raises(InputFileError, match=r"pairs\.csv: no pair"):
        read_pairs(table)
    table.write_text("defocused;focused\na.png;b.png\n", encoding="utf-8")
    with pytest.raises(InputFileError, match=r"pairs\.csv: the columns are defocused;focused"):
        read_pairs(table)
    with pytest.raises(InputFileError, match=r"pairs\.csv: line 2 does not name two files"):
        read_pairs(write_table(tmp_path, "a.png"))
    with pytest.raises(InputFileError, match=r"a\.png: no such file"):
        read_pairs(write_table(tmp_path, "a.png", "b.png"))
    with pytest.raises(InputFileError, match=r"none\.csv"):
        read_pairs(tmp_path / "none.csv")


def test_pairs_of_unequal_size_or_a_wrong_table_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.png", fields(1)[0])
    write(tmp_path / "b.png", fields(1, 256)[0])
    table = tmp_path / "pairs.csv"
    table.write_text("defocused,focused\na.png,b.png\n", encoding="utf-8")
    with pytest.raises(InputFileError, match=r"b\.png: 256 x 256"):
        read_pairs(table)
    table.write_text("one,two\na.png,b.png\n", encoding="utf-8")
    with pytest.raises(InputFileError, match="expected defocused and focused"):
        read_pairs(table)


def test_reblurring_gives_the_covariance_it_is_told() -> None:
    point = torch.zeros(1, 1, 64, 64)
    point[0, 0, 32, 32] = 1.0
    [[image]] = reblurred(point, torch.tensor([[6.0, 3.0, 1.5]]))
    axis = torch.arange(64.0) - 32
    assert float((image.sum(dim=0) * axis**2).sum()) == pytest.approx(6.0, rel=0.01)
    assert float((image.sum(dim=1) * axis**2).sum()) == pytest.approx(3.0, rel=0.01)
    assert float((image * axis[:, None] * axis[None]).sum()) == pytest.approx(1.5, rel=0.01)


def test_a_restoration_that_leaves_structure_out_is_inconsistent(artefact: Artefact) -> None:
    model = model_of_artefact(artefact).requires_grad_(False)
    for parameter in model.restorer.out.parameters():
        torch.nn.init.zeros_(parameter)
    [field] = fields(1, 128)
    pixels = torch.from_numpy(field)[None, None]
    none = torch.full((1, 3), 1e-6)
    # The model now changes nothing: without blur it explains the frame whatever the noise.
    assert float(inconsistency(model, Live(pixels, none, torch.tensor([0.02])))) < 1e-3
    wide = torch.tensor([[9.0, 9.0, 0.0]])
    assert float(inconsistency(model, Live(pixels, wide, torch.tensor([0.02])))) > 2.0


def test_adapting_to_an_instrument_that_the_model_does_not_know_helps(
    artefact: Artefact, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "adapted"
    start = ["adapt", str(folder), "--output", str(output), "--artefact", str(artefact.folder)]
    main([*start, "--steps", "30", "--rate", "1e-2"])
    assert "written: " in capsys.readouterr().err
    found = open_artefact(output / "artefact")
    assert found.manifest.training["adapted_from"] == artefact.manifest.name
    assert found.manifest.training["adaptation"]["gain_db"] > 0
    before, after = (model_of_artefact(each).state_dict() for each in (artefact, found))
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed
    assert all(name.startswith("restorer.") for name in changed)
    open_engine({"artefact": str(found.folder), "threads": 1}).close()


def test_weights_that_are_no_better_are_not_used(
    artefact: Artefact, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "adapted"
    (output / "artefact").mkdir(parents=True)
    (output / "artefact" / "manifest.json").write_text("of an earlier run")
    rest = ["--output", str(output), "--artefact", str(artefact.folder)]
    rest += ["--steps", "2", "--rate", "1e-9"]
    main(["adapt", str(folder), *rest])
    assert "the old weights stay" in capsys.readouterr().err
    assert not (output / "artefact").exists()
    record = load_checkpoint(output / "checkpoint.pt").record
    assert (record["stage"], record["adapted_from"]) == ("adapt", artefact.manifest.name)
    # Other frames: the weights that were adapted on the first ones are not theirs.
    write(folder / "frames" / "0.png", fields(1)[0], seed=99)
    with pytest.raises(UsageError, match=r"checkpoint\.pt: is of another run, with adapted_on"):
        main(["adapt", str(folder), *rest])


def test_weights_that_were_spoilt_are_refused(reader: Artefact, folder: Path) -> None:
    before, after = (model_of_artefact(reader) for _ in range(2))
    torch.manual_seed(0)
    for parameter in after.restorer.out.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    session, views = held_out(before, folder)
    verdict = judge(before, after, views, session.others, seed=0)
    assert verdict.gain_db < 0
    assert not verdict.better
