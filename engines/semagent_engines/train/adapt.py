"""Adapting the restoration to one instrument, from its own frames and in minutes.

No pairs are needed. The instrument's sharp frames, blurred and made noisy as noisy as its frames
are, give pairs in its own contrast and texture; and every frame, focused or not, has to be
explained by its restoration: blurred again with the blur that was read, the restoration has to
differ from the frame by the noise and nothing else. A few real pairs, where there are any, join
in. Only the decoder learns, and a pull towards the weights it started from keeps it from
forgetting what a few frames cannot show.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from semagent_engines.data.batches import RESTORABLE, BatchSource, Ranges, Views
from semagent_engines.data.instrument import Frames, RealPair, crops
from semagent_engines.data.sources import Source
from semagent_engines.export.artefact import write_artefact
from semagent_engines.export.graphs import Calibration
from semagent_engines.export.weights import model_of_artefact
from semagent_engines.model.heads import covariance
from semagent_engines.model.network import SemModel, normalise
from semagent_engines.runtime.artefact import Artefact
from semagent_engines.train.checkpoint import load_checkpoint
from semagent_engines.train.distributed import Place
from semagent_engines.train.loop import Settings, train
from semagent_engines.train.losses import decibels, restoration_loss

_EDGE_PX = 128
_PER_BATCH = 8
_PER_FIELD = 16
_PROCEDURAL_SHARE, _PROCEDURAL_COUNT = 0.2, 16
_CONSISTENCY, _ANCHOR = 0.1, 1.0
_MARGIN_PX = 16
_LEAST_GAIN_DB = 0.02
_FEWEST_FIELDS = 4
_SURE = 3.18
"""Standard errors: one in forty lies beyond by chance, with four fields (Student)."""
_MOST_INCONSISTENT = 1.1


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
        gain_db: PSNR gained, mean over held-out fields.
        error_db: standard error of that mean, from how the fields differ; infinite for one field.
        consistency: median reduced chi-square of held-out real frames, before and after.
        better: whether the adapted weights are to be used.
    """

    gain_db: float
    error_db: float
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

    def forward(
        self, views: Views, live: Live, real: Views | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its parts."""
        parts = {"restoration": self._restoration(views)}
        if real is not None:
            parts["pairs"] = self._restoration(real)
        chi_square = inconsistency(self.model, live)
        parts["consistency"] = _CONSISTENCY * chi_square.clamp_min(1e-3).log().square().mean()
        strayed = (_vector(self.model.restorer) - self._start).square().sum()
        parts["anchor"] = _ANCHOR * strayed / self._size
        return torch.stack(list(parts.values())).sum(), parts

    def train(self, mode: bool = True) -> "Adaptation":  # noqa: ARG002 - the base's argument
        """Stay in evaluation mode: the head whose dropout this leaves off reads the targets."""
        return super().train(False)

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
        frames: frames of the instrument to learn from.
        pairs: real pairs to learn from, possibly none.
        seed: of everything random here.
    """

    def __init__(
        self, model: SemModel, frames: Frames, pairs: Sequence[RealPair], *, seed: int
    ) -> None:
        self.objective = Adaptation(model)
        self.ranges = ranges_of(model, frames)
        self.source = BatchSource(
            [Source("instrument", frames.sharp, refused=0)],
            seed=seed,
            procedural_share=_PROCEDURAL_SHARE,
            procedural_count=_PROCEDURAL_COUNT,
        )
        self._frames, self._pairs, self._seed = frames, tuple(pairs), seed

    def batch(self, step: int, device: torch.device) -> tuple[Any, ...]:
        """Simulated pairs, real frames, and real pairs if there are any."""
        rng = np.random.default_rng([self._seed, 5, step])
        draft = self.source.draft(step, _PER_BATCH, _EDGE_PX, self.ranges)
        live = read_live(self.objective.model, self._frames, rng, _PER_BATCH)
        real = crops(self._pairs, rng, _PER_BATCH, _EDGE_PX) if self._pairs else None
        return draft.to(device).acquire(), live, None if real is None else real.to(device)

    def validate(self) -> Mapping[str, float]:
        """Nothing: the verdict on held-out frames is passed once, at the end."""
        return {}


def adapt(
    artefact: Artefact,
    sides: tuple[Frames, Frames],
    pairs: Sequence[RealPair],
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
        sides: frames to learn from, and frames held out.
        pairs: real pairs; every fourth is held out.
        settings: budget, rate and folder.
        place: one process.
        seed: of everything random here.
        report: takes lines of progress.

    Returns:
        The verdict, and the new artefact's folder or ``None``.

    Raises:
        UsageError: the folder holds a checkpoint of other frames or of another artefact.
    """
    learned, held_out = sides
    before = model_of_artefact(artefact)
    held_pairs = [pair for index, pair in enumerate(pairs) if index % 4 == 1]
    used_pairs = [pair for index, pair in enumerate(pairs) if index % 4 != 1]
    task = Adapting(model_of_artefact(artefact), learned, used_pairs, seed=seed)
    record: dict[str, Any] = {
        **artefact.manifest.training,
        "stage": "adapt",
        "adapted_from": artefact.manifest.name,
        "adapted_on": _description(sides, pairs),
        "adaptation": {
            "frames": len(learned.raw),
            "sharp": len(learned.sharp),
            "pairs": len(pairs),
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
    judged = []
    for image in held_out.sharp:
        source = Source("instrument", (image,), refused=0)
        judges = BatchSource([source], seed=seed + 1, procedural_share=0.0, flat_share=0.0)
        judged.append(judges.views(0, _PER_FIELD, _EDGE_PX, task.ranges))
    rng = np.random.default_rng(seed)
    fields = [*judged, *(crops([pair], rng, _PER_FIELD, _EDGE_PX) for pair in held_pairs)]
    verdict = judge(before, after, fields, held_out, seed=seed)
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
        ranges=task.source,
        judged=judged,
    )
    return verdict, folder


def _description(sides: Sequence[Frames], pairs: Sequence[RealPair]) -> str:
    """Of all that is learned from or judged by; of anything else it is another."""
    frames = [image for side in sides for image in side.raw]
    digest = hashlib.sha256()
    for image in [*frames, *(each for pair in pairs for each in (pair.defocused, pair.focused))]:
        digest.update(np.ascontiguousarray(image).data)
    return f"{len(frames)} frames, {len(pairs)} pairs, SHA-256 {digest.hexdigest()[:12]}"


@torch.no_grad()
def judge(
    before: SemModel, after: SemModel, judged: Sequence[Views], frames: Frames, *, seed: int
) -> Verdict:
    """Compare two models on the views of each held-out field, and on frames.

    A field counts once, however many views it has: they share its texture and its focus.
    """
    gains = []
    for views in judged:
        quality = [
            decibels(model.restore(views.pixels).tiles, views.truth) for model in (before, after)
        ]
        gains.append(float((quality[1] - quality[0]).mean()))
    live = read_live(after, frames, np.random.default_rng(seed), 4 * _PER_BATCH)
    then, now = (float(inconsistency(model, live).median()) for model in (before, after))
    mean = float(np.mean(gains))
    error = float(np.std(gains, ddof=1)) / len(gains) ** 0.5 if len(gains) > 1 else float("inf")
    explains = abs(np.log(now)) <= max(abs(np.log(then)), np.log(_MOST_INCONSISTENT))
    sure = len(gains) >= _FEWEST_FIELDS and mean > max(_LEAST_GAIN_DB, _SURE * error)
    better = sure and bool(explains)
    return Verdict(mean, error, (then, now), better)


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
def read_live(model: SemModel, frames: Frames, rng: np.random.Generator, count: int) -> Live:
    """Random crops of real frames with the blur and noise that the model reads in them."""
    crop = []
    for index in rng.integers(len(frames.raw), size=count):
        image = frames.raw[int(index)]
        top, left = (int(rng.integers(length - _EDGE_PX + 1)) for length in image.shape)
        crop.append(image[top : top + _EDGE_PX, left : left + _EDGE_PX])
    device = next(model.parameters()).device
    pixels = torch.from_numpy(np.stack(crop))[:, None].to(device)
    seen = model(pixels, restore=False)
    half, axial, diagonal = covariance(seen.reading.blur).unbind(-1)
    matrix = torch.stack([half + axial, half - axial, diagonal], dim=-1)
    # Digitisation alone has a twelfth of a grey value squared.
    return Live(pixels, matrix, seen.noise_grey.clamp_min((1 / 12) ** 0.5 / 255))


def ranges_of(model: SemModel, frames: Frames) -> Ranges:
    """What to simulate: noise as in the instrument's frames, within a factor of two.

    Shot noise of ``n`` electrons a pixel has the variance signal / n.
    """
    live = read_live(model, frames, np.random.default_rng(0), 8 * _PER_BATCH)
    signal = live.pixels.mean(dim=(1, 2, 3))
    dose = float((signal / live.noise.square()).median())
    dose = min(max(dose, RESTORABLE.dose[0]), RESTORABLE.dose[1])
    return replace(RESTORABLE, dose=(0.5 * dose, 2.0 * dose))
