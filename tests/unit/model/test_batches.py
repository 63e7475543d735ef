from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from semagent_engines.data.ahead import Ahead, PairDrafts, ViewDrafts
from semagent_engines.data.batches import MEASURABLE, RESTORABLE, BatchSource, Ranges
from semagent_engines.data.detector import sheared_covariance
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
    # Jitter, line and read noise are left.
    assert float(difference.mean(dim=1).max()) < 0.02


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


def test_the_stated_blur_drifts_with_the_view(procedural: BatchSource) -> None:
    draft = procedural.draft(2, 4, 128, Ranges(drift=(0.1, 0.2), drifting_share=1.0))
    told, still = draft.acquire().covariance, draft.beam.covariance()
    assert torch.equal(told, sheared_covariance(still, draft.slope))
    assert not torch.allclose(told, still, rtol=0.05)


def test_charging_is_in_the_view_and_in_the_truth(procedural: BatchSource) -> None:
    draft = procedural.draft(2, 4, 128, replace(RESTORABLE, dose=(1e6, 2e6)))
    charged, plain = (
        replace(draft, how=replace(draft.how, charging=torch.full((4,), strength))).acquire()
        for strength in (0.6, 0.0)
    )
    behind = charged.truth - plain.truth
    assert float(behind.abs().mean()) > 0.01
    seen = charged.pixels - plain.pixels
    assert float(torch.corrcoef(torch.stack([behind.flatten(), seen.flatten()]))[0, 1]) > 0.5


def test_nothing_comes_in_from_the_other_edge(procedural: BatchSource) -> None:
    """Blur wraps, in the margin that is cut off."""
    view = procedural.draft(0, 2, 128, replace(RESTORABLE, defocus=(6.0, 6.0), dose=(1e7, 2e7)))
    pair = procedural.draft_pairs(
        0, 2, 128, replace(MEASURABLE, defocus=(24.0, 24.0), dose=(1e7, 2e7))
    )
    for draft in (view, pair.first, pair.second):
        step = torch.zeros_like(draft.sharp)
        step[..., step.shape[-1] // 2 :] = 1.0
        views = replace(draft, sharp=step).acquire()
        assert float((views.pixels - views.truth)[..., :4].abs().mean()) < 0.03


def test_what_is_simulated_fills_its_ranges(procedural: BatchSource) -> None:
    count = 300
    pair = procedural.draft_pairs(0, count, 16)
    first, second = pair.first.beam, pair.second.beam
    for beam in (first, second):
        size = beam.defocus_px.abs()
        assert 0.4 * count < int((beam.defocus_px < 0).sum()) < 0.6 * count
        assert float(size.max()) <= MEASURABLE.defocus[1] * 1.001
    low, high = MEASURABLE.defocus
    assert float(first.defocus_px.abs().median()) == pytest.approx((low * high) ** 0.5, rel=0.3)
    a1, a2 = first.astigmatism_px.unbind(-1)
    assert 0.5 * count < int((a1 != 0).sum()) < 0.7 * count
    for quadrant in (a1 > 0, a1 < 0):
        assert min(int((quadrant & (a2 > 0)).sum()), int((quadrant & (a2 < 0)).sum())) > 0.1 * count
    assert set(pair.first.how.levels.tolist()) == {255.0, 65535.0}


def test_between_the_frames_of_a_pair_only_focus_place_and_brightness_change(
    procedural: BatchSource,
) -> None:
    calm = Ranges(defocus=(0.3, 0.6), dose=(5e3, 1e4), drifting_share=0.0)
    draft = procedural.draft_pairs(1, 6, 128, calm)
    one, other = draft.first, draft.second
    for name in ("astigmatism_px", "floor_px", "profile"):
        assert torch.equal(getattr(one.beam, name), getattr(other.beam, name))
    assert not torch.equal(one.beam.defocus_px, other.beam.defocus_px)
    assert not torch.equal(one.how.gain, other.how.gain)
    assert one.seed != other.seed  # the noise
    assert other.shift_px is not None
    pairs, off_px = draft.acquire(), []
    for before, after, wanted in zip(
        pairs.first.pixels, pairs.second.pixels, other.shift_px, strict=True
    ):
        found, _ = cv2.phaseCorrelate(before[0].numpy(), after[0].numpy())
        off_px.append(float(np.hypot(*(np.array(found) - wanted.numpy()))))
    assert np.median(off_px) < 0.3


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


def test_what_is_flat_in_a_micrograph_stays_flat() -> None:
    """Its noise is not made structure."""
    random = np.random.default_rng(0)
    image = np.clip(random.normal(0.5, 0.002, (300, 300)), 0, 1).astype(np.float32)
    source = Source("flat", (image,), refused=0)
    batch = BatchSource([source], seed=0, procedural_share=0.0, flat_share=0.0)
    assert float(batch.specimens(0, 4, 128).std(dim=(1, 2)).max()) < 0.01


@pytest.mark.parametrize("shape", [(128, 128), (90, 300)])
def test_images_smaller_than_the_crop_are_mirrored(shape: tuple[int, int]) -> None:
    image = procedural_specimen(np.random.default_rng(0), 300)[: shape[0], : shape[1]]
    source = Source("patches", (image,), refused=0)
    batch = BatchSource([source], seed=0, procedural_share=0.0, flat_share=0.0)
    assert batch.specimens(0, 2, 400).shape == (2, 400, 400)


def test_specimens_stay_within_the_grey_scale(procedural: BatchSource) -> None:
    crops = procedural.specimens(9, 6, 128)
    assert 0.0 <= float(crops.min()) <= float(crops.max()) <= 1.0
