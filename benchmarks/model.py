"""The model beside classical methods, on micrographs of sources it has never seen.

Restoration, blur ellipse, difference of two frames, rank within a through-focus stack, and
latency, in one program on the same frames. Defocus is simulated (see `through_focus`), by code
that shares nothing with the simulation the model was trained on. Classical restorations are
given the true kernel and tuned on the truth of each image (see `restoration_baselines`).

The published tables use ``--split test``; develop with ``--split train``.
"""

import argparse
import importlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from restoration_baselines import (
    METHODS,
    Image,
    Kernel,
    decibels,
    richardson_lucy,
    structural_similarity,
)
from scipy.stats import spearmanr
from through_focus import Beam, Exposure, expose, recorded, specimens, through_focus

from semagent.ellipse import parameters_of
from semagent.ports import Engine
from semagent.spectrum import measure_spectrum
from semagent.testing.engines import frame_of
from semagent_engines.runtime.model_engine import ModelEngine
from semagent_engines.runtime.unsupervised import (
    FEWEST,
    MARGIN_PX,
    Unsupervised,
    blurred_again,
    judged,
)
from semagent_engines.sharpness import open_engine as open_sharpness
from semagent_engines.sharpness.change import fit_blur_change

SIGMAS_PX = (1.0, 2.0, 3.5)
DOSES = (400.0, 100.0, 40.0)
SIGMA_BANDS_PX = ((1.0, 3.0), (3.0, 6.0), (6.0, 15.0))
PAIRS = 12
HALF_DEPTH_PX = 0.5
"""Blur half a depth of field out of focus: a disc of 2 px."""
FIELD_PX = 256
LARGE_FIELD_PX = 384
SPOT_PX = 0.4
NINETY_PERCENT = 1.645
FRAME_SHAPE = (768, 1024)


@dataclass(frozen=True)
class Field:
    """A specimen and where it comes from."""

    source: str
    specimen: Image


def main() -> None:
    """Print all tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--split", choices=("test", "train"), default="test")
    parser.add_argument("--artefact", help="folder of an artefact; the shipped one if left out")
    parser.add_argument("--runtime", default="openvino", choices=("openvino", "onnxruntime"))
    parser.add_argument("--per-source", type=int, default=4, help="micrographs a source at most")
    parser.add_argument("--tables", nargs="+", choices=TABLES, help="only these; default: all")
    parser.add_argument("--repeats", type=int, default=40, help="frames to time")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    chosen = {"artefact": options.artefact} if options.artefact else {}
    backend = importlib.import_module(f"semagent_engines.runtime.backends.{options.runtime}")
    engine: ModelEngine = backend.open_engine(chosen)
    fields = read_fields(options.data, options.split, options.per_source)
    sources = {field.source for field in fields}
    print(f"{engine.name}: {len(fields)} micrographs of {len(sources)} sources\n")
    for name in options.tables or TABLES:
        for table in TABLES[name]:
            print(table(engine, fields, np.random.default_rng(options.seed)), flush=True)
    if not options.tables:
        print(latency_table(engine, options.repeats))


def read_fields(data: Path, split: str, per_source: int) -> list[Field]:
    """At most ``per_source`` micrographs of each source."""
    counts: dict[str, int] = defaultdict(int)
    fields = []
    for source, _, image in specimens(data, split):
        counts[source] += 1
        if counts[source] <= per_source:
            fields.append(Field(source, image))
    return fields


def crop(image: Image, edge_px: int, rng: np.random.Generator) -> Image:
    """A random square with structure: the best of four."""
    corners = [rng.integers(0, np.array(image.shape) - edge_px + 1) for _ in range(4)]
    squares = [image[top : top + edge_px, left : left + edge_px] for top, left in corners]
    return max(squares, key=lambda square: float(square.std()))


def astigmatism(rng: np.random.Generator, size: float) -> tuple[float, float]:
    """Astigmatism of the given size in a random direction, pixels."""
    angle = rng.uniform(0, 2 * math.pi)
    return size * math.cos(angle), size * math.sin(angle)


def draw_blur(rng: np.random.Generator) -> tuple[float, float, tuple[float, float]]:
    """Standard deviation of a blur of 1 to 15 px, and defocus and astigmatism that make it."""
    sigma = math.exp(rng.uniform(0.0, math.log(15.0)))
    astigmatic = astigmatism(rng, rng.uniform(0.0, 0.5) * sigma)
    return sigma, math.sqrt(sigma**2 - astigmatic[0] ** 2 - astigmatic[1] ** 2), astigmatic


def covariance(defocus: float, astigmatic: tuple[float, float]) -> npt.NDArray[np.float64]:
    """(2, 2) blur covariance of `Beam.image`, px²."""
    a1, a2 = astigmatic
    root = np.array([[defocus + a1, a2], [a2, defocus - a1]])
    return root @ root + SPOT_PX**2 * np.eye(2)


def blur_parameters(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``ln σ`` and ``ln(major/minor)`` times (cos 2φ, sin 2φ)."""
    half = 0.5 * np.trace(matrix)
    axial, diagonal = 0.5 * (matrix[0, 0] - matrix[1, 1]), matrix[0, 1]
    strength = math.hypot(axial, diagonal)
    ratio = math.atanh(min(strength / half, 1 - 1e-9)) / max(strength, 1e-12)
    return np.array([0.5 * math.log(half), ratio * axial, ratio * diagonal])


