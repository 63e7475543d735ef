"""Which part of a frame the beam was on, and the blur that is read in it."""

import numpy as np
import pytest

from semagent.testing.engines import frame_of, specimen
from semagent_engines.sharpness.engine import SharpnessEngine, SharpnessOptions
from semagent_engines.sharpness.exposed import exposed_part


def test_blank_rows_and_columns_at_the_edges_are_left_out_and_no_others() -> None:
    pixels = specimen(200, 300, blur_px=1.0)
    pixels[150:] = 7
    pixels[:, :20] = 7
    pixels[60:70, 20:] = 0
    assert exposed_part(pixels, least_px=64) == (slice(0, 150), slice(20, 300))
    other = specimen(200, 300, blur_px=1.0)
    other[:5] = 0
    assert exposed_part(pixels, other, least_px=64) == (slice(5, 150), slice(20, 300))


def test_too_little_is_no_part() -> None:
    pixels = specimen(200, 300, blur_px=1.0)
    pixels[40:] = 0
    assert exposed_part(pixels, least_px=64) == (slice(0, 200), slice(0, 300))
    assert exposed_part(np.zeros((200, 300), np.uint8), least_px=64)[0] == slice(0, 200)


@pytest.mark.parametrize("level", [0, 255])
def test_a_scan_that_was_ended_early_has_the_blur_of_what_was_scanned(level: int) -> None:
    engine = SharpnessEngine(SharpnessOptions())
    pixels = specimen(640, 512, blur_px=4.0)
    scanned = engine.analyse(frame_of(pixels[:400].copy())).figures.blur
    pixels[400:] = level
    assert scanned is not None
    assert engine.analyse(frame_of(pixels)).figures.blur == scanned
