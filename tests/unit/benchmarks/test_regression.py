"""The two-frame network is fed what it should be."""

import cv2
import numpy as np
import pytest
from focusing.scope import Image, Scope
from focusing.trials import MAX_ASTIGMATISM, Fields, make_trial

torch = pytest.importorskip("torch")

from focusing import regression  # noqa: E402


def test_it_is_of_deepfocus_size() -> None:
    network = regression.TwoFrames()
    assert 100_000 < sum(each.numel() for each in network.parameters()) < 200_000
    assert network.eval()(torch.zeros(3, 2, 96, 128)).shape == (3, 3)


def test_examples_are_pairs_with_what_was_set(fields: Fields) -> None:
    found = regression.examples(fields, 0)
    truths = np.array([truth for _, truth in found]) * regression.SCALE
    assert len(found) == regression.PAIRS_EACH
    assert np.hypot(truths[:, 1], truths[:, 2]).max() <= MAX_ASTIGMATISM + 1e-9
    assert np.ptp(truths[:, 0]) > 1
    for frames, _ in found:
        assert frames.shape == (2, 96, 128)
        assert frames.std() == pytest.approx(1, abs=1e-3)


def test_a_mirrored_frame_has_the_other_a2(fields: Fields) -> None:
    trials = (make_trial("focus", number, fields, seed=0) for number in range(400))
    trial = next(
        each
        for each in trials
        if each.dose == 400 and abs(each.astigmatism[1]) > 2.5 and abs(each.start) < 20
    )
    scope = Scope(trial)
    scope.go(4.0 - trial.start)

    def diagonal(image: Image) -> float:
        """Gradient along one diagonal less that along the other."""
        down, up = image[2:, 2:] - image[:-2, :-2], image[:-2, 2:] - image[2:, :-2]
        return float((down**2).mean() - (up**2).mean())

    seen = cv2.GaussianBlur(scope.image(), (0, 0), 2)
    scope.stigmate(0.0, -2 * trial.astigmatism[1])
    turned = cv2.GaussianBlur(scope.image(), (0, 0), 2)
    assert diagonal(seen) * diagonal(turned) < 0
    assert diagonal(seen) * diagonal(seen[:, ::-1]) < 0
    frames, truths = torch.zeros(1, 2, 4, 4), torch.tensor([[0.1, 0.2, 0.3]])
    signs = {regression.mirrored(frames, truths)[1][0, 2].item() > 0 for _ in range(40)}
    assert signs == {True, False}
