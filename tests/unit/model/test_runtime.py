"""Tiling, readings, consistency, artefacts, and the engines that run them."""

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semagent.errors import ConfigError, EngineError, UsageError
from semagent.testing.engines import frame_of, specimen
from semagent_engines.export.card import model_card
from semagent_engines.runtime.artefact import Artefact, open_artefact
from semagent_engines.runtime.backends.onnxruntime import OnnxRuntime
from semagent_engines.runtime.backends.onnxruntime import open_engine as open_onnxruntime
from semagent_engines.runtime.backends.openvino import OpenVino
from semagent_engines.runtime.backends.openvino import open_engine as open_openvino
from semagent_engines.runtime.cli import bench_main, compare_main, quality_main
from semagent_engines.runtime.consistency import consistency_map, mean_consistency, reblur
from semagent_engines.runtime.golden import deviations
from semagent_engines.runtime.model_engine import ModelEngine
from semagent_engines.runtime.readings import TileReadings, combine, together, with_ellipse
from semagent_engines.runtime.tiling import Floats, Stitcher, cut, informative_tiles, lay_out
from semagent_engines.runtime.unsupervised import unsupervised

# -- tiling -----------------------------------------------------------------------------------


@given(height=st.integers(128, 1500), width=st.integers(128, 1500))
def test_tiles_cover_every_pixel_and_stay_small(height: int, width: int) -> None:
    layout = lay_out((height, width), tile_px=288, overlap_px=16, step_px=16)
    assert layout.height % 16 == layout.width % 16 == 0
    assert max(layout.height, layout.width) <= 288
    for starts, size, length in (
        (layout.rows, layout.height, height),
        (layout.columns, layout.width, width),
    ):
        assert starts[0] == 0
        assert starts[-1] + size >= length
        for one, other in itertools.pairwise(starts):
            assert size - (other - one) >= 16
        # Only a frame below one tile may hang over.
        assert len(starts) == 1 or starts[-1] + size == length


@given(
    height=st.integers(128, 700),
    width=st.integers(128, 700),
    overlap=st.sampled_from([0, 16, 32]),
)
def test_cut_and_stitched_is_the_frame_itself(height: int, width: int, overlap: int) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 65536, (height, width), dtype=np.uint16)
    layout = lay_out((height, width), tile_px=272, overlap_px=overlap, step_px=16)
    stitcher = Stitcher((height, width), layout)
    for corner in layout.corners():
        stitcher.add(corner, cut(pixels, layout, [corner])[0, 0])
    np.testing.assert_allclose(stitcher.frame(), pixels, rtol=1e-5)


def test_seams_are_blended_not_cut() -> None:
    layout = lay_out((128, 500), tile_px=272, overlap_px=32, step_px=16)
    stitcher = Stitcher((128, 500), layout)
    for index, corner in enumerate(layout.corners()):
        stitcher.add(corner, np.full((layout.height, layout.width), 100.0 * index, np.float32))
    row = stitcher.frame()[64]
    assert row[0] == 0.0
    assert row[-1] == 100.0
    assert np.abs(np.diff(row)).max() < 10.0


def test_structure_is_preferred_to_noise_and_to_saturation() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.normal(100, 30, (384, 576)).clip(0, 255).astype(np.uint8)
    pixels[0:192, 192:384] = specimen(192, 192, blur_px=2.0)
    pixels[192:384, 384:576] = 255
    layout = lay_out((384, 576), tile_px=192, overlap_px=0, step_px=16)
    assert informative_tiles([pixels], layout, 1) == [(0, 192)]
    assert (192, 384) not in informative_tiles([pixels], layout, 5)


def test_tiles_that_are_blank_in_any_of_the_frames_are_left_out() -> None:
    one, other = (specimen(384, 576, blur_px=blur) for blur in (1.0, 2.0))
    layout = lay_out(one.shape, tile_px=192, overlap_px=0, step_px=16)
    assert len(informative_tiles([one, other], layout, 6)) == 6
    one[0:192, 0:192] = 4
    other[192:384, 0:150] = 255
    assert sorted(informative_tiles([one, other], layout, 6)) == [
        (row, column) for row in (0, 192) for column in (192, 384)
    ]
    assert informative_tiles([np.zeros_like(one)], layout, 6), "one has to be read"


