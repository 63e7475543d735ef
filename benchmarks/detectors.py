"""The blur of one scan, read in each of its detectors and in all of them together.

    python benchmarks/detectors.py --data DATA

The surest detector is the one with the least ``log_sigma``. Contrasts are made from a micrograph,
taken as the height and the composition of a specimen, the same beam blurs them, and each is
exposed by itself:

- ``SE and in-lens``: the micrograph; its negative, squared and shaded, with half the electrons;
- ``SE and BSE``: the micrograph; its negative through an S-shaped curve with some relief, with a
  quarter of the electrons;
- ``quadrants``: relief lit from three sides, with some composition.

With ``--split test`` the contrasts are real: three quadrants of a backscatter detector that
recorded three fields at once (vyastreb/sem2surface), binned by two. Defocus is simulated in all.
"""

import argparse
import math
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations, groupby
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from model import (
    DOSES,
    LARGE_FIELD_PX,
    NINETY_PERCENT,
    SPOT_PX,
    blur_parameters,
    covariance,
    draw_blur,
    markdown,
    read_fields,
)
from restoration_baselines import Image
from through_focus import Beam, Exposure, expose, specimens

from semagent.ellipse import joint_ellipse, parameters_of
from semagent.testing.engines import frame_of
from semagent_engines.runtime.artefact import DEFAULT, open_artefact
from semagent_engines.runtime.backends.onnxruntime import open_engine, open_runtime
from semagent_engines.runtime.model_engine import ModelEngine
from semagent_engines.runtime.opening import CpuOptions

QUADRANTS = "sem2surface-fei34682-16bit"
RELIEF = 0.7
DRAWS = 4
TILES = {"score": (6, 1, 384, 352), "restore": (1, 1, 272, 272)}
"""What one pass of a graph takes of a frame of 1024 × 768."""

Contrast = tuple[str, Image, float]
"""Name of the detector, what it would see without blur, and its share of the electrons."""


def main() -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--per-source", type=int, default=4, help="micrographs a source at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    engine = open_engine({"threads": 1})
    if options.split == "test":
        scans = list(recorded_scans(options.data))
    else:
        scans = list(made_scans(options.data, options.per_source))
    print(blur_table(engine, scans, np.random.default_rng(options.seed)))
    engine.close()
    print(time_table())


def made_scans(data: Path, per_source: int) -> Iterator[tuple[str, list[Contrast]]]:
    """Contrasts of the training micrographs, by the kind of detectors."""
    for field in read_fields(data, "train", per_source):
        image = np.ascontiguousarray(field.specimen, np.float32)
        columns = np.linspace(0.6, 1.0, image.shape[1], dtype=np.float32)
        curve = 1 / (1 + np.exp(8 * (image - 0.5)))
        back = np.clip(0.2 + 0.5 * curve + 0.3 * relief(image, 0.6), 0, 1)
        yield "SE and in-lens", [("SE", image, 1), ("in-lens", (1 - image) ** 2 * columns, 0.5)]
        yield "SE and BSE", [("SE", image, 1), ("BSE", back, 0.25)]
        composition = (1 - RELIEF) * (image - image.mean())
        sides = [
            0.45 + RELIEF * relief(image, 0.3 + turn * 2 * math.pi / 3) + composition
            for turn in range(3)
        ]
        yield "quadrants", [(f"side {n}", np.clip(s, 0, 1), 1) for n, s in enumerate(sides, 1)]


def relief(image: Image, angle: float) -> Image:
    """The slope of the micrograph in one direction, with its contrast."""
    smooth = cv2.GaussianBlur(image, (0, 0), 0.7)
    slope = math.cos(angle) * cv2.Sobel(smooth, cv2.CV_32F, 1, 0)
    slope = slope + math.sin(angle) * cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    return np.asarray(slope * image.std() / slope.std(), np.float32)


def recorded_scans(data: Path) -> Iterator[tuple[str, list[Contrast]]]:
    """The fields that three quadrants recorded at once; the files differ in one letter."""
    images = [
        (name, image) for source, name, image in specimens(data, "test") if source == QUADRANTS
    ]
    fields = groupby(images, key=lambda each: re.sub(r"[ABC](_05)?\.tif$", "", each[0]))
    for _, quadrants in fields:
        contrasts = [
            (letter, image, 1.0) for letter, (_, image) in zip("ABC", quadrants, strict=True)
        ]
        yield "real quadrants", contrasts


