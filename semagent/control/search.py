"""Where to look next: coarse steps until focus is bracketed, then where the belief says.

Pure functions of the samples so far and the belief; nothing here knows about commands.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from semagent.control.options import AutofocusOptions
from semagent.control.situation import Sample
from semagent.types import FocusBelief

_SAME_PLACE = 0.25  # half depths of field within which two frames count as one place
_AGREE = 0.5  # half depths of field between a verifying frame and the estimate
_VISIBLE = 3.0  # standard deviations between the best and the worst place for a trend to be real


@dataclass(frozen=True, slots=True)
class Field:
    """Where a search may go.

    Attributes:
        start_m: working distance at the start.
        unit_m: half a depth of field.
        wanted_m: range to search, (low, high).
        allowed_m: range never to leave, (low, high).
        resolution_m: how finely the instrument follows.
    """

    start_m: float
    unit_m: float
    wanted_m: tuple[float, float]
    allowed_m: tuple[float, float]
    resolution_m: float = 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """Take the next frame here."""

    working_distance_m: float


@dataclass(frozen=True, slots=True)
class Found:
    """The last frame is at the estimate and agrees with it."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The evidence does not say where focus is."""

    reason: str


Step = Look | Found | GiveUp


def field_around(
    start_m: float,
    unit_m: float,
    limits_m: tuple[float, float] | None,
    options: AutofocusOptions,
    resolution_m: float = 0.0,
) -> Field:
    """The field of a search that starts at ``start_m``, inside the instrument's limits."""
    reach_m = options.range_m or options.range_half_depths * unit_m
    low, high = limits_m or (-math.inf, math.inf)

    def within(half_m: float) -> tuple[float, float]:
        return max(low, start_m - half_m), min(high, start_m + half_m)

    return Field(
        start_m=start_m,
        unit_m=unit_m,
        wanted_m=within(reach_m),
        allowed_m=within(reach_m * options.max_range_factor),
        # One command that was not obeyed must not make any place count as the place asked for.
        resolution_m=min(resolution_m, options.first_step * unit_m),
    )


def significant(better: Sample, worse: Sample, sigmas: float) -> bool:
    """Whether one sample is sharper than another by more than noise and scatter explain."""
    return better.sharpness - worse.sharpness > sigmas * math.hypot(better.sigma, worse.sigma)


def mean_of(samples: Sequence[Sample]) -> Sample:
    """The mean of one or more samples of about one place, which stands for them."""
    count = len(samples)
    return Sample(
        working_distance_m=sum(sample.working_distance_m for sample in samples) / count,
        sharpness=sum(sample.sharpness for sample in samples) / count,
        sigma=math.sqrt(sum(sample.sigma**2 for sample in samples)) / count,
    )


def near(samples: Sequence[Sample], place_m: float, field: Field) -> list[Sample]:
    """The samples that were taken at a working distance, or as close to it as can be told."""
    reach_m = _AGREE * field.unit_m + field.resolution_m
    return [s for s in samples if abs(s.working_distance_m - place_m) <= reach_m]


def next_step(
    samples: tuple[Sample, ...],
    belief: FocusBelief,
    field: Field,
    frames_left: int,
    options: AutofocusOptions,
) -> Step:
    """What to do after the last of ``samples``.

    Args:
        samples: one or more, in the order they were taken.
        belief: what they say together.
        field: where the search may go.
        frames_left: frames that may still be taken.
        options: the section ``autofocus``.
    """
    rough = _believed(belief, field, options.fine_step * field.unit_m, options)
    if rough is not None:
        sure = certain(belief, field, options)
        there = bool(near(samples[-1:], rough, field))
        if there and (sure or frames_left == 0) and _sharpest(samples, options):
            return Found()
        if frames_left and not there and (sure or frames_left == 1):
            return Look(rough)
    if frames_left == 0:
        return GiveUp(_why_not(samples, belief, field, options))
    if rough is not None:
        return Look(_flank(samples, belief, rough, field, options))
    return _explore(samples, belief, field, options)


def certain(belief: FocusBelief, field: Field, options: AutofocusOptions) -> bool:
    """Whether focus is known as well as the depth of field, or the instrument, is worth."""
    wanted_m = max(options.stop_sigma * field.unit_m, field.resolution_m, options.finest_step_m)
    return _believed(belief, field, wanted_m, options) is not None


def _believed(
    belief: FocusBelief, field: Field, sigma_m: float, options: AutofocusOptions
) -> float | None:
    """The estimate, if it is at least this certain and may be visited."""
    if belief.focus_m is None or belief.sigma_m is None:
        return None
    if belief.log_odds < options.min_log_odds or belief.sigma_m > sigma_m:
        return None
    low, high = field.allowed_m
    return belief.focus_m if low <= belief.focus_m <= high else None


