"""The artefact that ships: whole, small, the same on every runtime, and sane on odd frames."""

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from semagent.testing.engines import frame_of, specimen
from semagent.types import Pixels
from semagent_engines.export.card import MODEL_CARD, model_card
from semagent_engines.runtime.artefact import DEFAULT, Artefact, open_artefact
from semagent_engines.runtime.backends import onnxruntime, openvino
from semagent_engines.runtime.golden import deviations
from semagent_engines.runtime.model_engine import ModelEngine


@pytest.fixture(scope="module")
def shipped() -> Artefact:
    return open_artefact(DEFAULT)


@pytest.fixture(scope="module")
def engine() -> Iterator[ModelEngine]:
    opened = openvino.open_engine({"threads": 1})
    yield opened
    opened.close()


def test_it_is_small_enough_to_ship(shipped: Artefact) -> None:
    assert sum(path.stat().st_size for path in shipped.folder.iterdir()) < 20e6


def test_it_says_what_it_was_trained_on_and_what_it_was_judged_on(shipped: Artefact) -> None:
    training = shipped.manifest.training
    assert not training["training"].keys() & training["validation"].keys()
    assert training["metrics"]


def test_its_model_card_is_that_of_its_manifest(shipped: Artefact) -> None:
    card = (shipped.folder / MODEL_CARD).read_text(encoding="utf-8")
    assert card == model_card(shipped.manifest)
    assert "| validation | axons | 10 | axondeepseg/data_axondeepseg_sem, MIT |" in card
    assert "not recorded" not in card
    assert card.index("| pretrain | 467 |") < card.index("| finetune | 5296 |")
    assert card.index("| finetune | 5296 |") < card.index("| finetune | 16791 |")
    assert "--validation axons bacterial-cellulose --steps 467 --seed 0`" in card


def test_the_documents_say_of_how_many_steps_it_is(shipped: Artefact) -> None:
    page = (Path(__file__).parents[3] / "docs" / "model-card.md").read_text(encoding="utf-8")
    stage = shipped.manifest.training
    while stage:
        assert f"| {stage['steps']}, " in page, stage["stage"]
        stage = stage.get("before", {})


@pytest.mark.parametrize(
    "make", [onnxruntime.OnnxRuntime, openvino.OpenVino], ids=["onnxruntime", "openvino"]
)
def test_it_gives_the_same_on_every_runtime(
    make: type[onnxruntime.OnnxRuntime] | type[openvino.OpenVino], shipped: Artefact
) -> None:
    runtime = make(shipped, threads=1)
    found = deviations(runtime, shipped)
    runtime.close()
    worst = max(found, key=lambda name: found[name])
    assert found[worst] < shipped.manifest.tolerance["fp32"], worst


@pytest.mark.parametrize(
    "make", [onnxruntime.OnnxRuntime, openvino.OpenVino], ids=["onnxruntime", "openvino"]
)
def test_what_it_needs_does_not_grow_with_the_sizes_of_frames_it_has_met(
    make: type[onnxruntime.OnnxRuntime] | type[openvino.OpenVino], shipped: Artefact
) -> None:
    edges = range(128, 385, 16)
    shapes = sorted(itertools.product(edges, edges), key=math.prod, reverse=True)
    runtime = make(shipped, threads=1)

    def run(these: list[tuple[int, int]]) -> int:
        for shape in these:
            runtime.run("score", {"pixels": np.zeros((1, 1, *shape), np.float32)})
        return psutil.Process().memory_info().rss

    warm = run(shapes[:120])
    grown = run(shapes[120:200]) - warm
    runtime.close()
    assert grown < 15 * 2**20


def test_sharper_frames_of_one_field_score_higher(engine: ModelEngine) -> None:
    blurs = (0.7, 1.5, 3.0, 6.0, 12.0)
    frames = [frame_of(specimen(512, 512, blur_px=blur)) for blur in blurs]
    scores = [engine.analyse(frame).figures.focus_score for frame in frames]
    assert scores == sorted(scores, reverse=True)


def test_more_blur_reads_as_a_positive_difference_and_its_direction_is_right(
    engine: ModelEngine,
) -> None:
    rng = np.random.default_rng(2)
    sharp = specimen(512, 512, blur_px=0.7, noise=0.0).astype(np.float32)
    wide = cv2.GaussianBlur(sharp, (0, 0), sigmaX=5.0, sigmaY=2.0)
    frames = [
        frame_of(np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8))
        for image in (sharp, wide)
    ]
    change = engine.compare(*frames)
    assert change.difference_px2[0] > 0
    assert change.interval90_px2[0, 0] > 0
    assert change.difference_px2[1] > 0


def test_pure_noise_has_no_structure_and_none_is_invented(engine: ModelEngine) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(128, 12, (512, 512)).round().astype(np.uint8)
    analysis = engine.analyse(frame_of(noise), restore=True)
    assert analysis.restored is not None
    assert analysis.figures.structure < 0.1
    assert analysis.figures.focus_score < 0.05
    # What is smooth explains noise well: that is no reason to trust it.
    assert analysis.figures.consistency == pytest.approx(1, abs=0.1)
    assert analysis.figures.trustworthy is False
    assert float(analysis.restored.std()) < 0.25 * float(noise.std())


