"""Procedural specimens: what widens a small pool of real micrographs.

None imitates a particular material. They share with micrographs what matters for learning blur:
occlusion, thin and thick structure over many sizes, bright edges (the secondary-electron edge
effect), smooth shading and texture with a power-law spectrum.
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
_OVERSAMPLING = 2


def procedural_specimen(rng: np.random.Generator, edge_px: int) -> Image:
    """One specimen of shape (edge_px, edge_px), float32 in [0, 1].

    Drawn at twice the size and binned, so that its edges are as sharp as pixels allow.
    """
    kinds: tuple[Callable[[np.random.Generator, int], Image], ...] = (
        _particles,
        _grains,
        _fibres,
        _leaves,
    )
    size = edge_px * _OVERSAMPLING
    image = kinds[int(rng.integers(len(kinds)))](rng, size)
    if rng.random() < 0.5:
        image = image + float(rng.uniform(0.02, 0.2)) * _texture(rng, size)
    binned = cv2.resize(image, (edge_px, edge_px), interpolation=cv2.INTER_AREA)
    low, high = np.percentile(binned, (0.2, 99.8))
    scaled = np.clip((binned - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    return np.asarray(scaled, np.float32)


def _texture(rng: np.random.Generator, size: int) -> Image:
    """Noise with a power-law spectrum, standard deviation about 1."""
    radius = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    amplitude = 1.0 / np.maximum(radius, 2.0 / size) ** rng.uniform(0.7, 1.8)
    phase = np.exp(2j * np.pi * rng.random(radius.shape))
    field = np.fft.irfft2(amplitude * phase, s=(size, size)).astype(np.float32)
    return np.asarray((field - field.mean()) / (field.std() + 1e-9), np.float32)


def _radii(rng: np.random.Generator, count: int, size: int) -> npt.NDArray[np.float64]:
    """Sizes with a power-law distribution, pixels: many small, few large."""
    smallest, largest = 2.0, size * rng.uniform(0.03, 0.2)
    power = rng.uniform(0.3, 1.8)
    uniform = rng.random(count)
    return np.asarray(
        (smallest**-power + uniform * (largest**-power - smallest**-power)) ** (-1 / power)
    )


def _leaves(rng: np.random.Generator, size: int) -> Image:
    """Dead leaves: opaque shapes of all sizes, one over the other."""
    image = np.full((size, size), rng.random(), np.float32)
    for radius in np.sort(_radii(rng, int(rng.integers(400, 2500)), size))[::-1]:
        centre = tuple(int(v) for v in rng.integers(0, size, 2))
        axes = (max(1, int(radius)), max(1, int(radius * rng.uniform(0.3, 1.0))))
        angle = float(rng.uniform(0, 180))
        cv2.ellipse(image, centre, axes, angle, 0, 360, float(rng.random()), -1, cv2.LINE_AA)
    return image


def _particles(rng: np.random.Generator, size: int) -> Image:
    """Spheres with bright rims on a darker ground."""
    image = np.full((size, size), rng.uniform(0.05, 0.4), np.float32)
    rim = rng.uniform(0.1, 0.5)
    for radius in np.sort(_radii(rng, int(rng.integers(150, 1200)), size)):
        x, y = (float(v) for v in rng.uniform(0, size, 2))
        reach = int(radius) + 2
        left, right = max(0, int(x) - reach), min(size, int(x) + reach + 1)
        top, bottom = max(0, int(y) - reach), min(size, int(y) + reach + 1)
        columns, rows = np.meshgrid(np.arange(left, right) - x, np.arange(top, bottom) - y)
        distance = np.hypot(columns, rows) / radius
        # Yield rises with the tilt of the surface, about as 1/cos of its angle.
        yielded = 1.0 / np.sqrt(np.maximum(1.0 - np.minimum(distance, 1.0) ** 2, 0.02))
        level = rng.uniform(0.25, 0.6) + rim * np.minimum(yielded - 1.0, 3.0) / 3.0
        inside = distance < 1.0
        image[top:bottom, left:right][inside] = level[inside]
    return image


def _grains(rng: np.random.Generator, size: int) -> Image:
    """Polycrystal: Voronoi grains of different grey, some with boundaries and pores."""
    count = int(rng.integers(30, 600))
    seeds = np.ones((size, size), np.uint8)
    points = rng.integers(0, size, (count, 2))
    seeds[points[:, 0], points[:, 1]] = 0
    distance, labels = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    grey = rng.uniform(0.2, 0.9, int(labels.max()) + 1).astype(np.float32)
    image = grey[labels]
    if rng.random() < 0.5:
        relief = cv2.GaussianBlur(distance, (0, 0), 1.0)
        image = image + float(rng.uniform(0.0, 0.02)) * relief
    if rng.random() < 0.6:
        boundary = cv2.Laplacian(labels.astype(np.float32), cv2.CV_32F) != 0
        width = int(rng.integers(1, 5))
        thick = cv2.dilate(boundary.astype(np.uint8), np.ones((width, width), np.uint8)) > 0
        image[thick] = rng.uniform(0.0, 1.0)
    for radius in _radii(rng, int(rng.integers(0, 200)), size // 4):
        centre = tuple(int(v) for v in rng.integers(0, size, 2))
        cv2.circle(image, centre, max(1, int(radius)), float(rng.uniform(0, 0.2)), -1, cv2.LINE_AA)
    return np.asarray(image, np.float32)


def _fibres(rng: np.random.Generator, size: int) -> Image:
    """Crossing fibres, brighter at their edges, the later ones on top."""
    image = np.full((size, size), rng.uniform(0.0, 0.3), np.float32)
    count = int(rng.integers(20, 200))
    for index in range(count):
        steps = int(rng.integers(4, 12))
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.25, steps))
        length = size * rng.uniform(0.05, 0.25)
        start = rng.uniform(-0.1 * size, 1.1 * size, 2)
        stride = length * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        line = np.round(start + np.cumsum(stride, axis=0)).astype(np.int32)
        width = int(rng.integers(2, 24))
        depth = 0.4 + 0.6 * index / count
        edge = float(rng.uniform(0.6, 1.0)) * depth
        core = float(rng.uniform(0.3, 0.6)) * depth
        cv2.polylines(image, [line], False, edge, width, cv2.LINE_AA)
        cv2.polylines(image, [line], False, core, max(1, int(width * 0.6)), cv2.LINE_AA)
    return image