def restoration_table(engine: ModelEngine, fields: list[Field], rng: np.random.Generator) -> str:
    """PSNR and SSIM of every method, mean over all fields, blurs and doses."""
    figures: dict[str, list[tuple[float, float]]] = defaultdict(list)
    by_dose: dict[float, list[float]] = defaultdict(list)
    chi_squares = []
    count = 0
    for field in fields:
        for sigma in SIGMAS_PX:
            for dose in DOSES:
                specimen = crop(field.specimen, FIELD_PX, rng)
                size = rng.uniform(0.2, 0.6) * sigma if count % 2 else 0.0
                astigmatic = astigmatism(rng, size)
                defocus = math.sqrt(sigma**2 - size**2)
                acquired = expose(
                    Beam(specimen).image(defocus, astigmatic, SPOT_PX), Exposure(dose), rng
                )
                truth = (255 * recorded(specimen)).astype(np.float32)
                kernel = Kernel(true_kernel(defocus, astigmatic), specimen.shape)
                raw = acquired.astype(np.float32)
                noise = 255 * math.sqrt(float(truth.mean()) / 255 / dose + 0.005**2)
                analysis = engine.analyse(frame_of(acquired), restore=True)
                assert analysis.restored is not None
                assert analysis.figures.consistency is not None
                chi_squares.append(analysis.figures.consistency)
                results = {"as acquired": raw}
                for name, method in METHODS.items():
                    results[name] = method(raw, kernel, noise, truth)
                results["**the model, blind**"] = analysis.restored.astype(np.float32)
                for name, image in results.items():
                    quality = decibels(image, truth), structural_similarity(image, truth)
                    figures[name].append(quality)
                classical = max(decibels(results[name], truth) for name in METHODS)
                by_dose[dose].append(decibels(results["**the model, blind**"], truth) - classical)
                count += 1
    rows = [
        (name, f"{np.mean([q[0] for q in each]):.2f}", f"{np.mean([q[1] for q in each]):.3f}")
        for name, each in figures.items()
    ]
    table = markdown(f"restoration, {count} images", ("PSNR dB", "SSIM"), rows)
    gains = ", ".join(f"{np.mean(gain):+.2f} dB at {dose:.0f}" for dose, gain in by_dose.items())
    table += f"\nAgainst the best classical method of each image, by electrons a pixel: {gains}.\n"
    low, middle, high = np.percentile(chi_squares, (10, 50, 90))
    return table + f"Consistency: median {middle:.2f}, 10 to 90 %: {low:.2f} to {high:.2f}.\n"


