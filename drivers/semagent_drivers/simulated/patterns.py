"""Procedural specimens: what a detector would see of them, and how high they are.

Each pattern takes the edge of a square tile, the size of its features, both in pixels, and a
random generator, and returns (brightness, relief), float32 of shape (size, size) in [0, 1]. They
are drawn, not simulated: edges are brighter than faces, as secondary electrons escape more easily
there (Reimer, Scanning Electron Microscopy, 2nd ed., ch. 4), and grains differ by channelling.
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

FloatImage = npt.NDArray[np.float32]
Pattern = Callable[[int, float, np.random.Generator], tuple[FloatImage, FloatImage]]

_FIBRE_SHADES = 8


def _band_noise(
    size: int, rng: np.random.Generator, *, wavelength_px: float, exponent: float
) -> FloatImage:
    """Gaussian noise of unit variance, flat down to ``wavelength_px``, then falling.

    The power falls as frequency to the ``-2 * exponent`` beyond ``1 / wavelength_px``.
    """
    white = rng.standard_normal((size, size), dtype=np.float32)
    spectrum = np.fft.rfft2(white)
    fx = np.fft.rfftfreq(size).astype(np.float32)[np.newaxis, :]
    fy = np.fft.fftfreq(size).astype(np.float32)[:, np.newaxis]
    spectrum *= (1 + (fx * fx + fy * fy) * np.float32(wavelength_px**2)) ** np.float32(
        -exponent / 2
    )
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(size, size))
    noise /= noise.std()
    return np.asarray(noise, np.float32)


def _texture(size: int, rng: np.random.Generator) -> FloatImage:
    """Fine roughness, two pixels wide, that every real surface shows."""
    grain = rng.standard_normal((size, size), dtype=np.float32)
    smooth = np.asarray(cv2.GaussianBlur(grain, (0, 0), 0.8), np.float32)
    return np.asarray(smooth / smooth.std(), np.float32)


def _grey(values: npt.ArrayLike) -> FloatImage:
    return np.asarray(values, np.float32)


def _unit(values: FloatImage) -> FloatImage:
    low, high = float(values.min()), float(values.max())
    return (values - np.float32(low)) / np.float32(max(high - low, 1e-12))


def _smoothstep(values: FloatImage) -> FloatImage:
    t = np.clip(values, 0, 1)
    return t * t * (3 - 2 * t)


def particles(
    size: int, feature_px: float, rng: np.random.Generator
) -> tuple[FloatImage, FloatImage]:
    """Spheres of log-normal size on a rough support, some on top of others."""
    brightness = 0.22 + 0.03 * _texture(size, rng)
    relief = np.zeros((size, size), np.float32)
    count = max(1, int(0.5 * size**2 / (np.pi * (feature_px / 2) ** 2)))
    radii = np.sort(feature_px / 2 * rng.lognormal(0.0, 0.35, count))[::-1]
    tallest = radii[0]
    for radius, (x, y), tone in zip(
        radii, rng.uniform(0, size, (count, 2)), rng.uniform(0.3, 0.5, count), strict=True
    ):
        left, top = max(0, int(x - radius - 1)), max(0, int(y - radius - 1))
        right, bottom = min(size, int(x + radius + 2)), min(size, int(y + radius + 2))
        columns = np.arange(left, right, dtype=np.float32)[np.newaxis, :] - np.float32(x)
        rows = np.arange(top, bottom, dtype=np.float32)[:, np.newaxis] - np.float32(y)
        distance = np.sqrt(columns * columns + rows * rows)
        inside = np.clip(np.float32(radius + 0.5) - distance, 0, 1)
        height = np.sqrt(np.maximum(1 - (distance / np.float32(radius)) ** 2, 0))
        shade = np.float32(tone) + np.float32(0.55) * (1 - height) ** 2
        window = (slice(top, bottom), slice(left, right))
        brightness[window] += inside * (shade - brightness[window])
        relief[window] += inside * (
            np.float32(radius / tallest / 2) * (1 + height) - relief[window]
        )
    brightness += 0.02 * _texture(size, rng)
    return brightness, relief


def fibres(size: int, feature_px: float, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """A felt of long bent fibres at several depths; the lower ones are darker."""
    canvas = np.full((size, size), 30, np.uint8)
    layers = np.zeros((size, size), np.uint8)
    step = size / 12
    count = max(4, int(1.2 * size / feature_px))
    for number in range(count):
        depth = (number + 1) / count
        bend = np.cumsum(rng.normal(0, 0.12, 24))
        heading = rng.uniform(0, 2 * np.pi) + bend
        steps = step * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        path = rng.uniform(0, size, 2) + np.cumsum(steps, axis=0) - 12 * steps.mean(axis=0)
        points = np.round(path * 16).astype(np.int32)  # OpenCV's fixed point, with shift=4
        width = feature_px * rng.uniform(0.5, 1.3)
        for shade in range(_FIBRE_SHADES):
            across = 1 - shade / _FIBRE_SHADES  # 1 at the rim, towards 0 on the ridge
            tone = (0.35 + 0.65 * depth) * (90 + 150 * across**3)
            height = 255 * depth * (0.8 + 0.2 * np.sqrt(1 - across**2))
            thickness = max(1, round(width * across))
            cv2.polylines(canvas, [points], False, tone, thickness, cv2.LINE_AA, 4)
            cv2.polylines(layers, [points], False, height, thickness, cv2.LINE_AA, 4)
    brightness = canvas.astype(np.float32) / 255 + 0.02 * _texture(size, rng)
    return _grey(brightness), _grey(layers / 255)


def grains(size: int, feature_px: float, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """A polished alloy: Voronoi grains with channelling contrast and bright precipitates."""
    count = max(4, int(size**2 / feature_px**2))
    seeds = np.full((size, size), 255, np.uint8)
    where = rng.integers(0, size, (count, 2))
    seeds[where[:, 1], where[:, 0]] = 0
    _, labels = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    tones = rng.uniform(0.25, 0.65, count + 2).astype(np.float32)
    brightness = tones[labels]
    borders = (labels != np.roll(labels, 1, axis=0)) | (labels != np.roll(labels, 1, axis=1))
    brightness[borders] = 0.12
    spots = np.zeros((size, size), np.uint8)
    for (x, y), angle, long, short in zip(
        rng.integers(0, size, (count * 4, 2)).tolist(),
        rng.uniform(0, 180, count * 4).tolist(),
        (feature_px * rng.lognormal(-3.0, 0.5, count * 4) + 1).tolist(),
        (feature_px * rng.lognormal(-3.4, 0.4, count * 4) + 1).tolist(),
        strict=True,
    ):
        axes = (round(long), round(short))
        cv2.ellipse(spots, (x, y), axes, angle, 0, 360, 255, -1, cv2.LINE_AA)
    brightness += (spots.astype(np.float32) / 255) * (0.85 - brightness)
    brightness = np.asarray(cv2.GaussianBlur(brightness, (0, 0), 0.5), np.float32)
    brightness += 0.02 * _texture(size, rng)
    return brightness, _unit(rng.uniform(0, 1, count + 2).astype(np.float32)[labels])


def porous(size: int, feature_px: float, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """A sponge: dark pores with bright rims."""
    field = _band_noise(size, rng, wavelength_px=1.5 * feature_px, exponent=4.0)
    solid = _smoothstep(_grey((field + 0.2) * 4))
    rim = np.exp(-((field * 6) ** 2))
    brightness = 0.12 + 0.4 * solid + 0.35 * rim + 0.025 * _texture(size, rng)
    return _grey(brightness), _smoothstep(_grey((field + 1.5) / 2))


def fracture(
    size: int, feature_px: float, rng: np.random.Generator
) -> tuple[FloatImage, FloatImage]:
    """A brittle fracture: a fractal surface with ridges, shaded by its slope."""
    rough = _band_noise(size, rng, wavelength_px=4 * feature_px, exponent=2.0)
    ridged = np.abs(_band_noise(size, rng, wavelength_px=2 * feature_px, exponent=2.6))
    height = rough + 1.2 * ridged
    down, right = np.gradient(height * np.float32(feature_px / 4))
    slope = np.sqrt(right * right + down * down)
    edge = 1 - 1 / np.sqrt(1 + slope * slope)
    brightness = 0.3 + 0.75 * edge + 0.12 * np.tanh(right - down) + 0.02 * _texture(size, rng)
    return _grey(brightness), _unit(_grey(height))


def target(size: int, feature_px: float, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """A resolution target: Siemens stars between groups of bars, gold on carbon.

    Bars get finer from 1/2 to 1/16 of the cell that holds them; a cell is eight features wide.
    """
    cell = max(64, round(8 * feature_px))
    offset = rng.uniform(0, cell, 2)
    x = (np.arange(size, dtype=np.float32) + np.float32(offset[0]))[np.newaxis, :]
    y = (np.arange(size, dtype=np.float32) + np.float32(offset[1]))[:, np.newaxis]
    kind = ((x // cell).astype(np.int32) + 2 * (y // cell).astype(np.int32)) % 4
    dx, dy = x % cell - cell / 2, y % cell - cell / 2
    radius = np.sqrt(dx * dx + dy * dy)
    # Each edge is one pixel wide: value = 0.5 + signed distance to it, clipped.
    star = np.clip(0.5 + radius * np.sin(18 * np.arctan2(dy, dx)) / 18, 0, 1)
    star *= np.clip(0.46 * cell - radius, 0, 1)
    vertical, horizontal = _bars(x % cell, y % cell, cell), _bars(y % cell, x % cell, cell)
    gold = np.where(kind % 2 == 0, star, np.where(kind == 1, vertical, horizontal))
    return _grey(0.15 + 0.7 * gold), _grey(gold)


def _bars(along: FloatImage, across: FloatImage, cell: int) -> FloatImage:
    """Four groups of bars, one below the other, each of half the pitch of the one above."""
    group = np.floor(across * np.float32(4 / cell))
    pitch = np.float32(cell / 4) / 2**group
    wave = 0.5 + np.sin(along * 2 * np.pi / pitch) * pitch / (2 * np.pi)
    return _grey(np.clip(wave, 0, 1))


def flat(size: int, feature_px: float, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """Nothing at all: a polished wafer, on which nobody can focus."""
    del feature_px, rng
    return np.full((size, size), 0.4, np.float32), np.zeros((size, size), np.float32)


PATTERNS: dict[str, Pattern] = {
    "particles": particles,
    "fibres": fibres,
    "grains": grains,
    "porous": porous,
    "fracture": fracture,
    "target": target,
    "flat": flat,
}
"""Every procedural specimen, by the name used in the options."""
