"""Registration compared: error of the shift between two frames of one field, and false answers.

Each pair is cut out of one micrograph at places a known distance apart, to a fraction of a pixel,
and each frame has its own defocus, shot noise, gain and offset (see `through_focus`). Pairs of
two different fields, of noise alone and of a pattern that repeats show who answers without
knowing. A method that gives no measure of doubt of its own (OpenCV's phase correlation has one:
its response) is counted as answering always.

The published table uses ``--split test``; develop with ``--split train``.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from skimage.registration import phase_cross_correlation
from through_focus import Beam, Exposure, expose, specimens

from semagent.registration import fingerprint, shift_between

DOSES = (400, 100, 20)
DEFOCUS_PX = ((0.0, 0.0), (0.0, 3.0), (2.0, -4.0), (0.0, 10.0))
SMOOTHING_PX = 4.0
"""Of a Gaussian: with it plain correlation is right most often on ``--split train``."""

MAX_SHIFT_PX = 40
GOOD_PX = 1.0

Pair = tuple[np.ndarray, np.ndarray]
Estimate = tuple[float, float, float] | None  # x, y, sigma


def main() -> None:
    """Print all tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--split", choices=("test", "train"), default="test")
    parser.add_argument("--per-source", type=int, default=4, help="micrographs a source at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    fields = defaultdict(list)
    for source, _, image in specimens(options.data, options.split):
        if len(fields[source]) < options.per_source:
            fields[source].append(image)
    images = [image for of_source in fields.values() for image in of_source]
    print(f"{len(images)} micrographs of {len(fields)} sources, split {options.split}\n")
    accuracy_table(images, np.random.default_rng(options.seed))
    print()
    honesty_table(images, np.random.default_rng(options.seed))
    print()
    speed_table()


# -- methods ----------------------------------------------------------------------------------


def ours(before: np.ndarray, after: np.ndarray) -> Estimate:
    """`semagent.registration`."""
    first, second = fingerprint(before), fingerprint(after)
    shift = shift_between(first, second) if first and second else None
    return shift and (shift.x_px, shift.y_px, shift.sigma_px)


def opencv(before: np.ndarray, after: np.ndarray) -> Estimate:
    """Phase correlation of OpenCV under a Hann window."""
    window = cv2.createHanningWindow(before.shape[::-1], cv2.CV_32F)
    (x, y), _ = cv2.phaseCorrelate(before.astype(np.float32), after.astype(np.float32), window)
    return x, y, np.nan


def opencv_with_response(before: np.ndarray, after: np.ndarray) -> Estimate:
    """The same, answering where its response is above 0.1."""
    window = cv2.createHanningWindow(before.shape[::-1], cv2.CV_32F)
    (x, y), response = cv2.phaseCorrelate(
        before.astype(np.float32), after.astype(np.float32), window
    )
    return (x, y, np.nan) if response > 0.1 else None


def skimage_phase(before: np.ndarray, after: np.ndarray) -> Estimate:
    """Phase cross-correlation of scikit-image, upsampled 20 times."""
    window = cv2.createHanningWindow(before.shape[::-1], cv2.CV_32F)
    shift, _, _ = phase_cross_correlation(
        (before - before.mean()) * window, (after - after.mean()) * window, upsample_factor=20
    )
    return -shift[1], -shift[0], np.nan


def skimage_plain(before: np.ndarray, after: np.ndarray) -> Estimate:
    """Cross-correlation of scikit-image without whitening."""
    window = cv2.createHanningWindow(before.shape[::-1], cv2.CV_32F)
    shift, _, _ = phase_cross_correlation(
        (before - before.mean()) * window,
        (after - after.mean()) * window,
        upsample_factor=20,
        normalization=None,
    )
    return -shift[1], -shift[0], np.nan


def skimage_smoothed(before: np.ndarray, after: np.ndarray) -> Estimate:
    """The same of smoothed frames; phase correlation, which whitens them again, gains nothing."""
    first, second = (
        cv2.GaussianBlur(frame.astype(np.float32), (0, 0), SMOOTHING_PX)
        for frame in (before, after)
    )
    return skimage_plain(first, second)


METHODS: dict[str, Callable[[np.ndarray, np.ndarray], Estimate]] = {
    "semagent": ours,
    "OpenCV phaseCorrelate": opencv,
    "OpenCV, response > 0.1": opencv_with_response,
    "scikit-image, phase": skimage_phase,
    "scikit-image, plain": skimage_plain,
    "scikit-image, plain, smoothed": skimage_smoothed,
}


# -- pairs ------------------------------------------------------------------------------------


def framed(
    image: np.ndarray, defocus_px: float, dose: float, place: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A frame of the middle of a micrograph, its content moved by ``place`` pixels (x, y)."""
    whole = np.rint(place).astype(int)
    fraction = place - whole
    seen = Beam(image).image(defocus_px, shift_px=tuple(fraction))
    margin = MAX_SHIFT_PX + 2
    height, width = seen.shape
    top, left = margin - whole[1], margin - whole[0]
    cut = seen[top : top + height - 2 * margin, left : left + width - 2 * margin]
    exposure = Exposure(dose, gain=rng.uniform(0.7, 1.3), offset=rng.uniform(-0.05, 0.1))
    return expose(cut, exposure, rng)


def pairs(
    images: list[np.ndarray], rng: np.random.Generator
) -> Iterator[tuple[int, tuple[float, float], Pair, np.ndarray]]:
    """Dose, defocus, frames and true shift of every pair."""
    for image in images:
        for dose in DOSES:
            for defocus in DEFOCUS_PX:
                size = rng.uniform(0, MAX_SHIFT_PX / 2)
                angle = rng.uniform(0, 2 * np.pi)
                move = size * np.array([np.cos(angle), np.sin(angle)])
                start = rng.uniform(-MAX_SHIFT_PX / 2, MAX_SHIFT_PX / 2, 2)
                before = framed(image, defocus[0], dose, start, rng)
                after = framed(image, defocus[1], dose, start + move, rng)
                yield dose, defocus, (before, after), move


def impossible(images: list[np.ndarray], rng: np.random.Generator) -> Iterator[tuple[str, Pair]]:
    """Pairs whose shift nobody can know."""
    nowhere = np.zeros(2)
    for index, image in enumerate(images):
        other = images[(index + 1) % len(images)]
        rows, columns = np.minimum(image.shape, other.shape)
        yield (
            "two fields",
            (
                framed(image[:rows, :columns], 0.0, 100, nowhere, rng),
                framed(other[:rows, :columns], 0.0, 100, nowhere, rng),
            ),
        )
        flat = np.full(image.shape, 0.5, np.float32)
        yield "noise alone", (framed(flat, 0, 20, nowhere, rng), framed(flat, 0, 20, nowhere, rng))
        y, x = np.mgrid[: image.shape[0], : image.shape[1]]
        period = rng.uniform(9, 30)
        grid = 0.5 + 0.2 * np.cos(2 * np.pi * x / period) + 0.2 * np.cos(2 * np.pi * y / period)
        move = rng.uniform(-MAX_SHIFT_PX / 2, MAX_SHIFT_PX / 2, 2)
        yield (
            "repeating pattern",
            (
                framed(grid.astype(np.float32), 0, 100, nowhere, rng),
                framed(grid.astype(np.float32), 0, 100, move, rng),
            ),
        )


# -- tables -----------------------------------------------------------------------------------


def accuracy_table(images: list[np.ndarray], rng: np.random.Generator) -> None:
    """Answered, right, median error and coverage of every method, by defocus of the pair."""
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    ratios: list[float] = []
    for dose, defocus, (before, after), move in pairs(images, rng):
        groups = ("all", f"{dose} e", f"{defocus[0]:g} and {defocus[1]:g} px")
        for name, method in METHODS.items():
            estimate = method(before, after)
            error = (
                np.nan
                if estimate is None
                else float(np.hypot(estimate[0] - move[0], estimate[1] - move[1]))
            )
            if name == "semagent" and estimate is not None:
                ratios += [(estimate[0] - move[0]) / estimate[2]]
                ratios += [(estimate[1] - move[1]) / estimate[2]]
            for group in groups:
                errors[name, group].append(error)
    groups = list(dict.fromkeys(group for _, group in errors))
    print(f"answered / within {GOOD_PX:g} px of those / median error of the right ones, px\n")
    print("| method | " + " | ".join(groups) + " |")
    print("|---" * (len(groups) + 1) + "|")
    for name in METHODS:
        print(f"| {name} | " + " | ".join(_cell(errors[name, group]) for group in groups) + " |")
    spread = np.abs(ratios)
    print(
        f"\nsemagent's error over its sigma: 68 % within {np.quantile(spread, 0.68):.2f}, "
        f"90 % within {np.quantile(spread, 0.9):.2f} (1.00 and 1.64 are ideal), "
        f"worst {spread.max():.1f}"
    )


def _cell(errors: list[float]) -> str:
    known = np.array([error for error in errors if not np.isnan(error)])
    if known.size == 0:
        return "0 %"
    good = known[known <= GOOD_PX]
    median = np.median(good) if good.size else np.nan
    answered, right = known.size / len(errors), good.size / known.size
    return f"{answered:.0%} / {right:.1%} / {median:.2f}"


def honesty_table(images: list[np.ndarray], rng: np.random.Generator) -> None:
    """Share of pairs answered that have no answer."""
    answers: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for kind, (before, after) in impossible(images, rng):
        for name, method in METHODS.items():
            answers[name, kind].append(method(before, after) is not None)
    kinds = list(dict.fromkeys(kind for _, kind in answers))
    print("answered although nobody can know\n")
    print("| method | " + " | ".join(kinds) + " |")
    print("|---" * (len(kinds) + 1) + "|")
    for name in METHODS:
        cells = [f"{np.mean(answers[name, kind]):.0%}" for kind in kinds]
        print(f"| {name} | " + " | ".join(cells) + " |")


def speed_table() -> None:
    """Milliseconds for a new 1024 × 768 frame against a known one."""
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.normal(0, 1, (800, 1056)).astype(np.float32), (0, 0), 2)
    image = (0.5 + smooth / (8 * smooth.std())).clip(0, 1)
    before, after = (
        expose(image[y : y + 768, x : x + 1024], Exposure(100), rng) for x, y in ((5, 9), (12, 3))
    )
    known = fingerprint(before)
    assert known is not None
    print("| method | p50 / p99, ms, 1024 × 768 |\n|---|---|")
    for name, method in METHODS.items():

        def run(method: Callable[[np.ndarray, np.ndarray], Estimate] = method) -> None:
            method(before, after)

        def run_ours() -> None:
            new = fingerprint(after)
            assert new is not None
            assert shift_between(known, new) is not None

        times = _times_ms(run_ours if name == "semagent" else run)
        print(f"| {name} | {np.median(times):.1f} / {np.quantile(times, 0.99):.1f} |")


def _times_ms(run: Callable[[], None], repeats: int = 40) -> np.ndarray:
    run()
    times = []
    for _ in range(repeats):
        start_s = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start_s))
    return np.array(times)


if __name__ == "__main__":
    main()
