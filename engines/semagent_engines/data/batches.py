"""Seeded batches: the same seed, rank and step always give the same batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from semagent_engines.data.beam import PROFILES, Beam, blur
from semagent_engines.data.detector import Detection, charge, detect, shear, sheared_covariance
from semagent_engines.data.sources import Source
from semagent_engines.data.specimen import Image, procedural_specimen


@dataclass(frozen=True)
class Views:
    """Degraded images with their truth.

    Attributes:
        pixels: (B, 1, H, W), grey values in [0, 1].
        truth: (B, 1, H, W), the same without blur and noise, on the same grey scale.
        covariance: (B, 3), blur covariance (xx, yy, xy), px².
        noise: (B,), standard deviation of the noise, fraction of full scale.
    """

    pixels: Tensor
    truth: Tensor
    covariance: Tensor
    noise: Tensor

    def to(self, device: torch.device) -> "Views":
        """The same on another device."""
        return Views(*(value.to(device) for value in vars(self).values()))


@dataclass(frozen=True)
class Draft:
    """Everything drawn for a batch of views, before the physics.

    A CPU, or several, draw it; `acquire` computes on whatever device it was moved to. The noise
    is that device's: on another kind of device the same draft gives other views.

    Attributes:
        sharp: (B, H, W), specimens in [0, 1] with a margin.
        beam: how they are blurred.
        how: how they are detected.
        seed: of the noise.
        margin_px: width of the margin.
        slope: (B,), drift along the lines from one line to the next, pixels.
        shift_px: (B, 2), image shift (x, y), or ``None`` for none.
    """

    sharp: Tensor
    beam: Beam
    how: Detection
    seed: int
    margin_px: int
    slope: Tensor
    shift_px: Tensor | None = None

    def to(self, device: torch.device) -> "Draft":
        """The same on another device."""
        shift = None if self.shift_px is None else self.shift_px.to(device)
        moved = self.sharp.to(device), self.beam.to(device), self.how.to(device)
        return Draft(*moved, self.seed, self.margin_px, self.slope.to(device), shift)

    def acquire(self) -> Views:
        """The views, (B, 1, H - 2 margin, W - 2 margin), on the draft's device."""
        generator = torch.Generator(self.sharp.device).manual_seed(self.seed)
        how, inner = self.how, slice(self.margin_px, self.sharp.shape[-1] - self.margin_px)
        specimen = charge(self.sharp, how.charging)
        blurred = shear(blur(specimen, self.beam, self.shift_px), self.slope)[:, inner, inner]
        pixels, noise = detect(blurred, how, generator)
        # What the beam went over: it drifts in the truth as well.
        seen = shear(specimen, self.slope)[:, inner, inner]
        truth = how.gain[:, None, None] * seen + how.offset[:, None, None]
        return Views(
            pixels=pixels[:, None],
            truth=truth[:, None].clamp(0.0, 1.0),
            covariance=sheared_covariance(self.beam.covariance(), self.slope),
            noise=noise,
        )


@dataclass(frozen=True)
class Pairs:
    """Two frames of one field each, with different focus, shift, brightness and contrast."""

    first: Views
    second: Views

    def to(self, device: torch.device) -> "Pairs":
        """The same on another device."""
        return Pairs(self.first.to(device), self.second.to(device))


@dataclass(frozen=True)
class PairDraft:
    """Drafts of two frames of the same specimens."""

    first: Draft
    second: Draft

    def to(self, device: torch.device) -> "PairDraft":
        """The same on another device."""
        first = self.first.to(device)
        return PairDraft(first, replace(self.second, sharp=first.sharp).to(device))

    def acquire(self) -> Pairs:
        """The pairs, on the draft's device."""
        return Pairs(self.first.acquire(), self.second.acquire())


@dataclass(frozen=True)
class Ranges:
    """What is simulated. Lengths in pixels; pairs are the ends of log-uniform distributions."""

    defocus: tuple[float, float] = (0.3, 24.0)
    astigmatism: tuple[float, float] = (0.1, 4.0)
    astigmatic_share: float = 0.6
    floor: tuple[float, float] = (0.2, 0.8)
    dose: tuple[float, float] = (15.0, 3000.0)
    image_shift: float = 6.0
    drift: tuple[float, float] = (5e-4, 2e-2)
    drifting_share: float = 0.3


MEASURABLE = Ranges()
"""The whole range that a focus search meets."""

RESTORABLE = Ranges(defocus=(0.25, 6.0), astigmatism=(0.1, 2.5), dose=(20.0, 1500.0))
"""Blur that leaves something to restore; beyond it only the measurement makes sense."""

_MARGIN_PX, _PAIR_MARGIN_PX = 32, 64
"""Around views and pairs, where the blur's edges wrap."""


