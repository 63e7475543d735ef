"""Records frames into a session for ever and says on standard output when each is safe.

Run by ``test_crash.py``, which kills it: ``python record_until_killed.py FOLDER SYNC``.
"""

import itertools
import os
import sys
from pathlib import Path

import numpy as np

from semagent.clock import SystemClock
from semagent.session import EngineRecord, SessionWriter
from semagent.testing.engines import figures_of
from semagent.types import (
    Capabilities,
    Frame,
    FrameHeader,
    Note,
    Optics,
    Scan,
    StagePosition,
)


def main(folder: Path, sync: bool) -> None:
    clock = SystemClock()
    writer = SessionWriter(
        folder,
        configuration={},
        capabilities=Capabilities(driver="test", microscope="none", verified_on=None),
        engine=EngineRecord(name="none"),
        clock=clock,
        sync=sync,
    )
    for sequence in itertools.count(1):
        rng = np.random.default_rng(sequence)  # so that whoever checks knows the pixels
        pixels = rng.integers(0, 65536, (384, 512), dtype=np.uint16)
        header = FrameHeader(
            sequence=sequence,
            monotonic_ns=clock.monotonic_ns(),
            wall_ns=clock.wall_ns(),
            detector="SE2",
            scan=Scan(width_px=512, height_px=384, bit_depth=16),
            optics=Optics(working_distance_m=5e-3),
            stage=StagePosition(),
            settings_rev=1,
        )
        figures = figures_of(header)
        writer.write_frame(Frame(header, pixels))
        os.write(1, f"{sequence}\n".encode())
        writer.write_value("request", Note(text="x" * 3000), clock.monotonic_ns())
        writer.write_derived(header, pixels, figures, {})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "sync")
