"""The engine that runs the model, whatever library executes its graphs.

It restores with the network alone. Blur is read twice, by the network's heads and by fits to the
frame's spectrum, and both are taken together: the fits are better where the beam is the disc that
optics predicts, the heads where it is not. The focus score and all that the focus estimator needs
are those of the engine ``sharpness``, which rank frames of one field better than any head did.
"""

import time
from dataclasses import dataclass
from typing import Annotated, Protocol

import msgspec
import numpy as np

from semagent.errors import EngineError, FrameTooSmallError
from semagent.options import Count, Options
from semagent.spectrum import Array, measure_spectrum
from semagent.types import Analysis, Frame, Grid, Pixels
from semagent_engines.runtime.artefact import Artefact
from semagent_engines.runtime.consistency import consistency_map, mean_consistency
from semagent_engines.runtime.readings import (
    PAIR_CONTRADICTION,
    PAIR_INFLATION,
    PAIR_UNIT_PX2,
    Z90,
    FrameReading,
    TileReadings,
    combine,
    together,
    weighted_mean,
    with_ellipse,
)
from semagent_engines.runtime.tiling import (
    Floats,
    Layout,
    Stitcher,
    cut,
    informative_tiles,
    lay_out,
)
from semagent_engines.sharpness.change import fit_blur_change
from semagent_engines.sharpness.engine import SharpnessEngine, SharpnessOptions
from semagent_engines.sharpness.exposed import exposed_part

_SCORE_TILE_PX = 384
_RESTORE_TILE_PX = 288
_OVERLAP_PX = 16


class Runtime(Protocol):
    """A library that executes the graphs of an artefact."""

    @property
    def name(self) -> str:
        """Name of the entry point."""
        ...

    def run(self, graph: str, inputs: dict[str, Floats]) -> dict[str, Floats]:
        """Execute one graph; the returned arrays belong to the caller.

        Raises:
            EngineError: the library failed.
        """
        ...

    def close(self) -> None:
        """Free everything."""
        ...


class ModelOptions(Options, frozen=True, kw_only=True):
    """Options that all runtimes share.

    Attributes:
        artefact: folder of the artefact; ``None`` is the one shipped with the engine.
        tiles: most tiles of a frame that are read for its score, 0 for all of them.
        threads: threads to compute with; ``None`` leaves it to the library.
    """

    artefact: str | None = None
    tiles: Annotated[int, msgspec.Meta(ge=0)] = 24
    threads: Count | None = None


@dataclass(frozen=True)
class BlurChange:
    """Difference of the blur covariances of two frames of one field, second minus first.

    Attributes:
        difference_px2: (3,), round part (xx + yy) / 2, axial part (xx - yy) / 2, diagonal xy.
        interval90_px2: (3, 2), lower and upper ends of the 90 % intervals.
    """

    difference_px2: Array
    interval90_px2: Array


