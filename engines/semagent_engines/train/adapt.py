"""Adapting the restoration to one instrument, from its own frames and in minutes.

No pairs are needed. Frames in focus are blurred at the scale they have, and exposed again as
noisily as they are. Their own noise is no structure: a frame is split into two whose noise is
independent (T. Pang et al., "Recorrupted-to-Recorrupted", 2021), one to restore and one to compare
with. A few real pairs, where there are any, join in. Only the decoder learns, and a pull towards
the weights it started from keeps it from forgetting what a few frames cannot show.

What is judged by are fields that nothing was learned from, and a field counts once, however many
frames and crops of it there are.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from semagent.errors import InputFileError
from semagent_engines.data.batches import RESTORABLE, BatchSource, Views, beams
from semagent_engines.data.beam import transfer_function
from semagent_engines.data.instrument import (
    RealPair,
    by_field,
    crops,
    frame_files,
    kept_on_disk,
    read_frame,
)
from semagent_engines.data.sources import Source
from semagent_engines.data.specimen import Image
from semagent_engines.export.artefact import write_artefact
from semagent_engines.export.graphs import Calibration
from semagent_engines.export.weights import model_of_artefact
from semagent_engines.model.heads import covariance
from semagent_engines.model.network import SemModel, normalise
from semagent_engines.runtime.artefact import Artefact
from semagent_engines.train.checkpoint import load_checkpoint
from semagent_engines.train.distributed import Place
from semagent_engines.train.loop import Settings, train
from semagent_engines.train.losses import restoration_loss

_EDGE_PX = 128
_BORDER_PX = 32
"""Around crops that are blurred, where the blur's edges wrap."""
_PER_BATCH, _PER_FIELD = 8, 16
_ANCHOR = 1.0
_MARGIN_PX = 16
_SPLIT = 0.5
"""Noise added to what is restored, over the frame's; its truth gets the inverse, opposite."""
_IN_FOCUS, _IN_FOCUS_PX = 1.5, (1.5, 2.2)
"""Most blur of a frame in focus over that of the sharpest tenth, and what that is kept within."""
_SHARPEST = 0.1
_MOST_IN_FOCUS, _MOST_OTHERS = 96, 32
_FEWEST_FIELDS = 8
_LEAST_GAIN_DB = 0.02
_SURE = 3.18
"""Standard errors, of Student's distribution: one in forty beyond, with four fields."""
_LESS_CONSISTENT = 0.05
_DIGITISED = (1 / 12) ** 0.5 / 255
"""Noise of digitisation alone: a twelfth of a grey value squared."""


class Focused(NamedTuple):
    """A frame in focus: (height, width), float32 in [0, 1], and the deviation of its noise."""

    pixels: Image
    noise: float


Field = tuple[Focused, ...]
"""The frames in focus of one field."""


@dataclass(frozen=True)
class Session:
    """What an instrument gives to adapt to it.

    Attributes:
        learned: fields to learn from.
        held_out: fields to judge by.
        others: frames out of focus; never learned from.
        pairs: every second is held out.
    """

    learned: tuple[Field, ...]
    held_out: tuple[Field, ...]
    others: tuple[Image, ...]
    pairs: tuple[RealPair, ...] = field(default=())


class Live(NamedTuple):
    """Crops of real frames and what was read of them.

    Attributes:
        pixels: (N, 1, H, W), grey values in [0, 1].
        covariance: (N, 3), blur covariance (xx, yy, xy), px².
        noise: (N,), standard deviation of the noise.
    """

    pixels: Tensor
    covariance: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Verdict:
    """What the held-out frames say of the adapted weights.

    Attributes:
        gain_db: PSNR gained, mean over held-out fields; a frame's own noise counts as error.
        error_db: standard error of that mean, from how the fields differ.
        fields: how many there are.
        consistency: median reduced chi-square of real frames, before and after.
        better: whether the adapted weights are to be used.
    """

    gain_db: float
    error_db: float
    fields: int
    consistency: tuple[float, float]
    better: bool


