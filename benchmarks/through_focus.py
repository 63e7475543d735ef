"""Through-focus stacks for benchmarks, made from sharp micrographs by a model of the beam.

No through-focus series of a real SEM under a free licence is known to us. Here a micrograph is
binned by two, so that its own blur and noise shrink, and taken as the specimen; each frame is
then shifted, blurred, exposed and digitised, in this order:

- blur: a uniform disc per axis of standard deviation ``alpha |dz| / 2p``, made elliptical by the
  astigmatism ``A``, and a Gaussian spot ``sigma_0``: covariance ``(alpha/2p)² (dz I + A)² +
  sigma_0² I``; all lengths here are in pixels of that blur;
- image shift in proportion to defocus, and creep of the specimen from frame to frame;
- shot noise of a given number of electrons a pixel, then detector noise;
- brightness and contrast that wander from frame to frame, then 8-bit digitisation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import tifffile
from scipy.special import j1

FloatImage = npt.NDArray[np.float32]

SOURCES = {
    "train": (
        "nasa-coatings-superalloys",
        "nanocomposite-agglomerates",
        "axons",
        "bacterial-cellulose",
    ),
    "test": (
        "fibresem-zeiss34118",
        "micromechanics-zeiss34118",
        "aquami-zeiss34118",
        "gift-fei34682",
        "sem2surface-fei34682-16bit",
        "nanoballs-fei34680",
    ),
}
"""Folders whose micrographs are sharp and quiet enough to stand for a specimen."""

BAR_FRACTION = 0.13
"""Part of the height at the bottom that may hold an information bar and is cut off."""

MIN_SIDE_PX = 320
MAX_SIDE_PX = 1024
MARGIN_PX = 64


@dataclass(frozen=True, slots=True)
class Exposure:
    """How a frame is exposed: electrons a pixel at full white, detector noise, gain, offset."""

    electrons: float
    read_noise: float = 0.005
    gain: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class StackFrame:
    """One frame of a stack: defocus in pixels of blur (standard deviation) and the image."""

    defocus_px: float
    pixels: npt.NDArray[np.uint8]


def specimens(data: Path, split: str) -> Iterator[tuple[str, str, FloatImage]]:
    """Source, file name and binned image, scaled to [0, 1], of every usable micrograph."""
    for source in SOURCES[split]:
        for path in sorted((data / split / source).iterdir()):
            if path.suffix.lower() not in {".png", ".tif", ".tiff"}:
                continue
            image = (
                tifffile.imread(path)
                if path.suffix.lower() != ".png"
                else cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            )
            grey = image.mean(axis=2) if image.ndim == 3 else image
            binned = bin_by_two(grey[: round(grey.shape[0] * (1 - BAR_FRACTION))])
            if min(binned.shape) >= MIN_SIDE_PX:
                low, high = np.percentile(binned, (0.5, 99.5))
                scaled = np.clip((binned - low) / (high - low), 0, 1)
                yield source, path.name, scaled[:MAX_SIDE_PX, :MAX_SIDE_PX]


def bin_by_two(image: npt.NDArray[np.generic]) -> FloatImage:
    """Mean of each 2 × 2 block."""
    height, width = (length // 2 for length in image.shape)
    blocks = image[: 2 * height, : 2 * width].astype(np.float32)
    return blocks.reshape(height, 2, width, 2).mean(axis=(1, 3))


class Beam:
    """The image of one specimen through a beam; keeps the specimen's transform."""

    def __init__(self, specimen: FloatImage) -> None:
        padded = np.pad(specimen, MARGIN_PX, mode="reflect")
        self._shape = padded.shape
        self._transform = np.fft.rfft2(padded)
        self._kx = 2 * np.pi * np.fft.rfftfreq(padded.shape[1])[None, :]
        self._ky = 2 * np.pi * np.fft.fftfreq(padded.shape[0])[:, None]

    def image(
        self,
        defocus_px: float,
        astigmatism_px: tuple[float, float] = (0.0, 0.0),
        sigma_0_px: float = 0.6,
        shift_px: tuple[float, float] = (0.0, 0.0),
        *,
        gaussian: bool = False,
    ) -> FloatImage:
        """The noise-free image at a defocus, in units of blur standard deviation.

        A beam that is no uniform disc may be a Gaussian of the same covariance.
        """
        kx, ky = self._kx, self._ky
        a1, a2 = astigmatism_px
        # A uniform disc of standard deviation s an axis has radius 2 s.
        reach = 2 * np.hypot((defocus_px + a1) * kx + a2 * ky, a2 * kx + (defocus_px - a1) * ky)
        reach = np.maximum(reach, 1e-6)
        profile = np.exp(-(reach**2) / 8) if gaussian else 2 * j1(reach) / reach
        transfer = profile * np.exp(-(sigma_0_px**2) * (kx**2 + ky**2) / 2)
        ramp = np.exp(-1j * (kx * shift_px[0] + ky * shift_px[1]))
        full = np.fft.irfft2(self._transform * transfer * ramp, s=self._shape)
        return full[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX].astype(np.float32)


def recorded(image: FloatImage) -> FloatImage:
    """What an image whose white is 1 is recorded as, a fraction of full scale: white at 3/4."""
    return 0.1 + 0.65 * np.clip(image, 0, None)


def expose(
    image: FloatImage, exposure: Exposure, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Digitised frame of an image whose white is 1; see `recorded`."""
    signal = recorded(image)
    counted = rng.poisson(signal * exposure.electrons) / exposure.electrons
    noisy = counted + rng.normal(0, exposure.read_noise, image.shape)
    return np.clip(np.rint(255 * (exposure.gain * noisy + exposure.offset)), 0, 255).astype(
        np.uint8
    )


def through_focus(
    specimen: FloatImage,
    electrons: float,
    rng: np.random.Generator,
    *,
    frames: int = 21,
    max_defocus_px: float = 20.0,
) -> list[StackFrame]:
    """A stack over ± ``max_defocus_px`` with everything that moves between frames."""
    beam = Beam(specimen)
    steps = np.linspace(-1, 1, frames) + rng.uniform(-0.4, 0.4, frames) / (frames - 1)
    direction = rng.uniform(0, 2 * np.pi)
    per_defocus = 0.5 * np.array([np.cos(direction), np.sin(direction)])
    creep = rng.normal(0, 1.0, (frames, 2)).cumsum(axis=0)
    astigmatism = tuple(rng.normal(0, 0.5, 2))
    stack = []
    for step, drift in zip(steps, creep, strict=True):
        defocus = float(step * max_defocus_px)
        shift = per_defocus * defocus + drift
        image = beam.image(defocus, astigmatism, shift_px=tuple(shift))
        exposure = Exposure(electrons, gain=rng.uniform(0.8, 1.2), offset=rng.uniform(-0.05, 0.05))
        stack.append(StackFrame(defocus, expose(image, exposure, rng)))
    return stack
