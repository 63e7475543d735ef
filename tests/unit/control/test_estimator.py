"""The estimator: which frames count, in which unit, and for how long."""

import math

import msgspec
import numpy as np
import pytest

from semagent.control import SharpnessEstimator
from semagent.control.options import EstimatorOptions, ScaleOptions
from semagent.types import FocusBelief, FrameAnalysis

from .bench import UNIT_M, Bench, Curve

PLACES = (-12.0, -6.0, -3.0, 2.0, 4.0, 9.0)


def make(**options: float) -> SharpnessEstimator:
    return SharpnessEstimator(msgspec.convert(options, EstimatorOptions), ScaleOptions())


def frames(
    places: tuple[float, ...], focus: float = 1.0, noise: float = 0.01
) -> list[FrameAnalysis]:
    bench = Bench(focus=focus, noise=noise, scatter=0.0, curve=Curve(width=4.0))
    seen = []
    for place in places:
        bench.lens_m = bench.origin_m + place * UNIT_M
        bench.optics = msgspec.structs.replace(bench.optics, working_distance_m=bench.lens_m)
        seen.append(bench.analysis())
    return seen


def feed(estimator: SharpnessEstimator, analyses: list[FrameAnalysis]) -> FocusBelief:
    for analysis in analyses:
        belief = estimator.update(analysis)
    return belief


def test_belief_is_in_metres() -> None:
    belief = feed(make(), frames(PLACES))
    assert belief.focus_m == pytest.approx(5e-3 + UNIT_M, abs=UNIT_M / 2)
    assert belief.sigma_m is not None
    assert 0 < belief.sigma_m < UNIT_M
    assert belief.interval90_m is not None
    low, high = belief.interval90_m
    assert low < belief.focus_m < high
    assert belief.log_odds > 5
    assert belief.frames == len(PLACES)
    assert belief.sequence == len(PLACES)
    assert belief.stigmator_correction is None


def test_same_frame_twice_counts_once() -> None:
    estimator, seen = make(), frames(PLACES)
    once = feed(estimator, seen)
    again = estimator.update(seen[-1])
    assert (again.frames, again.focus_m, again.sigma_m) == (once.frames, once.focus_m, once.sigma_m)


def test_other_settings_void_the_evidence() -> None:
    estimator, seen = make(), frames(PLACES)
    feed(estimator, seen)
    header = msgspec.structs.replace(seen[0].header, settings_rev=2)
    belief = estimator.update(msgspec.structs.replace(seen[0], header=header))
    assert (belief.frames, belief.settings_rev) == (1, 2)


def test_reset_forgets() -> None:
    estimator, seen = make(), frames(PLACES)
    feed(estimator, seen)
    estimator.reset()
    assert feed(estimator, seen[:1]).frames == 1


def test_long_rest_does_not_push_the_curve_out() -> None:
    estimator = make()
    feed(estimator, frames(PLACES))
    belief = feed(estimator, frames((0.0,) * 100))
    assert belief.frames == len(PLACES) + 5


def test_memory_is_bounded() -> None:
    places = tuple(float(place) for place in np.linspace(-30, 30, 25))
    assert feed(make(memory_frames=10), frames(places)).frames == 10


def test_old_evidence_fades() -> None:
    rest = (0.0,) * 60
    fresh = feed(make(aging_per_frame=0.0), frames(PLACES + rest)).sigma_m
    faded = feed(make(aging_per_frame=0.02), frames(PLACES + rest)).sigma_m
    assert fresh is not None
    assert faded is not None
    assert faded > 1.5 * fresh


@pytest.mark.parametrize(
    ("name", "value"), [("sharpness", math.nan), ("sharpness_sigma", math.inf)]
)
def test_not_finite_is_refused(name: str, value: float) -> None:
    analysis = msgspec.structs.replace(frames((0.0,))[0], **{name: value})
    with pytest.raises(ValueError, match="frame 1: sharpness"):
        make().update(analysis)


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
