"""The estimator: what it believes, how sure it is, and which frames count."""

import msgspec
import numpy as np
import pytest

from semagent.control import SpectralEstimator
from semagent.control.options import EstimatorOptions, ScaleOptions
from semagent.signature import geometry_of
from semagent.testing.engines import without_angle
from semagent.types import FocusBelief, FrameAnalysis

from .bench import UNIT_M, Bench, Spectrum

FOCUS = 3.0
PLACES = (-14.0, -3.0, 6.0)


def make(**options: float) -> SpectralEstimator:
    return SpectralEstimator(msgspec.convert(options, EstimatorOptions), ScaleOptions())


def frames(
    places: tuple[float, ...], focus: float = FOCUS, seed: int = 0, **bench: object
) -> list[FrameAnalysis]:
    known = Bench(focus=focus, seed=seed, **bench)
    seen = []
    for place in places:
        known.now_ns += round(known.frame_s * 1e9)
        known.lens_m = known.origin_m + place * UNIT_M
        known.optics = msgspec.structs.replace(known.optics, working_distance_m=known.lens_m)
        seen.append(known.analysis())
    return seen


def feed(estimator: SpectralEstimator, analyses: list[FrameAnalysis]) -> FocusBelief:
    for analysis in analyses:
        belief = estimator.update(analysis)
    return belief


def focus_of(belief: FocusBelief) -> float:
    assert belief.focus_m is not None
    return (belief.focus_m - 5e-3) / UNIT_M


def test_three_frames_say_where_focus_is_and_how_surely() -> None:
    belief = feed(make(), frames(PLACES))
    assert focus_of(belief) == pytest.approx(FOCUS, abs=0.4)
    assert belief.sigma_m is not None
    assert 0 < belief.sigma_m < 0.5 * UNIT_M
    assert belief.interval90_m is not None
    low, high = belief.interval90_m
    assert low < belief.focus_m < high
    assert belief.log_odds > 10
    assert (belief.frames, belief.sequence) == (3, 3)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(4)
    held = []
    for seed in range(40):
        focus = random.uniform(-15, 15)
        places = (0.0, focus + random.normal(0, 4), focus + random.normal(0, 3))
        spectrum = Spectrum(
            slope=random.uniform(-2.5, -1.5),
            log_noise=random.uniform(-2, 1),
            spot_px=random.uniform(0.5, 0.9),
            pixels_a_half_depth=0.5 * np.exp(random.normal(0, 0.07)),
        )
        astigmatism = (random.normal(0, 1), random.normal(0, 1))
        seen = frames(places, focus, seed, spectrum=spectrum, astigmatism=astigmatism)
        low, high = feed(make(), seen).interval90_m
        held.append(low <= 5e-3 + focus * UNIT_M <= high)
    assert np.mean(held) >= 0.8


def test_one_frame_says_how_far_but_not_which_way() -> None:
    belief = feed(make(), frames((-9.0,)))
    offsets = [((mode.focus_m - 5e-3) / UNIT_M + 9, mode.weight) for mode in belief.modes]
    up = sum(weight for offset, weight in offsets if offset > 0)
    assert up == pytest.approx(0.5, abs=0.2)
    (offset, _), *_ = offsets
    assert 4 < abs(offset) < 25


def test_a_beam_that_no_working_distance_changes_has_no_focus() -> None:
    belief = feed(make(), frames((0.0, 12.0, -12.0), spectrum=Spectrum(flat=True)))
    assert belief.log_odds < -10


@pytest.mark.parametrize("drift", [0.8, -0.8])
@pytest.mark.parametrize("seed", range(3))
def test_six_frames_say_that_focus_moves(seed: int, drift: float) -> None:
    """The last one shows another focus than the first ones; where they end is where it is now."""
    places = (*PLACES, -1.0, 8.0, 1.0)
    at_rest = feed(make(), frames(places, seed=seed))
    assert at_rest.motion_log_odds < 0
    moving = feed(make(), frames(places, seed=seed, drift=drift))
    assert moving.motion_log_odds > 8
    assert moving.motion_m / UNIT_M == pytest.approx(drift, abs=0.2)


def test_one_frame_with_other_stigmators_does_not_tell_surely_whether_focus_moves() -> None:
    *seen, last = frames((*PLACES, -1.0, 8.0, 1.0), drift=0.8)
    assert feed(make(), [*seen, last]).motion_log_odds > 8
    optics = last.header.optics
    assert optics.stigmator_x is not None
    turned = msgspec.structs.replace(optics, stigmator_x=optics.stigmator_x + 0.1)
    header = msgspec.structs.replace(last.header, optics=turned)
    seen.append(msgspec.structs.replace(last, header=header))
    assert 0 < feed(make(), seen).motion_log_odds <= 2


def test_frames_of_one_moment_do_not_tell_whether_focus_moves() -> None:
    seen = frames((*PLACES, -1.0, 8.0), drift=0.8)
    when = seen[0].header
    stamps = {"monotonic_ns": when.monotonic_ns}
    still = [
        msgspec.structs.replace(each, header=msgspec.structs.replace(each.header, **stamps))
        for each in seen
    ]
    assert feed(make(), still).motion_log_odds == 0


@pytest.mark.parametrize("seed", range(4))
def test_noise_alone_says_nothing(seed: int) -> None:
    belief = feed(make(), frames((0.0, 8.0, -8.0), seed=seed, spectrum=Spectrum(log_noise=9.0)))
    assert belief.log_odds < 3
    assert belief.sigma_m is not None
    assert belief.sigma_m > 15 * UNIT_M


