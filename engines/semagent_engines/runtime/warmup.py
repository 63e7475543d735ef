"""The first frame is slow: let it not be one of the microscope."""

import numpy as np

from semagent.types import Frame, FrameHeader, Optics, Scan, StagePosition
from semagent_engines.runtime.model_engine import ModelEngine

_EDGE_PX = 512


def warm_up(engine: ModelEngine) -> ModelEngine:
    """Run the engine once on a synthetic frame and return it."""
    grey = np.random.default_rng(0).integers(0, 256, (_EDGE_PX, _EDGE_PX), dtype=np.uint8)
    header = FrameHeader(
        sequence=1,
        monotonic_ns=0,
        wall_ns=0,
        detector="none",
        scan=Scan(width_px=_EDGE_PX, height_px=_EDGE_PX, bit_depth=8),
        optics=Optics(working_distance_m=0.0),
        stage=StagePosition(),
        settings_rev=0,
    )
    frame = Frame(header, grey)
    engine.analyse(frame, restore=True)
    engine.compare(frame, frame)
    return engine
