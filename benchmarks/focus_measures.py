"""Focus measures compared: speed, and how well they rank frames by defocus.

For every micrograph of the chosen folder and each dose, a through-focus stack over ± 20 px of
blur is made (see `through_focus`) and every measure of the ``sharpness`` engine ranks its
frames. The figure is Spearman's rank correlation with the negative distance from focus: 1 is a
measure that falls everywhere on either side. Speed is that of the whole engine, with each
measure, on one 1024 × 768 frame.

The published table uses ``--split test``; develop with ``--split train``.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from through_focus import Beam, Exposure, StackFrame, expose, specimens, through_focus

from semagent.sanity import FrameChecker, SanityOptions
from semagent.spectrum import measure_spectrum
from semagent.testing.engines import frame_of
from semagent_engines.sharpness import open_engine
from semagent_engines.sharpness.ellipse import fit_blur_ellipse
from semagent_engines.sharpness.measures import MEASURES
from semagent_engines.sharpness.multiscale import structure_over_noise

DOSES = (400, 100, 40)
ELLIPSE_DEFOCUS_PX = (0.0, 1.0, 2.0, 4.0, 7.0, 12.0)
NINETY_PERCENT = 1.645


def main() -> None:
    """Print all tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--split", choices=("test", "train"), default="test")
    parser.add_argument("--per-source", type=int, default=9, help="micrographs a source at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("rank", "interval", "ellipse", "speed"))
    options = parser.parse_args()
    fields = defaultdict(list)
    for source, _, image in specimens(options.data, options.split):
        if len(fields[source]) < options.per_source:
            fields[source].append(image)
    count = sum(map(len, fields.values()))
    print(f"{count} micrographs of {len(fields)} sources, split {options.split}")
    tables = {"rank": rank_table, "interval": interval_table, "ellipse": ellipse_table}
    for name, table in tables.items():
        if options.only in {None, name}:
            print()
            table(fields, np.random.default_rng(options.seed))
    if options.only in {None, "speed"}:
        print()
        speed_table()


def rank_table(fields: dict[str, list[np.ndarray]], rng: np.random.Generator) -> None:
    """Rank correlation of each measure over all stacks, and structure far from focus."""
    ranks: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    worst_source: dict[str, tuple[float, str]] = {}
    structure: dict[int, list[float]] = defaultdict(list)
    for source, images in fields.items():
        for image in images:
            for dose in DOSES:
                stack = through_focus(image, dose, rng)
                for name, correlation in rank_stack(stack).items():
                    ranks[name][dose].append(correlation)
                    worst_source[name] = min(
                        worst_source.get(name, (2.0, "")), (correlation, source)
                    )
                far = max(stack, key=lambda frame: abs(frame.defocus_px))
                structure[dose].append(structure_over_noise(measure_spectrum(far.pixels)))
    heads = " | ".join(f"{dose} e/px" for dose in DOSES)
    print(f"| rank with defocus: median / worst | {heads} | all | worst on |")
    print("|---" * (len(DOSES) + 3) + "|")
    for name in MEASURES:
        cells = [median_worst(ranks[name][dose]) for dose in DOSES]
        everything = median_worst([value for dose in DOSES for value in ranks[name][dose]])
        print(f"| {name} | {' | '.join(cells)} | {everything} | {worst_source[name][1]} |")
    cells = [median_worst(structure[dose]) for dose in DOSES]
    print(f"\nStructure over noise at 20 px of blur, median / least: {', '.join(cells)}")


def rank_stack(stack: Sequence[StackFrame]) -> dict[str, float]:
    """Spearman correlation of each measure with the negative distance from focus."""
    spectra = [measure_spectrum(frame.pixels) for frame in stack]
    nearness = [-abs(frame.defocus_px) for frame in stack]
    result = {}
    for name, measure in MEASURES.items():
        values = [
            measure.read(frame.pixels, spectrum).sharpness
            for frame, spectrum in zip(stack, spectra, strict=True)
        ]
        result[name] = float(spearmanr(values, nearness).statistic)
    return result


def interval_table(fields: dict[str, list[np.ndarray]], rng: np.random.Generator) -> None:
    """How often repeated noise on one field falls into the 90 % interval each frame states."""
    repeats = 16
    inside: dict[str, list[float]] = defaultdict(list)
    for images in fields.values():
        for image in images[:2]:
            beam = Beam(image)
            for defocus in (0.0, 3.0, 9.0, 18.0):
                clean = beam.image(defocus)
                for dose in DOSES:
                    frames = [expose(clean, Exposure(dose), rng) for _ in range(repeats)]
                    spectra = [measure_spectrum(pixels) for pixels in frames]
                    for name, measure in MEASURES.items():
                        readings = [
                            measure.read(pixels, spectrum)
                            for pixels, spectrum in zip(frames, spectra, strict=True)
                        ]
                        values = np.array([reading.sharpness for reading in readings])
                        stated = np.array([reading.relative_std for reading in readings])
                        # The mean of the repeats stands for the truth and shares their noise.
                        off = (values - values.mean()) * (repeats / (repeats - 1)) ** 0.5
                        inside[name].append(float((abs(off) < NINETY_PERCENT * stated).mean()))
    print("| 90 % interval of sharpness holds | % of repeats |\n|---|---|")
    for name, shares in inside.items():
        print(f"| {name} | {100 * np.mean(shares):.1f} |")


def ellipse_table(fields: dict[str, list[np.ndarray]], rng: np.random.Generator) -> None:
    """Error of the fitted axes, in the natural logarithm, and coverage of their interval."""
    errors: dict[float, list[tuple[float, float]]] = defaultdict(list)
    for images in fields.values():
        for image in images:
            beam = Beam(image)
            for defocus in ELLIPSE_DEFOCUS_PX:
                for dose in DOSES:
                    a1, a2 = rng.normal(0, 0.3 * max(defocus, 0.7), 2)
                    root = np.array([[defocus + a1, a2], [a2, defocus - a1]])
                    truth = np.log(np.linalg.eigvalsh(root @ root + 0.36 * np.eye(2))) / 2
                    pixels = expose(beam.image(defocus, (a1, a2)), Exposure(dose), rng)
                    blur = fit_blur_ellipse(measure_spectrum(pixels))
                    for axis, true in zip((blur.minor_px, blur.major_px), truth, strict=True):
                        errors[defocus].append((float(np.log(axis)) - true, blur.log_sigma))
    print("| blur at | median error | median absolute error | stated | 90 % interval holds |")
    print("|---|---|---|---|---|")
    for defocus, pairs in errors.items():
        print_errors(f"{defocus:g} px", pairs)
    print_errors("all", [pair for pairs in errors.values() for pair in pairs])


def print_errors(head: str, pairs: list[tuple[float, float]]) -> None:
    """One line of the ellipse table."""
    error, stated = np.array(pairs).T
    held = 100 * np.mean(abs(error) < NINETY_PERCENT * stated)
    print(
        f"| {head} | {np.median(error):+.2f} | {np.median(abs(error)):.2f} "
        f"| {np.median(stated):.2f} | {held:.0f} % |"
    )


def speed_table() -> None:
    """Time of the engine with each measure, of the blur ellipse and of the frame checks."""
    rng = np.random.default_rng(0)
    coarse = rng.random((96, 128), dtype=np.float32)
    image = np.kron(coarse, np.ones((8, 8), np.float32))
    frames = [frame_of(expose(image, Exposure(100), rng)) for _ in range(2)]
    frame = frames[0]
    print("| 1024 × 768, 8 bit | p50 ms | p99 ms | CPU ms |\n|---|---|---|---|")
    for name in MEASURES:
        engine = open_engine({"measure": name, "blur": False})
        print_speed(f"engine, {name}", lambda: engine.analyse(frame))  # noqa: B023 - called at once
    engine = open_engine({})
    print_speed("engine, default, with blur ellipse", lambda: engine.analyse(frame))
    spectrum = measure_spectrum(frame.pixels)
    print_speed("blur ellipse alone", lambda: fit_blur_ellipse(spectrum))
    checker = FrameChecker(SanityOptions())
    turns = iter(range(1_000_000))
    print_speed(
        "frame checks",
        lambda: checker.check(frames[next(turns) % 2], now_ns=frame.header.monotonic_ns),
    )


def print_speed(head: str, call: Callable[[], object], rounds: int = 200) -> None:
    """One line of the speed table: wall time, and the mean time of all cores together."""
    call()
    times = []
    cpu_started = time.process_time()
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - started))
    cpu = 1e3 * (time.process_time() - cpu_started) / rounds
    print(
        f"| {head} | {np.quantile(times, 0.5):.1f} | {np.quantile(times, 0.99):.1f} | {cpu:.1f} |"
    )


def median_worst(values: Sequence[float]) -> str:
    """Median and worst as a table cell."""
    return f"{np.median(values):.3f} / {np.min(values):.3f}"


if __name__ == "__main__":
    main()
