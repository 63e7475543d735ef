"""An artefact: a folder with the exported graphs, what they mean, and proof that they are whole."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from semagent.errors import UNREADABLE, ConfigError
from semagent.options import Count, NotNegative, Positive

FORMAT = 1
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
GRAPHS = ("score", "restore", "pair")
QUANTISED = "restore-int8.onnx"
DEFAULT = Path(__file__).parent.parent / "artefacts" / "tiny"


class _Version(msgspec.Struct):
    """What manifests of every format have."""

    format: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an artefact says of itself.

    Attributes:
        format: version of this structure.
        name: preset and a short hash of the weights, e.g. ``tiny-1a2b3c4d``.
        hashes: SHA-256 of every other file of the folder.
        input: what ``score.onnx`` and ``restore.onnx`` take.
        outputs: name and meaning, with unit, of every output, by graph.
        tile_step_px: height and width of a tile are multiples of this.
        smallest_tile_px: and at least this.
        blur_range_px: standard deviations of the blur that training covered.
        tolerance: largest difference from the golden tensors, relative to their standard
            deviation, by precision.
        model: sizes of the model.
        training: sources, steps, seed and figures of the training.
        revision: of the code that exported it.
    """

    format: int
    name: str
    hashes: dict[str, str]
    input: str
    outputs: dict[str, dict[str, str]]
    tile_step_px: Count
    smallest_tile_px: Count
    blur_range_px: tuple[Positive, Positive]
    tolerance: dict[str, NotNegative]
    model: dict[str, Any]
    training: dict[str, Any]
    revision: str


class Artefact(msgspec.Struct, frozen=True, kw_only=True):
    """A folder whose manifest was read and whose files are whole."""

    folder: Path
    manifest: Manifest

    @property
    def precisions(self) -> tuple[str, ...]:
        """What the graphs are there in, the fastest on a CPU first: ``int8`` and ``fp32``."""
        return ("int8", "fp32") if QUANTISED in self.manifest.hashes else ("fp32",)

    def graph(self, name: str, precision: str = "fp32") -> Path:
        """Path of one of the graphs ``score``, ``restore`` and ``pair``.

        Only the restoration has an eight-bit form; the readings are quick as they are.
        """
        if name == "restore" and precision == "int8":
            return self.folder / QUANTISED
        return self.folder / f"{name}.onnx"

    @property
    def golden(self) -> Path:
        """Path of the golden tensors."""
        return self.folder / GOLDEN


def open_artefact(folder: Path) -> Artefact:
    """Read the manifest and check every hash.

    Raises:
        ConfigError: no artefact there, of another format, or a file is missing or altered.
    """
    try:
        data = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise ConfigError(f"{folder}: not an artefact: {MANIFEST} cannot be read") from error
    try:
        # The format first: those to come may have other keys.
        found = msgspec.json.decode(data, type=_Version).format
        if found != FORMAT:
            raise ConfigError(f"{folder}: artefact format {found}, this is for {FORMAT}")
        manifest = msgspec.json.decode(data, type=Manifest)
    except UNREADABLE as error:
        raise ConfigError(f"{folder / MANIFEST}: {error}") from error
    precisions = {"fp32", "fp16", *({"int8"} if QUANTISED in manifest.hashes else ())}
    for key, needed in (("outputs", set(GRAPHS)), ("tolerance", precisions)):
        lacking = sorted(needed - getattr(manifest, key).keys())
        if lacking:
            raise ConfigError(f"{folder / MANIFEST}: {key} lacks {', '.join(lacking)}")
    required = {*(f"{graph}.onnx" for graph in GRAPHS), GOLDEN}
    for name in sorted(required | manifest.hashes.keys()):
        path = folder / name
        if not path.is_file():
            raise ConfigError(f"{folder}: {name} is missing")
        if file_hash(path) != manifest.hashes.get(name):
            raise ConfigError(f"{path}: does not match the hash in {MANIFEST}: copy it again")
    return Artefact(folder=folder, manifest=manifest)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
