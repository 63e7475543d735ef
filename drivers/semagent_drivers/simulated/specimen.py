"""The specimen: brightness and height of a surface that goes on mirrored without end."""

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from semagent.errors import ConfigError, InputFileError
from semagent.images import read_image
from semagent_drivers.simulated.options import SpecimenOptions
from semagent_drivers.simulated.patterns import PATTERNS

FloatImage = npt.NDArray[np.float32]

_MAX_EDGE_PX = 8192  # a quarter of a gigabyte as float32


@dataclass(frozen=True, slots=True, eq=False)
class Specimen:
    """A surface, sampled at the pixel size of the scan.

    Attributes:
        brightness: shape (height, width), 0 dark to 1 bright.
        height_m: height above the mean surface, same shape, ``None`` if flat.
        slope_x: rise of the mounted specimen per length along x.
        slope_y: the same along y.
    """

    brightness: FloatImage
    height_m: FloatImage | None
    slope_x: float
    slope_y: float

    def sample(
        self,
        layer: FloatImage,
        centre_px: tuple[float, float],
        axes: npt.NDArray[np.float64],
        shape: tuple[int, int],
    ) -> FloatImage:
        """Cut a patch out of ``brightness`` or ``height_m``.

        Args:
            layer: one of the two.
            centre_px: point of the specimen that comes to the middle of the patch.
            axes: 2 x 2, from pixels of the patch to pixels of the specimen.
            shape: (height, width) of the patch.

        Returns:
            The patch by cubic interpolation, exact where ``axes`` is the identity and the
            centre is whole.
        """
        height, width = shape
        # All source pixels that any corner needs, and two more for the cubic interpolation.
        reach = np.ceil(np.abs(axes) @ (width / 2, height / 2)).astype(int) + 3
        corner = np.floor(centre_px).astype(int) - reach
        columns, rows = 2 * reach + 1
        source = layer[_mirrored(corner[1], rows, layer.shape[0])]
        source = source[:, _mirrored(corner[0], columns, layer.shape[1])]
        origin = np.subtract(centre_px, corner) - axes @ (width // 2, height // 2)
        patch = cv2.warpAffine(
            source,
            np.column_stack([axes, origin]),
            (width, height),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(patch, np.float32)


def _mirrored(first: int, count: int, size: int) -> npt.NDArray[np.intp]:
    """Indices into an axis of ``size`` that goes on mirrored at both ends."""
    index = np.arange(first, first + count) % (2 * size)
    return np.minimum(index, 2 * size - 1 - index)


def make_specimen(options: SpecimenOptions, pixel_size_m: float, seed: int) -> Specimen:
    """Draw or load the specimen the options ask for.

    Raises:
        ConfigError: an image file cannot be used; the message names it.
    """
    relief: FloatImage | None
    if options.path is None:
        feature_px = options.feature_size_nm / 1e9 / pixel_size_m
        if not 2 <= feature_px <= options.tile_px / 2:
            raise ConfigError(
                f"specimen.feature_size_nm: {options.feature_size_nm} nm is {feature_px:.3g} "
                f"pixels of the scan; allowed are 2 to half of tile_px = {options.tile_px}"
            )
        brightness, relief = _drawn(options.kind, options.tile_px, feature_px, seed)
    else:
        brightness = _load(options, options.path, "specimen.path", pixel_size_m)
        low, high = np.percentile(brightness, [0.1, 99.9])
        if not low < high:
            raise ConfigError(f"specimen.path: {options.path} is a uniform image")
        brightness = (brightness - np.float32(low)) / np.float32(high - low)
        relief = brightness
    if options.height_map is not None:
        relief = _load(options, options.height_map, "specimen.height_map", pixel_size_m)
        if relief.shape != brightness.shape:
            relief = np.asarray(
                cv2.resize(relief, brightness.shape[::-1], interpolation=cv2.INTER_CUBIC),
                np.float32,
            )
    contrast = np.float32(options.contrast)
    brightness = np.clip(0.5 + contrast * (brightness - np.float32(0.5)), 0, 1)
    return Specimen(
        brightness=np.ascontiguousarray(brightness, np.float32),
        height_m=_heights(relief, options.relief_um / 1e6),
        slope_x=math.tan(math.radians(options.mount_tilt_x_deg)),
        slope_y=math.tan(math.radians(options.mount_tilt_y_deg)),
    )


@functools.lru_cache(maxsize=2)
def _drawn(kind: str, tile_px: int, feature_px: float, seed: int) -> tuple[FloatImage, FloatImage]:
    """A procedural specimen; kept, because a fake opens the same one again and again."""
    rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(0,))))
    layers = PATTERNS[kind](tile_px, feature_px, rng)
    for layer in layers:
        layer.flags.writeable = False
    return layers


def _heights(relief: FloatImage, span_m: float) -> FloatImage | None:
    span = float(np.ptp(relief))
    if span_m == 0 or span == 0:
        return None
    return np.ascontiguousarray((relief - relief.mean()) * np.float32(span_m / span), np.float32)


def _load(options: SpecimenOptions, path: str, key: str, pixel_size_m: float) -> FloatImage:
    """Read an image as grey values at the scan's pixel size."""
    try:
        file = read_image(path)
    except InputFileError as error:
        raise ConfigError(f"{key}: {error}") from error
    cropped = file.info_bar_px if options.crop_bottom_px is None else options.crop_bottom_px
    image = np.asarray(file.pixels[: max(0, len(file.pixels) - cropped)], np.float32)
    if min(image.shape) < 32:
        raise ConfigError(
            f"{key}: {path} leaves {image.shape[1]} x {image.shape[0]} pixels after "
            f"{cropped} rows were cut off; at least 32 x 32 are needed"
        )
    file_pixel_m = (
        pixel_size_m
        if options.image_pixel_size_nm is None
        else options.image_pixel_size_nm / 1e9 * options.image_bin
    )
    scale = file_pixel_m / pixel_size_m
    size = (
        round(image.shape[1] // options.image_bin * scale),
        round(image.shape[0] // options.image_bin * scale),
    )
    if not 32 <= min(size) <= max(size) <= _MAX_EDGE_PX:
        raise ConfigError(
            f"{key}: {path} is {size[0]} x {size[1]} pixels of the scan; allowed are 32 to "
            f"{_MAX_EDGE_PX}: change image_bin or image_pixel_size_nm"
        )
    if size != (image.shape[1], image.shape[0]):
        shrinks = size[0] < image.shape[1]
        way = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, size, interpolation=way), np.float32)
    return image
