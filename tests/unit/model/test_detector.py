import dataclasses

import pytest
import torch

from semagent_engines.data.beam import Beam, blur
from semagent_engines.data.detector import Detection, charge, detect, shear, sheared_covariance


def detection(**changes: float) -> Detection:
    values = {
        "dose": 200.0,
        "excess": 0.0,
        "read_noise": 0.0,
        "line_noise": 0.0,
        "smear": 0.0,
        "jitter_px": 0.0,
        "charging": 0.0,
        "gain": 1.0,
        "offset": 0.0,
        "levels": 65535.0,
    }
    return Detection(**{name: torch.tensor([value]) for name, value in (values | changes).items()})


def flat(level: float = 0.5, size: int = 256) -> torch.Tensor:
    return torch.full((1, size, size), level)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"excess": 0.5},
        {"read_noise": 0.02, "dose": 1000.0},
        {"smear": 0.3},
        {"gain": 0.6, "offset": 0.1},
    ],
    ids=str,
)
def test_the_stated_noise_is_the_noise(changes: dict[str, float]) -> None:
    image, noise = detect(flat(), detection(**changes), generator())
    assert float(image.std()) == pytest.approx(float(noise[0]), rel=0.12)


def test_shot_noise_falls_with_the_root_of_the_dose() -> None:
    few, _ = detect(flat(), detection(dose=100.0), generator())
    many, _ = detect(flat(), detection(dose=400.0), generator())
    assert float(few.std() / many.std()) == pytest.approx(2.0, rel=0.05)


def second_moments(image: torch.Tensor) -> torch.Tensor:
    """Of a spot: (xx, yy, xy), px²."""
    rows, columns = torch.meshgrid(*map(torch.arange, image.shape), indexing="ij")
    weight = image / image.sum()
    x, y = (places - (weight * places).sum() for places in (columns, rows))
    return torch.stack([(weight * product).sum() for product in (x * x, y * y, x * y)])


def test_a_field_that_drifts_is_sheared_and_so_is_its_blur() -> None:
    spot = torch.zeros(1, 128, 128)
    spot[0, 80, 64] = 1.0
    beam = Beam(torch.tensor([0.5]), torch.tensor([[2.0, 3.0]]), torch.ones(1), torch.tensor([0]))
    slope = torch.tensor([0.2])
    image = shear(blur(spot, beam), slope)[0]
    weight = image.sum(dim=0)
    # The middle is between lines 63 and 64.
    across = float((weight * torch.arange(128)).sum() / weight.sum())
    assert across == pytest.approx(64 + 0.2 * (80 - 63.5), abs=0.01)
    told = sheared_covariance(beam.covariance(), slope)[0]
    assert second_moments(image).tolist() == pytest.approx(told.tolist(), rel=0.03)
    assert not torch.allclose(told, beam.covariance()[0], atol=0.5)


def test_line_noise_moves_whole_lines() -> None:
    quiet = detection(dose=1e7, line_noise=0.02)
    image, _ = detect(flat(), quiet, generator())
    assert float(image[0].mean(dim=1).std()) == pytest.approx(0.02, rel=0.2)
    assert float(image[0].std(dim=1).max()) < 0.002


def test_jitter_displaces_whole_lines() -> None:
    ramp = torch.linspace(0.2, 0.8, 256).expand(1, 256, 256)
    image, _ = detect(ramp, detection(dose=1e7, jitter_px=0.4), generator())
    moved_px = (image - ramp)[0] / (0.6 / 255)
    assert float(moved_px.mean(dim=1).std()) == pytest.approx(0.4, rel=0.2)
    assert float(moved_px.std(dim=1).max()) < 0.15


def test_smear_correlates_neighbours_along_the_line_only() -> None:
    image, _ = detect(flat(), detection(smear=0.4), generator())
    noise = image[0] - image[0].mean()
    along = float((noise[:, 1:] * noise[:, :-1]).mean() / noise.var())
    across = float((noise[1:] * noise[:-1]).mean() / noise.var())
    assert along > 0.3
    assert abs(across) < 0.05


@pytest.mark.parametrize("levels", [255.0, 65535.0])
def test_grey_values_are_whole_levels_within_the_scale(levels: float) -> None:
    image, _ = detect(flat(0.9), detection(levels=levels, dose=20.0), generator())
    steps = image * levels
    assert float((steps - steps.round()).abs().max()) < 0.01
    assert 0.0 <= float(image.min()) <= float(image.max()) <= 1.0


def test_the_same_seed_gives_the_same_noise() -> None:
    one, _ = detect(flat(), detection(), generator(5))
    same, _ = detect(flat(), detection(), generator(5))
    other, _ = detect(flat(), detection(), generator(6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_charging_darkens_behind_a_bright_part_and_nowhere_else() -> None:
    specimen = torch.full((1, 64, 256), 0.4)
    specimen[:, 30:34, 40:60] = 1.0
    charged = charge(specimen, torch.tensor([0.5]))
    assert float(charged[0, 32, 62]) < float(specimen[0, 32, 62]) - 0.01
    assert float(charged[0, 10, 62]) == pytest.approx(0.4, abs=0.02)


def test_no_charging_changes_nothing() -> None:
    specimen = torch.rand(1, 32, 32, generator=generator())
    torch.testing.assert_close(charge(specimen, torch.zeros(1)), specimen)


def test_detections_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        detection().dose = torch.ones(1)  # type: ignore[misc] - that is the point