@pytest.mark.parametrize("seed", range(4))
def test_grooves_do_not_tell_focus_from_astigmatism(seed: int) -> None:
    """Only the sum of both blurs them: each is as uncertain as astigmatism was before."""
    grooves = Spectrum(grooves=True, log_noise=-2.0)
    places = (-8.0, 0.0, 8.0, 4.0)
    belief = feed(make(), frames(places, FOCUS, seed, astigmatism=(0.8, 0.5), spectrum=grooves))
    assert belief.log_odds > 10
    assert belief.sigma_m > 1.2 * UNIT_M
    assert belief.astigmatism_sigma_m[0] > 1.2 * UNIT_M
    low, high = belief.interval90_m
    assert low < 5e-3 + FOCUS * UNIT_M < high


def test_brightness_does_not_matter() -> None:
    seen = frames(PLACES)
    signature = seen[1].signature
    gains = np.where(geometry_of(signature.tile_px).share > 0, 0.5, 0.0)
    brighter = msgspec.structs.replace(
        signature,
        log_power=tuple((signature.log_power + gains).tolist()),
        log_noise=tuple((signature.log_noise + gains).tolist()),
    )
    changed = [seen[0], msgspec.structs.replace(seen[1], signature=brighter), seen[2]]
    plain, other = feed(make(), seen), feed(make(), changed)
    assert focus_of(other) == pytest.approx(focus_of(plain), abs=plain.sigma_m / UNIT_M)


def test_same_frame_twice_counts_once() -> None:
    estimator, seen = make(), frames(PLACES)
    once = feed(estimator, seen)
    again = estimator.update(seen[-1])
    assert again.frames == once.frames
    assert (again.focus_m, again.sigma_m) == (once.focus_m, once.sigma_m)


def test_other_settings_void_the_evidence() -> None:
    estimator, seen = make(), frames(PLACES)
    feed(estimator, seen)
    header = msgspec.structs.replace(seen[0].header, settings_rev=2)
    belief = estimator.update(msgspec.structs.replace(seen[0], header=header))
    assert (belief.frames, belief.settings_rev) == (1, 2)


def test_a_frame_too_small_for_a_signature_says_nothing() -> None:
    estimator, seen = make(), frames(PLACES)
    belief = estimator.update(msgspec.structs.replace(seen[0], signature=None))
    assert (belief.frames, belief.focus_m, belief.interval90_m) == (0, None, None)


@pytest.mark.parametrize("away", [3.0, -12.0])
def test_one_frame_says_how_far_focus_is_where_the_field_is_known_in_focus(away: float) -> None:
    estimator, (focused, seen) = make(), frames((FOCUS, FOCUS + away))
    estimator.reset(focused.signature)
    belief = estimator.update(seen)
    assert belief.frames == 1
    assert belief.log_odds > 10
    nearer, further = sorted(
        abs((mode.focus_m - 5e-3) / UNIT_M - FOCUS) for mode in belief.modes if mode.weight > 0.1
    )
    assert nearer < 0.1 * abs(away) + 0.3
    assert further == pytest.approx(2 * abs(away), rel=0.1)


def test_how_the_field_looked_in_focus_no_longer_counts_once_others_tell() -> None:
    """It may be another by now."""
    estimator = make()
    estimator.reset(frames((FOCUS,), spectrum=Spectrum(slope=-1.0))[0].signature)
    known, plain = feed(estimator, frames(PLACES)), feed(make(), frames(PLACES))
    assert focus_of(known) == pytest.approx(focus_of(plain), abs=0.1)
    assert known.sigma_m == pytest.approx(plain.sigma_m, rel=0.2)


def test_reset_forgets() -> None:
    estimator, seen = make(), frames(PLACES)
    feed(estimator, seen)
    estimator.reset()
    assert feed(estimator, seen[:1]).frames == 1


def test_a_long_rest_does_not_push_out_what_was_seen_elsewhere() -> None:
    estimator = make(memory_frames=5)
    feed(estimator, frames(PLACES))
    belief = feed(estimator, frames((2.5,) * 12, seed=1))
    assert belief.frames == 3 + 4  # of many at one place the last four
    assert belief.log_odds > 10
    assert focus_of(belief) == pytest.approx(FOCUS, abs=0.4)


def test_the_slope_is_taken_from_the_header_or_learned() -> None:
    seen = frames((-14.0, -6.0, 1.0, 8.0), spectrum=Spectrum(pixels_a_half_depth=0.8))
    blind = [without_angle(analysis) for analysis in seen]
    assert focus_of(feed(make(), blind)) == pytest.approx(FOCUS, abs=0.4)


def test_scale_comes_from_the_frame_or_from_what_is_assumed() -> None:
    header = frames((0.0,))[0].header
    assert ScaleOptions().half_depth_of(header) == pytest.approx(2e-6)
    assert ScaleOptions(half_depth_m=7e-6).half_depth_of(header) == 7e-6
    optics = msgspec.structs.replace(header.optics, convergence_angle_rad=None)
    no_angle = msgspec.structs.replace(header, optics=optics)
    scale = ScaleOptions(assumed_convergence_angle_rad=1e-2)
    assert scale.half_depth_of(no_angle) == pytest.approx(1e-6)
    no_pixel = msgspec.structs.replace(
        header, scan=msgspec.structs.replace(header.scan, pixel_size_m=None)
    )
    assert ScaleOptions(assumed_half_depth_m=3e-6).half_depth_of(no_pixel) == 3e-6
