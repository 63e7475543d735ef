from dataclasses import replace

import numpy as np
import pytest
import torch

from semagent_engines.data.ahead import Ahead, PairDrafts, ViewDrafts
from semagent_engines.data.batches import BatchSource, Ranges
from semagent_engines.data.sources import Source
from semagent_engines.data.specimen import procedural_specimen


def test_the_same_step_gives_the_same_batch(procedural: BatchSource) -> None:
    one, same = procedural.views(4, 2, 128), procedural.views(4, 2, 128)
    assert torch.equal(one.pixels, same.pixels)
    assert torch.equal(one.covariance, same.covariance)


def test_what_other_processes_draw_ahead_is_the_same(procedural: BatchSource) -> None:
    views = ViewDrafts(procedural, ((2, 128), (1, 144)))
    pairs = PairDrafts(procedural, 2, 128)
    ahead, pairs_ahead = Ahead(views, processes=1), Ahead(pairs, processes=1)
    for step in (0, 1, 2, 7):  # in their order, and after a jump
        assert torch.equal(ahead[step].acquire().pixels, views[step].acquire().pixels)
    drawn, expected = pairs_ahead[3].acquire(), procedural.pairs(3, 2, 128)
    assert torch.equal(drawn.first.pixels, expected.first.pixels)
    assert torch.equal(drawn.second.pixels, expected.second.pixels)


def test_other_steps_ranks_and_seeds_give_other_batches() -> None:
    def first(seed: int, rank: int, step: int) -> torch.Tensor:
        source = BatchSource([], seed=seed, rank=rank, procedural_count=2, procedural_px=200)
        return source.views(step, 1, 128).pixels

    batches = [first(0, 0, 0), first(0, 0, 1), first(0, 1, 0), first(1, 0, 0)]
    for index, batch in enumerate(batches):
        assert not any(torch.equal(batch, other) for other in batches[index + 1 :])


def test_nothing_to_draw_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="no images, and no procedural specimens"):
        BatchSource([Source("empty", (), refused=3)], seed=0, procedural_share=0.0)


def test_views_have_the_shapes_and_scale_they_promise(procedural: BatchSource) -> None:
    views = procedural.views(0, 3, 144)
    assert views.pixels.shape == views.truth.shape == (3, 1, 144, 144)
    assert views.covariance.shape == (3, 3)
    assert views.noise.shape == (3,)
    for image in (views.pixels, views.truth):
        assert 0.0 <= float(image.min()) <= float(image.max()) <= 1.0


def test_without_blur_and_noise_the_view_is_the_truth(procedural: BatchSource) -> None:
    sharp = Ranges(defocus=(1e-3, 2e-3), astigmatic_share=0.0, floor=(1e-3, 2e-3), dose=(1e7, 2e7))
    views = procedural.views(2, 8, 128, sharp)
    difference = (views.pixels - views.truth).abs().flatten(1)
    # Jitter, line and read noise hit some of the views but not all of them.
    assert float(difference.mean(dim=1).min()) < 0.005


def test_the_truth_drifts_as_the_view_does(procedural: BatchSource) -> None:
    sharp = Ranges(
        defocus=(1e-3, 2e-3),
        astigmatic_share=0.0,
        floor=(1e-3, 2e-3),
        dose=(1e7, 2e7),
        drift=(0.02, 0.02),
        drifting_share=1.0,
    )
    drifting, still = (
        procedural.views(2, 8, 128, ranges)
        for ranges in (sharp, replace(sharp, drifting_share=0.0))
    )
    beside = [(each.pixels - each.truth).abs().mean(dim=(1, 2, 3)) for each in (drifting, still)]
    assert torch.allclose(*beside, atol=2e-3)
    moved = (drifting.truth - still.truth).abs().mean(dim=(1, 2, 3))
    assert float(moved.median()) > 0.01


def test_pairs_show_one_field_at_two_focal_planes(procedural: BatchSource) -> None:
    calm = Ranges(defocus=(0.3, 1.0), dose=(5e3, 1e4), image_shift=0.5)
    pairs = procedural.pairs(1, 6, 128, calm)
    assert not torch.allclose(pairs.first.covariance, pairs.second.covariance)
    alike = []
    for one, other in zip(pairs.first.truth, pairs.second.truth, strict=True):
        alike.append(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]))
    assert np.median(alike) > 0.99


def test_flat_fields_have_flat_truth() -> None:
    source = BatchSource([], seed=0, procedural_count=1, procedural_px=200, flat_share=1.0)
    truth = source.views(0, 4, 128).truth
    rough = (truth[..., 1:] - truth[..., :-1]).abs().max()
    assert float(rough) < 0.01


@pytest.mark.parametrize("shape", [(128, 128), (90, 300)])
def test_images_smaller_than_the_crop_are_mirrored(shape: tuple[int, int]) -> None:
    image = procedural_specimen(np.random.default_rng(0), 300)[: shape[0], : shape[1]]
    source = Source("patches", (image,), refused=0)
    batch = BatchSource([source], seed=0, procedural_share=0.0, flat_share=0.0)
    assert batch.specimens(0, 2, 400).shape == (2, 400, 400)


def test_specimens_stay_within_the_grey_scale(procedural: BatchSource) -> None:
    crops = procedural.specimens(9, 6, 128)
    assert 0.0 <= float(crops.min()) <= float(crops.max()) <= 1.0