def test_a_specimen_on_black_keeps_its_tiles() -> None:
    """Each has as few telling pixels as the next."""
    pixels = specimen(384, 576, blur_px=1.0)
    pixels[:, np.arange(576) % 96 < 60] = 0
    layout = lay_out(pixels.shape, tile_px=192, overlap_px=0, step_px=16)
    assert len(informative_tiles([pixels], layout, 6)) == 6


# -- readings ---------------------------------------------------------------------------------


def readings(blur: list[list[float]], std: list[list[float]]) -> TileReadings:
    count = len(blur)
    return TileReadings(
        blur=np.array(blur, np.float32),
        blur_std=np.array(std, np.float32),
        noise=np.full(count, 3.0, np.float32),
        spectra=np.zeros((count, 4, 8), np.float32),
    )


def test_certain_tiles_count_more() -> None:
    found = combine(readings([[1.0, 0, 0], [2.0, 0, 0]], [[0.1] * 3, [0.3] * 3]))
    assert float(found.blur[0]) == pytest.approx(1.1, abs=1e-5)


def test_tiles_that_read_what_was_never_trained_do_not_count_where_others_do() -> None:
    tiles = readings([[0.5, 0, 0], [5.3, 0, 0], [math.nan, 0, 0]], [[0.3] * 3] * 3)
    within = tiles.within((0.3, 24.0))
    assert within.tolist() == [True, False, False]
    np.testing.assert_array_equal(tiles.of(within).blur, [[0.5, 0, 0]])
    assert len(tiles.of(~within & False).blur) == 3


def test_more_tiles_are_surer_but_never_sure() -> None:
    one = combine(readings([[0.0] * 3], [[0.2] * 3]))
    many = combine(readings([[0.0] * 3] * 100, [[0.2] * 3] * 100))
    assert float(one.blur_std[0]) == pytest.approx(0.2)
    assert 0.1 < float(many.blur_std[0]) < 0.2


def test_readings_that_agree_are_surer_together_and_contradictions_less() -> None:
    zero, std = np.zeros(1), np.full(1, 0.2)
    _, agreed = together(zero, std, zero, std)
    mean, contradicted = together(zero, std, zero + 2, std)
    assert float(agreed[0]) == pytest.approx(0.2 / math.sqrt(2))
    assert float(mean[0]) == pytest.approx(2.0), "the head's"
    assert float(contradicted[0]) == pytest.approx(0.2 * 2 / (0.2 * math.sqrt(2)))


def test_a_fit_that_says_the_same_changes_no_blur() -> None:
    reading = combine(readings([[0.7, 0.3, -0.4]], [[0.2] * 3]))
    both = with_ellipse(reading, reading.ellipse)
    np.testing.assert_allclose(both.blur, reading.blur, atol=1e-5)
    assert np.all(both.blur_std < reading.ellipse.log_sigma)


@given(log_sigma=st.floats(-1.0, 3.0), ratio=st.floats(0.0, 2.0), angle=st.floats(-1.57, 1.57))
def test_ellipse_and_covariance_agree(log_sigma: float, ratio: float, angle: float) -> None:
    blur = [log_sigma, ratio * math.cos(2 * angle), ratio * math.sin(2 * angle)]
    found = combine(readings([blur], [[0.1] * 3]))
    ellipse = found.ellipse
    values = np.linalg.eigvalsh(found.covariance.astype(float))
    assert ellipse.major_px**2 == pytest.approx(values[1], rel=1e-3)
    assert ellipse.minor_px**2 == pytest.approx(values[0], rel=1e-2, abs=1e-4)
    assert ellipse.major_px / ellipse.minor_px == pytest.approx(math.exp(ratio), rel=1e-3)
    axis = np.array([math.cos(ellipse.angle_rad), math.sin(ellipse.angle_rad)])
    assert axis @ found.covariance @ axis == pytest.approx(values[1], rel=1e-3)


# -- consistency ------------------------------------------------------------------------------


