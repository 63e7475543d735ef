"""The focus estimator: signatures of successive frames in, a belief about focus out."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from semagent.control.fit import BEAM, Fit, Modes
from semagent.control.options import USUAL_SLOPE, EstimatorOptions, ScaleOptions
from semagent.control.posterior import INFLATION, OTHER_INFLATION, Posterior, combine, mirrored
from semagent.control.series import Series
from semagent.control.stigmation import (
    UNKNOWN_STD,
    astigmatism,
    correction,
    response_of,
    with_response,
)
from semagent.memory import Entry, Memory
from semagent.spectrum import Array
from semagent.types import FocusBelief, FocusMode, FrameAnalysis, FrameHeader, Optics, Signature

_TRUSTED = 2  # frames up to which a look at the field in focus counts: it may have changed since
_STEPS = 8
_STEPS_WHEN_SURE = 5
_MOST_MODES = 6
_FRESH = np.concatenate([-np.geomspace(1.0, 45.0, 6), np.geomspace(1.0, 45.0, 6)])
_SURE = 1.0  # once focus is known to a half depth of field, fewer starts and steps do
_FEWER, _FEWER_WHEN_SURE = 2, 4  # after the first frame, the others of these starts with the next
_SAME_PLACE, _ABOUT_KNOWN = 0.5, 6.0
_ONE_PLACE, _ONE_SETTING, _AVERAGED = 0.1, 1e-3, 4  # frames this near are averaged, up to so many
_TURN = 2.4  # golden angle: the starting astigmatism points everywhere
_START_ASTIGMATISM = 1.5
_SPOT_PX, _SPOT_STD = 0.7, 0.4
_SOFT, _SOFT_STD, _SOFTER = 0.03, 1.5, -1.0
_VAGUE, _SLOPES = 0.3, (-1.0, 0.0, 1.0)  # slopes to start from, where it is not known
_STILL_LOG_SLOPE = -14.0  # a beam that no working distance changes
_REFUTED = 8.0  # log of the odds at which a calibration of the stigmators is not believed any more
_OTHERWISE, _ANY_RESPONSE = (0.0, -1.0), 2.0  # times what is remembered
_TELLING_MOTION, _MAY_END = 3, 0.7  # places; half depths of field
_EXPLAINED = 0.55  # misfit; that of frames as in the model is about 0.4, as scatter is generous
_ONE_FRAME = 2.0  # log odds that a single frame with other stigmators may give
_RATE_STD, _AT_REST_STD = 1.5, 1e-3  # half depths of field from frame to frame
_RATES = (0.0, 1.5, -1.5)  # to start from
_LEAST_REMEMBERED_SIGMA = 0.02  # of the slope that is remembered


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was seen at one place.

    Attributes:
        place: working distance in half depths of field from the first frame.
        stigmators: changes of (x, y) from the first frame.
        time_s: when, from the first frame on.
        signature: mean of the last frames there.
        last: signature of the last of them.
        frames: how many they are.
    """

    place: float
    stigmators: tuple[float, float]
    time_s: float
    signature: Signature
    last: Signature
    frames: int = 1

    def is_at(self, place: float, stigmators: tuple[float, float]) -> bool:
        """Whether a frame was taken here."""
        off = np.abs(np.array(self.stigmators) - np.array(stigmators)).max()
        return abs(self.place - place) < _ONE_PLACE and bool(off < _ONE_SETTING)

    def and_then(self, place: float, time_s: float, signature: Signature) -> "_Seen":
        """With one more frame; many frames leave a mean that forgets the first ones."""
        frames = min(self.frames + 1, _AVERAGED)
        return _Seen(
            place=self.place + (place - self.place) / frames,
            stigmators=self.stigmators,
            time_s=self.time_s + (time_s - self.time_s) / frames,
            signature=Signature(
                tile_px=signature.tile_px,
                pixels=signature.pixels * frames,
                log_power=_mean(self.signature.log_power, signature.log_power, frames),
                log_noise=_mean(self.signature.log_noise, signature.log_noise, frames),
            ),
            last=signature,
            frames=frames,
        )


def _mean(earlier: tuple[float, ...], last: tuple[float, ...], frames: int) -> tuple[float, ...]:
    """Logarithm of the mean of frames, of which all but the last have the mean ``earlier``."""
    change = np.expm1(np.array(last) - np.array(earlier)) / frames
    return tuple((np.array(earlier) + np.log1p(change)).tolist())


