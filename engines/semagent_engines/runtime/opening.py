"""What opening an engine takes, whatever library executes the graphs."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from semagent.errors import ConfigError
from semagent.types import Frame, FrameHeader, Optics, Pixels, Scan, StagePosition
from semagent_engines.runtime.artefact import DEFAULT, Artefact, open_artefact
from semagent_engines.runtime.model_engine import ModelEngine, ModelOptions, Runtime

_EDGE_PX = 512

Chosen = TypeVar("Chosen", bound=ModelOptions)


class CpuOptions(ModelOptions, frozen=True, kw_only=True):
    """Options of the engines that run on a CPU.

    Attributes:
        precision: of the restoration; ``None`` is the fastest of those the artefact has.
    """

    precision: Literal["int8", "fp32"] | None = None


def open_model_engine(
    options: Chosen, open_runtime: Callable[[Artefact, Chosen], Runtime]
) -> ModelEngine:
    """Open the artefact, load its graphs, and run them once: the first frame is slow.

    Raises:
        ConfigError: the artefact cannot be used.
        EngineError: the library cannot load it.
    """
    artefact = open_artefact(Path(options.artefact) if options.artefact else DEFAULT)
    engine = ModelEngine(open_runtime(artefact, options), artefact, tiles=options.tiles)
    frame = synthetic_frame((_EDGE_PX, _EDGE_PX))
    engine.analyse(frame, restore=True)
    engine.compare(frame, frame)
    return engine


def precision_of(artefact: Artefact, options: CpuOptions) -> str:
    """The precision to load an artefact in.

    Raises:
        ConfigError: the artefact does not have what was asked for.
    """
    wanted = options.precision or artefact.precisions[0]
    if wanted not in artefact.precisions:
        has = ", ".join(artefact.precisions)
        raise ConfigError(f"{artefact.folder}: no precision {wanted!r}; it has {has}")
    return wanted


def synthetic_frame(shape: tuple[int, int]) -> Frame:
    """An 8-bit frame of noise of shape (height, width)."""
    return bare_frame(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def bare_frame(pixels: Pixels, *, info_bar_px: int = 0) -> Frame:
    """A frame of which nothing is known but its pixels."""
    header = FrameHeader(
        sequence=1,
        monotonic_ns=0,
        wall_ns=0,
        detector="none",
        scan=Scan(
            width_px=pixels.shape[1],
            height_px=pixels.shape[0],
            bit_depth=8 if pixels.dtype == np.uint8 else 16,
        ),
        optics=Optics(working_distance_m=0.0),
        stage=StagePosition(),
        settings_rev=0,
        info_bar_px=info_bar_px,
    )
    return Frame(header, pixels)