def unsupervised_table(engine: ModelEngine, fields: list[Field], rng: np.random.Generator) -> str:
    """What four repeats of a field say of the restoration, beside what the truth says.

    The truth is the frame without noise, to which the restoration blurred again is compared; see
    `semagent_engines.runtime.unsupervised`.
    """
    found: dict[float, list[Unsupervised]] = defaultdict(list)
    known: dict[float, list[float]] = defaultdict(list)
    for field in fields:
        for sigma in SIGMAS_PX:
            for dose in DOSES:
                image = Beam(crop(field.specimen, FIELD_PX, rng)).image(sigma, (0.0, 0.0), SPOT_PX)
                first, *others = (expose(image, Exposure(dose), rng) for _ in range(FEWEST))
                again = blurred_again(engine, frame_of(first))
                found[dose].append(judged(again, others))
                error = np.square(again - recorded(image))
                known[dose].append(float(error[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX].mean()))
    rows = []
    for dose, each in found.items():
        told = [
            (one.upsnr_db, -10 * math.log10(mse))
            for one, mse in zip(each, known[dose], strict=True)
            if one.upsnr_db is not None
        ]
        estimate, truth = np.transpose(told)
        rows.append(
            (
                f"{dose:.0f}",
                f"{np.median([one.upsnr_raw_db for one in each]):.1f}",
                f"{np.median(estimate):.1f}",
                f"{np.median(truth):.1f}",
                f"{np.median(np.abs(estimate - truth)):.2f}",
                f"{len(told)} of {len(each)}",
            )
        )
    columns = (
        "uPSNR as acquired, dB",
        "uPSNR restored and blurred again, dB",
        "its PSNR by the truth, dB",
        "median difference, dB",
        "told",
    )
    return markdown("four repeats, electrons a pixel", columns, rows)


def true_kernel(defocus: float, astigmatic: tuple[float, float]) -> Image:
    """The kernel of `Beam.image`, sampled in pixels."""
    reach = math.ceil(2 * (defocus + math.hypot(*astigmatic)) + 4 * SPOT_PX) + 2
    point = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    point[reach, reach] = 1.0
    return Beam(point).image(defocus, astigmatic, SPOT_PX)


def blur_table(
    engine: ModelEngine, fields: list[Field], rng: np.random.Generator, *, gaussian: bool = False
) -> str:
    """Errors of the blur ellipse of single frames, 1 to 15 px."""
    classical = open_sharpness({})
    errors: dict[str, list[npt.NDArray[np.float64]]] = defaultdict(list)
    sigmas: dict[str, list[float]] = defaultdict(list)
    inside: dict[str, list[float]] = defaultdict(list)
    for field in fields:
        for dose in DOSES:
            for _ in range(4):
                sigma, defocus, astigmatic = draw_blur(rng)
                truth = blur_parameters(covariance(defocus, astigmatic))
                specimen = crop(field.specimen, min(LARGE_FIELD_PX, *field.specimen.shape), rng)
                image = Beam(specimen).image(defocus, astigmatic, SPOT_PX, gaussian=gaussian)
                frame = frame_of(expose(image, Exposure(dose), rng))
                for name, fit in (("the model", True), ("its head alone", False)):
                    reading = engine.read(frame, fit=fit)
                    error = reading.blur - truth
                    errors[name].append(error)
                    sigmas[name].append(sigma)
                    inside[name].extend(np.abs(error) < NINETY_PERCENT * reading.blur_std)
                ellipse = classical.analyse(frame).figures.blur
                if ellipse is not None:
                    error = parameters_of(ellipse) - truth
                    errors["spectral fit"].append(error)
                    sigmas["spectral fit"].append(sigma)
                    inside["spectral fit"].append(
                        abs(error[0]) < NINETY_PERCENT * ellipse.log_sigma
                    )
    rows = [
        (
            name,
            f"{np.median(np.abs(each)[:, 0]):.3f}",
            f"{np.median(np.abs(each)[:, 1:]):.3f}",
            *(
                f"{np.median(np.abs(each)[(low <= sigma) & (sigma < high), 1:]):.3f}"
                for low, high in SIGMA_BANDS_PX
            ),
            f"{100 * np.mean(inside[name]):.0f} %",
            str(len(each)),
        )
        for name, each, sigma in (
            (name, np.array(values), np.array(sigmas[name])) for name, values in errors.items()
        )
    ]
    bands = (f"σ {low:g} to {high:g} px" for low, high in SIGMA_BANDS_PX)
    columns = ("ln σ", "ln(axes), each component", *bands, "90 % interval holds", "frames")
    table = markdown(f"blur ellipse, {_beams(gaussian)}, median error", columns, rows)
    low, high = SIGMA_BANDS_PX[-1]
    wide = (low <= np.array(sigmas["the model"])) & (np.array(sigmas["the model"]) < high)
    off = np.median(np.array(errors["the model"])[wide, 0])
    held = np.reshape(inside["the model"], (-1, 3))[wide, 0]
    return table + (
        f"\nln σ by the model, σ {low:g} to {high:g} px ({wide.sum()} frames): off by {off:+.2f}"
        f" in the median, the 90 % interval holds {100 * held.mean():.0f} %.\n"
    )


