"""Where to look next: at the likeliest focus, and beside it where that does not tell.

Pure functions of the places seen so far and the belief; nothing here knows about commands.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from semagent.control.options import AutofocusOptions
from semagent.control.situation import Sample
from semagent.lengths import show_distance, show_distances, show_length
from semagent.types import FocusBelief, FocusMode

AGREE = 0.5
"""Half depths of field within which two frames count as one place."""
_NEAR = 4.0
"""Half depths of field to which focus is known where what shows is sharpest."""
_ENOUGH = 3  # two frames may say where focus is, a third has to agree
_LIKELY, _CLOSE = 0.45, 1.2  # weight and half depths of field at which a mode itself is looked at
_LIKELY_AT_ONCE = 0.8  # the weight after a single frame, when its mirror image is as likely
_SIGMAS = 1.5  # of a mode, that a look beside it goes at least
_GAP = 8.0  # fine steps between two frames that may hide a focus
_FINE = 4.0  # half depths of field: the longest fine step, where a recorded stack has coarser ones
_WIDEST = 2.0  # fine steps that a first look beside a focus may go: far away there is only noise
_ALL_AROUND, _NOT_TO_IGNORE = 6, 0.1  # frames, weight of a mode
_AS_TRIMMED = 5  # frames with new stigmators that tell what astigmatism is left, if any do
_FAINT = 10.0  # log odds that noise reaches near the best of many modes
_SURELY = 2.0  # standard deviations by which focus has to be out of range to be called so
_OPEN = 0.8  # half depths of field of uncertain astigmatism, which defocus may be mistaken for
_MOVES = 0.25  # half depths of field from frame to frame that matter
_SURELY_MOVES = 8.0  # log odds
_ASTRAY = 0.05  # half depths of field between a place asked for and the one it led to
_TIMES_AS_FAR = (1, 2, 4, 8, 16, 32, 64)
_ONE_DIRECTION = (
    "there may be structure along one direction only, where astigmatism is like defocus"
)


@dataclass(frozen=True, slots=True)
class Field:
    """Where a search may go.

    Attributes:
        start_m: working distance at the start.
        unit_m: half a depth of field.
        allowed_m: range never to leave, (low, high).
        resolution_m: how finely the instrument follows.
        ways_m: places asked for, and where that led.
    """

    start_m: float
    unit_m: float
    allowed_m: tuple[float, float]
    resolution_m: float = 0.0
    ways_m: tuple[tuple[float, float], ...] = ()

    def allows(self, place_m: float) -> bool:
        """Whether a working distance may be visited."""
        return self.allowed_m[0] <= place_m <= self.allowed_m[1]


@dataclass(frozen=True, slots=True)
class Look:
    """Take the next frame here."""

    working_distance_m: float


@dataclass(frozen=True, slots=True)
class Found:
    """The last frame agrees that focus is here, near where it was taken."""

    working_distance_m: float


@dataclass(frozen=True, slots=True)
class Sharpest:
    """What shows is sharpest here; astigmatism that does not show may keep focus elsewhere."""

    working_distance_m: float
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The evidence does not say where focus is."""

    reason: str


Step = Look | Found | Sharpest | GiveUp