def acquired(
    covariance: npt.NDArray[np.float32], noise: float
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    truth = specimen(256, 256, blur_px=0.7, noise=0.0)
    blurred = reblur(truth.astype(np.float32), covariance)
    raw = blurred + np.random.default_rng(1).normal(0, noise, truth.shape)
    return np.clip(np.rint(raw), 0, 255).astype(np.uint8), truth


def test_the_truth_is_consistent_and_an_invention_is_not() -> None:
    covariance = np.array([[4.0, 1.0], [1.0, 2.0]], np.float32)
    raw, truth = acquired(covariance, 4.0)
    assert float(consistency_map(raw, truth, covariance, 4.0).mean()) == pytest.approx(1, abs=0.1)
    invented = truth.copy()
    invented[64:128, 64:128] = 255 - invented[64:128, 64:128]
    blocks = consistency_map(raw, invented, covariance, 4.0)
    assert blocks.shape == (8, 8)
    assert blocks[2:4, 2:4].min() > 3.0
    assert np.delete(blocks, [1, 2, 3, 4], axis=0).mean() == pytest.approx(1, abs=0.15)


def test_the_map_covers_the_frame_in_even_parts() -> None:
    covariance = np.eye(2, dtype=np.float32)
    raw = np.zeros((159, 191), np.uint8)
    restored = raw.copy()
    restored[-20:] = 60
    blocks = consistency_map(raw, restored, covariance, 4.0)
    assert blocks.shape == (4, 5)
    assert blocks[:3].max() == 0.0
    np.testing.assert_allclose(blocks[3], (60 / 4) ** 2 * 20 / (159 / 4), rtol=0.1)


def test_an_early_end_of_the_scan_proves_nothing_at_any_height() -> None:
    raw = specimen(287, 256, blur_px=1.0)
    raw[200:] = 0
    squared = np.ones((287, 256), np.float32)
    squared[195:205] = 400.0
    blocks = cv2.resize(squared, (8, 8), interpolation=cv2.INTER_AREA)
    assert mean_consistency(blocks, raw) == pytest.approx(1.0)


def test_blank_blocks_and_their_neighbours_prove_nothing() -> None:
    raw = specimen(256, 256, blur_px=1.0)
    raw[:, :100] = 0
    blocks = np.ones((8, 8), np.float32)
    blocks[:, :3] = 0.0
    blocks[:, 3] = 20.0
    blocks[:, 7] = 3.0
    assert mean_consistency(blocks, raw) == pytest.approx(1.5)
    assert mean_consistency(blocks, np.zeros_like(raw)) == pytest.approx(float(blocks.mean()))


def test_reblurring_keeps_the_mean_and_widens_by_the_covariance() -> None:
    point = np.zeros((65, 65), np.float32)
    point[32, 32] = 1.0
    covariance = np.array([[6.0, 2.0], [2.0, 3.0]], np.float32)
    blurred = reblur(point, covariance)
    y, x = np.mgrid[-32:33, -32:33]
    assert float(blurred.sum()) == pytest.approx(1.0, abs=1e-4)
    assert float((blurred * x * x).sum()) == pytest.approx(6.0, rel=0.05)
    assert float((blurred * y * y).sum()) == pytest.approx(3.0, rel=0.05)
    assert float((blurred * x * y).sum()) == pytest.approx(2.0, rel=0.05)


# -- artefacts --------------------------------------------------------------------------------


@pytest.fixture
def copy(artefact: Artefact, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artefact.folder, tmp_path / "copy"))


def test_an_altered_graph_is_refused(copy: Path) -> None:
    with (copy / "score.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ConfigError, match=r"score\.onnx: does not match the hash"):
        open_artefact(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "golden.npz").unlink()
    with pytest.raises(ConfigError, match=r"golden\.npz is missing"):
        open_artefact(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "format 99"),
        ({"format": 99, "units": {}}, "format 99"),
        ({"surprise": 1}, r"manifest\.json: .*surprise"),
        ({"tile_step_px": 0}, r"manifest\.json: .*tile_step_px"),
        ({"blur_range_px": [0.0, 24.0]}, r"manifest\.json: .*blur_range_px"),
        ({"outputs": {"score": {}}}, r"manifest\.json: outputs lacks pair, restore"),
        ({"tolerance": {"fp32": 0.1, "fp16": 0.1}}, r"manifest\.json: tolerance lacks int8"),
    ],
)
def test_a_manifest_that_is_not_understood_is_refused(
    copy: Path, changes: dict[str, object], message: str
) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, **changes}))
    with pytest.raises(ConfigError, match=message):
        open_artefact(copy)


