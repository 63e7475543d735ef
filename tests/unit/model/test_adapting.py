"""Adapting to an instrument: what it reads, what it learns, and when it keeps the old weights."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from semagent.errors import InputFileError, UsageError
from semagent_engines.data.batches import BatchSource, Views
from semagent_engines.data.instrument import crops, read_frames, read_pairs
from semagent_engines.data.specimen import procedural_specimen
from semagent_engines.export.weights import model_of_artefact
from semagent_engines.runtime.artefact import Artefact, open_artefact
from semagent_engines.runtime.backends.onnxruntime import open_engine
from semagent_engines.train.adapt import (
    Adapting,
    Live,
    inconsistency,
    judge,
    read_live,
    reblurred,
)
from semagent_engines.train.checkpoint import load_checkpoint
from semagent_engines.train.cli import main
from semagent_engines.train.distributed import Place
from semagent_engines.train.loop import Settings, train
from semagent_engines.train.schedule import Budget

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


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """Sixteen frames of sixteen fields, half of them out of focus, and one that is derived."""
    folder = tmp_path / "session"
    for index, image in enumerate(fields(16)):
        blur_px = 0.0 if index % 4 in (0, 1) else 2.5
        write(folder / "frames" / f"{index}.png", image, blur_px=blur_px, seed=index)
    write(folder / "derived" / "0-restored.png", fields(1)[0])
    return folder


def test_every_fourth_frame_is_held_out_and_derived_frames_are_left_out(session: Path) -> None:
    learned, held_out = read_frames(session)
    assert (len(learned.raw), len(held_out.raw)) == (12, 4)
    assert learned.sharp
    assert held_out.sharp


def test_too_few_frames_and_frames_out_of_focus_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no such folder"):
        read_frames(tmp_path / "nowhere")
    for index, image in enumerate(fields(3)):
        write(tmp_path / f"{index}.png", image, blur_px=15.0)
    with pytest.raises(InputFileError, match="3 frames; at least 4"):
        read_frames(tmp_path)
    write(tmp_path / "3.png", fields(1)[0], blur_px=15.0)
    with pytest.raises(InputFileError, match="sharp and quiet"):
        read_frames(tmp_path)


def test_what_semagent_restored_is_not_adapted_on(session: Path) -> None:
    for index, image in enumerate(fields(8)):
        write(session / "images" / "restored" / f"{index}-restored.png", image)
    learned, held_out = read_frames(session)
    assert (len(learned.raw), len(held_out.raw)) == (12, 4)


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


@pytest.mark.timeout(300)  # it exports what it adapted
def test_adapting_to_an_instrument_that_the_model_does_not_know_helps(
    artefact: Artefact, session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "adapted"
    start = ["adapt", str(session), "--output", str(output), "--artefact", str(artefact.folder)]
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
    artefact: Artefact, session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "adapted"
    (output / "artefact").mkdir(parents=True)
    (output / "artefact" / "manifest.json").write_text("of an earlier run")
    rest = ["--output", str(output), "--artefact", str(artefact.folder)]
    rest += ["--steps", "2", "--rate", "1e-9"]
    main(["adapt", str(session), *rest])
    assert "the old weights stay" in capsys.readouterr().err
    assert not (output / "artefact").exists()
    record = load_checkpoint(output / "checkpoint.pt").record
    assert (record["stage"], record["adapted_from"]) == ("adapt", artefact.manifest.name)
    # Other frames: the weights that were adapted on the first ones are not theirs.
    write(session / "frames" / "0.png", fields(1)[0], seed=99)
    with pytest.raises(UsageError, match=r"checkpoint\.pt: is of another run, with adapted_on"):
        main(["adapt", str(session), *rest])


def test_what_frames_are_compared_with_is_read_without_dropout(
    artefact: Artefact, session: Path, tmp_path: Path
) -> None:
    learned, _ = read_frames(session)
    task = Adapting(model_of_artefact(artefact), learned, (), seed=0)
    # A validation in the midst of training puts the objective back into training mode.
    settings = Settings(Budget(steps=1), tmp_path / "run", validate_s=0.0)
    alone = Place(0, 1, torch.device("cpu"))
    train(task, settings, alone, config={}, record={}, report=lambda line: None)
    first, again = (
        read_live(task.objective.model, learned, np.random.default_rng(1), 4) for _ in range(2)
    )
    assert torch.equal(first.covariance, again.covariance)


def test_weights_that_were_spoilt_are_refused(
    artefact: Artefact, session: Path, procedural: BatchSource
) -> None:
    before, after = (model_of_artefact(artefact) for _ in range(2))
    torch.manual_seed(0)
    for parameter in after.restorer.out.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    _, held_out = read_frames(session)
    verdict = judge(before, after, [procedural.views(0, 4, 128)], held_out, seed=0)
    assert verdict.gain_db < 0
    assert not verdict.better


def test_a_field_counts_once_however_many_views_it_has(
    artefact: Artefact, session: Path, procedural: BatchSource
) -> None:
    before, after = (model_of_artefact(artefact) for _ in range(2))
    torch.manual_seed(0)
    for parameter in after.restorer.out.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    _, held_out = read_frames(session)
    fields = [procedural.views(step, 2, 128) for step in range(4)]
    twice = [Views(*(torch.cat([each, each]) for each in vars(views).values())) for views in fields]
    once, again = (judge(before, after, each, held_out, seed=0) for each in (fields, twice))
    assert again.error_db == pytest.approx(once.error_db, rel=1e-3)
    # Three fields of four cannot tell, whatever they gained.
    assert not judge(before, after, fields[:3], held_out, seed=0).better