def _beams(gaussian: bool) -> str:
    return "Gaussian beams" if gaussian else "discs"


def pair_table(
    engine: ModelEngine, fields: list[Field], rng: np.random.Generator, *, gaussian: bool = False
) -> str:
    """Errors of the difference of two frames of one field.

    The sign is that of the round part. It is judged three times: where the covariance changes by
    more than that of half a depth of field; where the frames' distances from focus differ by more
    than that, since frames on either side of focus may be blurred alike; and where the 90 %
    interval does not hold 0, so where the reading claims to know.
    """
    relative: dict[str, list[float]] = defaultdict(list)
    right: dict[str, list[bool]] = defaultdict(list)
    apart: dict[str, list[bool]] = defaultdict(list)
    sure: dict[str, list[bool]] = defaultdict(list)
    inside: dict[str, list[bool]] = defaultdict(list)
    for field in fields:
        for dose in DOSES:
            for _ in range(PAIRS):
                specimen = crop(field.specimen, min(LARGE_FIELD_PX, *field.specimen.shape), rng)
                beam = Beam(specimen)
                astigmatic = astigmatism(rng, rng.uniform(0.0, 1.5))
                planes = rng.uniform(-12.0, 12.0, 2)
                frames = []
                for plane in planes:
                    shift = tuple(rng.uniform(-4.0, 4.0, 2))
                    gain, offset = rng.uniform(0.85, 1.2), rng.uniform(-0.05, 0.05)
                    image = beam.image(plane, astigmatic, SPOT_PX, shift, gaussian=gaussian)
                    exposure = Exposure(dose, gain=gain, offset=offset)
                    frames.append(frame_of(expose(image, exposure, rng)))
                one, other = (covariance(plane, astigmatic) for plane in planes)
                truth = 0.5 * float(np.trace(other - one))
                changes = {
                    "the model": engine.compare(*frames),
                    "its head alone": engine.compare(*frames, fit=False),
                }
                fit = fit_blur_change(*(measure_spectrum(frame.pixels) for frame in frames))
                singles = [0.5 * float(np.trace(engine.read(frame).covariance)) for frame in frames]
                found = {name: float(each.difference_px2[0]) for name, each in changes.items()}
                found["spectral fit to both"] = float(fit.difference_px2[0])
                found["the model, two single readings"] = singles[1] - singles[0]
                for name, each in changes.items():
                    low, high = each.interval90_px2[0]
                    inside[name].append(low < truth < high)
                    if low > 0 or high < 0:
                        sure[name].append((low > 0) == (truth > 0))
                off = abs(found["spectral fit to both"] - truth)
                inside["spectral fit to both"].append(off < NINETY_PERCENT * fit.std_px2[0])
                for name, value in found.items():
                    relative[name].append(abs(value - truth) / abs(truth))
                    sign = (value > 0) == (truth > 0)
                    if abs(truth) > HALF_DEPTH_PX**2:
                        right[name].append(sign)
                    if abs(abs(planes[1]) - abs(planes[0])) > HALF_DEPTH_PX:
                        apart[name].append(sign)
    rows = [
        (
            name,
            f"{100 * np.median(values):.1f} %",
            f"{100 * np.mean(right[name]):.1f} %",
            f"{100 * np.mean(apart[name]):.1f} %",
            f"{100 * np.mean(sure[name]):.1f} % of {len(sure[name])}" if name in sure else "",
            f"{100 * np.mean(inside[name]):.0f} %" if name in inside else "",
        )
        for name, values in relative.items()
    ]
    columns = (
        "median error",
        "sign right, change above 1/4 px²",
        "more than half a depth of field apart",
        "interval without 0",
        "90 % interval holds",
    )
    count = len(relative["the model"])
    title = f"difference of blur covariance, {_beams(gaussian)}, {count} pairs"
    return markdown(title, columns, rows)


