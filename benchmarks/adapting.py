"""What adapting to an instrument is worth on specimens that the model was not trained on.

The instrument is made: about twenty fields of nerve (source ``axons``), which no training saw, are
exposed in focus, and every other one out of focus too. `semagent train adapt` gets these frames
with its default options and passes its own verdict. Beside it stands the verdict of the truth:
PSNR on the fields that it held out, blurred anew and restored with the weights from before and
after, whatever it decided.
"""

import argparse
import contextlib
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from model import SIGMAS_PX, SPOT_PX, astigmatism, markdown
from through_focus import Beam, Exposure, FloatImage, expose, recorded, specimens

from semagent_engines.data.sources import read_micrograph
from semagent_engines.export.weights import model_of_artefact
from semagent_engines.model.network import SemModel
from semagent_engines.runtime.artefact import DEFAULT, open_artefact
from semagent_engines.train import cli
from semagent_engines.train.adapt import read_session
from semagent_engines.train.checkpoint import load_checkpoint

SOURCE = "axons"
FIELD_PX = 256
OUT_OF_FOCUS_PX = 3.0
TILE_PX = 16


def main() -> None:
    """Print a row for each exposure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/")
    parser.add_argument("--results", type=Path, required=True, help="folder for frames and weights")
    parser.add_argument("--doses", type=float, nargs="+", default=(100.0, 40.0))
    parser.add_argument("--seed", type=int, default=0)
    options, more = parser.parse_known_args()

    fields = [field for image in source(options.data) for field in cut(image)]
    rows = []
    for dose in options.doses:
        folder = options.results / f"{dose:.0f}"
        rng = np.random.default_rng(options.seed)
        acquire(fields, dose, folder / "frames", rng)
        verdict = adapted(folder, ["--seed", str(options.seed), *more])
        judged = held_out(folder / "frames", fields)
        gains = true_gains(folder / "adapted", judged, dose, rng)
        error_db = gains.std(ddof=1) / math.sqrt(len(gains))
        mean = f"{gains.mean():+.3f} ± {error_db:.3f} dB"
        spread = " / ".join(f"{gain:+.2f}" for gain in np.quantile(gains, (0, 0.5, 1)))
        rows.append((f"{dose:.0f}", *verdict, mean, spread))
    columns = "steps", "what it says", "used", "the truth", "least / median / most"
    print(markdown(f"{len(fields)} fields, electrons a pixel", columns, rows))


def source(data: Path) -> Iterator[FloatImage]:
    """The micrographs, binned by two."""
    return (image for name, _, image in specimens(data, "train") if name == SOURCE)


def cut(image: FloatImage) -> list[FloatImage]:
    """Fields side by side, as many as are at least `FIELD_PX` either way."""
    rows, columns = (max(1, length // FIELD_PX) for length in image.shape)
    height, width = image.shape[0] // rows, image.shape[1] // columns
    return [
        image[row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row in range(rows)
        for column in range(columns)
    ]


def acquire(fields: list[FloatImage], dose: float, folder: Path, rng: np.random.Generator) -> None:
    """Expose every field in focus, and every other one out of it."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, field in enumerate(fields):
        taken = {sharp(index): 0.0}
        if index % 2:
            taken[f"{index:02d}-blurred.png"] = OUT_OF_FOCUS_PX
        for name, defocus_px in taken.items():
            image = Beam(field).image(defocus_px, sigma_0_px=SPOT_PX)
            cv2.imwrite(str(folder / name), expose(image, Exposure(dose), rng))


def adapted(folder: Path, more: list[str]) -> tuple[str, str, str]:
    """Adapt with the default options: steps, what the command says of the gain, and its verdict."""
    said = io.StringIO()
    output = folder / "adapted"
    with contextlib.redirect_stderr(said):
        cli.main(["adapt", str(folder / "frames"), "--output", str(output), *more])
    print(said.getvalue(), flush=True)
    told = re.findall(r"(\d+ held-out fields: .* dB),", said.getvalue())[0]
    steps = load_checkpoint(output / "checkpoint.pt").step
    return str(steps), told, "yes" if (output / "artefact").exists() else "no"


def held_out(folder: Path, fields: list[FloatImage]) -> list[FloatImage]:
    """The fields that adapting did not learn from, of those it took for in focus."""
    session = read_session(model_of_artefact(open_artefact(DEFAULT)), folder, folder)
    frames = [frame.pixels for each in session.held_out for frame in each]
    acquired = [read_micrograph(folder / sharp(index)).specimen for index in range(len(fields))]
    return [
        field
        for field, image in zip(fields, acquired, strict=True)
        if any(np.array_equal(image, frame) for frame in frames)
    ]


def sharp(index: int) -> str:
    """File name of a field in focus."""
    return f"{index:02d}-sharp.png"


def true_gains(
    folder: Path, fields: list[FloatImage], dose: float, rng: np.random.Generator
) -> np.ndarray:
    """PSNR that the weights in the folder gain over those that ship, on each field, dB."""
    before, after = (model_of_artefact(open_artefact(DEFAULT)) for _ in range(2))
    average = load_checkpoint(folder / "checkpoint.pt").average
    after.load_state_dict({name.removeprefix("model."): each for name, each in average.items()})
    gains = []
    for field in fields:
        height, width = (length // TILE_PX * TILE_PX for length in field.shape)
        truth = recorded(field)[:height, :width]
        decibels = []
        for sigma in SIGMAS_PX:
            size = rng.uniform(0.0, 0.6) * sigma
            defocus = math.sqrt(sigma**2 - size**2)
            image = Beam(field).image(defocus, astigmatism(rng, size), SPOT_PX)
            frame = expose(image, Exposure(dose), rng)[:height, :width]
            decibels.append([psnr(model, frame, truth) for model in (before, after)])
        then, now = np.mean(decibels, axis=0)
        gains.append(now - then)
    return np.array(gains)


@torch.no_grad()
def psnr(model: SemModel, frame: np.ndarray, truth: FloatImage) -> float:
    """PSNR of a restored frame, dB."""
    pixels = torch.from_numpy(frame.astype(np.float32) / 255)[None, None]
    error = model.restore(pixels).tiles[0, 0].numpy() - truth
    return float(-10 * np.log10(np.mean(error**2)))


if __name__ == "__main__":
    main()
