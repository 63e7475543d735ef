"""The noise-free image: specimen, blur that varies over the field, and what the scan does."""

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from semagent_drivers.simulated.beam import Beam, fast_size, frequencies, shift_transfer
from semagent_drivers.simulated.options import ChargingOptions
from semagent_drivers.simulated.specimen import Specimen

FloatImage = npt.NDArray[np.float32]

_ANCHOR_PX = 8
"""Patches start at multiples of this; the rest of a shift is exact, in the transfer function."""

_MARGINS_PX = (48, 96, 192, 384)
"""Widths of specimen cut around the frame for the blur to draw on."""

_LEVELS_PER_E_FOLD = 10 / 3


@dataclass(frozen=True, slots=True)
class View:
    """What part of the specimen is scanned.

    Attributes:
        centre_px: point of the specimen at the centre of the full field, from its middle.
        offset_px: from there to the centre of the scanned region, in pixels of the frame.
        shape: (height, width) of the scanned region.
        rotation_rad: of the stage.
        tilt_rad: of the stage, about the fast axis; positive raises the lower edge.
    """

    centre_px: tuple[float, float]
    offset_px: tuple[int, int]
    shape: tuple[int, int]
    rotation_rad: float = 0.0
    tilt_rad: float = 0.0

    def axes(self) -> npt.NDArray[np.float64]:
        """See `frame_axes`."""
        return frame_axes(self.rotation_rad, self.tilt_rad)

    def region_centre_px(self) -> npt.NDArray[np.float64]:
        """Point of the specimen at the centre of the scanned region."""
        return np.asarray(self.axes() @ np.array(self.offset_px) + self.centre_px, np.float64)


@dataclass(frozen=True, slots=True)
class Motion:
    """How the specimen and the lines moved during the frame, in pixels.

    Attributes:
        step_px: displacement (x, y) of the view during one scan.
        averages: number of scans averaged into the frame.
        jitter_px: standard deviation of the displacement of a line.
    """

    step_px: tuple[float, float] = (0.0, 0.0)
    averages: int = 1
    jitter_px: float = 0.0


def frame_axes(rotation_rad: float, tilt_rad: float) -> npt.NDArray[np.float64]:
    """2 x 2, from lengths seen along the scan axes to lengths on the rotated, tilted specimen."""
    cos, sin = math.cos(rotation_rad), math.sin(rotation_rad)
    turn = np.array([[cos, sin], [-sin, cos]])
    return np.asarray(turn @ np.diag([1.0, 1.0 / math.cos(tilt_rad)]), np.float64)