def field_around(
    start_m: float,
    unit_m: float,
    limits_m: tuple[float, float] | None,
    options: AutofocusOptions,
    ways_m: tuple[tuple[float, float], ...] = (),
) -> Field:
    """The field of a search that starts at ``start_m``, inside the instrument's limits."""
    reach_m = options.range_m or options.range_half_depths * unit_m
    low, high = limits_m or (-math.inf, math.inf)
    offs_m = [abs(asked_m - led_m) for asked_m, led_m in ways_m]
    # A command that led far astray must not make any place count as the place asked for.
    finely_m = [off_m for off_m in offs_m if off_m <= options.fine_step * unit_m]
    return Field(
        start_m=start_m,
        unit_m=unit_m,
        allowed_m=(max(low, start_m - reach_m), min(high, start_m + reach_m)),
        resolution_m=max(finely_m, default=0.0),
        ways_m=ways_m,
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


def next_step(
    places_m: Sequence[float],
    belief: FocusBelief,
    field: Field,
    frames_left: int,
    options: AutofocusOptions,
    *,
    as_trimmed: int | None = None,
    field_known: bool = False,
    followed: bool = False,
) -> Step:
    """What to do after the last of the frames.

    Args:
        places_m: working distances of the frames, one or more, in the order they were taken.
        belief: what they say together.
        field: where the search may go.
        frames_left: frames that may still be taken.
        options: the section ``autofocus``.
        as_trimmed: how many frames were taken since the stigmators were changed; ``None`` where
            they were not. They may do other than what is remembered: the verifying frame has to be
            at the estimate, it is not enough that it is in focus; and what astigmatism is left,
            only frames with them tell.
        field_known: how the field looks in focus is known, so that one frame tells how far it is.
        followed: focus is followed from there on, so that the specimen may move.
    """
    here_m = places_m[-1]
    focus_m = belief.focus_m
    known = focus_m is not None and certain(belief, focus_m, field, options)
    moves = not followed and _moves(belief, field, options)
    if moves and len(places_m) > _ENOUGH and belief.motion_log_odds > _SURELY_MOVES:
        return GiveUp(_how_it_moves(belief, field))
    agrees_m = max(AGREE * field.unit_m, field.resolution_m)
    if len(places_m) >= _ENOUGH and focus_m is not None and known:
        in_focus = as_trimmed is None and certain(belief, here_m, field, options)
        if in_focus or abs(focus_m - here_m) <= agrees_m:
            if moves and frames_left > 1:
                return beside(places_m, belief, field, options)
            return Found(focus_m)
    mode = next((mode for mode in _likely(belief) if field.allows(mode.focus_m)), None)
    if focus_m is not None and _shows_one_direction(belief, focus_m, field, options):
        told = as_trimmed is None or as_trimmed >= _AS_TRIMMED
        surrounded = told and _surrounds(places_m, focus_m, field, options)
        there = abs(focus_m - here_m) <= max(field.unit_m, field.resolution_m)
        last = 0 if as_trimmed is None else 1  # the stigmators have to be put back
        if frames_left <= last or (surrounded and there):
            reason = _why_not(places_m, belief, field, options)
            return Sharpest(focus_m, f"{_ONE_DIRECTION}: {reason}")
        if surrounded:
            return Look(focus_m)
    if frames_left == 0 or (mode is None and not belief.modes):
        return GiveUp(_why_not(places_m, belief, field, options))
    if mode is None:
        return _edge(places_m, belief, field, options)
    if focus_m is not None and known and field.allows(focus_m):
        return Look(focus_m)
    if field_known and len(places_m) == 1:
        return Look(mode.focus_m)
    seen_m = min(abs(place_m - mode.focus_m) for place_m in places_m)
    blind = len(places_m) > 1 and belief.log_odds < max(options.min_log_odds, _FAINT)
    if blind and seen_m <= max(_WIDEST * _finely_m(field, options), field.resolution_m):
        return _further(places_m, belief, field, options)
    worth_it = mode.weight >= (_LIKELY if len(places_m) > 1 else _LIKELY_AT_ONCE)
    close = worth_it and mode.sigma_m <= _CLOSE * field.unit_m
    if close and seen_m > AGREE * field.unit_m + field.resolution_m:
        return Look(mode.focus_m)
    return beside(places_m, belief, field, options)


def attainable(
    step: Step,
    places_m: Sequence[float],
    belief: FocusBelief,
    field: Field,
    options: AutofocusOptions,
) -> Step:
    """The step itself; where it would lead back to a frame that was taken, a look elsewhere.

    Only some places are in a recorded stack, and a lens may not follow everywhere. The look is
    beyond the place that cannot be had, or on this side of the one to which it leads, or where
    least was seen.
    """
    if not isinstance(step, Look):
        return step
    target_m = step.working_distance_m
    led_m = led_back(places_m, target_m, field)
    if led_m is None:
        return step
    off_m = target_m - led_m
    missing = (
        f"no frame can be had at {show_distance(target_m)}, as the microscope goes to "
        f"{show_distance(led_m)} instead"
    )
    focused = target_m == belief.focus_m and certain(belief, target_m, field, options)
    if focused and len(places_m) >= _ENOUGH:
        near = abs(off_m) <= options.fine_step * field.unit_m
        return step if near else GiveUp(f"focus is known, but {missing}")
    low_m, high_m = field.allowed_m
    around_m = [
        min(max(beyond_m, low_m), high_m)
        for times in _TIMES_AS_FAR
        for beyond_m in (target_m + times * off_m, led_m - times * off_m)
    ]
    for place_m in (*around_m, _least_seen(places_m, field)):
        seen = _nearest(places_m, place_m) <= AGREE * field.unit_m
        if not seen and led_back(places_m, place_m, field) is None:
            return Look(place_m)
    return GiveUp(f"{_why_not(places_m, belief, field, options)}; {missing}")


def led_back(places_m: Sequence[float], target_m: float, field: Field) -> float | None:
    """The place of an earlier frame to which the way to another leads; ``None`` if it does not.

    That is where a command has led for about this place, or for one that is farther from there.
    """
    for asked_m, led_m in field.ways_m:
        low_m, high_m = sorted((led_m, asked_m + (asked_m - led_m) / 2))
        astray = low_m <= target_m <= high_m and abs(target_m - led_m) > _ASTRAY * field.unit_m
        if astray and _nearest(places_m, led_m) <= _ASTRAY * field.unit_m:
            return led_m
    return None


def certain(belief: FocusBelief, place_m: float, field: Field, options: AutofocusOptions) -> bool:
    """Whether focus is known to lie within half a depth of field of a place.

    Where the instrument follows less finely than that, within what it follows. As long as
    astigmatism is open, it is not: grooves tell only the sum of both.
    """
    if belief.interval90_m is None or belief.log_odds < options.min_log_odds:
        return False
    if _leaves_astigmatism_open(belief, field):
        return False
    reach_m = max(field.unit_m, field.resolution_m, options.finest_step_m)
    low_m, high_m = belief.interval90_m
    return place_m - reach_m <= low_m and high_m <= place_m + reach_m


def _moves(belief: FocusBelief, field: Field, options: AutofocusOptions) -> bool:
    """Whether focus rather moves so far from frame to frame that it is no more where it was."""
    if belief.log_odds < options.min_log_odds or belief.motion_log_odds <= 0:
        return False
    return abs(belief.motion_m) > _MOVES * field.unit_m


def _how_it_moves(belief: FocusBelief, field: Field) -> str:
    return (
        f"focus itself moves: by {show_length(abs(belief.motion_m))} from frame to frame, where "
        f"half a depth of field is {show_length(field.unit_m)}; let specimen, stage and lens come "
        "to rest first"
    )


def _shows_one_direction(
    belief: FocusBelief, focus_m: float, field: Field, options: AutofocusOptions
) -> bool:
    """Whether focus is known but for astigmatism, which is open.

    Where a specimen has structure along one direction only, both blur it alike, however clearly.
    """
    if belief.log_odds < max(options.min_log_odds, _FAINT) or not field.allows(focus_m):
        return False
    return near(belief, focus_m, field, options) and _leaves_astigmatism_open(belief, field)


def _surrounds(
    places_m: Sequence[float], focus_m: float, field: Field, options: AutofocusOptions
) -> bool:
    """Whether so many frames were taken on both sides of focus that no other tells more."""
    near_m = 2 * _WIDEST * options.fine_step * field.unit_m
    offsets = [place_m - focus_m for place_m in places_m if abs(place_m - focus_m) <= near_m]
    enough = len(places_m) >= _ALL_AROUND and len(offsets) >= _ALL_AROUND - 2
    return enough and min(offsets) < 0 < max(offsets)


def _leaves_astigmatism_open(belief: FocusBelief, field: Field) -> bool:
    sigma_m = belief.astigmatism_sigma_m
    return sigma_m is not None and math.hypot(*sigma_m) > _OPEN * field.unit_m


def nearer(belief: FocusBelief, here_m: float, there_m: float) -> float:
    """Probability that focus is nearer to one place than to another."""
    below = belief.below((here_m + there_m) / 2)
    return below if here_m < there_m else 1 - below


def near(belief: FocusBelief, place_m: float, field: Field, options: AutofocusOptions) -> bool:
    """Whether focus is known to lie so near a place that what shows may be sharpest there."""
    reach_m = _NEAR * field.unit_m
    share = belief.below(place_m + reach_m) - belief.below(place_m - reach_m)
    return share >= options.confidence


def beside(
    places_m: Sequence[float], belief: FocusBelief, field: Field, options: AutofocusOptions
) -> Look:
    """Look beside the likeliest focus, where blur is steep, on the side seen less.

    At focus itself blur hardly changes, so that a frame there says little of where it is; a frame
    beside it together with one on the other side says it precisely, and the third is the one that
    verifies.
    """
    inside = (mode for mode in belief.modes if field.allows(mode.focus_m))
    mode = next(inside, belief.modes[0])
    fine_m = options.fine_step * field.unit_m
    step_m = min(max(fine_m, _SIGMAS * mode.sigma_m), _WIDEST * fine_m)
    offsets = [place_m - mode.focus_m for place_m in places_m]
    below = sum(-2 * step_m <= offset <= -step_m / 4 for offset in offsets)
    above = sum(step_m / 4 <= offset <= 2 * step_m for offset in offsets)
    if min(below, above):
        step_m /= 2
    if not (below or above):  # all frames are far away: look beyond, if they are on one side
        below, above = min(offsets) < 0, max(offsets) > 0
    step_m = -step_m if below < above else step_m
    targets_m = (mode.focus_m + step_m, mode.focus_m - step_m)
    inside_m = [target_m for target_m in targets_m if field.allows(target_m)]
    return Look(inside_m[0] if inside_m else _least_seen(places_m, field))


def _least_seen(places_m: Sequence[float], field: Field) -> float:
    """The place in a narrow range that is furthest from all that were seen."""
    low_m, high_m = field.allowed_m
    middles_m = [(a + b) / 2 for a, b in pairwise(sorted(places_m))]
    return max((low_m, high_m, *middles_m), key=lambda place_m: _nearest(places_m, place_m))


def _further(
    places_m: Sequence[float], belief: FocusBelief, field: Field, options: AutofocusOptions
) -> Step:
    """Where nothing was told so far: on alternate sides of the start, twice as far each time.

    Then, in the middle of what was left out.
    """
    below_m, above_m = field.start_m - min(places_m), max(places_m) - field.start_m
    fine_m = options.fine_step * field.unit_m
    step_m = max(2 * max(below_m, above_m), _WIDEST * fine_m)
    low_m, high_m = field.allowed_m
    up, down = min(field.start_m + step_m, high_m), max(field.start_m - step_m, low_m)
    for target_m in (down, up) if below_m < above_m else (up, down):
        if not any(abs(place_m - target_m) <= AGREE * field.unit_m for place_m in places_m):
            return Look(target_m)
    return _left_out(places_m, belief, field, options)


def _left_out(
    places_m: Sequence[float], belief: FocusBelief, field: Field, options: AutofocusOptions
) -> Step:
    """The middle of the widest gap between frames, if it may hide a focus."""
    gaps = [(b - a, (a + b) / 2) for a, b in pairwise(sorted(places_m))]
    # There is none where the whole range is narrower than frames are told apart.
    gap_m, middle_m = max(gaps, default=(0.0, places_m[0]))
    if gap_m > _GAP * _finely_m(field, options):
        return Look(middle_m)
    return GiveUp(_why_not(places_m, belief, field, options))


def _finely_m(field: Field, options: AutofocusOptions) -> float:
    """A fine step: a focus between two places that are many of them apart does not show."""
    return min(options.fine_step, _FINE) * field.unit_m


def _edge(
    places_m: Sequence[float], belief: FocusBelief, field: Field, options: AutofocusOptions
) -> Step:
    """Focus seems to be out of range: look at the edge on its side, once.

    Then beside it inside the range, if it may be there after all, or in between: a beam unlike the
    model deceives about distances.
    """
    low_m, high_m = field.allowed_m
    edge_m = high_m if belief.modes[0].focus_m > high_m else low_m
    agrees_m = AGREE * field.unit_m
    if _nearest(places_m, edge_m) > agrees_m:
        return Look(edge_m)
    if len(places_m) == 1:
        # A single frame tells a distance, and neither the side nor whether blur changes at all.
        return _further(places_m, belief, field, options)
    look = beside(places_m, belief, field, options)
    if _may_be_inside(belief, field) and _nearest(places_m, look.working_distance_m) > agrees_m:
        return look
    return _left_out(places_m, belief, field, options)


def _may_be_inside(belief: FocusBelief, field: Field) -> bool:
    """Whether a likely focus is not surely out of range."""
    low_m, high_m = field.allowed_m
    return any(
        low_m - _SURELY * mode.sigma_m <= mode.focus_m <= high_m + _SURELY * mode.sigma_m
        for mode in _likely(belief)
    )


def _likely(belief: FocusBelief) -> list[FocusMode]:
    return [mode for mode in belief.modes if mode.weight >= _NOT_TO_IGNORE]


def _nearest(places_m: Sequence[float], place_m: float) -> float:
    """Distance from a place to the nearest of some places, in metres."""
    return min(abs(each - place_m) for each in places_m)


def _why_not(
    places_m: Sequence[float], belief: FocusBelief, field: Field, options: AutofocusOptions
) -> str:
    seen = show_distances(min(places_m), max(places_m))
    if belief.focus_m is None or belief.sigma_m is None:
        return "the frames are too small to judge focus"
    if belief.log_odds < options.min_log_odds:
        return f"blur does not depend on the working distance from {seen}"
    if belief.modes and not _may_be_inside(belief, field):
        low_m, high_m = field.allowed_m
        near = show_distances(*(mode.focus_m for mode in _likely(belief)), between="or")
        allowed = show_distances(low_m, high_m)
        return f"focus is beyond the allowed range of {allowed}, near {near}"
    return (
        f"{len(places_m)} frames from {seen} leave focus uncertain by "
        f"{show_length(belief.sigma_m)}, half a depth of field is {show_length(field.unit_m)}"
    )
