"""Scores of single frames that the searches maximise."""

from collections.abc import Callable

import cv2
import numpy as np

from focusing.scope import Image
from semagent.spectrum import measure_spectrum
from semagent_engines.sharpness.measures import MEASURES

Score = Callable[[Image], float]

CLASSICAL = (
    "variance_of_laplacian",
    "tenengrad",
    "brenner",
    "normalised_variance",
    "vollath_f4",
    "spectral_entropy",
)


def classical(name: str) -> Score:
    """One of the ``sharpness`` engine's measures, by its name."""
    read = MEASURES[name].read

    def score(image: Image) -> float:
        pixels = image.astype(np.uint8)
        return read(pixels, measure_spectrum(pixels)).value

    return score


def all_classical(image: Image) -> dict[str, float]:
    """All classical measures of one frame."""
    pixels = image.astype(np.uint8)
    spectrum = measure_spectrum(pixels)
    return {name: MEASURES[name].read(pixels, spectrum).value for name in CLASSICAL}


def edges(image: Image) -> float:
    """OughtaFocus's default, "Edges": mean Sobel magnitude over mean intensity."""
    along_x = cv2.Sobel(image, cv2.CV_32F, 1, 0)
    along_y = cv2.Sobel(image, cv2.CV_32F, 0, 1)
    return float(cv2.magnitude(along_x, along_y).mean() / max(float(image.mean()), 1e-6))


def standard_deviation(image: Image) -> float:
    """Odemis's measure for electron images: standard deviation of the raw grey values."""
    return float(image.std())