def test_a_manifest_that_is_no_text_is_refused(copy: Path) -> None:
    path = copy / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"name": "', b'"name": "\xff', 1))
    with pytest.raises(ConfigError, match=r"manifest\.json: .*utf-8"):
        open_artefact(copy)


def test_a_folder_that_is_no_artefact_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not an artefact"):
        open_artefact(tmp_path)


def test_every_artefact_has_a_model_card(artefact: Artefact) -> None:
    card = (artefact.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith(f"# Model card: {artefact.manifest.name}")
    assert "`semagent engine compare ARTEFACT`" in card
    sources = {"training": {"our SEM": 12}, "adapted_from": "tiny-1", "adaptation": {"frames": 3}}
    training = {**artefact.manifest.training, **sources}
    adapted = model_card(msgspec.structs.replace(artefact.manifest, training=training))
    assert "| training | our SEM | 12 | not recorded |" in adapted
    assert "from tiny-1: frames 3." in adapted


# -- engines ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [OnnxRuntime, OpenVino])
def test_every_runtime_reproduces_the_golden_tensors(
    make: type[OnnxRuntime] | type[OpenVino], artefact: Artefact
) -> None:
    runtime = make(artefact, threads=1)
    found = deviations(runtime, artefact)
    runtime.close()
    assert {"score/blur", "restore/restored", "pair/difference"} <= found.keys()
    worst = max(found, key=lambda name: found[name])
    assert found[worst] < artefact.manifest.tolerance["fp32"], worst


@pytest.mark.parametrize("spoilt", ["blur", "restored", "difference_std"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_runtime_that_gives_no_numbers_is_far_from_the_golden_tensors(
    artefact: Artefact, spoilt: str, value: float
) -> None:
    class Spoilt(OnnxRuntime):
        def run(self, graph: str, inputs: dict[str, Floats]) -> dict[str, Floats]:
            return {
                name: np.full_like(found, value) if name == spoilt else found
                for name, found in super().run(graph, inputs).items()
            }

    found = max(deviations(Spoilt(artefact, threads=1), artefact).values())
    assert 1e9 < found < math.inf


@pytest.fixture(params=["onnxruntime", "openvino"])
def engine(request: pytest.FixtureRequest, artefact: Artefact) -> Iterator[ModelEngine]:
    openers = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}
    opened = openers[request.param]({"artefact": str(artefact.folder), "threads": 1})
    yield opened
    opened.close()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(128, 128), (301, 517)])
def test_restored_frames_have_shape_type_and_scale_of_the_raw(
    engine: ModelEngine, shape: tuple[int, int], dtype: type
) -> None:
    pixels = specimen(*shape, blur_px=1.0).astype(dtype)
    if dtype == np.uint16:
        pixels = pixels * np.uint16(257)
    analysis = engine.analyse(frame_of(pixels), restore=True)
    assert analysis.restored is not None
    assert analysis.restored.shape == shape
    assert analysis.restored.dtype == dtype
    assert not np.shares_memory(analysis.restored, pixels)
    # The small model is untrained and close to the identity.
    assert float(np.corrcoef(analysis.restored.ravel(), pixels.ravel())[0, 1]) > 0.9
    assert analysis.figures.consistency is not None


def test_the_information_bar_is_neither_read_nor_restored(engine: ModelEngine) -> None:
    pixels = specimen(320, 256, blur_px=1.0)
    pixels[256:] = 0
    pixels[280:290, ::5] = 255
    barred = engine.analyse(frame_of(pixels, info_bar_px=64), restore=True)
    plain = engine.analyse(frame_of(pixels[:256].copy()), restore=True)
    assert barred.restored is not None
    np.testing.assert_array_equal(barred.restored[256:], pixels[256:])
    np.testing.assert_array_equal(barred.restored[:256], plain.restored)
    assert barred.figures.focus_score == plain.figures.focus_score


