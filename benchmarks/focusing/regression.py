"""A two-frame regression network of DeepFocus's size, trained on the benchmark's own microscope.

P. Schubert, R. Saxena and J. Kornfeld, "DeepFocus: fast focus and astigmatism correction for
electron microscopy", Nature Communications 15 (2024): two frames at a symmetric test defocus pass
the same small convolutional network; from the features of both, three numbers and a score are
regressed for every crop, and the crops are averaged, weighted by their scores. Widths and kernels
are those of its base model.

Different here: frames are binned by four, because training has minutes of one core instead of days
of a graphics card; crops are the places of one fully convolutional pass; a pair is scaled to zero
mean and unit variance. It is given up to three rounds of two frames, ended when the correction is
below half a depth of field, and an answer is applied as it is, as in the original. Training
specimens and noise are drawn like those of the trials, micrographs come from ``train`` alone.
"""

import math
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from focusing.outcome import Outcome
from focusing.scope import Image, Scope
from focusing.trials import MAX_ASTIGMATISM, MAX_START, Fields, Trial, make_trial

TEST = 12.0
"""Test defocus, half depths of field."""

MAX_ROUNDS = 3
LAYERS = ((20, 5), (30, 5), (40, 4), (50, 4), (60, 3), (70, 3), (70, 1))
"""Channels and kernel of each convolution; the first five are followed by pooling."""

POOLED = 5
BIN = 4
SCALE = (MAX_START, MAX_ASTIGMATISM, MAX_ASTIGMATISM)

TRAINING_SEED = 977
SCOPES, PAIRS_EACH = 300, 6
EPOCHS, BATCH = 5, 16
LEARNING_RATE = 2e-3


class TwoFrames(nn.Module):
    """Frames, shape (batch, 2, 96, 128), to (z, a1, a2) over `SCALE`, shape (batch, 3)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for index, (channels, kernel) in enumerate(LAYERS):
            layers += [
                nn.Conv2d(before, channels, kernel, padding=kernel // 2),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
            if index < POOLED:
                layers.append(nn.MaxPool2d(2))
            before = channels
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Conv2d(2 * before, 25, 1), nn.ReLU(), nn.Conv2d(25, 4, 1))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Average over crops, weighted by their scores."""
        batch, _, height, width = frames.shape
        features = self.features(frames.reshape(2 * batch, 1, height, width))
        answers = self.head(features.reshape(batch, -1, *features.shape[2:])).flatten(2)
        weights = answers[:, 3:].softmax(dim=2)
        return (answers[:, :3] * weights).sum(dim=2)


def prepare(low: Image, high: Image) -> npt.NDArray[np.float32]:
    """A pair, binned, with zero mean and unit variance; shape (2, height, width)."""
    size = (low.shape[1] // BIN, low.shape[0] // BIN)
    frames = np.stack(
        [cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (low, high)]
    )
    return np.asarray((frames - frames.mean()) / max(float(frames.std()), 1.0), np.float32)


def pair(scope: Scope) -> npt.NDArray[np.float32]:
    """The two frames about the present place, which is left as it was found."""
    here = scope.position
    scope.go(here - TEST)
    low = scope.image()
    scope.go(here + TEST)
    high = scope.image()
    scope.go(here)
    return prepare(low, high)


def examples(fields: Fields, number: int) -> list[tuple[npt.NDArray[np.float32], list[float]]]:
    """Pairs of one specimen with the aberrations at their middle, over `SCALE`."""
    trial = make_trial("focus", number, fields, TRAINING_SEED)
    rng = np.random.default_rng([TRAINING_SEED, number])
    scope = Scope(trial)
    a1, a2 = trial.astigmatism
    found = []
    for index in range(PAIRS_EACH):
        # Half of the pairs are near focus, where the last round has to be right.
        z = rng.uniform(-MAX_START, MAX_START) if index % 2 else rng.normal(0, 5)
        reach = scope.limit - TEST
        scope.go(min(max(z - trial.start, -reach), reach))
        size, angle = rng.uniform(0, MAX_ASTIGMATISM) * (index % 3 > 0), rng.uniform(0, 2 * math.pi)
        wanted = (float(size * np.cos(angle)), float(size * np.sin(angle)))
        scope.stigmate(wanted[0] - a1, wanted[1] - a2)
        a1, a2 = wanted
        truth = (scope.error, a1, a2)
        frames = pair(scope)
        found.append((frames, [value / scale for value, scale in zip(truth, SCALE, strict=True)]))
    return found


def train(fields: Fields) -> TwoFrames:
    """A network trained for some minutes of one core."""
    torch.manual_seed(TRAINING_SEED)
    started_s = time.perf_counter()
    found = [example for number in range(SCOPES) for example in examples(fields, number)]
    frames = torch.from_numpy(np.stack([each for each, _ in found]).astype(np.float16))
    truths = torch.tensor([truth for _, truth in found])
    _say(f"{len(found)} pairs in {time.perf_counter() - started_s:.0f} s")
    network = TwoFrames()
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=5e-5)
    steps = EPOCHS * (len(found) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        losses = []
        for chosen in torch.randperm(len(found))[: steps // EPOCHS * BATCH].split(BATCH):
            batch, wanted = mirrored(frames[chosen].float(), truths[chosen])
            loss = nn.functional.l1_loss(network(batch), wanted)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        _say(f"epoch {epoch + 1}: {np.mean(losses):.4f}, {time.perf_counter() - started_s:.0f} s")
    return network.eval()


def mirrored(frames: torch.Tensor, truths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Left and right, top and bottom swapped at random, which turns the sign of a2."""
    for axis in (2, 3):
        if torch.rand(()) < 0.5:
            frames = frames.flip(axis)
            truths = truths * torch.tensor([1.0, 1.0, -1.0])
    return frames, truths


def _say(text: str) -> None:
    print(f"two-frame network: {text}", file=sys.stderr, flush=True)


def load(fields: Fields, cache: Path) -> TwoFrames:
    """The network from the cache; trained first where it is not there yet."""
    path = cache / f"two-frame-network-{fields.name}.pt"
    torch.set_num_threads(1)
    if not path.exists():
        draft = path.with_suffix(f".{os.getpid()}.partial")
        torch.save(train(fields).state_dict(), draft)
        draft.replace(path)
    network = TwoFrames()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


class Regression:
    """The method with its network."""

    def __init__(self, fields: Fields, cache: Path) -> None:
        self._network = load(fields, cache)

    def __call__(self, trial: Trial) -> Outcome:
        """Run one trial."""
        scope = Scope(trial)
        for _ in range(MAX_ROUNDS):
            with torch.inference_mode():
                answer = self._network(torch.from_numpy(pair(scope)[None]))[0]
            z, a1, a2 = (answer * torch.tensor(SCALE)).tolist()
            scope.go(scope.position - z)
            scope.stigmate(-a1, -a2)
            if abs(z) < 1:
                break
        return scope.outcome("two-frame network")
