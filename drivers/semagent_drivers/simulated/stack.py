"""Through-focus stacks of a known truth, as a folder that ``semagent simulate`` reads.

::

    python -m semagent_drivers.simulated.stack FOLDER --image micrograph.png --bin 2

The folder gets one PNG a frame, ``stack.csv``, and ``truth.json`` with the focus and the blur of
every frame. The specimen is one focal plane: no tilt, no relief.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import numpy.typing as npt
from msgspec import Meta, structs

from semagent.dose import ELEMENTARY_CHARGE_C
from semagent.errors import UsageError
from semagent.options import NotNegative, Positive, parse_options
from semagent.types import Pixels
from semagent_drivers.simulated.beam import Beam, Covariance, FloatImage, blur
from semagent_drivers.simulated.detector import Detector, quantise
from semagent_drivers.simulated.motion import SignalDrift
from semagent_drivers.simulated.options import (
    DetectorOptions,
    Kernel,
    Pair,
    Section,
    SpecimenOptions,
)
from semagent_drivers.simulated.specimen import make_specimen

_WIDEST_UM = 10_000
"""Ends of a stack, from its focus: farther out the blur takes more memory than there is."""


class StackOptions(Section, frozen=True, kw_only=True):
    """How a stack is imaged.

    Attributes:
        specimen: what is imaged; its ``working_distance_mm`` is where focus is.
        detector: how electrons become grey values; ``line_jitter_px`` is of scans, not of stacks.
        creep_px: step of a random walk of the specimen.
        focus_shift_px_per_um: image shift (x, y) with the working distance, from focus.
    """

    seed: Annotated[int, Meta(ge=0)] = 0
    specimen: SpecimenOptions = SpecimenOptions()
    detector: DetectorOptions = DetectorOptions()
    pixel_size_nm: Positive = 10.0
    convergence_mrad: Positive = 5.0
    probe_sigma_nm: NotNegative = 7.0
    kernel: Kernel = "disc"
    astigmatism_um: Pair = (0.0, 0.0)
    beam_current_pa: Positive = 100.0
    dwell_us: Positive = 0.5
    creep_px: NotNegative = 0.0
    focus_shift_px_per_um: Pair = (0.0, 0.0)

    def beam(self) -> Beam:
        """The beam, the same for all frames."""
        pixel_m = self.pixel_size_nm / 1e9
        a1_um, a2_um = self.astigmatism_um
        return Beam(
            slope_px_per_m=self.convergence_mrad / 1e3 / (2 * pixel_m),
            sigma0_px=self.probe_sigma_nm / 1e9 / pixel_m,
            a1_m=a1_um / 1e6,
            a2_m=a2_um / 1e6,
            kernel=self.kernel,
        )


@dataclass(frozen=True, slots=True, eq=False)
class StackFrame:
    """One frame of a stack and what is true of it.

    Attributes:
        pixels: shape of the image, uint8.
        shift_px: displacement (x, y) of the image's content.
    """

    pixels: Pixels
    working_distance_m: float
    defocus_m: float
    blur: Covariance
    shift_px: tuple[float, float]


def through_focus(
    brightness: FloatImage, working_distances_m: Sequence[float], options: StackOptions
) -> Iterator[StackFrame]:
    """Image ``brightness``, shape (height, width) in 0 to 1, at each working distance in turn."""
    rng = np.random.Generator(np.random.SFC64(options.seed))
    beam, detector = options.beam(), Detector(options.detector)
    dwell_s = options.dwell_us / 1e6
    primaries = options.beam_current_pa / 1e12 * dwell_s / ELEMENTARY_CHARGE_C
    focus_m = options.specimen.working_distance_mm / 1e3
    signal = SignalDrift(options.detector, rng)
    creep: npt.NDArray[np.float64] = np.zeros(2)
    for working_distance_m in working_distances_m:
        defocus_m = working_distance_m - focus_m
        x, y = creep + np.array(options.focus_shift_px_per_um) * defocus_m * 1e6
        shift_px = (float(x), float(y))
        grey = detector.detect(
            blur(brightness, beam, defocus_m, shift_px=shift_px),
            rng,
            primaries=primaries,
            dwell_s=dwell_s,
            collection=signal.gain,
            offset=signal.offset,
        )
        yield StackFrame(
            quantise(grey, 8), working_distance_m, defocus_m, beam.covariance(defocus_m), shift_px
        )
        signal.advance()
        creep = creep + options.creep_px * rng.standard_normal(2)


def write_stack(
    folder: Path, working_distances_m: Sequence[float], options: StackOptions
) -> list[StackFrame]:
    """Write a stack of the specimen in ``options`` and return it.

    Raises:
        ConfigError: the specimen's image cannot be used.
        FileExistsError: the folder already holds a stack.
    """
    specimen = make_specimen(options.specimen, options.pixel_size_nm / 1e9, options.seed)
    folder.mkdir(parents=True, exist_ok=True)
    frames = list(through_focus(specimen.brightness, working_distances_m, options))
    # Mode "x": a stack is never written over another.
    with (folder / "stack.csv").open("x", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "working_distance_um", "pixel_size_nm", "dwell_ns"])
        for number, frame in enumerate(frames):
            name = f"frame_{number:04d}.png"
            _, encoded = cv2.imencode(".png", frame.pixels)
            (folder / name).write_bytes(encoded.tobytes())
            micrometres = round(frame.working_distance_m * 1e6, 6)
            table.writerow([name, micrometres, options.pixel_size_nm, options.dwell_us * 1e3])
    truth = {
        "focus_working_distance_m": options.specimen.working_distance_mm / 1e3,
        "beam": {"slope_px_per_m": options.beam().slope_px_per_m, "kernel": options.kernel},
        "frames": [
            {
                "working_distance_m": frame.working_distance_m,
                "defocus_m": frame.defocus_m,
                "blur_covariance_px2": list(frame.blur),
                "shift_px": list(frame.shift_px),
            }
            for frame in frames
        ],
    }
    (folder / "truth.json").write_text(json.dumps(truth, indent=2), encoding="utf-8")
    return frames


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a stack as the command line asks; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m semagent_drivers.simulated.stack",
        description="Write a simulated through-focus stack with stack.csv and truth.json.",
    )
    defaults, specimen = StackOptions(), SpecimenOptions()
    parser.add_argument("folder", type=Path, help="where to write; must not hold a stack yet")
    parser.add_argument("--image", help="specimen from this file instead of a drawn one")
    parser.add_argument("--kind", default=specimen.kind, help="drawn specimen (%(default)s)")
    parser.add_argument("--tile-px", type=int, default=1024, help="its size (%(default)s)")
    parser.add_argument("--bin", type=int, default=1, help="bin the image first (%(default)s)")
    parser.add_argument("--crop-bottom-px", type=int, help="rows to leave out (the info bar)")
    parser.add_argument("--pixel-size-nm", type=float, default=defaults.pixel_size_nm)
    parser.add_argument("--convergence-mrad", type=float, default=defaults.convergence_mrad)
    parser.add_argument("--dwell-us", type=float, default=defaults.dwell_us)
    parser.add_argument("--focus-um", type=float, default=5000.0, help="true focus (%(default)s)")
    parser.add_argument("--span-um", type=float, default=40.0, help="± about focus (%(default)s)")
    parser.add_argument("--offset-um", type=float, default=0.0, help="centre of the span")
    parser.add_argument("--frames", type=int, default=41, help="number of frames (%(default)s)")
    parser.add_argument(
        "--astigmatism-um", type=float, nargs=2, default=(0.0, 0.0), metavar=("A1", "A2")
    )
    for name in ("brightness-drift", "contrast-drift", "creep-px"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    described: dict[str, object] = {
        "working_distance_mm": given.focus_um * 1e-3,
        "image_bin": given.bin,
        "crop_bottom_px": given.crop_bottom_px,
        "tile_px": given.tile_px,
        "kind": "image" if given.image else given.kind,
        "path": given.image,
    }
    drifting = {name: getattr(given, name) for name in ("brightness_drift", "contrast_drift")}
    taken = {field.name for field in structs.fields(StackOptions)}
    mapping = {key: value for key, value in vars(given).items() if key in taken}
    try:
        options = parse_options(
            {**mapping, "specimen": described, "detector": drifting}, StackOptions, where="stack"
        )
        if given.frames < 2:
            raise UsageError(f"--frames: {given.frames} is no stack; at least 2 are needed")
        if not 0 < given.span_um <= _WIDEST_UM:
            raise UsageError(f"--span-um: {given.span_um} is not above 0 and up to {_WIDEST_UM}")
        if not abs(given.offset_um) <= _WIDEST_UM:
            raise UsageError(f"--offset-um: {given.offset_um} is not within ±{_WIDEST_UM}")
        steps = np.linspace(-given.span_um, given.span_um, given.frames) + given.offset_um
        if (given.folder / "stack.csv").exists():
            raise UsageError(f"{given.folder}: there is a stack here already; name a new folder")
        distances_m = ((given.focus_um + steps) * 1e-6).tolist()
        write_stack(given.folder, distances_m, options)
    except (UsageError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