class BatchSource:
    """Makes batches from the images of some sources and from procedural specimens.

    Args:
        sources: real micrographs; may be empty if ``procedural_share`` is 1.
        seed: of everything random here.
        rank: number of this worker; workers with other numbers get other batches.
        procedural_share: share of procedural specimens.
        procedural_count: how many of them to draw, once, at the start.
        procedural_px: their edge.
        flat_share: share of fields without any structure, on which nothing may be invented.

    Raises:
        ValueError: there is no image, and no procedural specimen is wanted either.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        seed: int,
        rank: int = 0,
        procedural_share: float = 0.3,
        procedural_count: int = 64,
        procedural_px: int = 640,
        flat_share: float = 0.03,
    ) -> None:
        self._seed = (seed, rank)
        self._groups = [source.images for source in sources if source.images]
        if not self._groups and procedural_share == 0:
            raise ValueError("no images, and no procedural specimens")
        # Few large images say more than one image does, but not in proportion to their area.
        areas = [sum(image.size for image in group) ** (1 / 3) for group in self._groups]
        self._weights = np.array(areas) / max(sum(areas), 1.0)
        self._procedural_share = procedural_share if self._groups else 1.0
        self._flat_share = flat_share
        rng = np.random.default_rng([seed, rank, 0])
        count = procedural_count if self._procedural_share > 0 else 0
        self._procedural = [procedural_specimen(rng, procedural_px) for _ in range(count)]

    def specimens(self, step: int, count: int, edge_px: int) -> Tensor:
        """Sharp, noise-free crops, (count, edge_px, edge_px) in [0, 1]."""
        rng = self._rng(1, step)
        return torch.from_numpy(np.stack([self._crop(rng, edge_px) for _ in range(count)]))

    def views(self, step: int, count: int, edge_px: int, ranges: Ranges = RESTORABLE) -> Views:
        """A batch of degraded images with their truth, ``edge_px`` square."""
        return self.draft(step, count, edge_px, ranges).acquire()

    def draft(self, step: int, count: int, edge_px: int, ranges: Ranges = RESTORABLE) -> Draft:
        """What `views` of the same arguments are computed from."""
        rng = self._rng(2, step)
        seed = int(rng.integers(2**62))
        sharp = self.specimens(step, count, edge_px + 2 * _MARGIN_PX)
        beam = beams(rng, count, ranges)
        how = _detections(rng, count, ranges)
        return Draft(sharp, beam, how, seed, _MARGIN_PX, _slopes(rng, count, ranges))

    def pairs(self, step: int, count: int, edge_px: int, ranges: Ranges = MEASURABLE) -> Pairs:
        """A batch of frame pairs, ``edge_px`` square."""
        return self.draft_pairs(step, count, edge_px, ranges).acquire()

    def draft_pairs(
        self, step: int, count: int, edge_px: int, ranges: Ranges = MEASURABLE
    ) -> PairDraft:
        """What `pairs` of the same arguments are computed from."""
        rng = self._rng(3, step)
        seeds = [int(seed) for seed in rng.integers(2**62, size=2)]
        sharp = self.specimens(step, count, edge_px + 2 * _PAIR_MARGIN_PX)
        first = beams(rng, count, ranges)
        second = _refocused(rng, first, ranges)
        how = _detections(rng, count, ranges)
        drifted = Detection(
            **{
                **vars(how),
                "gain": how.gain * _uniform(rng, count, 0.8, 1.25),
                "offset": how.offset + _uniform(rng, count, -0.05, 0.05),
            }
        )
        shift = torch.from_numpy(
            rng.uniform(-ranges.image_shift, ranges.image_shift, (count, 2)).astype(np.float32)
        )
        slope = _slopes(rng, count, ranges)
        return PairDraft(
            Draft(sharp, first, how, seeds[0], _PAIR_MARGIN_PX, slope),
            Draft(sharp, second, drifted, seeds[1], _PAIR_MARGIN_PX, slope, shift),
        )

    def _rng(self, stream: int, step: int) -> np.random.Generator:
        return np.random.default_rng([*self._seed, stream, step])

    def _crop(self, rng: np.random.Generator, edge_px: int) -> Image:
        if rng.random() < self._flat_share:
            return _flat(rng, edge_px)
        if rng.random() < self._procedural_share:
            image = self._procedural[int(rng.integers(len(self._procedural)))]
        else:
            group = self._groups[int(rng.choice(len(self._groups), p=self._weights))]
            image = group[int(rng.integers(len(group)))]
        scale = float(rng.uniform(0.5, 1.0)) if rng.random() < 0.4 else 1.0
        crop = _cut(rng, image, max(edge_px, round(edge_px / scale)))
        if crop.shape[0] != edge_px:
            resized = cv2.resize(crop, (edge_px, edge_px), interpolation=cv2.INTER_AREA)
            crop = np.asarray(resized, np.float32)
        crop = np.rot90(crop, int(rng.integers(4)))
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        return _regrade(rng, crop)


def _cut(rng: np.random.Generator, image: Image, edge_px: int) -> Image:
    """A square of ``image``, which is mirrored at its edges where it is too small."""
    height, width = image.shape
    while min(height, width) < edge_px:
        missing = edge_px - min(height, width)
        border = min(missing // 2 + 1, min(height, width) - 1)
        image = np.pad(image, border, mode="reflect")
        height, width = image.shape
    top = int(rng.integers(height - edge_px + 1))
    left = int(rng.integers(width - edge_px + 1))
    return image[top : top + edge_px, left : left + edge_px]


def _regrade(rng: np.random.Generator, crop: Image) -> Image:
    """Random gamma, contrast, brightness and polarity: what detectors differ in."""
    low, high = float(crop.min()), float(crop.max())
    graded = (crop - low) / max(high - low, 0.05)
    graded = np.clip(graded, 0.0, 1.0) ** float(rng.uniform(0.6, 1.6))
    if rng.random() < 0.15:
        graded = 1.0 - graded
    bottom = float(rng.uniform(0.02, 0.35))
    top = float(rng.uniform(bottom + 0.2, 1.0))
    # Keep a flat part of the specimen flat: stretching it would only amplify its noise.
    stretch = min(1.0, (high - low) / 0.25)
    return np.ascontiguousarray(bottom + (top - bottom) * stretch * graded, np.float32)


def _flat(rng: np.random.Generator, edge_px: int) -> Image:
    ramp = np.linspace(-0.5, 0.5, edge_px, dtype=np.float32)
    slope = rng.uniform(-0.2, 0.2, 2)
    plane = 0.5 + slope[0] * ramp[:, None] + slope[1] * ramp[None, :]
    return np.asarray(np.clip(plane * rng.uniform(0.2, 1.6), 0.0, 1.0), np.float32)


def _log_uniform(rng: np.random.Generator, count: int, ends: tuple[float, float]) -> Tensor:
    low, high = np.log(ends)
    return torch.from_numpy(np.exp(rng.uniform(low, high, count)).astype(np.float32))


def _uniform(rng: np.random.Generator, count: int, low: float, high: float) -> Tensor:
    return torch.from_numpy(rng.uniform(low, high, count).astype(np.float32))


def _sometimes(rng: np.random.Generator, values: Tensor, share: float) -> Tensor:
    """``values`` with the given probability, else 0."""
    chosen = torch.from_numpy(rng.random(len(values)) < share)
    return values * chosen


def beams(rng: np.random.Generator, count: int, ranges: Ranges) -> Beam:
    """Random beams of these ranges."""
    defocus = _log_uniform(rng, count, ranges.defocus)
    size = _sometimes(rng, _log_uniform(rng, count, ranges.astigmatism), ranges.astigmatic_share)
    direction = _uniform(rng, count, 0.0, 2 * np.pi)
    sign = torch.from_numpy(rng.choice(np.array([-1.0, 1.0], np.float32), count))
    return Beam(
        defocus_px=defocus * sign,
        astigmatism_px=torch.stack([size * direction.cos(), size * direction.sin()], dim=-1),
        floor_px=_log_uniform(rng, count, ranges.floor),
        profile=torch.from_numpy(rng.integers(len(PROFILES), size=count)),
    )


def _refocused(rng: np.random.Generator, beam: Beam, ranges: Ranges) -> Beam:
    """The same beams after a move of the focus: small, or to anywhere."""
    count = len(beam.defocus_px)
    sign = torch.from_numpy(rng.choice(np.array([-1.0, 1.0], np.float32), count))
    anywhere = _log_uniform(rng, count, ranges.defocus) * sign
    nearby = beam.defocus_px + _log_uniform(rng, count, (0.2, 6.0)) * sign
    far = ranges.defocus[1]
    moved = torch.where(torch.from_numpy(rng.random(count) < 0.5), anywhere, nearby)
    return Beam(moved.clamp(-far, far), beam.astigmatism_px, beam.floor_px, beam.profile)


def _slopes(rng: np.random.Generator, count: int, ranges: Ranges) -> Tensor:
    """Drift along the lines, from one line to the next."""
    size = _sometimes(rng, _log_uniform(rng, count, ranges.drift), ranges.drifting_share)
    return size * torch.from_numpy(rng.choice(np.array([-1.0, 1.0], np.float32), count))


def _detections(rng: np.random.Generator, count: int, ranges: Ranges) -> Detection:
    deep = torch.from_numpy(rng.random(count) < 0.25)
    return Detection(
        dose=_log_uniform(rng, count, ranges.dose),
        excess=_uniform(rng, count, 0.0, 0.6),
        read_noise=_sometimes(rng, _log_uniform(rng, count, (0.002, 0.03)), 0.5),
        line_noise=_sometimes(rng, _log_uniform(rng, count, (0.002, 0.02)), 0.3),
        smear=_sometimes(rng, _uniform(rng, count, 0.05, 0.4), 0.2),
        jitter_px=_sometimes(rng, _uniform(rng, count, 0.05, 0.4), 0.2),
        charging=_sometimes(rng, _uniform(rng, count, 0.1, 0.6), 0.15),
        gain=_uniform(rng, count, 0.7, 1.1),
        offset=_uniform(rng, count, -0.03, 0.1),
        levels=torch.where(deep, 65535.0, 255.0),
    )