class _Starts(NamedTuple):
    """Beams to start a fit from, and the prior of each: its mean and standard deviation.

    All of shape (M, W); see `semagent.control.fit`.
    """

    beam: Array
    mean: Array
    std: Array

    @staticmethod
    def of(beam: Array, mean: Array, std: Array) -> "_Starts":
        """With one prior for all, shape (W,)."""
        return _Starts(beam, np.tile(mean, (len(beam), 1)), np.tile(std, (len(beam), 1)))

    def first(self, count: int) -> "_Starts":
        """So many of them."""
        return _Starts(self.beam[:count], self.mean[:count], self.std[:count])

    def at_rest(self) -> "_Starts":
        """With one more parameter, how far focus moves from frame to frame: not at all."""
        column = np.zeros((len(self.beam), 1))
        columns = (column, column, column + _AT_REST_STD)
        return _Starts(*map(np.hstack, zip(self, columns, strict=True)))

    def moving(self) -> "_Starts":
        """The first of them with focus on the move, by several rates; W is one more."""
        moving = self.first(1).at_rest()
        beam, mean, std = (np.repeat(each, len(_RATES), axis=0) for each in moving)
        beam[:, 0] += _RATES
        beam[:, -1] = _RATES
        std[:, -1] = _RATE_STD
        return _Starts(beam, mean, std)