class Renderer:
    """Makes noise-free frames, and keeps what the next frame will need again."""

    def __init__(self, specimen: Specimen, pixel_size_m: float, charging: ChargingOptions) -> None:
        self._specimen = specimen
        self._pixel_size_m = pixel_size_m
        self._charging = charging
        self._patch_key: Hashable = None
        self._patch: npt.NDArray[np.complex64]
        self._image_key: Hashable = None
        self._image: FloatImage

    def render(
        self,
        view: View,
        beam: Beam,
        defocus_m: float,
        motion: Motion,
        rng: np.random.Generator,
    ) -> FloatImage:
        """Brightness of the frame before any noise, shape ``view.shape``, about 0 to 1.

        Args:
            view: what is scanned.
            beam: the beam.
            defocus_m: working distance minus that of the mean specimen on the beam's axis.
            motion: drift and jitter during the frame.
            rng: source of the jitter.
        """
        rows = view.shape[0]
        # Drift shears and stretches each scan; time zero is its middle.
        time = (np.arange(rows) + 0.5) / rows - 0.5
        dx, dy = motion.step_px[0] * time, motion.step_px[1] * time
        jitter = motion.jitter_px / math.sqrt(motion.averages)
        if jitter:
            dx = dx + jitter * rng.standard_normal(rows)
        farthest = max(float(np.abs(dx).max()), float(np.abs(dy).max()))
        if farthest < 0.02:
            return self._sharp_in_time(view, beam, defocus_m, motion, apron=0)
        apron = min(math.ceil(farthest) + 2, _MARGINS_PX[0] // 2)
        image = self._sharp_in_time(view, beam, defocus_m, motion, apron)
        columns = np.arange(apron, apron + view.shape[1], dtype=np.float32)
        across = columns[np.newaxis, :] + dx[:, np.newaxis].astype(np.float32)
        down = (np.arange(apron, apron + rows) + dy)[:, np.newaxis].astype(np.float32)
        return np.asarray(
            cv2.remap(
                image,
                across,
                np.repeat(down, view.shape[1], axis=1),
                cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REPLICATE,
            ),
            np.float32,
        )

    def defocus_map(
        self, view: View, defocus_m: float, apron: int = 0
    ) -> npt.NDArray[np.float32] | None:
        """Defocus at each pixel of the frame in metres, ``None`` where it is the same everywhere.

        Shape as that of the view, with ``apron`` pixels more on each side.

        A point that is higher is nearer to the pole piece, so the beam is focused below it.
        """
        specimen, height_m = self._specimen, self._specimen.height_m
        shape = (view.shape[0] + 2 * apron, view.shape[1] + 2 * apron)
        axes, centre = view.axes(), view.region_centre_px()
        slope = np.array([specimen.slope_x, specimen.slope_y]) @ axes / math.cos(view.tilt_rad)
        slope[1] += math.tan(view.tilt_rad)
        if height_m is None and not slope.any():
            return None
        x = np.arange(shape[1]) - shape[1] // 2
        y = np.arange(shape[0]) - shape[0] // 2
        middle = self._plane_m(view, centre)
        plane = middle + self._pixel_size_m * (slope[0] * x + slope[1] * y[:, np.newaxis])
        defocus = (defocus_m + plane).astype(np.float32)
        if height_m is not None:
            relief = specimen.sample(height_m, self._on_tile(centre), axes, shape)
            relief *= np.float32(1 / math.cos(view.tilt_rad))
            defocus += relief
        return np.asarray(defocus, np.float32)

    def _plane_m(self, view: View, centre: npt.NDArray[np.float64]) -> float:
        """Height of the mounted, tilted plane at the centre of the scanned region."""
        mount = self._specimen.slope_x * centre[0] + self._specimen.slope_y * centre[1]
        tilted = mount / math.cos(view.tilt_rad) + view.offset_px[1] * math.tan(view.tilt_rad)
        return float(tilted) * self._pixel_size_m

    def _on_tile(self, point_px: npt.NDArray[np.float64]) -> tuple[float, float]:
        height, width = self._specimen.brightness.shape
        return float(point_px[0] + width // 2), float(point_px[1] + height // 2)

    def _sharp_in_time(
        self, view: View, beam: Beam, defocus_m: float, motion: Motion, apron: int
    ) -> FloatImage:
        """The blurred specimen with an apron around it, before drift and jitter move its lines."""
        key = (view, beam, defocus_m, motion, apron)
        if key != self._image_key:
            self._image = self._blurred(view, beam, defocus_m, motion, apron)
            self._image.flags.writeable = False
            self._image_key = key
        return self._image

    def _blurred(
        self, view: View, beam: Beam, defocus_m: float, motion: Motion, apron: int
    ) -> FloatImage:
        defocus = self.defocus_map(view, defocus_m, apron)
        ends = (defocus_m, defocus_m)
        if defocus is not None:
            ends = (float(defocus.min()), float(defocus.max()))
        reach = max(beam.reach_px(end) for end in ends) + 2 * _ANCHOR_PX + apron
        # Beyond the widest margin the blur wraps around to another part of the specimen.
        margin = next((m for m in _MARGINS_PX if m >= reach), _MARGINS_PX[-1])
        shape = (fast_size(view.shape[0] + 2 * margin), fast_size(view.shape[1] + 2 * margin))
        spectrum = self._spectrum(view, shape, motion)
        top = shape[0] // 2 - view.shape[0] // 2 - apron
        left = shape[1] // 2 - view.shape[1] // 2 - apron
        window = (
            slice(top, top + view.shape[0] + 2 * apron),
            slice(left, left + view.shape[1] + 2 * apron),
        )

        def imaged(level_m: float, probe: Beam) -> FloatImage:
            full = np.fft.irfft2(spectrum * probe.transfer(level_m, shape), s=shape)
            return np.ascontiguousarray(full[window], np.float32)

        levels = blur_levels(*ends, beam.slope_px_per_m)
        if defocus is None or len(levels) == 1:
            return imaged(sum(ends) / 2, beam)
        image = np.zeros_like(defocus)
        for index, level_m in enumerate(levels):
            below_m, above_m = levels[max(index - 1, 0)], levels[min(index + 1, len(levels) - 1)]
            probe = narrowed(beam, max(level_m - below_m, above_m - level_m))
            image += _share(defocus, below_m, level_m, above_m) * imaged(level_m, probe)
        return image

    def _spectrum(
        self, view: View, shape: tuple[int, int], motion: Motion
    ) -> npt.NDArray[np.complex64]:
        """Spectrum of the specimen around the view, with everything that acts on it linearly."""
        axes, centre = view.axes(), view.region_centre_px()
        anchor = np.round(centre / _ANCHOR_PX) * _ANCHOR_PX
        key = (tuple(anchor.tolist()), view.rotation_rad, view.tilt_rad, shape)
        if key != self._patch_key:
            patch = self._specimen.sample(
                self._specimen.brightness, self._on_tile(anchor), axes, shape
            )
            self._patch = np.fft.rfft2(patch).astype(np.complex64)
            self._patch_key = key
        rest = np.linalg.solve(axes, centre - anchor)
        spectrum = self._patch * shift_transfer(-rest[0], -rest[1], shape)
        spectrum *= self._line_transfer(shape, motion)
        if motion.averages > 1 and motion.step_px != (0.0, 0.0):
            spectrum *= average_transfer(motion.step_px, motion.averages, shape)
        return spectrum

    def _line_transfer(self, shape: tuple[int, int], motion: Motion) -> npt.NDArray[np.complex64]:
        """Along the fast axis: charging, and the blur of averaging lines that jitter."""
        fx = frequencies(shape)[0].astype(np.float64)
        kept = math.exp(-1 / self._charging.length_px)
        shadow = (1 - kept) / (1 - kept * np.exp(-2j * np.pi * fx))
        shadow[0, 0] = 0  # charging takes from one place what it adds at another
        spread = motion.jitter_px**2 * (1 - 1 / motion.averages)
        jitter = np.exp(-2 * (math.pi * fx) ** 2 * spread)
        return np.asarray((1 - self._charging.strength * shadow) * jitter, np.complex64)


def average_transfer(
    step_px: tuple[float, float], count: int, shape: tuple[int, int]
) -> FloatImage:
    """Transfer function of averaging ``count`` scans, each moved by ``step_px`` from the last.

    In the layout of `numpy.fft.rfft2` for images of ``shape``: (height, width // 2 + 1).

    The mean of the shifted copies about their centre: the Dirichlet kernel
    ``sin(n u) / (n sin u)`` with ``u = pi (fx dx + fy dy)``.
    """
    fx, fy = frequencies(shape)
    u = fx * np.float32(np.pi * step_px[0]) + fy * np.float32(np.pi * step_px[1])
    below = np.sin(u)
    flat = np.abs(below) < 1e-4
    below[flat] = 1.0
    kernel = np.sin(count * u) / (count * below)
    # Where sin u = 0 all copies are in phase, up to the sign of their common centre.
    kernel[flat] = np.cos((count - 1) * u[flat])
    return np.asarray(kernel, np.float32)


def blur_levels(low_m: float, high_m: float, slope_px_per_m: float) -> list[float]:
    """Defocus values to blur with, so that blending neighbours stands for all between.

    Steps are 0.6 px of blur near focus and 0.3 of the blur far from it.
    """
    low, high = (
        _LEVELS_PER_E_FOLD * math.asinh(end * slope_px_per_m / 2) for end in (low_m, high_m)
    )
    if high - low < 0.1:
        return [(low_m + high_m) / 2]
    between = [
        math.sinh(position / _LEVELS_PER_E_FOLD) * 2 / slope_px_per_m
        for position in np.linspace(low, high, math.ceil(high - low) + 1).tolist()
    ]
    return [low_m, *between[1:-1], high_m]


def narrowed(beam: Beam, step_m: float) -> Beam:
    """The beam with its probe narrowed by what blending levels ``step_m`` apart adds to it.

    A blend at z between levels z1 and z2 has the variance of z plus slope^2 (z - z1)(z2 - z): on
    average a sixth of the squared step. Taking it off leaves at most half of that, 0.06 px^2
    near focus.
    """
    excess = (beam.slope_px_per_m * step_m) ** 2 / 6
    return replace(beam, sigma0_px=math.sqrt(max(beam.sigma0_px**2 - excess, 0.0)))


def _share(defocus_m: FloatImage, below_m: float, level_m: float, above_m: float) -> FloatImage:
    """Weight of a level in a blend that is linear in the defocus; 1 at the level itself."""
    share = np.ones_like(defocus_m)
    if below_m < level_m:
        rising = (defocus_m - np.float32(below_m)) / np.float32(level_m - below_m)
        np.minimum(share, rising, out=share)
    if above_m > level_m:
        falling = (np.float32(above_m) - defocus_m) / np.float32(above_m - level_m)
        np.minimum(share, falling, out=share)
    np.maximum(share, 0, out=share)
    return share
