"""Scores of single frames that the searches maximise."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from focusing.scope import Image
from semagent.spectrum import measure_spectrum
from semagent_engines.sharpness.measures import MEASURES

Score = Callable[[Image], float]

CLASSICAL = (
    "variance of Laplacian",
    "Tenengrad",
    "smoothed Tenengrad",
    "Brenner",
    "normalised variance",
    "Vollath F4",
    "spectral entropy",
)
"""Of the engine ``sharpness``, as the tables call them."""


def _pixels(image: Image) -> npt.NDArray[np.uint16]:
    """Grey values, of 8 bits or a little more, for the engine's measures: only ratios matter."""
    return np.clip(np.rint(64 * image), 0, 65535).astype(np.uint16)


def classical(name: str) -> Score:
    """One of `CLASSICAL`."""
    read = MEASURES[name.lower().replace(" ", "_")].read

    def score(image: Image) -> float:
        pixels = _pixels(image)
        return read(pixels, measure_spectrum(pixels)).value

    return score


def edges(image: Image) -> float:
    """OughtaFocus's default, "Edges": mean Sobel magnitude over mean intensity."""
    along_x = cv2.Sobel(image, cv2.CV_32F, 1, 0)
    along_y = cv2.Sobel(image, cv2.CV_32F, 0, 1)
    return float(cv2.magnitude(along_x, along_y).mean() / max(float(image.mean()), 1e-6))


def standard_deviation(image: Image) -> float:
    """Odemis's measure for electron images: standard deviation of the raw grey values."""
    return float(image.std())


def tenengrad_variance(image: Image) -> float:
    """Odemis's measure for the images of a camera: variance of the squared gradient (Sobel, 5)."""
    along_x = cv2.Sobel(image, cv2.CV_64F, 1, 0, ksize=5)
    along_y = cv2.Sobel(image, cv2.CV_64F, 0, 1, ksize=5)
    return float((along_x**2 + along_y**2).var())
