"""The information bar that microscopes burn into the bottom of their images."""

import cv2
import numpy as np

from semagent.types import Pixels


def burn_in(
    pixels: Pixels,
    rows: int,
    *,
    pixel_size_m: float,
    working_distance_m: float,
    accelerating_voltage_v: float,
) -> None:
    """Write a black bar with the settings and a scale bar over the last ``rows`` rows."""
    width = pixels.shape[1]
    bar = np.zeros((rows, width), np.uint8)
    length_m = _round_length(width * pixel_size_m / 5)
    length_px = round(length_m / pixel_size_m)
    text = (
        f"HV {accelerating_voltage_v / 1e3:.1f} kV  "
        f"WD {working_distance_m * 1e3:.3f} mm  {length_m * 1e6:g} um"
    )
    scale = rows / 40
    cv2.putText(bar, text, (4, rows * 2 // 3), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 1, cv2.LINE_AA)
    top = rows * 5 // 6
    cv2.rectangle(bar, (width - length_px - 4, top), (width - 5, rows - 2), 255, -1)
    white = np.iinfo(pixels.dtype).max
    pixels[-rows:] = bar.astype(pixels.dtype) * (white // 255)


def _round_length(length_m: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not longer."""
    power = 10.0 ** np.floor(np.log10(length_m))
    return float(max(digit for digit in (1, 2, 5) if digit * power <= length_m * 1.0001) * power)