def test_a_frame_that_is_too_small_is_refused_with_its_size(engine: ModelEngine) -> None:
    with pytest.raises(EngineError, match=r"200 x 120 pixels.*128 x 128"):
        engine.analyse(frame_of(specimen(120, 200, blur_px=1.0)))


def test_frames_of_two_sizes_are_not_one_field(engine: ModelEngine) -> None:
    one, other = (frame_of(specimen(size, 256, blur_px=1.0)) for size in (256, 272))
    with pytest.raises(EngineError, match="not one field"):
        engine.compare(one, other)


def test_comparing_the_other_way_round_changes_the_sign(engine: ModelEngine) -> None:
    one, other = (frame_of(specimen(256, 256, blur_px=blur)) for blur in (1.0, 4.0))
    there, back = engine.compare(one, other), engine.compare(other, one)
    np.testing.assert_allclose(there.difference_px2, -back.difference_px2, rtol=1e-3, atol=1e-4)
    low, high = there.interval90_px2.T
    assert np.all(low < there.difference_px2)
    assert np.all(there.difference_px2 < high)


def test_a_closed_engine_says_so(engine: ModelEngine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.analyse(frame_of(specimen(128, 128, blur_px=1.0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"artefakt": "x"}, "artefakt"),
        ({"artefact": "/no/such/folder"}, "not an artefact"),
        ({"tiles": "many"}, "tiles"),
        ({"tiles": -1}, r">= 0.*tiles"),
        ({"threads": -1}, r">= 1.*threads"),
    ],
    ids=str,
)
@pytest.mark.parametrize("opener", [open_onnxruntime, open_openvino])
def test_options_that_cannot_be_used_are_named(
    opener: Callable[[dict[str, object]], ModelEngine], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        opener(options)


def test_a_runtime_process_has_no_torch(artefact: Artefact) -> None:
    program = (
        "import sys\n"
        "from semagent_engines.runtime.backends.onnxruntime import open_engine as a\n"
        "from semagent_engines.runtime.backends.openvino import open_engine as b\n"
        f"a({{'artefact': {str(artefact.folder)!r}}}).close()\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] == 'torch'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(os.name == "nt", reason="there it would be told to Windows: no file shows it")
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_nobody_is_told_what_runs(artefact: Artefact, runtime: str, tmp_path: Path) -> None:
    told = {"CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in told}
    program = (
        f"from semagent_engines.runtime.backends.{runtime} import open_engine\n"
        f"open_engine({{'artefact': {str(artefact.folder)!r}, 'threads': 1}}).close()\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "HOME": str(tmp_path)},
        check=True,
        timeout=100,
    )
    # What is to be sent is kept here until it has been.
    assert not list(tmp_path.iterdir())


# -- eight bits, and the commands -------------------------------------------------------------


def test_eight_bits_are_the_default_and_stay_close(artefact: Artefact) -> None:
    assert artefact.precisions == ("int8", "fp32")
    frame = frame_of(specimen(160, 192, blur_px=1.0))
    restored = {}
    for precision in (None, "int8", "fp32"):
        options = {"artefact": str(artefact.folder), "threads": 1, "precision": precision}
        engine = open_onnxruntime(options)
        analysis = engine.analyse(frame, restore=True)
        assert analysis.restored is not None
        restored[precision] = analysis.restored.astype(float)
        engine.close()
    assert np.array_equal(restored[None], restored["int8"])
    error = restored["int8"] - restored["fp32"]
    assert 0 < np.square(error).mean() ** 0.5 < 0.05 * restored["fp32"].std()


def test_a_precision_that_is_not_there_is_refused(artefact: Artefact, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(artefact.folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["hashes"]["restore-int8.onnx"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert open_artefact(folder).precisions == ("fp32",)
    with pytest.raises(ConfigError, match="'int8'; it has fp32"):
        open_onnxruntime({"artefact": str(folder), "precision": "int8"})


def test_compare_shows_all_runtimes_side_by_side(
    artefact: Artefact, capsys: pytest.CaptureFixture[str]
) -> None:
    compare_main([str(artefact.folder), "--json", "--repeats", "1"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    tried = {(row["runtime"], row["precision"]): row for row in rows}
    for runtime in ("onnxruntime", "openvino"):
        for precision in ("int8", "fp32"):
            row = tried[runtime, precision]
            assert 0 <= row["deviation"] <= row["tolerance"]
            assert row["restore_ms"] > 0
    # No GPU here, or one that was really used.
    assert all(row["missing"] or row["deviation"] >= 0 for row in rows)


def test_compare_fails_when_a_runtime_is_off(artefact: Artefact, tmp_path: Path) -> None:
    folder = tmp_path / "off"
    shutil.copytree(artefact.folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tolerance"] = dict.fromkeys(manifest["tolerance"], 0.0)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match="onnxruntime int8"):
        compare_main([str(folder), "--repeats", "1"])


def test_bench_times_the_sizes_it_is_given(
    artefact: Artefact, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(artefact.folder)
    bench_main(
        [folder, "--engine", "onnxruntime", "--sizes", "160x128", "--repeats", "2", "--json"]
    )
    [row] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["width"], row["height"]) == (160, 128)
    assert 0 < row["score_p50_ms"] <= row["score_p99_ms"]
    for size in ("big", "160x12²"):
        with pytest.raises(UsageError, match=size):
            bench_main([folder, "--sizes", size])
    with pytest.raises(UsageError, match="'100x200' is too small: 128x128"):
        bench_main([folder, "--sizes", "100x200"])


def test_bench_needs_no_more_than_what_comes_with_semagent(
    artefact: Artefact, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for extra in ("openvino", "tensorrt", "tensorrt_rtx", "cuda"):
        monkeypatch.setitem(sys.modules, extra, None)
    monkeypatch.delitem(sys.modules, "semagent_engines.runtime.backends.openvino", raising=False)
    bench_main([str(artefact.folder), "--sizes", "128x128", "--repeats", "1"])
    assert "128 x 128: score" in capsys.readouterr().out


@pytest.mark.parametrize("main", [bench_main, compare_main])
@pytest.mark.parametrize("repeats", ["0", "-1", "few"])
def test_a_number_of_repeats_that_times_nothing_is_refused(
    main: Callable[[list[str]], None], repeats: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--repeats", repeats])
    assert refused.value.code == 2
    assert f"{repeats}: a whole number, at least 1" in capsys.readouterr().err


def test_quality_without_a_truth_is_the_quality_with_one(artefact: Artefact) -> None:
    """The estimate is unbiased: it agrees with the error against the noise-free frame."""
    rng = np.random.default_rng(4)
    clean = specimen(512, 512, blur_px=2.0, noise=0.0).astype(float)
    frames = [
        frame_of(np.clip(np.rint(clean + rng.normal(0, 9, clean.shape)), 0, 255).astype(np.uint8))
        for _ in range(5)
    ]
    engine = open_onnxruntime({"artefact": str(artefact.folder), "threads": 1})
    found = unsupervised(engine, frames)
    restored = engine.analyse(frames[0], restore=True).restored
    assert restored is not None
    again = reblur(restored.astype(np.float32), engine.read(frames[0], fit=False).covariance)
    engine.close()
    inner = (slice(16, -16), slice(16, -16))
    true = float(np.square((again - clean)[inner] / 255).mean())
    assert found.umse == pytest.approx(true, abs=4 * found.umse_error)
    assert found.umse_raw == pytest.approx((9 / 255) ** 2, rel=0.05)
    with pytest.raises(UsageError, match="at least 4"):
        unsupervised(engine, frames[:3])
    with pytest.raises(UsageError, match="frame 4 is"):
        unsupervised(engine, [*frames[:3], frame_of(np.zeros((512, 256), np.uint8))])
    with pytest.raises(UsageError, match="frames 2 and 4 are the same"):
        unsupervised(engine, [*frames[:3], frames[1]])


def test_quality_is_a_command(
    artefact: Artefact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(4)]
    for index, path in enumerate(paths):
        noise = np.random.default_rng(index).normal(0, 8, (192, 192))
        clean = specimen(192, 192, blur_px=2.0, noise=0.0)
        cv2.imwrite(str(path), np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8))
    quality_main([*map(str, paths), "--artefact", str(artefact.folder), "--json"])
    [row] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row["frames"] == 4
    assert row["upsnr_raw_db"] == pytest.approx(-20 * math.log10(8 / 255), abs=0.6)
