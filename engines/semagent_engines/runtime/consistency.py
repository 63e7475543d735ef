"""Does a restoration agree with what was acquired?"""

import cv2
import numpy as np

from semagent.types import Pixels
from semagent_engines.runtime.tiling import Floats, telling

BLOCK_PX = 32


def reblur(image: Floats, covariance_px2: Floats) -> Floats:
    """Convolve with a Gaussian of the given covariance, edges mirrored.

    Args:
        image: (height, width).
        covariance_px2: (2, 2) over (x, y).
    """
    reach = int(np.ceil(3.0 * np.sqrt(float(np.linalg.eigvalsh(covariance_px2)[-1])))) + 1
    reach = min(reach, min(image.shape) - 1)
    x, y = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    # A blur far below a pixel would need a kernel finer than the pixels.
    inverse = np.linalg.inv(covariance_px2 + 0.05 * np.eye(2, dtype=np.float32))
    exponent = inverse[0, 0] * x**2 + 2 * inverse[0, 1] * x * y + inverse[1, 1] * y**2
    kernel = np.exp(-0.5 * exponent)
    kernel /= kernel.sum()
    blurred = cv2.filter2D(
        image, cv2.CV_32F, kernel.astype(np.float32), borderType=cv2.BORDER_REFLECT_101
    )
    return np.asarray(blurred, np.float32)


def consistency_map(raw: Pixels, restored: Pixels, covariance_px2: Floats, noise: float) -> Floats:
    """Reduced chi-square of the re-blurred restoration against the raw frame, block by block.

    About 1 where the restoration explains the frame to within its noise; above where it left out or
    invented something; below where the noise was overestimated or fitted.

    Args:
        raw: (height, width), as acquired.
        restored: the same shape and grey scale.
        covariance_px2: (2, 2), the blur that was read.
        noise: standard deviation of the noise in grey values.

    Returns:
        (height // BLOCK_PX, width // BLOCK_PX), at least 1 either way: even parts of the frame.
    """
    # Digitisation alone has a twelfth of a grey value squared.
    variance = max(noise, np.sqrt(1 / 12)) ** 2
    again = reblur(restored.astype(np.float32), covariance_px2)
    squared = (raw.astype(np.float32) - again) ** 2 / np.float32(variance)
    rows, columns = (max(1, length // BLOCK_PX) for length in raw.shape)
    blocks = cv2.resize(squared, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(blocks, np.float32)


def mean_consistency(blocks: Floats, raw: Pixels) -> float:
    """Mean of a `consistency_map` without blank blocks and what borders on them.

    Blank blocks agree with anything; where the beam was switched, the edge is sharp at any blur.
    """
    rows, columns = (
        np.arange(count * BLOCK_PX) * length // (count * BLOCK_PX)
        for count, length in zip(blocks.shape, raw.shape, strict=True)
    )
    told = telling(raw[np.ix_(rows, columns)], BLOCK_PX)
    inside = cv2.erode(told.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    chosen = next((which for which in (inside, told) if which.any()), np.ones_like(told))
    return float(blocks[chosen].mean())