def _sharpest(samples: tuple[Sample, ...], options: AutofocusOptions) -> bool:
    """Whether no earlier sample is significantly sharper than the last."""
    best = max(samples, key=lambda sample: sample.sharpness)
    return not significant(best, samples[-1], options.significance)


def _flank(
    samples: tuple[Sample, ...],
    belief: FocusBelief,
    focus: float,
    field: Field,
    options: AutofocusOptions,
) -> float:
    """A point beside the estimate, where the curve is steep, on the side that was seen less."""
    step = max(options.fine_step * field.unit_m, 2.0 * (belief.sigma_m or 0.0))
    offsets = [sample.working_distance_m - focus for sample in samples]
    below = sum(-2.0 * step <= offset <= -step / 4 for offset in offsets)
    above = sum(step / 4 <= offset <= 2.0 * step for offset in offsets)
    if min(below, above):
        step /= 2.0
    low, high = field.allowed_m
    target = focus - step if below <= above else focus + step
    if not low <= target <= high:
        target = 2 * focus - target
    return min(max(target, low), high)


def _explore(
    samples: tuple[Sample, ...], belief: FocusBelief, field: Field, options: AutofocusOptions
) -> Step:
    """Climb while sharpness changes visibly, else visit what was not seen, nearest first."""
    places = _places(samples, field)
    first_step = options.first_step * field.unit_m
    best = max(range(len(places)), key=lambda index: places[index].sharpness)
    worst = min(places, key=lambda place: place.sharpness)
    if significant(places[best], worst, _VISIBLE):
        ways = []
        if best in (0, len(places) - 1):
            ways = [_outward(places, best > 0, field.allowed_m, first_step)]
        seen, finest_m = places[max(best - 1, 0) : best + 2], field.unit_m
    else:
        ways = [_outward(places, up, field.wanted_m, first_step) for up in (True, False)]
        seen, finest_m = places, 2 * first_step
    targets = [way for way in ways if way is not None]
    if targets:
        return Look(min(targets, key=lambda target: abs(target - field.start_m)))
    inside = _inside(seen, belief, field, finest_m)
    if inside is not None:
        return Look(inside)
    return GiveUp(_why_not(samples, belief, field, options))


def _places(samples: tuple[Sample, ...], field: Field) -> list[Sample]:
    """The samples by working distance, the latest standing for those at one place."""
    places: list[Sample] = []
    for sample in sorted(samples, key=lambda sample: sample.working_distance_m):
        if places and (
            sample.working_distance_m - places[-1].working_distance_m < _SAME_PLACE * field.unit_m
        ):
            places[-1] = sample
        else:
            places.append(sample)
    return places


def _outward(
    places: list[Sample], upwards: bool, limits: tuple[float, float], first_step: float
) -> float | None:
    """The next point beyond the outermost place, twice the last step away, inside the limits."""
    distances = [place.working_distance_m for place in places]
    edge = distances[-1] if upwards else distances[0]
    inner = distances[-2:-1] if upwards else distances[1:2]
    step = max([first_step, *(2 * abs(edge - value) for value in inner)])
    room = limits[1] - edge if upwards else edge - limits[0]
    if room < first_step / 4:
        return None
    step = min(step, room)
    return edge + step if upwards else edge - step


def _inside(
    places: list[Sample], belief: FocusBelief, field: Field, finest_m: float
) -> float | None:
    """A point between neighbouring places: the estimate, or the middle of the widest gap.

    ``None`` when no gap is wider than ``finest_m``.
    """
    distances = [place.working_distance_m for place in places]
    gaps = [(right - left, left) for left, right in itertools.pairwise(distances)]
    width, left = max(gaps, default=(0.0, 0.0))
    if width <= finest_m:
        return None
    focus = belief.focus_m
    if focus is not None and distances[0] < focus < distances[-1]:
        nearest = min(abs(focus - value) for value in distances)
        if nearest > field.unit_m:
            return focus
    return left + width / 2


def _why_not(
    samples: tuple[Sample, ...], belief: FocusBelief, field: Field, options: AutofocusOptions
) -> str:
    distances = [sample.working_distance_m for sample in samples]
    seen = f"{min(distances) * 1e3:.4f} to {max(distances) * 1e3:.4f} mm"
    if belief.log_odds < options.min_log_odds:
        return f"sharpness does not depend on the working distance from {seen}"
    best = max(samples, key=lambda sample: sample.sharpness).working_distance_m
    edge = min(abs(best - limit) for limit in field.allowed_m)
    if edge < options.first_step * field.unit_m / 4:
        return f"sharpness still rises at the end of the allowed range, {best * 1e3:.4f} mm"
    sigma = math.inf if belief.sigma_m is None else belief.sigma_m
    return (
        f"{len(samples)} frames from {seen} leave focus uncertain by {sigma * 1e6:.2f} µm, "
        f"half a depth of field is {field.unit_m * 1e6:.2f} µm"
    )
