"""What becomes of a search where the specimen moves in height, or charges.

    python benchmarks/disturbed_fields.py --data DATA --split train --trials 60

The states of the microscope are those of ``benchmarks/autofocus.py``, the same for every row. The
specimen moves all the time; its way is that from one exposure to the next, with the lens settling
in between. Charging is drawn into every frame anew, and told in standard deviations of its grey
values.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from focusing import scope
from focusing.outcome import Outcome
from focusing.sample import Sample
from focusing.trials import Trial

from semagent_drivers.simulated.detector import Detector

Image = npt.NDArray[np.float32]
Patch = AbstractContextManager[Any]

SETTLE_S = 0.05
"""Of the lens, before every exposure of these microscopes."""


def moving(way: float) -> Patch:
    """Focus moves so many half depths of field from frame to frame."""
    options_of = scope.driver_options

    def options(trial: Trial) -> dict[str, Any]:
        known = options_of(trial)
        drift = known["drift"]
        way_nm = math.copysign(way, drift["z_nm_per_s"]) * trial.unit_m * 1e9
        drift["z_nm_per_s"] = way_nm / (scope.FRAME_S + SETTLE_S)
        return known

    return patch.object(scope, "driver_options", options)


def charging(change: Callable[[Image, np.random.Generator], Image]) -> Patch:
    """The detector's frames are changed so."""
    detect = Detector.detect
    rng = np.random.default_rng(5)

    def charged(*arguments: Any, **options: Any) -> Image:
        return change(detect(*arguments, **options), rng)

    return patch.object(Detector, "detect", charged)


def bands(size: float, frame: Image, rng: np.random.Generator) -> Image:
    """Some six times a frame brightness jumps and decays within 10 to 100 lines."""
    lines = np.arange(len(frame))
    offset = np.zeros(len(frame))
    for start in rng.integers(len(frame), size=rng.poisson(6)):
        decay = np.exp(-(lines - start) / rng.uniform(10, 100))
        offset += rng.normal() * np.where(lines >= start, decay, 0.0)
    return frame + np.float32(size * frame.std()) * offset[:, None].astype(np.float32)


def jumps(size_px: float, frame: Image, rng: np.random.Generator) -> Image:
    """Some three times a frame the picture jumps along the scan line, so many pixels."""
    frame = frame.copy()
    for start in rng.integers(len(frame), size=rng.poisson(3)):
        frame[start:] = np.roll(frame[start:], round(rng.normal() * size_px), axis=1)
    return frame


def brightness(size: float, frame: Image, rng: np.random.Generator) -> Image:
    """Brightness and contrast are others in every frame."""
    contrast, offset = np.exp(0.3 * rng.normal()), size * frame.std() * rng.normal()
    return np.asarray(frame.mean() + offset + contrast * (frame - frame.mean()), np.float32)


def trails(size: float, frame: Image, rng: np.random.Generator) -> Image:
    """Features leave trails along the scan line, up to so strong, which decay within 15 pixels."""
    decay = np.exp(-np.arange(60) / 15)
    left = [np.convolve(line, decay)[: len(line)] for line in frame - frame.mean()]
    return frame - np.float32(size * rng.random()) * np.array(left, np.float32)


ROWS: dict[str, Callable[[], Patch]] = {
    "moves by up to 0.02": nullcontext,
    **{f"moves by {way:g}": partial(moving, way) for way in (0.25, 0.5, 1.0, 2.0)},
    "bands, 1": partial(charging, partial(bands, 1.0)),
    "bands, 3": partial(charging, partial(bands, 3.0)),
    "jumps by 10 pixels": partial(charging, partial(jumps, 10.0)),
    "brightness and contrast change, 1": partial(charging, partial(brightness, 1.0)),
    "trails, up to 0.15": partial(charging, partial(trails, 0.15)),
}


def row(name: str, outcomes: list[Outcome]) -> str:
    """One line of the table."""
    sure = [each for each in outcomes if each.status == "focused" and each.verified]
    right = sum(each.success for each in sure)
    moves = sum("focus itself moves" in each.reason for each in outcomes)
    other = len(outcomes) - len(sure) - moves
    most = max((abs(each.final) for each in sure), default=math.nan)
    frames = np.mean([each.frames for each in outcomes])
    return f"| {name} | {len(sure)} | {right} | {most:.1f} | {moves} | {other} | {frames:.1f} |"


def main() -> None:
    """Print the table."""
    sample = Sample(__doc__)
    print(
        "| specimen | focused | of these right | furthest off then, half depths of field "
        "| held: it moves | other | frames |\n|---|---|---|---|---|---|---|"
    )
    for name, disturbed in ROWS.items():
        with disturbed():
            print(row(name, sample.outcomes()), flush=True)


if __name__ == "__main__":
    main()
