"""Registration: right where it answers, silent where nobody can know."""

import cv2
import numpy as np
import pytest

from semagent.registration import Fingerprint, Shift, fingerprint, shift_between

RNG = np.random.default_rng


def texture(seed: int, size: tuple[int, int] = (480, 640)) -> np.ndarray:
    """A specimen with structure at all scales, 0 to 1."""
    rng = RNG(seed)
    layers = [
        cv2.GaussianBlur(rng.normal(size=size).astype(np.float32), (0, 0), sigma) * sigma**1.5
        for sigma in (1.0, 2.5, 6.0, 15.0)
    ]
    image = sum(layers)
    return np.clip(0.5 + image / (6 * image.std()), 0, 1)


def frame(
    specimen: np.ndarray,
    shift: tuple[float, float] = (0.0, 0.0),
    *,
    disc_px: int = 0,
    electrons: float = 100,
    gain: float = 1.0,
    offset: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """384 × 512 pixels of the specimen, whose content has moved right and down by ``shift``."""
    x, y = shift
    matrix = np.array([[1, 0, x - 64], [0, 1, y - 48]], np.float32)
    seen = cv2.warpAffine(specimen.astype(np.float32), matrix, (512, 384), flags=cv2.INTER_CUBIC)
    if disc_px:
        y_px, x_px = np.mgrid[-disc_px : disc_px + 1, -disc_px : disc_px + 1]
        kernel = (np.hypot(y_px, x_px) <= disc_px).astype(np.float32)
        seen = cv2.filter2D(seen, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)
    counted = RNG(seed).poisson(np.clip(seen, 0, None) * electrons) / electrons
    return np.clip(np.rint(255 * (0.1 + 0.7 * gain * counted + offset)), 0, 255).astype(np.uint8)


def known(pixels: np.ndarray) -> Fingerprint:
    found = fingerprint(pixels)
    assert found is not None
    return found


def between(before: np.ndarray, after: np.ndarray) -> Shift | None:
    return shift_between(known(before), known(after))


@pytest.mark.parametrize("move", [(0.0, 0.0), (3.4, -7.7), (-25.3, 12.1), (40.0, 30.0)])
@pytest.mark.parametrize("electrons", [400, 20])
def test_a_shift_is_found_to_a_fraction_of_a_pixel(move, electrons):
    specimen = texture(1)
    found = between(
        frame(specimen, electrons=electrons),
        frame(specimen, move, electrons=electrons, gain=0.7, offset=0.1, seed=1),
    )
    assert found is not None
    error = max(abs(found.x_px - move[0]), abs(found.y_px - move[1]))
    assert error < 0.15
    assert error < 4 * found.sigma_px


@pytest.mark.parametrize("discs", [(0, 6), (4, 8), (0, 16)])
def test_frames_of_different_focus_are_registered(discs):
    specimen, move = texture(2), (-9.3, 5.2)
    found = between(
        frame(specimen, disc_px=discs[0]), frame(specimen, move, disc_px=discs[1], seed=1)
    )
    assert found is not None
    assert max(abs(found.x_px - move[0]), abs(found.y_px - move[1])) < 0.5


def test_the_uncertainty_grows_with_noise_and_blur():
    specimen = texture(3)
    first = frame(specimen)
    sharp = between(first, frame(specimen, electrons=400, seed=1))
    noisy = between(first, frame(specimen, electrons=10, seed=1))
    blurred = between(first, frame(specimen, disc_px=16, seed=1))
    assert sharp is not None
    assert noisy is not None
    assert blurred is not None
    assert sharp.sigma_px < noisy.sigma_px
    assert sharp.sigma_px < blurred.sigma_px


def test_a_larger_frame_gives_its_own_pixels():
    specimen = texture(4, (960, 1280))
    matrix = np.array([[1, 0, 12.0], [0, 1, -8.0]], np.float32)
    moved = cv2.warpAffine(specimen.astype(np.float32), matrix, specimen.shape[::-1])
    found = between(*(np.rint(255 * image).astype(np.uint8) for image in (specimen, moved)))
    assert found is not None
    assert (found.x_px, found.y_px) == pytest.approx((12.0, -8.0), abs=0.2)
    assert found.sigma_px > 3 * 0.02  # of three pixels binned to one


@pytest.mark.parametrize("shape", [(384, 1), (1, 512)], ids=["lines", "columns"])
def test_offsets_of_the_scan_do_not_hold_the_field(shape):
    offset = 12 * RNG(9).normal(size=shape)
    specimen, move = texture(9), (6.0, 5.0)
    found = between(
        *(
            np.clip(np.rint(0.5 * each + 64 + offset), 0, 255).astype(np.uint8)
            for each in (frame(specimen), frame(specimen, move, seed=1))
        )
    )
    assert found is not None
    assert (found.x_px, found.y_px) == pytest.approx(move, abs=0.15)


def test_sixteen_bits_give_the_same():
    specimen = texture(5)
    first, second = frame(specimen), frame(specimen, (4.0, 2.0), seed=1)
    eight = between(first, second)
    sixteen = between(first.astype(np.uint16) * 256, second.astype(np.uint16) * 256)
    assert eight is not None
    assert sixteen is not None
    assert (eight.x_px, eight.y_px) == pytest.approx((sixteen.x_px, sixteen.y_px), abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_two_fields_are_not_registered(seed):
    assert between(frame(texture(10 + seed)), frame(texture(20 + seed), seed=1)) is None


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_not_registered(seed):
    flat = np.full((480, 640), 0.5)
    assert between(frame(flat, seed=seed), frame(flat, seed=seed + 100)) is None


@pytest.mark.parametrize("period_px", [8.0, 13.0, 27.0])
def test_a_pattern_that_repeats_is_not_registered(period_px):
    y, x = np.mgrid[:480, :640] * (2 * np.pi / period_px)
    grating = 0.5 + 0.2 * np.cos(x) + 0.2 * np.cos(y)
    assert between(frame(grating), frame(grating, (5.0, 3.0), seed=1)) is None


@pytest.mark.parametrize("level", [0, 255])
def test_an_empty_frame_is_not_registered(level):
    empty = np.full((384, 512), level, np.uint8)
    assert between(frame(texture(6)), empty) is None
    assert between(empty, empty) is None


def test_a_field_that_has_left_the_frame_is_not_registered():
    specimen = texture(7, (480, 1600))
    assert between(frame(specimen), frame(specimen, (-480.0, 0.0), seed=1)) is None


def test_a_field_that_has_turned_is_not_registered():
    specimen = texture(1)
    turned = cv2.warpAffine(
        specimen.astype(np.float32),
        cv2.getRotationMatrix2D((320, 240), 5, 1),
        specimen.shape[::-1],
        borderMode=cv2.BORDER_REFLECT,
    )
    assert between(frame(specimen), frame(turned, (5.0, 3.0), seed=1)) is None


def test_frames_too_small_or_of_other_sizes_are_not_registered():
    specimen = texture(8)
    assert fingerprint(frame(specimen)[:50]) is None
    assert between(frame(specimen), frame(specimen)[:300].copy()) is None
