import msgspec
import numpy as np
import pytest

from semagent import registry
from semagent.signature import (
    BINS,
    RINGS,
    SECTORS,
    geometry_of,
    signature_of,
    with_signature,
)
from semagent.spectrum import measure_spectrum
from semagent.testing.engines import frame_of, specimen
from semagent.types import Analysis, Signature


def rings(values: tuple[float, ...]) -> np.ndarray:
    return np.array(values).reshape(RINGS, SECTORS)


def test_white_noise_is_all_noise_in_every_bin() -> None:
    random = np.random.default_rng(0)
    pixels = np.rint(random.normal(128, 12, (768, 1024))).astype(np.uint8)
    signature = signature_of(measure_spectrum(pixels))
    filled = geometry_of(signature.tile_px).share > 0
    outer = filled & (np.arange(BINS) >= 6 * SECTORS)
    power, noise = np.array(signature.log_power), np.array(signature.log_noise)
    np.testing.assert_allclose(power[outer], 2 * np.log(12 / 255), atol=0.3)
    np.testing.assert_allclose(noise[outer], 2 * np.log(12 / 255), atol=0.05)


def test_a_wave_shows_up_in_its_ring_and_sector() -> None:
    rows, columns = np.mgrid[:640, :640]
    angle = np.pi / 3
    k = 0.5
    wave = np.cos(k * (columns * np.cos(angle) + rows * np.sin(angle)))
    signature = signature_of(measure_spectrum(np.rint(128 + 90 * wave).astype(np.uint8)))
    geometry = geometry_of(signature.tile_px)
    loudest = int(np.argmax(signature.log_power))
    assert loudest % SECTORS == 2
    assert geometry.log_k[loudest] == pytest.approx(np.log(k), abs=0.3)


@pytest.mark.parametrize("tile_px", [64, 128, 256, 512])
def test_the_grid_is_the_same_for_frames_of_any_size(tile_px: int) -> None:
    geometry, large = geometry_of(tile_px), geometry_of(512)
    filled = geometry.share > 0
    assert filled[-SECTORS:].all()
    np.testing.assert_allclose(geometry.log_k[filled], large.log_k[filled], atol=0.15)
    along, cosine, sine = geometry.quadratic[:, filled]
    assert np.all(np.hypot(cosine, sine) <= along * (1 + 1e-9))


def test_small_frames_leave_the_innermost_rings_empty() -> None:
    signature = signature_of(measure_spectrum(specimen(100, 120, blur_px=2.0)))
    assert not rings(signature.log_power)[:4].any()
    assert rings(signature.log_power)[-4:].all()


def test_blur_takes_power_from_high_frequencies_only() -> None:
    sharp, soft = (
        rings(signature_of(measure_spectrum(specimen(512, 640, blur_px=blur_px))).log_power)
        for blur_px in (1.0, 4.0)
    )
    lost = (sharp - soft).mean(axis=1)
    assert abs(lost[3:5]).max() < 0.3
    assert lost[9] > 2


def test_an_engine_that_took_no_signature_gets_one_and_one_that_did_keeps_it() -> None:
    frame = frame_of(specimen(256, 256, blur_px=2.0))
    engine = registry.open_engine("sharpness", {})
    analysis = engine.analyse(frame)
    engine.close()
    assert with_signature(analysis, frame) is analysis
    without = Analysis(msgspec.structs.replace(analysis.figures, signature=None))
    assert with_signature(without, frame).figures.signature == analysis.figures.signature


def test_it_travels() -> None:
    signature = signature_of(measure_spectrum(specimen(128, 128, blur_px=2.0)))
    coded = msgspec.msgpack.encode(signature)
    assert msgspec.msgpack.decode(coded, type=Signature) == signature
    assert len(coded) < 2000
