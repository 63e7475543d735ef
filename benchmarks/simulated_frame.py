"""How long the simulated microscope takes for a frame, as fast as it can.

    python benchmarks/simulated_frame.py [--frames 40] [--json]

Every case changes something before each frame, so that the blurred image has to be made anew,
except where its name says otherwise. Times are on the wall; beside them is the processor time,
which says more on a busy machine.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from semagent.clock import SystemClock
from semagent.types import MoveStage, SetWorkingDistance
from semagent_drivers.simulated import SimulatedMicroscope, open_microscope

Change = Callable[[SimulatedMicroscope, int], None]


def focus(microscope: SimulatedMicroscope, index: int) -> None:
    """Sweep the focus over ±20 µm."""
    wd_m = 5e-3 + 20e-6 * np.sin(index)
    microscope.apply(SetWorkingDistance(working_distance_m=float(wd_m)))


def wander(microscope: SimulatedMicroscope, index: int) -> None:
    """Go to another place."""
    microscope.apply(MoveStage(x_m=index * 3e-6))


def rest(microscope: SimulatedMicroscope, index: int) -> None:
    """Change nothing."""
    del microscope, index


CASES: list[tuple[str, dict[str, Any], Change]] = [
    ("focus sweep (defaults)", {}, focus),
    ("stage walk", {}, wander),
    ("nothing changes, no drift", {"drift": {"x_nm_per_s": 0.0, "y_nm_per_s": 0.0}}, rest),
    ("four averages", {"scan": {"frame_averages": 4}}, focus),
    ("16 bit, 100 ns dwell", {"scan": {"bit_depth": 16, "dwell_us": 0.1}}, focus),
    (
        "few electrons (12 a pixel)",
        {"scan": {"dwell_us": 0.02, "dwell_range_us": [0.01, 1]}},
        focus,
    ),
    ("stage tilted by 45 degrees", {"stage": {"tilt_deg": 45.0}}, focus),
    ("relief of 10 um", {"specimen": {"relief_um": 10.0}}, focus),
]


def measure(options: dict[str, Any], change: Change, frames: int) -> dict[str, float]:
    """Times of a 1024 x 768 frame in milliseconds."""
    started = time.perf_counter()
    microscope = open_microscope({"speed": 0.0, **options}, clock=SystemClock())
    opening_s = time.perf_counter() - started
    wall_s, busy_s = [], []
    for index in range(frames + 3):
        change(microscope, index)
        wall, busy = time.perf_counter(), time.process_time()
        microscope.acquire(60.0)
        wall_s.append(time.perf_counter() - wall)
        busy_s.append(time.process_time() - busy)
    microscope.close()
    wall_ms, busy_ms = 1e3 * np.array(wall_s[3:]), 1e3 * np.array(busy_s[3:])
    return {
        "open_ms": 1e3 * opening_s,
        "fastest_ms": float(wall_ms.min()),
        "p50_ms": float(np.median(wall_ms)),
        "p95_ms": float(np.percentile(wall_ms, 95)),
        "processor_p50_ms": float(np.median(busy_ms)),
    }


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(description="Time of a simulated 1024 x 768 frame.")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    columns = ("open_ms", "fastest_ms", "p50_ms", "p95_ms", "processor_p50_ms")
    if not arguments.json:
        print(f"{'':28}" + "".join(f"{column:>18}" for column in columns))
    for name, options, change in CASES:
        result = measure(options, change, arguments.frames)
        if arguments.json:
            print(json.dumps({"case": name, **result}), flush=True)
        else:
            print(f"{name:28}" + "".join(f"{result[column]:18.1f}" for column in columns))


if __name__ == "__main__":
    main()
