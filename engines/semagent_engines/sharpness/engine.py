"""The classical engine: a focus measure, a noise level and a blur ellipse from one spectrum."""

import time

import numpy as np

from semagent.options import NotNegative, Options
from semagent.signature import signature_of
from semagent.spectrum import MIN_SIDE_PX, TILE_SIZES_PX, Spectrum, measure_spectrum
from semagent.types import Analysis, BlurEllipse, Frame, FrameAnalysis, Pixels
from semagent_engines.sharpness.ellipse import fit_blur_ellipse
from semagent_engines.sharpness.exposed import exposed_part
from semagent_engines.sharpness.measures import DEFAULT_MEASURE, MEASURES, Measure
from semagent_engines.sharpness.multiscale import structure_over_noise


class SharpnessOptions(Options, frozen=True, kw_only=True):
    """Options of the engine.

    Attributes:
        measure: name of the focus measure.
        blur: fit a blur ellipse to frames with structure.
        min_structure: structure over noise below which no ellipse is fitted. On noise,
            featureless fields and shading it stays below 0.2 (0.7 on frames of 256 px), while
            micrographs blurred by 20 px keep more than 0.8 at 40 electrons a pixel.
    """

    measure: str = DEFAULT_MEASURE
    blur: bool = True
    min_structure: NotNegative = 1.0


class SharpnessEngine:
    """See `semagent.ports.Engine`. Needs no training and does not restore.

    Frames of any size from 64 × 64 px; of frames larger than about 2000 × 1500 px, at most 24
    tiles of 512 px, spread evenly, are looked at. The blur ellipse is that of the exposed part.
    """

    def __init__(self, options: SharpnessOptions) -> None:
        self._options = options
        self._measure: Measure = MEASURES[options.measure]
        _warm_up()

    @property
    def name(self) -> str:
        """``sharpness/`` and the name of the measure."""
        return f"sharpness/{self._options.measure}"

    @property
    def restores(self) -> bool:
        """Never."""
        return False

    @property
    def smallest_px(self) -> int:
        """Edge of the smallest tile of a spectrum."""
        return MIN_SIDE_PX

    def analyse(self, frame: Frame, *, restore: bool = False) -> Analysis:  # noqa: ARG002 - the port's signature
        """Measure one frame, without its information bar.

        Raises:
            EngineError: the frame is too small.
        """
        started = time.perf_counter()
        pixels = frame.specimen
        spectrum = measure_spectrum(pixels)
        reading = self._measure.read(pixels, spectrum)
        structure = structure_over_noise(spectrum)
        blur = self._ellipse(pixels, spectrum, structure) if self._options.blur else None
        figures = FrameAnalysis(
            header=frame.header,
            engine=self.name,
            focus_score=self._measure.score(reading),
            sharpness=reading.sharpness,
            sharpness_sigma=reading.relative_std,
            structure=structure,
            noise=spectrum.noise_std,
            blur=blur,
            signature=signature_of(spectrum),
            latency_s=time.perf_counter() - started,
        )
        return Analysis(figures=figures)

    def _ellipse(self, pixels: Pixels, spectrum: Spectrum, structure: float) -> BlurEllipse | None:
        exposed = pixels[exposed_part(pixels, least_px=MIN_SIDE_PX)]
        if exposed.shape != pixels.shape:
            spectrum = measure_spectrum(exposed)
            structure = structure_over_noise(spectrum)
        return fit_blur_ellipse(spectrum) if structure >= self._options.min_structure else None

    def close(self) -> None:
        """Nothing is held."""


def _warm_up() -> None:
    """Fill the tables of the largest tiles, so that the first frame takes no longer."""
    side = TILE_SIZES_PX[0] * 3 // 2
    pixels = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    spectrum = measure_spectrum(pixels)
    structure_over_noise(spectrum)
    fit_blur_ellipse(spectrum)
    MEASURES[DEFAULT_MEASURE].read(pixels, spectrum)