class ModelEngine:
    """An `Engine` for any frame size from 128 pixels on an edge.

    Args:
        runtime: what executes the graphs.
        artefact: the graphs.
        tiles: most tiles read for a score, 0 for all.
    """

    def __init__(self, runtime: Runtime, artefact: Artefact, *, tiles: int) -> None:
        self._runtime = runtime
        self._manifest = artefact.manifest
        self._tiles = tiles
        self._closed = False
        self._spectral = SharpnessEngine(SharpnessOptions())

    @property
    def name(self) -> str:
        """Runtime and artefact."""
        return f"{self._runtime.name}/{self._manifest.name}"

    @property
    def restores(self) -> bool:
        """The model restores."""
        return True

    @property
    def smallest_px(self) -> int:
        """Edge of the smallest tile of the artefact's graphs."""
        return self._manifest.smallest_tile_px

    def analyse(self, frame: Frame, *, restore: bool = False) -> Analysis:
        """Read the frame and, on request, restore it. See `semagent.ports.Engine`.

        The information bar is neither read nor restored. Frames without structure have no blur.
        Consistency is judged with the blur that the network's head reads, as it restores.
        """
        began = time.perf_counter()
        pixels = self._specimen(frame)
        figures = self._spectral.analyse(frame).figures
        head = self._head(pixels)
        restored, consistency, experts = None, None, None
        consistency_grid, expert_grid = None, None
        if restore:
            restored = frame.pixels.copy()
            restored[: pixels.shape[0]], expert_grid = self._restore(pixels)
            experts = _shares(expert_grid)
            chi_square = consistency_map(
                pixels, restored[: pixels.shape[0]], head.covariance, head.noise
            )
            consistency = mean_consistency(chi_square, pixels)
            consistency_grid = _grid(chi_square)
        figures = msgspec.structs.replace(
            figures,
            engine=self.name,
            noise=head.noise / float(np.iinfo(pixels.dtype).max),
            blur=figures.blur and with_ellipse(head, figures.blur).ellipse,
            expert_weights=experts,
            consistency=consistency,
            consistency_map=consistency_grid,
            expert_map=expert_grid,
            latency_s=time.perf_counter() - began,
        )
        return Analysis(figures, restored)

    def compare(self, first: Frame, second: Frame, *, fit: bool = True) -> BlurChange:
        """How the blur changed between two frames of one field; the specimen cancels.

        Args:
            first: one frame.
            second: another of the same size.
            fit: fit the spectra too; without, the network's head alone.

        Raises:
            EngineError: the frames differ in shape, are too small, or the engine failed.
        """
        one, other = self._specimen(first), self._specimen(second)
        if one.shape != other.shape:
            raise EngineError(f"frames of {one.shape} and {other.shape} pixels are not one field")
        exposed = exposed_part(one, other, least_px=self.smallest_px)
        one, other = one[exposed], other[exposed]
        read = self._read(one, other)
        inputs = {
            f"{field}_{letter}": getattr(tiles, field)
            for letter, tiles in zip("ab", read, strict=True)
            for field in ("spectra", "blur", "blur_std")
        }
        found = self._runtime.run("pair", inputs)
        mean: Array | Floats
        std: Array | Floats
        mean, std = weighted_mean(found["difference"], found["difference_std"])
        # The graph's scale is asinh(ΔM / 0.5 px²), on which errors are about as large everywhere.
        if fit:
            change = fit_blur_change(measure_spectrum(one), measure_spectrum(other))
            fitted = change.difference_px2 / PAIR_UNIT_PX2
            fitted_std = change.std_px2 / PAIR_UNIT_PX2 / np.hypot(1.0, fitted)
            mean, std = together(
                np.arcsinh(fitted), fitted_std, mean, PAIR_INFLATION * std, PAIR_CONTRADICTION
            )
        ends = np.stack([mean - Z90 * std, mean + Z90 * std], axis=1)
        return BlurChange(PAIR_UNIT_PX2 * np.sinh(mean), PAIR_UNIT_PX2 * np.sinh(ends))

    def read(self, frame: Frame, *, fit: bool = True) -> FrameReading:
        """The blur ellipse with its uncertainty in all components, and the noise.

        Args:
            frame: any frame.
            fit: fit the spectrum too; without, the network's head alone.
        """
        pixels = self._specimen(frame)
        head = self._head(pixels)
        ellipse = self._spectral.analyse(frame).figures.blur if fit else None
        return with_ellipse(head, ellipse) if ellipse else head

    def close(self) -> None:
        """Free the runtime. May be called twice."""
        if not self._closed:
            self._closed = True
            self._runtime.close()

    def _specimen(self, frame: Frame) -> Pixels:
        if self._closed:
            raise EngineError(f"{self.name} is closed")
        pixels = frame.specimen
        smallest = self.smallest_px
        if min(pixels.shape) < smallest:
            raise FrameTooSmallError(
                f"a frame of {pixels.shape[1]} x {pixels.shape[0]} pixels without its "
                f"information bar is too small: {smallest} x {smallest} are needed"
            )
        return pixels

    def _layout(self, pixels: Pixels, tile_px: int, *, overlap_px: int) -> Layout:
        height, width = pixels.shape
        step = self._manifest.tile_step_px
        return lay_out((height, width), tile_px=tile_px, overlap_px=overlap_px, step_px=step)

    def _head(self, pixels: Pixels) -> FrameReading:
        exposed = exposed_part(pixels, least_px=self.smallest_px)
        [tiles] = self._read(pixels[exposed])
        return combine(tiles)

    def _read(self, *frames: Pixels) -> list[TileReadings]:
        """Readings of the same tiles of frames of one field."""
        layout = self._layout(frames[0], _SCORE_TILE_PX, overlap_px=0)
        count = len(layout.rows) * len(layout.columns)
        corners = informative_tiles(frames, layout, self._tiles or count)
        read = []
        for pixels in frames:
            out = self._runtime.run("score", {"pixels": cut(pixels, layout, corners)})
            read.append(
                TileReadings(
                    blur=out["blur"],
                    blur_std=out["blur_std"],
                    noise=out["noise"],
                    spectra=out["spectra"],
                )
            )
        within = np.all([tiles.within(self._manifest.blur_range_px) for tiles in read], axis=0)
        return [tiles.of(within) for tiles in read]

    def _restore(self, pixels: Pixels) -> tuple[Pixels, Grid]:
        layout = self._layout(pixels, _RESTORE_TILE_PX, overlap_px=_OVERLAP_PX)
        height, width = pixels.shape
        stitcher = Stitcher((height, width), layout)
        shares: list[Floats] = []
        for corner in layout.corners():
            out = self._runtime.run("restore", {"pixels": cut(pixels, layout, [corner])})
            stitcher.add(corner, out["restored"][0, 0])
            shares.append(out["experts"][0])
        limits = np.iinfo(pixels.dtype)
        grey = np.clip(np.rint(stitcher.frame()), limits.min, limits.max)
        restored = grey.astype(np.uint8) if limits.max == 255 else grey.astype(np.uint16)
        tiles = np.reshape(shares, (len(layout.rows), len(layout.columns), -1))
        return restored, _grid(tiles)


def _grid(parts: Floats) -> Grid:
    """A map for people: (rows, columns) or (rows, columns, depth), to three digits."""
    values = tuple(float(f"{value:.3g}") for value in parts.flat)
    return Grid(rows=parts.shape[0], columns=parts.shape[1], values=values)


def _shares(tiles: Grid) -> tuple[float, ...]:
    """Mean over the tiles."""
    each = np.reshape(tiles.values, (tiles.rows * tiles.columns, -1))
    return tuple(float(share) for share in each.mean(axis=0))
