"""Experts, encoder, heads and the whole model."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from semagent.errors import ConfigError
from semagent_engines.model.config import PRESETS, ModelConfig, preset
from semagent_engines.model.encoder import Encoder
from semagent_engines.model.experts import Experts
from semagent_engines.model.heads import (
    PAIR_UNIT_PX2,
    PairHead,
    Signature,
    blur_target,
    covariance,
    focus_score,
    pair_target,
)
from semagent_engines.model.network import SemModel, build, normalise
from semagent_engines.model.spectrum import ANGLES, FEATURES, RADII, Spectrum
from semagent_engines.model.summary import summarise


def tiles(count: int = 2, height: int = 128, width: int = 144, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(seed))


# -- experts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("experts", [1, 2, 4])
def test_dense_and_sparse_dispatch_agree_in_value_and_gradient(experts: int) -> None:
    torch.manual_seed(0)
    layer = Experts(16, 24, experts)
    tokens = torch.randn(3, 20, 16)
    results = []
    for dense in (False, True):
        layer.dense = dense
        layer.zero_grad()
        routed = layer(tokens)
        routed.tokens.square().sum().backward()
        results.append((routed.tokens.detach(), layer.up.grad.clone(), layer.gate.weight.grad))
    for sparse, dense_value in zip(*results, strict=True):
        torch.testing.assert_close(sparse, dense_value, atol=1e-5, rtol=1e-4)


def test_an_expert_without_tokens_is_no_error() -> None:
    layer = Experts(8, 8, 4)
    with torch.no_grad():
        layer.gate.weight.zero_()
        layer.gate.weight[2] = 10.0
    routed = layer(torch.ones(1, 5, 8))
    assert routed.shares.tolist() == [[0.0, 0.0, 1.0, 0.0]]
    assert float(routed.imbalance.detach()) == pytest.approx(4.0, rel=1e-3)


def test_shares_are_shares(model: SemModel) -> None:
    shares = model.restore(tiles()).shares
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2))


# -- spectrum ---------------------------------------------------------------------------------


def test_spectrum_of_white_noise_is_white_at_every_scale() -> None:
    noise = torch.randn(4, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    features = Spectrum(3)(noise)
    bins = len(RADII) * ANGLES
    power = features[..., :bins].exp().mean(dim=(0, 2))
    # Binning by two quarters the variance of white noise.
    torch.testing.assert_close(
        power * torch.tensor([1.0, 4.0, 16.0]), torch.ones(3), rtol=0.1, atol=0
    )


def test_gaussian_blur_subtracts_its_squared_transfer_from_the_log_spectrum() -> None:
    noise = torch.randn(4, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    k = 2 * math.pi * torch.fft.fftfreq(256)
    sigma = 1.2
    transfer = torch.exp(-0.5 * sigma**2 * (k[:, None] ** 2 + k[None, :129].abs() ** 2))
    blurred = torch.fft.irfft2(torch.fft.rfft2(noise) * transfer, s=(256, 256))
    spectrum = Spectrum(1)
    bins = len(RADII) * ANGLES
    change = (spectrum(blurred) - spectrum(noise))[..., :bins].mean(dim=(0, 1))
    for index, radius in enumerate(RADII[1:4], start=1):
        found = float(change[index * ANGLES : (index + 1) * ANGLES].mean())
        assert found == pytest.approx(-((sigma * 2 * math.pi * radius) ** 2), rel=0.2)


def test_spectrum_does_not_see_the_mean() -> None:
    image = tiles(1, 128, 128)
    spectrum = Spectrum(2)
    torch.testing.assert_close(spectrum(image + 3.0), spectrum(image), atol=1e-3, rtol=0)


# -- encoder ----------------------------------------------------------------------------------


def test_hidden_patches_are_not_seen(small: ModelConfig) -> None:
    torch.manual_seed(0)
    encoder = Encoder(small).eval()
    image = tiles(1, 128, 128)
    keep = torch.arange(16)[None]
    seen = encoder(image, keep=keep)
    assert seen.patches.shape == (1, 16, small.dim)
    changed = image.clone()
    # Below row 32 lie only patches that are dropped; the spectra, which see all, are given.
    changed[..., 32:, :] = 0.5
    spectra = encoder.spectrum(image)
    before = encoder(image, keep=keep, spectra=spectra)
    after = encoder(changed, keep=keep, spectra=spectra)
    torch.testing.assert_close(before.patches, after.patches)


def test_a_patch_knows_its_neighbours_distance_not_its_place(small: ModelConfig) -> None:
    torch.manual_seed(0)
    encoder = Encoder(small).eval()
    angles = encoder.rotary.angles(4, 5, 2)
    grid = angles[2:].reshape(4, 5, -1)
    torch.testing.assert_close(grid[1, 1] - grid[0, 0], grid[3, 4] - grid[2, 3])
    assert torch.equal(angles[:2], torch.zeros_like(angles[:2]))


# -- heads ------------------------------------------------------------------------------------

axes = st.floats(0.3, 20.0)


@given(one=axes, other=axes, angle=st.floats(-1.5, 1.5))
def test_blur_parameters_stand_for_one_covariance(one: float, other: float, angle: float) -> None:
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
    matrix = turn @ torch.diag(torch.tensor([one**2, other**2], dtype=torch.float64)) @ turn.T
    entries = torch.stack([matrix[0, 0], matrix[1, 1], matrix[0, 1]])[None]
    half, axial, diagonal = covariance(blur_target(entries))[0].tolist()
    size = one**2 + other**2
    assert half + axial == pytest.approx(float(matrix[0, 0]), abs=1e-3 * size)
    assert half - axial == pytest.approx(float(matrix[1, 1]), abs=1e-3 * size)
    assert diagonal == pytest.approx(float(matrix[0, 1]), abs=1e-3 * size)
    strength = float(blur_target(entries)[0, 1:].norm())
    assert strength == pytest.approx(abs(math.log(one / other)), abs=0.05 + 0.01 * strength)


def test_round_blur_has_no_direction() -> None:
    target = blur_target(torch.tensor([[4.0, 4.0, 0.0]]))
    torch.testing.assert_close(target, torch.tensor([[math.log(2.0), 0.0, 0.0]]))


def test_swapping_the_frames_of_a_pair_changes_the_sign_and_nothing_else(model: SemModel) -> None:
    first = model(tiles(seed=1), restore=False).signature
    second = model(tiles(seed=2), restore=False).signature
    mean, std = model.compare(first, second)
    back, back_std = model.compare(second, first)
    torch.testing.assert_close(mean, -back, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(std, back_std)


def test_a_frame_does_not_differ_from_itself(model: SemModel) -> None:
    signature = model(tiles(), restore=False).signature
    assert torch.equal(model.compare(signature, signature)[0], torch.zeros(2, 3))


@pytest.mark.parametrize("covariance_px2", [(3.0, 0.0, 0.0), (0.0, 1.5, 0.0), (0.0, 0.0, -1.0)])
def test_astigmatic_slopes_are_those_of_a_gaussian_blur(
    small: ModelConfig, covariance_px2: tuple[float, float, float]
) -> None:
    torch.manual_seed(0)
    head = PairHead(small)
    round_part, axial, diagonal = covariance_px2
    theta = math.pi * torch.arange(ANGLES) / ANGLES
    shape = round_part + axial * (2 * theta).cos() + diagonal * (2 * theta).sin()
    powers = -head.squared.view(small.scales, len(RADII), 1) * shape
    spectra = torch.zeros(2, 1, small.scales, FEATURES)
    spectra[1, 0, :, : len(RADII) * ANGLES] = powers.flatten(1)
    sides = [Signature(spectrum, torch.zeros(1, 3), torch.ones(1, 3)) for spectrum in spectra]
    weights = torch.rand(1, head.squared.numel()).softmax(dim=1)
    found = head._slopes(*sides, weights)
    torch.testing.assert_close(found, torch.tensor([[axial, diagonal]]), atol=1e-4, rtol=1e-4)


def test_pair_target_is_the_difference_second_minus_first() -> None:
    first = torch.tensor([[1.0, 1.0, 0.0]])
    second = torch.tensor([[5.0, 3.0, -1.0]])
    found = PAIR_UNIT_PX2 * pair_target(first, second).sinh()
    torch.testing.assert_close(found, torch.tensor([[3.0, 1.0, -1.0]]))


def test_focus_score_falls_from_one_through_a_half_at_two_pixels() -> None:
    scores = focus_score(torch.tensor([0.05, 1.0, 2.0, 4.0, 20.0]).log())
    assert torch.all(scores[1:] < scores[:-1])
    assert float(scores[0]) > 0.99
    assert float(scores[2]) == pytest.approx(0.5)
    assert float(scores[-1]) < 0.02


# -- the whole model --------------------------------------------------------------------------


def test_any_linear_grey_scale_gives_the_same_reading(model: SemModel) -> None:
    grey = tiles()
    eight, sixteen = model(255 * grey), model(65535 * grey + 300)
    torch.testing.assert_close(eight.reading.blur, sixteen.reading.blur, atol=1e-3, rtol=1e-3)
    assert eight.restoration is not None
    assert sixteen.restoration is not None
    torch.testing.assert_close(
        257 * eight.restoration.tiles + 300, sixteen.restoration.tiles, atol=30.0, rtol=1e-3
    )


def test_a_blank_tile_gives_finite_figures_and_itself(model: SemModel) -> None:
    blank = torch.full((1, 1, 128, 128), 77.0)
    seen = model(blank)
    assert seen.restoration is not None
    for value in (*seen.reading, seen.score, seen.restoration.tiles):
        assert torch.isfinite(value).all()
    assert float((seen.restoration.tiles.detach() - 77.0).abs().max()) < 1.0


@pytest.mark.parametrize("shape", [(128, 128), (144, 272), (256, 128)])
def test_restored_tiles_have_the_shape_of_the_raw(model: SemModel, shape: tuple[int, int]) -> None:
    assert model.restore(tiles(1, *shape)).tiles.shape == (1, 1, *shape)


def test_a_new_model_restores_to_the_raw_frame(small: ModelConfig) -> None:
    image = tiles()
    restored = build(small).eval().restore(image).tiles
    torch.testing.assert_close(restored, image, atol=1e-5, rtol=1e-4)


def test_every_weight_learns(model: SemModel) -> None:
    seen = model(tiles(4))
    mean, std = model.compare(seen.signature, model(tiles(4, seed=9), restore=False).signature)
    loss = seen.restoration.tiles.square().mean() + seen.reading.noise.sum()
    loss = loss + seen.reading.blur.sum()
    (loss + seen.reading.blur_std.sum() + mean.sum() + std.sum()).backward()
    still = [name for name, value in model.named_parameters() if value.grad is None]
    assert still == []


def test_normalised_tiles_have_mean_0_and_deviation_1() -> None:
    found = normalise(tiles() * 200 + 17)
    assert float(found.tiles.mean()) == pytest.approx(0.0, abs=1e-4)
    assert float(found.tiles.std(correction=0)) == pytest.approx(1.0, abs=1e-3)


# -- presets ----------------------------------------------------------------------------------


def test_large_has_the_encoder_of_vit_large() -> None:
    # ViT-L has 303 M; three more experts in each of the last two blocks add 50 M.
    found = summarise(preset("large"))
    assert found.encoder_parameters / 1e6 == pytest.approx(353, abs=3)
    # A token of 16 x 16 pixels passes every weight of the 302 M of blocks once, and attention.
    assert found.encoder_macs > 353e6 / 16**2 > 0.9 * found.encoder_macs


def test_tiny_is_light_enough_for_a_microscope_pc() -> None:
    found = summarise(preset("tiny"))
    assert found.parameters * 4 < 20e6
    assert found.score_macs < 1e3
    # In eight bits on two cores that is a frame of 1024 x 768 in a quarter of a second.
    assert found.restore_macs < 35e3


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_configurations_survive_a_round_trip(name: str) -> None:
    assert ModelConfig.from_dict(preset(name).as_dict()) == preset(name)


def test_an_unknown_preset_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="'huge' does not exist; there are tiny, base, large"):
        preset("huge")


@pytest.mark.parametrize(
    "values", [{"dim": 30}, {"heads": 5}, {"expert_blocks": 3}, {"no_such": 1}], ids=str
)
def test_impossible_sizes_are_refused(small: ModelConfig, values: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        ModelConfig.from_dict({**small.as_dict(), **values})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "device"), [("tiny", "cpu"), ("base", "cpu"), ("large", "meta")], ids=str
)
def test_every_preset_runs_forward_and_backward(name: str, device: str) -> None:
    """The largest without its values, which take 3 GB: shapes and types are checked."""
    with torch.device(device):
        model = SemModel(preset(name))
    model.set_dense(device == "meta")
    seen = model(tiles(1, 128, 128).to(device))
    assert seen.restoration.tiles.shape == (1, 1, 128, 128)
    (seen.restoration.tiles.mean() + seen.reading.blur.sum()).backward()
    assert model.encoder.embed_patch.weight.grad is not None