class SpectralEstimator:
    """A `FocusEstimator` for frames of one field taken with one ``settings_rev``.

    Lengths are counted in half depths of field from the first frame on. The same frame seen
    twice, as from a recorded stack, counts once.

    Args:
        options: what is assumed before anything was seen.
        scale: what half a depth of field is.
        memory: what is remembered of the instrument: slope, and what its stigmators do.
    """

    def __init__(
        self, options: EstimatorOptions, scale: ScaleOptions, memory: Memory | None = None
    ) -> None:
        self._options = options
        self._scale = scale
        self._memory = memory or Memory()
        self.reset()

    def reset(self, focused: Signature | None = None) -> None:
        """Forget all frames; how the field looks in focus may be known."""
        self._seen: list[_Seen] = []
        self._focused = focused
        self._first: FrameHeader | None = None
        self._entry: Entry | None = None
        self._response = response_of(None, 1.0)
        self._posterior: Posterior | None = None
        self._log_odds = 0.0
        self._motion = (0.0, 0.0)

    def update(self, analysis: FrameAnalysis) -> FocusBelief:
        """Take one frame into account and say what is now believed."""
        header, signature = analysis.header, analysis.signature
        if self._first is not None and self._first.settings_rev != header.settings_rev:
            self.reset()
        if self._seen and signature and signature.tile_px != self._seen[0].signature.tile_px:
            self.reset()
        if self._first is None:
            self._first, self._entry = self._memory.with_angle(header), self._memory.at(header)
            self._response = response_of(self._entry, self._scale.half_depth_of(self._first))
        if signature is None:
            return FocusBelief(
                sequence=header.sequence, settings_rev=header.settings_rev, frames=self._frames
            )
        unit_m = self._scale.half_depth_of(self._first)
        origin_m = self._first.optics.working_distance_m
        place = (header.optics.working_distance_m - origin_m) / unit_m
        stigmators = _changed(self._first.optics, header.optics)
        time_s = (header.monotonic_ns - self._first.monotonic_ns) * 1e-9
        self._take(place, stigmators, time_s, signature)
        assert self._posterior is not None  # noqa: S101 - there was a frame
        return self._belief(header, self._posterior, np.array(stigmators), origin_m, unit_m)

    @property
    def _frames(self) -> int:
        return sum(seen.frames for seen in self._seen)

    def _take(
        self, place: float, stigmators: tuple[float, float], time_s: float, signature: Signature
    ) -> None:
        """Fit the signatures with one more at this place and these stigmators."""
        here = next((seen for seen in self._seen if seen.is_at(place, stigmators)), None)
        if here is None:
            self._seen.append(_Seen(place, stigmators, time_s, signature, signature))
            if len(self._seen) > self._options.memory_frames:
                del self._seen[self._least_telling()]
        elif signature == here.last:
            return
        else:
            self._seen.remove(here)
            self._seen.append(here.and_then(place, time_s, signature))
        self._log_odds = self._fit()

    def _least_telling(self) -> int:
        """The older of the two frames taken nearest to each other; never the last.

        Where focus is about known and none are at the same place with the same stigmators, the
        one furthest from it: there is little but noise.
        """
        last = len(self._seen) - 1
        places = [seen.place for seen in self._seen]
        gap, older = min(
            (min(self._gap(i, j) for j in range(i + 1, last + 1)), i) for i in range(last)
        )
        posterior = self._posterior
        if gap < _SAME_PLACE or posterior is None or posterior.std > _ABOUT_KNOWN:
            return older
        return max(range(last), key=lambda index: abs(places[index] - posterior.mean))

    def _gap(self, first: int, second: int) -> float:
        one, other = self._seen[first], self._seen[second]
        if one.is_at(one.place, other.stigmators):
            return abs(one.place - other.place)
        return math.inf

    def _fit(self) -> float:
        """Update the posterior; returns the log odds against a beam that nothing changes.

        All hypotheses are starts of one fit: each step takes about as long for two as for ten.
        """
        stigmators = np.array([seen.stigmators for seen in self._seen])
        # Places as they would be with the stigmators of the first frame.
        places = np.array([seen.place for seen in self._seen]) - stigmators @ self._response.focus
        ages = self._options.aging_per_frame * np.arange(len(places), dtype=np.float64)[::-1]
        signatures = [seen.signature for seen in self._seen]
        focused = self._focused
        if len(signatures) > _TRUSTED or (focused and focused.tile_px != signatures[0].tile_px):
            focused = None
        series = Series(signatures, places, ages**2, stigmators, focused)
        # As long as the stigmators stay as they are, no frame tells what they do.
        mean, std = self._prior()
        width = len(mean) if np.ptp(stigmators, axis=0).any() else BEAM
        mean, std = mean[:width], std[:width]
        usual = _Starts.of(self._starts(places, mean, std), mean, std)
        # A calibration of the stigmators is doubted as soon as they have changed.
        doubted = width > BEAM and self._response.std != UNKNOWN_STD
        doubts = self._doubts(mean, std) if doubted else usual.first(0)
        still = np.concatenate([mean[:3], [_STILL_LOG_SLOPE], mean[4:]])
        still_std = np.concatenate([std[:3], [1e-3], [2 * _SPOT_STD], std[5:]])
        groups = [usual, doubts, _Starts.of(still[None], still, still_std)]
        was_sure = self._sure
        moments = self._moments if was_sure else None
        if moments is not None:
            groups = [*(each.at_rest() for each in groups), usual.moving()]
        starts, means, stds = (np.concatenate(each) for each in zip(*groups, strict=True))
        fit = Fit(series, means, stds, starts, len(starts) - len(usual.beam), moments)
        modes = fit.run(_STEPS_WHEN_SURE if was_sure else _STEPS)
        ends = np.cumsum([len(each.beam) for each in groups])
        group = np.searchsorted(ends, modes.start, side="right")
        likely, otherwise, nothing = (modes.among(group == each).up_to(width) for each in range(3))
        if doubted and self._is_refuted(series, likely, otherwise, mean, std):
            self._response = response_of(None, 1.0)
            self._posterior = combine(otherwise, _MOST_MODES)
            return self._fit()
        # A beam of which so little is known may be unlike the model in other ways, too.
        inflation = OTHER_INFLATION if std[3] > _VAGUE else INFLATION
        self._posterior = with_response(combine(likely, _MOST_MODES, inflation), self._response)
        self._motion = self._how_it_moves(modes.among(group == 3), likely)
        return self._posterior.log_evidence - float(nothing.log_evidence[0])

    @property
    def _moments(self) -> Array | None:
        """When the frames were taken, from the last on, in mean times from frame to frame.

        ``None`` where they cannot tell whether focus moves.
        """
        times = np.array([seen.time_s for seen in self._seen])
        between = np.diff(times)
        if len(times) < _TELLING_MOTION or not (between > 0).all():
            return None
        return np.asarray((times - times[-1]) / between.mean())

    def _how_it_moves(self, moving: Modes, resting: Modes) -> tuple[float, float]:
        """How far focus moves from frame to frame, and the log of the odds that it moves at all."""
        posterior = self._posterior
        if not len(moving.start) or posterior is None or posterior.std > _MAY_END:
            return 0.0, 0.0
        likeliest = int(np.argmax(moving.log_evidence))
        if moving.misfit[likeliest] > _EXPLAINED:
            return 0.0, 0.0  # whatever is wrong, motion is not all of it
        log_odds = float(moving.log_evidence[likeliest] - resting.log_evidence.max())
        if self._seen[-1].stigmators != self._seen[-2].stigmators:
            log_odds = min(log_odds, _ONE_FRAME)  # what stigmators do is not known so well
        return float(moving.beam[likeliest, -1]), log_odds

    def _doubts(self, mean: Array, std: Array) -> "_Starts":
        """Starts where the stigmators do other than is remembered.

        Against the calibration stands one that may be anything of its size: the wrong sign, an axis
        exchanged for the other, another column. That costs evidence, unless frames ask for it.
        """
        assert self._posterior is not None  # noqa: S101 - there were frames with other stigmators
        known = self._response.matrix.ravel()
        starts = np.repeat(self._posterior.beam[:1], len(_OTHERWISE), axis=0)
        starts[:, BEAM:] = np.multiply.outer(_OTHERWISE, known)
        free_std = std.copy()
        free_std[BEAM:] = _ANY_RESPONSE * np.abs(known).max()
        return _Starts.of(starts, mean, free_std)

    def _is_refuted(
        self, series: Series, modes: Modes, otherwise: Modes, mean: Array, std: Array
    ) -> bool:
        """Whether the frames contradict what is remembered of the stigmators."""
        enough = otherwise.log_evidence.max() - _REFUTED
        if modes.log_evidence.max() > enough:
            return False
        # A better focus may be all that these fits have found: with it the calibration may do.
        starts = otherwise.beam.copy()
        starts[:, BEAM:] = self._response.matrix.ravel()
        again = Fit(series, mean, std, starts).run(_STEPS)
        return bool(again.log_evidence.max() <= enough)

    def _belief(
        self,
        header: FrameHeader,
        posterior: Posterior,
        stigmators: Array,
        origin_m: float,
        unit_m: float,
    ) -> FocusBelief:
        low, high = posterior.interval90()
        modes = zip(
            posterior.weights.tolist(),
            posterior.focus.tolist(),
            posterior.focus_std.tolist(),
            strict=True,
        )
        # From where focus was with the stigmators of the first frame to where it is now.
        origin_m += float(self._response.focus @ stigmators) * unit_m
        left, left_std = astigmatism(posterior, stigmators)
        change = correction(posterior, stigmators)
        return FocusBelief(
            sequence=header.sequence,
            settings_rev=header.settings_rev,
            frames=self._frames,
            focus_m=origin_m + posterior.mean * unit_m,
            sigma_m=posterior.std * unit_m,
            interval90_m=(origin_m + low * unit_m, origin_m + high * unit_m),
            astigmatism_m=_pair(left * unit_m),
            astigmatism_sigma_m=_pair(left_std * unit_m),
            stigmator_correction=_pair(change[0]) if change else None,
            stigmator_sigma=_pair(change[1]) if change else None,
            log_odds=self._log_odds,
            motion_m=self._motion[0] * unit_m,
            motion_log_odds=self._motion[1],
            modes=tuple(
                FocusMode(weight=weight, focus_m=origin_m + focus * unit_m, sigma_m=std * unit_m)
                for weight, focus, std in modes
            ),
        )

    @property
    def _sure(self) -> bool:
        return self._posterior is not None and self._posterior.std < _SURE

    def _prior(self) -> tuple[Array, Array]:
        options = self._options
        assert self._first is not None  # noqa: S101 - there is a frame
        slope, slope_std = self._scale.slope_of(self._first), options.slope_sigma
        if slope is None:
            slope, slope_std = USUAL_SLOPE, options.unknown_slope_sigma
        known = self._entry.slope_px_per_m(self._first) if self._entry else None
        if known is not None:
            slope = known.value * self._scale.half_depth_of(self._first)
            slope_std = max(known.sigma / known.value, _LEAST_REMEMBERED_SIGMA)
        response, response_std = self._response.mean_and_std
        beam = [0.0, 0.0, 0.0, math.log(slope), math.log(_SPOT_PX), math.log(_SOFT)]
        astigmatic = (options.astigmatism,) * 2
        beam_std = [options.prior_half_range, *astigmatic, slope_std, _SPOT_STD, _SOFT_STD]
        return np.concatenate([beam, response]), np.concatenate([beam_std, response_std])

    def _starts(self, places: Array, mean: Array, std: Array) -> Array:
        """Where to begin: the modes so far, their mirror images, and places all around."""
        slopes = mean[3] + std[3] * np.array(_SLOPES if std[3] > _VAGUE else (0.0,))
        fresh = np.tile(mean, (len(_FRESH) * len(slopes), 1))
        fresh[:, 0] = places[-1] + np.tile(_FRESH, len(slopes))
        fresh[:, 3] = np.repeat(slopes, len(_FRESH))
        turn = _TURN * np.arange(len(fresh))
        fresh[:, 1] = _START_ASTIGMATISM * np.cos(turn)
        fresh[:, 2] = _START_ASTIGMATISM * np.sin(turn)
        fresh[1::2, 5] = _SOFTER
        if self._posterior is None:
            return fresh
        fewer = _FEWER_WHEN_SURE if self._sure else _FEWER
        fresh = fresh[len(places) % fewer :: fewer]
        known = self._posterior.beam[:, : len(mean)]
        return np.concatenate([known, mirrored(known[:2], places[-2:].tolist()), fresh])


def _changed(first: Optics, now: Optics) -> tuple[float, float]:
    """By how much the stigmators were changed; by nothing, where they do not read back."""
    return _change(first.stigmator_x, now.stigmator_x), _change(first.stigmator_y, now.stigmator_y)


def _change(first: float | None, now: float | None) -> float:
    return 0.0 if first is None or now is None else now - first


def _pair(values: Array) -> tuple[float, float]:
    x, y = values.tolist()
    return x, y
