"""The fit of what displaces the image, to frames that are made up."""

import msgspec
import numpy as np
import pytest

from semagent.calibration.shifts import Shot, fit_shifts
from semagent.testing.engines import frame_of
from semagent.types import ImageShift

PIXEL_M = 10e-9
STEPS_M = (0.0, 3e-7, 0.0, -3e-7)


def test_a_field_that_is_registered_anew_on_the_way_displaces_nothing() -> None:
    """Where five frames cannot be placed, later ones are placed against another first frame."""
    plain = frame_of(np.zeros((64, 64), np.uint8)).header
    shots = []
    for number in range(24):
        x_m, y_m = STEPS_M[number % 4], STEPS_M[number // 2 % 4]
        optics = msgspec.structs.replace(plain.optics, beam_shift_x_m=x_m, beam_shift_y_m=y_m)
        time_ns = number * 10**9
        header = msgspec.structs.replace(
            plain, sequence=number + 1, monotonic_ns=time_ns, optics=optics
        )
        first, moved_px = (1, 0.0) if number < 12 else (13, 35.0)
        shift = ImageShift(
            reference_sequence=first,
            x_px=-x_m / PIXEL_M - moved_px,
            y_px=-y_m / PIXEL_M + moved_px,
            sigma_px=0.0 if number + 1 == first else 0.05,
        )
        shots.append(Shot(header, shift))
    fit = fit_shifts(shots, PIXEL_M)
    assert fit is not None
    x, y = fit.effects["beam_x"], fit.effects["beam_y"]
    assert (x.x, x.y, y.x, y.y) == pytest.approx((-1, 0, 0, -1), abs=0.01)
    assert fit.residual_m < 0.1 * PIXEL_M