def rank_table(engine: ModelEngine, fields: list[Field], rng: np.random.Generator) -> str:
    """Spearman's rank correlation of the score with the negative distance from focus."""
    engines: dict[str, Engine] = {"the model": engine, "sharpness": open_sharpness({})}
    ranks: dict[str, list[float]] = defaultdict(list)
    for field in fields:
        stack = through_focus(
            field.specimen[:512, :512], float(rng.choice(DOSES)), rng, max_defocus_px=15.0
        )
        distance = [-abs(frame.defocus_px) for frame in stack]
        for name, each in engines.items():
            scores = [each.analyse(frame_of(f.pixels)).figures.sharpness for f in stack]
            ranks[name].append(float(spearmanr(scores, distance).statistic))
    rows = [
        (name, f"{np.median(values):.3f}", f"{min(values):.3f}") for name, values in ranks.items()
    ]
    return markdown(f"rank within {len(fields)} stacks", ("median", "worst"), rows)


def expert_table(engine: ModelEngine, fields: list[Field], rng: np.random.Generator) -> str:
    """Share of the patches that each expert got, and what explains how the shares vary."""
    shares, causes = [], []
    for field in fields:
        for sigma in SIGMAS_PX:
            for dose in DOSES:
                specimen = crop(field.specimen, FIELD_PX, rng)
                image = Beam(specimen).image(sigma, (0.0, 0.0), SPOT_PX)
                frame = frame_of(expose(image, Exposure(dose), rng))
                shares.append(engine.analyse(frame, restore=True).figures.expert_weights)
                causes.append({"source": field.source, "σ": sigma, "dose": dose})
    each = np.array(shares)
    total = np.square(each - each.mean(axis=0)).sum()
    rows = [("mean of all", *percent(each.mean(axis=0)), "")]
    for cause in causes[0]:
        explained = 0.0
        for value in dict.fromkeys(row[cause] for row in causes):
            group = each[[row[cause] == value for row in causes]]
            explained += len(group) * np.square(group.mean(axis=0) - each.mean(axis=0)).sum()
            rows.append((f"{cause} {value}", *percent(group.mean(axis=0)), ""))
        first = next(i for i, row in enumerate(rows) if row[0].startswith(f"{cause} "))
        rows[first] = (*rows[first][:-1], f"{100 * explained / total:.0f} %")
    columns = (*(f"expert {i + 1}" for i in range(each.shape[1])), "variance explained")
    return markdown("share of the patches", columns, rows)


def percent(shares: npt.NDArray[np.float64]) -> list[str]:
    """Shares for people."""
    return [f"{100 * share:.0f} %" for share in shares]


def latency_table(engine: ModelEngine, repeats: int) -> str:
    """Wall time for one 1024 × 768 frame beside classical methods."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, FRAME_SHAPE, dtype=np.uint8)
    frame = frame_of(grey)
    raw = grey.astype(np.float32)
    kernel = Kernel(true_kernel(2.0, (0.0, 0.0)), FRAME_SHAPE)
    runs: dict[str, tuple[Callable[[], object], int]] = {
        f"{engine.name}: score": (lambda: engine.analyse(frame), repeats),
        f"{engine.name}: score and restore": (
            lambda: engine.analyse(frame, restore=True),
            repeats,
        ),
        "Richardson–Lucy, 20 iterations": (lambda: list(richardson_lucy(raw, kernel, (20,))), 3),
    }
    rows = []
    for name, (run, count) in runs.items():
        run()
        times = []
        for _ in range(count):
            began = time.perf_counter()
            run()
            times.append(1e3 * (time.perf_counter() - began))
        rows.append((name, *(f"{value:.0f}" for value in np.percentile(times, (50, 99)))))
    return markdown(f"one 1024 × 768 frame, {repeats} times, ms", ("p50", "p99"), rows)


TABLES: dict[str, tuple[Callable[..., str], ...]] = {
    "restoration": (restoration_table, unsupervised_table),
    "blur": (blur_table, partial(blur_table, gaussian=True)),
    "pairs": (pair_table, partial(pair_table, gaussian=True)),
    "rank": (rank_table,),
    "experts": (expert_table,),
}


def markdown(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with a title in its first cell."""
    lines = ["| " + " | ".join((title, *columns)) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
