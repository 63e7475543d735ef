"""What every inference engine has to do."""

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest

from semagent import registry
from semagent.errors import ConfigError, FrameTooSmallError
from semagent.ports import Engine
from semagent.types import Frame, FrameAnalysis, FrameHeader, Optics, Pixels, Scan, StagePosition


def frame_of(pixels: Pixels, *, info_bar_px: int = 0, sequence: int = 1) -> Frame:
    """A frame with these pixels, shape (height, width), uint8 or uint16."""
    height, width = pixels.shape
    return Frame(
        FrameHeader(
            sequence=sequence,
            monotonic_ns=sequence,
            wall_ns=0,
            detector="SE",
            scan=Scan(
                width_px=width,
                height_px=height,
                bit_depth=8 if pixels.dtype == np.uint8 else 16,
                pixel_size_m=1e-8,
            ),
            optics=Optics(working_distance_m=0.005),
            stage=StagePosition(),
            settings_rev=1,
            info_bar_px=info_bar_px,
        ),
        pixels.copy(),
    )


def figures_of(header: FrameHeader, **figures: Any) -> FrameAnalysis:
    """Figures of a usable frame, those given and for the others any that make sense."""
    known: dict[str, Any] = {
        "engine": "any",
        "focus_score": 0.5,
        "sharpness": 0.0,
        "sharpness_sigma": 0.1,
        "structure": 5.0,
        "noise": 0.02,
        "latency_s": 0.01,
    }
    return FrameAnalysis(header=header, **(known | figures))


def without_angle(analysis: FrameAnalysis) -> FrameAnalysis:
    """The analysis as it is where the microscope does not report its convergence angle."""
    header = analysis.header
    optics = msgspec.structs.replace(header.optics, convergence_angle_rad=None)
    return msgspec.structs.replace(analysis, header=msgspec.structs.replace(header, optics=optics))


