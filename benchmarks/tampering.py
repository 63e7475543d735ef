"""Does the consistency show where a restoration was tampered with?

    python benchmarks/tampering.py --data DATA

Frames are acquired and restored as for the restoration table of ``benchmarks/model.py``, those not
vouched for left out. One place of each restoration is changed: it is found where the part of the
consistency map that was changed most rises above what is trusted. Changes by less than half the
noise (root mean square over the place) do not count, nor parts that were above it before: the last
row says how many are. The row before says how often the mean of the map, on which the verdict
rests, tells of a change that counts.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from model import DOSES, LARGE_FIELD_PX, SIGMAS_PX, SPOT_PX, Field, crop, markdown, read_fields
from restoration_baselines import Image
from through_focus import Beam, Exposure, expose

from semagent.testing.engines import frame_of
from semagent.types import CONSISTENT
from semagent_engines.runtime.backends.onnxruntime import open_engine
from semagent_engines.runtime.consistency import consistency_map, mean_consistency
from semagent_engines.runtime.model_engine import ModelEngine

PIECE_PX = 48
SQUARE_PX = 32
POINTS = 6
POINT_SIGMA_PX = 1.2

Random = np.random.Generator
Tamper = Callable[[Image, Random], None]
"""Changes one place of a restoration."""


def piece(image: Image, edge_px: int, rng: Random) -> Image:
    """A view of a random square."""
    top, left = rng.integers(0, np.array(image.shape) - edge_px + 1)
    return image[top : top + edge_px, left : left + edge_px]


def smoothed(image: Image, rng: Random) -> None:
    """What was there is gone."""
    there = piece(image, PIECE_PX, rng)
    there[:] = cv2.GaussianBlur(there, (0, 0), PIECE_PX / 6)


def copied(image: Image, rng: Random) -> None:
    """Something from elsewhere in its place."""
    piece(image, PIECE_PX, rng)[:] = piece(image, PIECE_PX, rng).copy()


def brighter(image: Image, rng: Random) -> None:
    """A square that is not there."""
    contrast = image.std()
    piece(image, SQUARE_PX, rng)[:] += contrast


def dotted(image: Image, rng: Random) -> None:
    """Points that are not there, of four times the contrast."""
    points = np.zeros((SQUARE_PX, SQUARE_PX), np.float32)
    points[tuple(rng.integers(4, SQUARE_PX - 4, (2, POINTS)))] = 1
    shape = cv2.GaussianBlur(points, (0, 0), POINT_SIGMA_PX) * 2 * math.pi * POINT_SIGMA_PX**2
    contrast = image.std()
    piece(image, SQUARE_PX, rng)[:] += 4 * contrast * shape


TAMPERS: dict[str, Tamper] = {
    f"{PIECE_PX} px smoothed away": smoothed,
    f"{PIECE_PX} px copied from elsewhere": copied,
    f"square of {SQUARE_PX} px, brighter by the contrast": brighter,
    f"{POINTS} points, brighter by four times that": dotted,
}
TRUSTED = CONSISTENT[1]
MEAN = f"any of these: mean of the map above {TRUSTED}"
UNTOUCHED = f"nothing: share of the parts above {TRUSTED} all the same"


def found_in(engine: ModelEngine, fields: list[Field]) -> dict[str, dict[float, list[float]]]:
    """What was found, 0 or 1, by tampering and electrons a pixel; of the untouched, shares."""
    rng = np.random.default_rng(0)
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for field in fields:
        for sigma in SIGMAS_PX:
            for dose in DOSES:
                specimen = crop(field.specimen, min(LARGE_FIELD_PX, *field.specimen.shape), rng)
                image = Beam(specimen).image(sigma, (0.0, 0.0), SPOT_PX)
                frame = frame_of(expose(image, Exposure(dose), rng))
                analysis = engine.analyse(frame, restore=True)
                if not analysis.figures.trustworthy:
                    continue
                # As the engine judges: with the blur that its head reads.
                head = engine.read(frame, fit=False)
                judge = partial(
                    consistency_map, frame.pixels, covariance_px2=head.covariance, noise=head.noise
                )
                restored = analysis.restored.astype(np.float32)
                before = judge(restored)
                found[UNTOUCHED][dose].append(float(np.mean(before > TRUSTED)))
                for name, tamper in TAMPERS.items():
                    tampered = restored.copy()
                    tamper(tampered, rng)
                    np.clip(tampered, 0, 255, out=tampered)
                    change = np.square(tampered - restored)
                    if change.sum() <= np.count_nonzero(change) * (head.noise / 2) ** 2:
                        continue
                    parts = cv2.resize(change, before.shape[::-1], interpolation=cv2.INTER_AREA)
                    most = np.unravel_index(parts.argmax(), parts.shape)
                    if before[most] < TRUSTED:
                        after = judge(tampered)
                        found[name][dose].append(float(after[most] > TRUSTED))
                        mean = mean_consistency(after, frame.pixels)
                        found[MEAN][dose].append(float(mean > TRUSTED))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--split", choices=("test", "train"), default="test")
    parser.add_argument("--per-source", type=int, default=4, help="micrographs a source at most")
    options = parser.parse_args()
    found = found_in(open_engine({}), read_fields(options.data, options.split, options.per_source))
    rows = [
        (
            name,
            *(
                f"{100 * np.mean(found[name][dose]):.0f} % of {len(found[name][dose])}"
                for dose in DOSES
            ),
        )
        for name in (*TAMPERS, MEAN, UNTOUCHED)
    ]
    print(
        markdown(
            "tampering that the map of consistency shows, electrons a pixel",
            [f"{dose:.0f}" for dose in DOSES],
            rows,
        )
    )


if __name__ == "__main__":
    main()
