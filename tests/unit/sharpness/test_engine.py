import numpy as np
import pytest

from semagent.errors import ConfigError, EngineError
from semagent.testing.engines import frame_of
from semagent_engines.sharpness import open_engine
from semagent_engines.sharpness.measures import MEASURES

from .conftest import Micrograph


@pytest.mark.parametrize("measure", sorted(MEASURES))
def test_every_measure_can_be_asked_for_by_name(micrograph: Micrograph, measure: str) -> None:
    engine = open_engine({"measure": measure})
    assert engine.name == f"sharpness/{measure}"
    assert not engine.restores
    figures = engine.analyse(frame_of(micrograph(1.0, shape=(256, 256)))).figures
    assert figures.engine == engine.name
    engine.close()
    engine.close()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"measure": "laplace"}, "'laplace'.*multiscale_gradient.*tenengrad"),
        ({"mesure": "tenengrad"}, "mesure.*measure"),
        ({"min_structure": -1}, "min_structure"),
        ({"blur": "yes"}, "blur"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)engine sharpness.*{named}"):
        open_engine(options)


def test_the_information_bar_does_not_count(micrograph: Micrograph) -> None:
    engine = open_engine({})
    clean = micrograph(3.0, shape=(512, 512))
    bar = np.zeros((60, 512), np.uint8)
    bar[::2, ::2] = 255
    without = engine.analyse(frame_of(clean)).figures
    with_bar = engine.analyse(frame_of(np.vstack((clean, bar)), info_bar_px=60)).figures
    assert with_bar.sharpness == without.sharpness
    assert with_bar.noise == without.noise
    assert with_bar.blur == without.blur


def test_a_frame_that_is_mostly_bar_is_too_small() -> None:
    engine = open_engine({})
    with pytest.raises(EngineError, match="512×40 px"):
        engine.analyse(frame_of(np.zeros((100, 512), np.uint8), info_bar_px=60))


def test_an_ellipse_comes_only_with_structure_and_when_asked_for(micrograph: Micrograph) -> None:
    frame = frame_of(micrograph(2.0, shape=(512, 512)))
    noise = np.random.default_rng(0).normal(128, 10, (512, 512)).astype(np.uint8)
    assert open_engine({}).analyse(frame).figures.blur is not None
    assert open_engine({}).analyse(frame_of(noise)).figures.blur is None
    assert open_engine({"blur": False}).analyse(frame).figures.blur is None
    assert open_engine({"min_structure": 1e9}).analyse(frame).figures.blur is None


def test_figures_of_a_featureless_field_say_so() -> None:
    noise = np.random.default_rng(0).normal(128, 10, (512, 512)).astype(np.uint8)
    figures = open_engine({}).analyse(frame_of(noise)).figures
    assert figures.structure < 0.5
    assert figures.focus_score < 0.05
    assert figures.sharpness_sigma > 0.5
    assert figures.noise == pytest.approx(10 / 255, rel=0.05)


@pytest.mark.parametrize("edge_px", [128, 256])
@pytest.mark.parametrize("electrons", [0.3, 4, 100])
def test_noise_scores_next_to_nothing_however_small_the_frame(
    edge_px: int, electrons: float
) -> None:
    engine, rng = open_engine({}), np.random.default_rng(0)
    for _ in range(100):
        counts = rng.poisson(electrons, (edge_px, edge_px)) * (100 / max(electrons, 1))
        noise = np.clip(np.rint(counts), 0, 255).astype(np.uint8)
        assert engine.analyse(frame_of(noise)).figures.focus_score < 0.05


def test_a_sharp_field_scores_high_and_a_blurred_one_low(
    micrograph: Micrograph,
) -> None:
    engine = open_engine({})
    sharp, soft = (
        engine.analyse(frame_of(micrograph(blur, shape=(512, 512)))).figures.focus_score
        for blur in (0.5, 15.0)
    )
    assert sharp > 0.8
    assert soft < 0.1


def test_noise_of_a_sharp_frame_is_not_its_structure(micrograph: Micrograph) -> None:
    figures = (
        open_engine({}).analyse(frame_of(micrograph(0.7, shape=(768, 1024), noise=5.0))).figures
    )
    assert figures.noise == pytest.approx(5 / 255, rel=0.1)


def test_a_large_frame_is_sampled_and_reads_like_its_parts(micrograph: Micrograph) -> None:
    field = micrograph(2.0, shape=(1600, 2400))
    engine = open_engine({})
    whole = engine.analyse(frame_of(field)).figures
    part = engine.analyse(frame_of(np.ascontiguousarray(field[:800, :1200]))).figures
    assert whole.noise == pytest.approx(part.noise, rel=0.05)
    # The larger field has more of the long waves in its variance.
    assert whole.sharpness == pytest.approx(part.sharpness, abs=0.6)
