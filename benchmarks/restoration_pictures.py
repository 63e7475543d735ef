"""Restored micrographs beside what was acquired, a classical method, and the truth.

    python benchmarks/restoration_pictures.py --data DATA --output docs/images/restoration.png

Defocus is simulated (see `through_focus`), on the first micrograph of three test sources; the crops
are shown at full resolution. Richardson–Lucy is given the true kernel and is stopped where it is
nearest to the truth; the model knows neither.
"""

import argparse
import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from focusing.plots import COLOURS, OURS_COLOUR
from matplotlib.colors import ListedColormap
from model import SPOT_PX, Field, crop, read_fields, true_kernel
from restoration_baselines import METHODS, Kernel, decibels
from through_focus import Beam, Exposure, expose, recorded

from semagent.testing.engines import frame_of
from semagent_engines.export.weights import model_of_artefact
from semagent_engines.model.experts import Experts
from semagent_engines.runtime.artefact import DEFAULT, open_artefact
from semagent_engines.runtime.backends.onnxruntime import open_engine
from semagent_engines.runtime.model_engine import ModelEngine

CASES = (
    ("fibresem-zeiss34118", "dvtxc/fibresem, MIT", 2.0, 100.0),
    ("sem2surface-fei34682-16bit", "vyastreb/sem2surface, BSD-3-Clause", 3.0, 100.0),
    ("gift-fei34682", "IBMTRostock/GIFT, MIT", 2.0, 40.0),
)
"""Source, credit, blur in pixels, electrons a pixel."""

EDGE_PX = 256
COLUMNS = (
    "acquired",
    "Richardson–Lucy, true kernel",
    "the model",
    "truth",
    "consistency",
    "experts",
)
WORST_CHI_SQUARE = 2.0
EXPERTS = ListedColormap([OURS_COLOUR, *COLOURS[:3]])


def main() -> None:
    """Draw one row for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with test/")
    parser.add_argument("--output", type=Path, required=True, help="PNG to write")
    options = parser.parse_args()

    fields = {field.source: field for field in reversed(read_fields(options.data, "test", 1))}
    engine = open_engine({})
    inch = EDGE_PX / 100
    size = len(COLUMNS) * (inch + 0.1), len(CASES) * (inch + 0.35)
    figure, axes = plt.subplots(len(CASES), len(COLUMNS), figsize=size, dpi=100)
    for row, (source, credit, blur_px, dose) in zip(axes, CASES, strict=True):
        draw(row, fields[source], blur_px, dose, engine)
        row[0].set_ylabel(f"σ {blur_px:g} px, {dose:g} e/px\n{credit}", fontsize=7)
    for axis, name in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(name, fontsize=9)
    figure.tight_layout(pad=0.4)
    figure.savefig(options.output)
    print(options.output)


def draw(row: np.ndarray, field: Field, blur_px: float, dose: float, engine: ModelEngine) -> None:
    """Acquire, restore and show one field."""
    rng = np.random.default_rng(0)
    specimen = crop(field.specimen, EDGE_PX, rng)
    blurred = Beam(specimen).image(blur_px, (0.0, 0.0), SPOT_PX)
    acquired = expose(blurred, Exposure(dose), rng)
    truth = (255 * recorded(specimen)).astype(np.float32)
    raw = acquired.astype(np.float32)
    noise = 255 * math.sqrt(float(truth.mean()) / 255 / dose + 0.005**2)
    kernel = Kernel(true_kernel(blur_px, (0.0, 0.0)), specimen.shape)
    classical = METHODS["Richardson–Lucy, true kernel"](raw, kernel, noise, truth)
    analysis = engine.analyse(frame_of(acquired), restore=True)
    low, high = np.percentile(truth, (0.2, 99.8))
    for axis, image in zip(row, (raw, classical, analysis.restored, truth), strict=False):
        axis.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        if image is not truth:
            axis.set_xlabel(f"{decibels(image.astype(np.float32), truth):.1f} dB", fontsize=8)
    grid = analysis.figures.consistency_map
    chi_square = np.reshape(grid.values, (grid.rows, grid.columns))
    row[4].imshow(chi_square, cmap="coolwarm", vmin=0, vmax=WORST_CHI_SQUARE, extent=(0, 1, 0, 1))
    row[4].set_xlabel(f"χ² {analysis.figures.consistency:.2f}; 0 blue, 2 red", fontsize=8)
    row[5].imshow(chosen_experts(acquired), cmap=EXPERTS, vmin=0, vmax=EXPERTS.N - 1)
    row[5].set_xlabel("of each patch of 16 px, last block", fontsize=8)
    for axis in row:
        axis.set_xticks([])
        axis.set_yticks([])


def chosen_experts(acquired: np.ndarray) -> np.ndarray:
    """The expert that the last block of the shipped model chose for each patch."""
    model = model_of_artefact(open_artefact(DEFAULT))
    gates = [module.gate for module in model.modules() if isinstance(module, Experts)]
    seen: list[torch.Tensor] = []
    gates[-1].register_forward_hook(lambda _, __, logits: seen.append(logits))
    with torch.no_grad():
        model.restore(torch.from_numpy(acquired.astype(np.float32))[None, None])
    patch_px = model.config.patch_px
    patches = seen[0][0, model.config.scales :].argmax(dim=-1)
    shape = tuple(edge // patch_px for edge in acquired.shape)
    return patches.reshape(shape).numpy()


if __name__ == "__main__":
    main()