def test_a_board_that_no_beam_ever_saw_is_read_as_unsure_and_not_trusted(
    engine: ModelEngine,
) -> None:
    rows, columns = np.indices((384, 512)) // 16
    board = (20 + 200 * ((rows + columns) % 2)).astype(np.uint8)
    figures = engine.analyse(frame_of(board), restore=True).figures
    assert figures.trustworthy is False
    assert figures.blur is not None
    assert figures.blur.log_sigma > 0.4


def test_text_is_read_as_less_sure_than_a_specimen_and_survives(engine: ModelEngine) -> None:
    page = np.full((384, 512), 255, np.uint8)
    for line in range(12):
        place = (8, 28 + 30 * line)
        cv2.putText(page, "HV 5.00 kV  WD 4.9 mm", place, cv2.FONT_HERSHEY_SIMPLEX, 0.8, 0, 2)
    text = engine.analyse(frame_of(page), restore=True)
    known = engine.analyse(frame_of(specimen(384, 512, blur_px=1.5)))
    assert text.figures.blur is not None
    assert known.figures.blur is not None
    assert text.figures.blur.log_sigma > 1.2 * known.figures.blur.log_sigma
    assert text.restored is not None
    assert float(np.corrcoef(text.restored.ravel(), page.ravel())[0, 1]) > 0.95


def test_photographs_are_not_changed_into_something_else(engine: ModelEngine) -> None:
    data = pytest.importorskip("skimage.data")
    for photograph in (data.camera(), data.coins()):
        analysis = engine.analyse(frame_of(np.ascontiguousarray(photograph)), restore=True)
        assert analysis.restored is not None
        assert float(np.corrcoef(analysis.restored.ravel(), photograph.ravel())[0, 1]) > 0.97
        # What it leaves out or adds shows in the figure that says whether to trust it.
        change = float((analysis.restored.astype(float) - photograph).std())
        assert change < 0.2 * float(photograph.std())


@pytest.mark.parametrize("level", [0, 128, 255], ids=["black", "grey", "saturated"])
def test_a_blank_frame_stays_blank(engine: ModelEngine, level: int) -> None:
    blank = np.full((256, 384), level, np.uint8)
    analysis = engine.analyse(frame_of(blank), restore=True)
    assert analysis.restored is not None
    assert int(np.abs(analysis.restored.astype(int) - level).max()) <= 1
    assert np.isfinite(analysis.figures.sharpness)
    assert np.isfinite(analysis.figures.structure)


HEIGHT, WIDTH = 512, 768


def half_blank(pixels: Pixels, level: int) -> Pixels:
    rows = pixels.copy()
    rows[HEIGHT // 2 :] = level
    return rows


def with_blank_tile(pixels: Pixels, level: int) -> Pixels:
    corner = pixels.copy()
    corner[:260, :390] = level
    return corner


@pytest.mark.parametrize("level", [0, 90, 255], ids=["black", "grey", "saturated"])
@pytest.mark.parametrize("blanked", [half_blank, with_blank_tile])
def test_what_is_blank_in_a_frame_spoils_no_figure(
    engine: ModelEngine, blanked: Callable[[Pixels, int], Pixels], level: int
) -> None:
    whole = specimen(HEIGHT, WIDTH, blur_px=1.5)
    plain = engine.analyse(frame_of(whole), restore=True).figures
    figures = engine.analyse(frame_of(blanked(whole, level)), restore=True).figures
    assert plain.blur is not None
    assert figures.blur is not None
    assert figures.blur.major_px == pytest.approx(plain.blur.major_px, rel=0.2)
    assert figures.blur.minor_px == pytest.approx(plain.blur.minor_px, rel=0.2)
    assert figures.noise == pytest.approx(plain.noise, rel=0.2)
    assert plain.trustworthy
    assert figures.trustworthy
    assert figures.consistency_map is not None
    # The map has no such exception, and is high where a sharp edge cannot be what the blur left.
    assert float(np.median(figures.consistency_map.values)) < 1.5


@pytest.mark.parametrize("level", [0, 255], ids=["black", "saturated"])
@pytest.mark.parametrize("fit", [True, False], ids=["fit and head", "head"])
def test_frames_are_compared_by_what_is_not_blank_in_either(
    engine: ModelEngine, level: int, fit: bool
) -> None:
    one, other = (specimen(HEIGHT, WIDTH, blur_px=blur) for blur in (1.5, 4.0))
    plain = engine.compare(frame_of(one), frame_of(other), fit=fit)
    found = engine.compare(frame_of(one), frame_of(half_blank(other, level)), fit=fit)
    assert found.difference_px2[0] == pytest.approx(plain.difference_px2[0], rel=0.2)
    low, high = found.interval90_px2[0]
    assert 0.5 * found.difference_px2[0] < low < high < 2 * found.difference_px2[0]


def test_there_are_no_seams(engine: ModelEngine) -> None:
    """Columns where tiles meet are no rougher than the others."""
    pixels = specimen(320, 800, blur_px=2.0, noise=8.0)
    restored = engine.analyse(frame_of(pixels), restore=True).restored
    assert restored is not None
    steps = np.abs(np.diff(restored.astype(float), axis=1)).mean(axis=0)
    assert steps.max() < 2.5 * np.median(steps)