def blur_table(
    engine: ModelEngine, scans: list[tuple[str, list[Contrast]]], rng: np.random.Generator
) -> str:
    """Errors of the ellipse of each detector alone, of the surest one, and of the joint one."""
    errors: dict[tuple[str, str], list[npt.NDArray[np.float64]]] = defaultdict(list)
    inside: dict[tuple[str, str], list[bool]] = defaultdict(list)
    together: dict[str, list[npt.NDArray[np.float64]]] = defaultdict(list)
    for kind, contrasts in scans:
        edge = min(LARGE_FIELD_PX, *contrasts[0][1].shape)
        for dose in DOSES:
            for _ in range(DRAWS):
                _, defocus, astigmatic = draw_blur(rng)
                truth = blur_parameters(covariance(defocus, astigmatic))
                top, left = rng.integers(0, np.array(contrasts[0][1].shape) - edge + 1)
                read = {}
                for detector, image, share in contrasts:
                    part = image[top : top + edge, left : left + edge]
                    blurred = Beam(part).image(defocus, astigmatic, SPOT_PX)
                    frame = frame_of(expose(blurred, Exposure(share * dose), rng))
                    blur = engine.analyse(frame).figures.blur
                    if blur is not None:
                        read[detector] = blur
                joint = joint_ellipse(list(read.values()))
                if joint is None:
                    continue
                surest = min(read.values(), key=lambda blur: blur.log_sigma)
                for name, blur in {**read, "the surest": surest, "**together**": joint}.items():
                    error = np.abs(parameters_of(blur) - truth)
                    errors[kind, name].append(error)
                    inside[kind, name].append(error[0] < NINETY_PERCENT * blur.log_sigma)
                if len(read) == len(contrasts):
                    off = [(parameters_of(b) - truth) / b.log_sigma for b in read.values()]
                    together[kind].append(np.array(off))
    rows = []
    for (kind, name), each in errors.items():
        values = np.array(each)
        figures = [
            f"{np.median(part):.3f} / {np.percentile(part, 90):.2f}"
            for part in (values[:, 0], values[:, 1:])
        ]
        holds = f"{100 * np.mean(inside[kind, name]):.0f} %"
        rows.append((f"{kind}: {name}", *figures, holds, str(len(each))))
    columns = ("ln σ", "ln(axes), each component", "90 % interval of ln σ holds", "frames")
    table = markdown("blur of a scan, error: median / 90th percentile", columns, rows)
    correlations = {kind: correlation(np.array(off)) for kind, off in together.items()}
    listed = ", ".join(f"{kind} {value:.2f}" for kind, value in correlations.items())
    return table + f"Correlation of the detectors' errors: {listed}.\n"


def correlation(off: npt.NDArray[np.float64]) -> float:
    """Mean over the parameters and the pairs of detectors, from (scans, detectors, 3)."""
    pairs = combinations(range(off.shape[1]), 2)
    found = [
        np.corrcoef(off[:, one, k], off[:, other, k])[0, 1]
        for one, other in pairs
        for k in range(3)
    ]
    return float(np.mean(found))


def time_table(repeats: int = 20) -> str:
    """Time of the tiles of several detectors in one pass of a graph, and one after the other."""
    runtime = open_runtime(open_artefact(DEFAULT), CpuOptions(threads=1))
    rng = np.random.default_rng(0)
    rows = []
    for graph, shape in TILES.items():
        tiles = rng.uniform(0, 255, shape).astype(np.float32)
        for count in (2, 3):
            batch = np.concatenate([tiles] * count)
            times = []
            for _ in range(repeats):
                began = time.perf_counter()
                runtime.run(graph, {"pixels": batch})
                middle = time.perf_counter()
                for _ in range(count):
                    runtime.run(graph, {"pixels": tiles})
                times.append((middle - began, time.perf_counter() - middle))
            both = np.median(times, axis=0)
            ratio = np.median([one / other for one, other in times])
            rows.append(
                (f"{graph}, {count} detectors", *(f"{1e3 * t:.0f}" for t in both), f"{ratio:.2f}")
            )
    runtime.close()
    return markdown("time of the tiles, ms", ("one pass", "one by one", "ratio"), rows)


if __name__ == "__main__":
    main()
