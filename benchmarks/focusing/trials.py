"""The states of the microscope that every method starts from, all drawn from one seed."""

import hashlib
import math
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from through_focus import SOURCES, specimens

DOSES = (400, 100, 40, 20)
"""Electrons that reach a pixel in one frame."""

WIDTH_PX, HEIGHT_PX = 512, 384

MAX_START = 40.0
"""Half depths of field between the start and focus, at most."""

MAX_ASTIGMATISM = 4.0
"""Half depths of field: two depths of field."""

HOLD_FRAMES = 200
"""Frames of hold mode that count, after it has begun."""

PATTERNS = ("particles", "fibres", "grains", "porous", "fracture")

EXPERIMENTS = ("focus", "noise", "featureless", "hold", "beads", "uncalibrated")


@dataclass(frozen=True, slots=True)
class Trial:
    """One state of the microscope.

    Attributes:
        number: counts the trials of one experiment from 0; its state depends on the seed, the
            experiment and this number alone.
        source: folder of the micrograph, or the drawn pattern.
        image: prepared field (see `Fields`), ``None`` for a drawn specimen.
        dose: electrons a pixel and frame.
        start: working distance of the start minus that of focus, in half depths of field.
        astigmatism: (a1, a2) of the column, in half depths of field.
        seed: of the specimen, the noise and everything that wanders.
        pixel_nm: pixel size.
        convergence_mrad: half-angle of the beam.
    """

    experiment: str
    number: int
    source: str
    image: Path | None
    dose: int
    start: float
    astigmatism: tuple[float, float]
    seed: int
    pixel_nm: float
    convergence_mrad: float

    @property
    def unit_m(self) -> float:
        """Half a depth of field in metres."""
        return self.pixel_nm * 1e-9 / (self.convergence_mrad * 1e-3)

    def generator(self) -> np.random.Generator:
        """Random numbers for what else has to be drawn; always the same ones."""
        return np.random.default_rng([self.seed, 7])


class Fields:
    """Real micrographs, prepared once: information bar cut off, binned by two, as PNG files.

    Args:
        data: folder with ``train`` and ``test``.
        split: which of them.
        cache: where the prepared files are kept; outside the repository.

    Attributes:
        name: the split, and a digest of its files: what is made of others is kept apart.
    """

    def __init__(self, data: Path, split: str, cache: Path) -> None:
        self.name = f"{split}-{_digest(data, split)}"
        folder = cache / self.name
        if not folder.exists():
            _prepare(data, split, folder)
        self._files: dict[str, list[Path]] = {}
        for path in sorted(folder.glob("*.png")):
            self._files.setdefault(path.name.split(".")[0], []).append(path)

    @property
    def sources(self) -> list[str]:
        """The folders the micrographs come from."""
        return list(self._files)

    def pick(self, rng: np.random.Generator) -> tuple[str, Path]:
        """A source and one of its micrographs; all sources are equally likely."""
        source = self.sources[int(rng.integers(len(self.sources)))]
        files = self._files[source]
        return source, files[int(rng.integers(len(files)))]


def _digest(data: Path, split: str) -> str:
    """What tells the files of a split from others."""
    digest = hashlib.sha256()
    for source in SOURCES[split]:
        for path in sorted((data / split / source).iterdir()):
            digest.update(f"{source}/{path.name}".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _prepare(data: Path, split: str, folder: Path) -> None:
    """Write the fields of a split; processes may do so at once, and the first one counts."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        draft = Path(scratch) / folder.name
        draft.mkdir()
        for index, (source, _, image) in enumerate(specimens(data, split)):
            grey = np.rint(image * 65535).astype(np.uint16)
            cv2.imwrite(str(draft / f"{source}.{index:03d}.png"), grey)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.exists():
                raise


def make_trial(experiment: str, number: int, fields: Fields, seed: int) -> Trial:
    """The trial of this number; three in five are on real micrographs, the others on drawn ones."""
    rng = np.random.default_rng([seed, EXPERIMENTS.index(experiment), number])
    image: Path | None = None
    if experiment in {"noise", "featureless", "beads"}:
        source = experiment
    elif rng.random() < 0.6:
        source, image = fields.pick(rng)
    else:
        source = PATTERNS[int(rng.integers(len(PATTERNS)))]
    astigmatism, angle = 0.0, rng.uniform(0, 2 * math.pi)
    if rng.random() < 0.5:
        astigmatism = rng.uniform(0, MAX_ASTIGMATISM)
    start = rng.uniform(-MAX_START, MAX_START)
    if experiment == "hold":
        # Hold mode begins where an autofocus left off.
        start, astigmatism = rng.uniform(-0.5, 0.5), 0.25 * astigmatism
    if experiment == "beads":
        # Drawn by the camera, in one size: half a depth of field is 2 um of its stage.
        return Trial(
            experiment=experiment,
            number=number,
            source=source,
            image=None,
            dose=1,
            start=float(start),
            astigmatism=(0.0, 0.0),
            seed=0,
            pixel_nm=10.0,
            convergence_mrad=5.0,
        )
    return Trial(
        experiment=experiment,
        number=number,
        source=source,
        image=image,
        dose=DOSES[int(rng.integers(len(DOSES)))],
        start=float(start),
        astigmatism=(float(astigmatism * np.cos(angle)), float(astigmatism * np.sin(angle))),
        seed=int(rng.integers(2**31)),
        pixel_nm=float(np.exp(rng.uniform(np.log(2), np.log(50)))),
        convergence_mrad=float(rng.uniform(3, 10)),
    )


@cache
def image_size(path: Path) -> tuple[int, int]:
    """Width and height of a prepared micrograph."""
    height, width = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape
    return width, height