def specimen(
    height: int, width: int, *, blur_px: float, noise: float = 4.0, seed: int = 0
) -> Pixels:
    """A random field of structures at all scales, blurred, with fresh noise; uint8."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    k = np.hypot(fy, fx)
    spectrum = np.fft.rfft2(rng.standard_normal((height, width)))
    spectrum /= np.maximum(k, 1 / max(height, width))
    spectrum[0, 0] = 0
    # The contrast is that of the sharp field: defocus takes contrast away.
    contrast = np.fft.irfft2(spectrum, (height, width)).std()
    spectrum *= np.exp(-2 * (np.pi * blur_px * k) ** 2)
    field = 128 + 40 * np.fft.irfft2(spectrum, (height, width)) / contrast
    field += rng.normal(0, noise, field.shape)
    pixels: Pixels = np.clip(np.round(field), 0, 255).astype(np.uint8)
    return pixels


class EngineConformance:
    """Subclass it with a name that starts with ``Test``.

    Attributes:
        engine: name of the entry point.
        options: options to open it with.
    """

    engine: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls) -> Iterator[Engine]:
        """The engine, open; what it has seen before must not show in what it says."""
        engine = registry.open_engine(cls.engine, cls.options)
        yield engine
        engine.close()

    def test_an_unknown_option_is_an_error_that_names_it(self) -> None:
        with pytest.raises(ConfigError, match="no_such_option"):
            registry.open_engine(self.engine, {**self.options, "no_such_option": 1})

    def test_it_has_a_name_and_its_figures_carry_it(self, opened: Engine) -> None:
        assert opened.name
        figures = opened.analyse(frame_of(specimen(256, 256, blur_px=1.0))).figures
        assert figures.engine == opened.name

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_the_figures_are_sane(self, opened: Engine, dtype: Any) -> None:
        pixels = specimen(256, 384, blur_px=1.5).astype(dtype)
        pixels = pixels if dtype == np.uint8 else pixels * np.uint16(257)
        frame = frame_of(pixels)
        figures = opened.analyse(frame).figures
        assert figures.header == frame.header
        assert 0 <= figures.focus_score <= 1
        assert math.isfinite(figures.sharpness)
        assert figures.sharpness_sigma > 0
        assert math.isfinite(figures.sharpness_sigma)
        assert figures.structure >= 0
        assert 0 <= figures.noise < 1
        assert figures.latency_s > 0
        if figures.blur is not None:
            assert figures.blur.major_px >= figures.blur.minor_px >= 0
            assert -math.pi / 2 < figures.blur.angle_rad <= math.pi / 2
            assert figures.blur.log_sigma > 0

    def test_sharper_frames_of_one_field_score_higher(self, opened: Engine) -> None:
        blurs = [0.7, 1.5, 3.0, 6.0, 12.0]
        figures = [
            opened.analyse(frame_of(specimen(512, 512, blur_px=blur))).figures for blur in blurs
        ]
        for sharper, other in pairwise(figures):
            assert sharper.sharpness > other.sharpness
            assert sharper.focus_score > other.focus_score

    def test_brightness_and_contrast_do_not_count(self, opened: Engine) -> None:
        pixels = specimen(512, 512, blur_px=2.0)
        changed = np.round(pixels * 0.7 + 20).astype(np.uint8)
        one, other = (opened.analyse(frame_of(each)).figures for each in (pixels, changed))
        assert abs(one.sharpness - other.sharpness) < 0.1

    def test_the_same_frame_gives_the_same_figures(self, opened: Engine) -> None:
        frame = frame_of(specimen(256, 256, blur_px=2.0))
        one, other = opened.analyse(frame).figures, opened.analyse(frame).figures
        assert one.sharpness == other.sharpness
        assert one.focus_score == other.focus_score

    def test_noise_alone_is_no_structure(self, opened: Engine) -> None:
        rng = np.random.default_rng(0)
        noise = rng.normal(128, 12, (512, 512)).round().astype(np.uint8)
        something = opened.analyse(frame_of(specimen(512, 512, blur_px=2.0))).figures
        nothing = opened.analyse(frame_of(noise)).figures
        assert nothing.structure < 0.1 < something.structure

    def test_the_information_bar_is_left_out(self, opened: Engine) -> None:
        pixels = specimen(512, 512, blur_px=2.0)
        barred = np.concatenate([pixels, np.zeros((64, 512), np.uint8)])
        barred[-40:-30, ::7] = 255
        plain = opened.analyse(frame_of(pixels)).figures
        with_bar = opened.analyse(frame_of(barred, info_bar_px=64)).figures
        assert with_bar.sharpness == pytest.approx(plain.sharpness, abs=1e-6)

    def test_the_raw_frame_is_left_alone(self, opened: Engine) -> None:
        frame = frame_of(specimen(256, 256, blur_px=2.0))
        copy = frame.pixels.copy()
        analysis = opened.analyse(frame, restore=opened.restores)
        assert np.array_equal(frame.pixels, copy)
        assert (analysis.restored is not None) is opened.restores
        if analysis.restored is not None:
            assert analysis.restored.shape == frame.pixels.shape
            assert analysis.restored.dtype == frame.pixels.dtype
            assert not np.shares_memory(analysis.restored, frame.pixels)
            assert analysis.figures.consistency is not None

    def test_a_frame_that_is_too_small_is_refused(self, opened: Engine) -> None:
        least = opened.smallest_px
        smallest = opened.analyse(frame_of(specimen(least, least, blur_px=1.0))).figures
        assert math.isfinite(smallest.sharpness)
        for shape in ((least, least - 1), (least - 1, least)):
            with pytest.raises(FrameTooSmallError, match=str(least)):
                opened.analyse(frame_of(np.zeros(shape, np.uint8)))

    @pytest.mark.parametrize("value", [0, 128, 255])
    def test_a_frame_without_anything_gives_finite_figures(
        self, opened: Engine, value: int
    ) -> None:
        figures = opened.analyse(frame_of(np.full((256, 256), value, np.uint8))).figures
        assert math.isfinite(figures.sharpness)
        assert math.isfinite(figures.focus_score)
        assert figures.structure < 0.1

    def test_closing_twice_is_fine(self) -> None:
        engine = registry.open_engine(self.engine, self.options)
        engine.close()
        engine.close()