class Adaptation(nn.Module):
    """The model and the losses of adapting it; only the decoder learns."""

    _start: Tensor

    def __init__(self, model: SemModel) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.model.restorer.requires_grad_(True)
        start = _vector(self.model.restorer).detach()
        self.register_buffer("_start", start, persistent=False)
        self._size = float(start.square().sum())

    def forward(self, views: Views, real: Views | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its parts."""
        parts = {"restoration": self._restoration(views)}
        if real is not None:
            parts["pairs"] = self._restoration(real)
        strayed = (_vector(self.model.restorer) - self._start).square().sum()
        parts["anchor"] = _ANCHOR * strayed / self._size
        return torch.stack(list(parts.values())).sum(), parts

    def _restoration(self, views: Views) -> Tensor:
        restored = self.model.restore(views.pixels).tiles
        return restoration_loss(restored, views.truth, normalise(views.pixels).std)


def _vector(part: nn.Module) -> Tensor:
    """All weights of a part, one after the other."""
    return torch.cat([value.flatten() for value in part.parameters()])


class Adapting:
    """The `Task` of adapting.

    Args:
        model: as it was shipped.
        frames: frames in focus to learn from.
        pairs: real pairs to learn from, possibly none.
        seed: of everything random here.
    """

    def __init__(
        self, model: SemModel, frames: Sequence[Focused], pairs: Sequence[RealPair], *, seed: int
    ) -> None:
        self.objective = Adaptation(model)
        self._frames, self._pairs, self._seed = frames, tuple(pairs), seed

    def batch(self, step: int, device: torch.device) -> tuple[Any, ...]:
        """Frames blurred and exposed again, and real pairs if there are any."""
        rng = np.random.default_rng([self._seed, step])
        views = exposed_again(self._frames, rng, _PER_BATCH).to(device)
        real = crops(self._pairs, rng, _PER_BATCH, _EDGE_PX).to(device) if self._pairs else None
        return views, real

    def validate(self) -> Mapping[str, float]:
        """Nothing: the verdict on held-out fields is passed once, at the end."""
        return {}


def exposed_again(frames: Sequence[Focused], rng: np.random.Generator, count: int) -> Views:
    """Random crops, blurred and as noisy as the frames are; the truth has noise of its own.

    What is left of a frame's noise after the blur is topped up with new noise to its spectrum.
    The noise of the truth is independent of it, and larger: variance times ``1 + 1 / split²``.
    """
    edge = _EDGE_PX + 2 * _BORDER_PX
    crop, deviation = [], []
    for index in rng.integers(len(frames), size=count):
        pixels, noise = frames[int(index)]
        top, left = (int(rng.integers(length - edge + 1)) for length in pixels.shape)
        square = np.rot90(pixels[top : top + edge, left : left + edge], int(rng.integers(4)))
        crop.append(square[:, ::-1] if rng.random() < 0.5 else square)
        deviation.append(noise)
    recorded = torch.from_numpy(np.stack(crop))
    std = torch.tensor(deviation, dtype=torch.float32)
    added, fresh = (
        std[:, None, None] * torch.from_numpy(rng.standard_normal(recorded.shape, np.float32))
        for _ in range(2)
    )
    transfer = transfer_function(beams(rng, count, RESTORABLE), edge, edge)
    missing = (1 - (1 + _SPLIT**2) * transfer.square()).clamp_min(0).sqrt()
    spectrum = transfer * torch.fft.rfft2(recorded + _SPLIT * added)
    spectrum = spectrum + missing * torch.fft.rfft2(fresh)
    pixels = torch.fft.irfft2(spectrum, s=(edge, edge)).clamp(0, 1)
    inner = slice(_BORDER_PX, -_BORDER_PX)
    return Views(
        ((255 * pixels).round() / 255)[:, None, inner, inner],
        (recorded - added / _SPLIT)[:, None, inner, inner],
        torch.zeros(count, 3),
        std,
    )


def read_session(
    model: SemModel, folder: Path, scratch: Path, pairs: Sequence[RealPair] = ()
) -> Session:
    """Find the frames in focus, by the blur that the model reads, and their fields.

    Every second field is held out, and every second pair. A pair counts as a field.

    Args:
        model: which reads the blur.
        folder: a recorded session, or a folder of frames.
        scratch: folder on whose disk the frames lie that are used, as long as they are.
        pairs: real pairs.

    Raises:
        InputFileError: a frame cannot be used, or there are too few fields to judge by.
    """
    files = frame_files(folder)
    read = [_read(model, read_frame(path)) for path in files]
    sigmas = [sigma_px for sigma_px, _ in read]
    limit_px = float(np.clip(_IN_FOCUS * np.quantile(sigmas, _SHARPEST), *_IN_FOCUS_PX))
    in_focus = np.array(sigmas) <= limit_px
    sharp, rest = _some(in_focus, _MOST_IN_FOCUS), _some(~in_focus, _MOST_OTHERS)
    again, others = (
        kept_on_disk((read_frame(files[index]) for index in chosen), scratch)
        for chosen in (sharp, rest)
    )
    focused = [Focused(pixels, read[index][1]) for index, pixels in zip(sharp, again, strict=True)]
    groups = by_field([frame.pixels for frame in focused])
    fields = [tuple(focused[index] for index in group) for group in groups]
    if len(fields) < _FEWEST_FIELDS:
        raise InputFileError(
            f"{folder}: {len(fields)} fields are in focus, in {len(focused)} of "
            f"{len(focused) + len(others)} frames; {_FEWEST_FIELDS} are needed, half of them to "
            f"judge by (in focus here: a blur of at most {limit_px:.1f} px)"
        )
    return Session(tuple(fields[::2]), tuple(fields[1::2]), tuple(others), tuple(pairs))


def _some(which: npt.NDArray[np.bool_], most: int) -> list[int]:
    """Indices of what is true, or so many of them at random: fields may come in turns."""
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(which))[:most]
    return sorted(chosen.tolist())


@torch.no_grad()
def _read(model: SemModel, image: Image) -> tuple[float, float]:
    """Blur, px, and noise of a frame: medians over its tiles."""
    rows, columns = (range(0, length - _EDGE_PX + 1, _EDGE_PX) for length in image.shape)
    tiles = [
        image[top : top + _EDGE_PX, left : left + _EDGE_PX] for top in rows for left in columns
    ]
    seen = model(torch.from_numpy(np.stack(tiles))[:, None], restore=False)
    variance = covariance(seen.reading.blur)[:, 0].median()
    return float(variance.sqrt()), max(float(seen.noise_grey.median()), _DIGITISED)


def adapt(
    artefact: Artefact,
    session: Session,
    settings: Settings,
    place: Place,
    *,
    seed: int,
    report: Callable[[str], None],
) -> tuple[Verdict, Path | None]:
    """Adapt, judge, and write an artefact only if it is better.

    An artefact that an earlier run left in the folder goes if this one's is not.

    Args:
        artefact: what to start from.
        session: what to learn from and to judge by.
        settings: budget, rate and folder.
        place: one process.
        seed: of everything random here.
        report: takes lines of progress.

    Returns:
        The verdict, and the new artefact's folder or ``None``.

    Raises:
        UsageError: the folder holds a checkpoint of other frames or of another artefact.
    """
    learned = [frame for each in session.learned for frame in each]
    before = model_of_artefact(artefact)
    task = Adapting(model_of_artefact(artefact), learned, session.pairs[::2], seed=seed)
    record: dict[str, Any] = {
        **artefact.manifest.training,
        "stage": "adapt",
        "adapted_from": artefact.manifest.name,
        "adapted_on": _description(session),
        "adaptation": {
            "frames": len(learned),
            "fields": len(session.learned),
            "pairs": len(session.pairs),
        },
    }
    config = before.config.as_dict()
    path = train(task, settings, place, config=config, record=record, report=report)
    checkpoint = load_checkpoint(path)
    after = task.objective.model.cpu()
    after.load_state_dict(
        {name.removeprefix("model."): value for name, value in checkpoint.average.items()}
    )
    after.eval()
    rng = np.random.default_rng(seed)
    judged = [exposed_again(each, rng, _PER_FIELD) for each in session.held_out]
    judged += [crops([pair], rng, _PER_FIELD, _EDGE_PX) for pair in session.pairs[1::2]]
    real = session.others or [frame.pixels for each in session.held_out for frame in each]
    verdict = judge(before, after, judged, real, seed=seed)
    folder = settings.folder / "artefact"
    if not verdict.better:
        if folder.exists():
            shutil.rmtree(folder)
            report(f"removed: {folder}, of an earlier run; it would pass for this one's")
        return verdict, None
    record["adaptation"] |= {"gain_db": verdict.gain_db, "error_db": verdict.error_db}
    write_artefact(
        replace(checkpoint, record=record),
        folder,
        calibration=Calibration(**artefact.manifest.training["calibration"]),
        ranges=_specimens(session.learned, seed),
        judged=[_specimens(session.held_out, seed + 1).views(0, _PER_FIELD, _EDGE_PX)],
    )
    return verdict, folder


def _specimens(fields: Sequence[Field], seed: int) -> BatchSource:
    frames = tuple(frame.pixels for each in fields for frame in each)
    source = Source("instrument", frames, refused=0)
    return BatchSource([source], seed=seed, procedural_share=0.0, flat_share=0.0)


def _description(session: Session) -> str:
    """Of all that is learned from or judged by; of anything else it is another."""
    fields = (*session.learned, *session.held_out)
    frames = [*(frame.pixels for each in fields for frame in each), *session.others]
    pairs = session.pairs
    digest = hashlib.sha256()
    for image in [*frames, *(each for pair in pairs for each in (pair.defocused, pair.focused))]:
        digest.update(np.ascontiguousarray(image).data)
    return f"{len(frames)} frames, {len(pairs)} pairs, SHA-256 {digest.hexdigest()[:12]}"


@torch.no_grad()
def judge(
    before: SemModel,
    after: SemModel,
    fields: Sequence[Views],
    real: Sequence[Image],
    *,
    seed: int,
) -> Verdict:
    """Compare two models on the views of each held-out field, and on real frames."""
    gains = []
    for views in fields:
        # What was added to the truth is known; the frame's own noise is not exactly.
        added = (views.noise / _SPLIT).square()
        error = [
            (model.restore(views.pixels).tiles - views.truth).square().mean(dim=(1, 2, 3)) - added
            for model in (before, after)
        ]
        gains.append(10 * torch.log10(error[0].mean() / error[1].mean()))
    gain = torch.stack(gains)
    live = read_live(after, real, np.random.default_rng(seed), 4 * _PER_BATCH)
    then, now = (float(inconsistency(model, live).median()) for model in (before, after))
    mean, error_db = float(gain.mean()), float(gain.std() / len(gain) ** 0.5)
    explains = abs(np.log(now)) <= abs(np.log(then)) + _LESS_CONSISTENT
    better = mean > max(_LEAST_GAIN_DB, _SURE * error_db) and bool(explains)
    return Verdict(mean, error_db, len(gain), (then, now), better)


def inconsistency(model: SemModel, live: Live) -> Tensor:
    """Reduced chi-square of each re-blurred restoration against its frame, (N,).

    The edges are left out, where the blur would need what lies outside.
    """
    restored = model.restore(live.pixels).tiles
    error = (reblurred(restored, live.covariance) - live.pixels) / live.noise[:, None, None, None]
    inner = slice(_MARGIN_PX, -_MARGIN_PX)
    return error[..., inner, inner].square().mean(dim=(1, 2, 3))


def reblurred(images: Tensor, covariance_px2: Tensor) -> Tensor:
    """Convolve (N, 1, H, W) with Gaussians of the given covariances, edges wrapped.

    Args:
        images: (N, 1, H, W).
        covariance_px2: (N, 3) as (xx, yy, xy).
    """
    height, width = images.shape[-2:]
    ky = 2 * torch.pi * torch.fft.fftfreq(height, device=images.device)[:, None]
    kx = 2 * torch.pi * torch.fft.rfftfreq(width, device=images.device)[None, :]
    xx, yy, xy = covariance_px2[:, :, None, None, None].unbind(1)
    transfer = torch.exp(-0.5 * (xx * kx**2 + yy * ky**2 + 2 * xy * kx * ky))
    blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(images) * transfer, s=(height, width))
    return blurred


@torch.no_grad()
def read_live(
    model: SemModel, frames: Sequence[Image], rng: np.random.Generator, count: int
) -> Live:
    """Random crops of real frames with the blur and noise that the model reads in them."""
    crop = []
    for index in rng.integers(len(frames), size=count):
        image = frames[int(index)]
        top, left = (int(rng.integers(length - _EDGE_PX + 1)) for length in image.shape)
        crop.append(image[top : top + _EDGE_PX, left : left + _EDGE_PX])
    device = next(model.parameters()).device
    pixels = torch.from_numpy(np.stack(crop))[:, None].to(device)
    seen = model(pixels, restore=False)
    half, axial, diagonal = covariance(seen.reading.blur).unbind(-1)
    matrix = torch.stack([half + axial, half - axial, diagonal], dim=-1)
    return Live(pixels, matrix, seen.noise_grey.clamp_min(_DIGITISED))
