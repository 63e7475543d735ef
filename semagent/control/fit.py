"""Where is focus? The joint fit of a beam to the signatures of several frames of one field.

In the bin j of frame i, taken at the working distance z_i, the power is modelled as::

    P = exp(s_j + g_i) T(q) + N exp(h_i),    q = c² k' (z_i - f + A + K S_i)² k

with T the transfer of a disc of covariance ``c² ((z_i - f) I + A)²`` and the focused spot on top
(see `semagent.transfer`; C. Binding, S. Mikula, W. Denk, "Low-dosage maximum-a-posteriori
focusing and stigmation", Microscopy and Microanalysis 19, 2013, for two frames). Focus f,
astigmatism A, slope c, spot and, where the stigmators S were changed, their response K are the
*beam*: they are what is asked for. The spectrum of the specimen s_j is common to all frames, so
that it cancels in their differences, and has a smooth prior, so that a single frame says something
too. Gains g_i, errors of the noise level h_i and
relative errors of the blur, which keep frames far from focus from being taken at their word, are
nuisances of each frame.

The logarithm of P is fitted by Gauss-Newton steps from several starting points at once: mirror
images about a frame are often nearly as likely. All but the beam is eliminated in each step,
and what is left is a normal approximation for each *mode* with its evidence. The errors of the
model count in units of its own scatter, with heavy tails for outliers.

What has a value in each bin is of single precision, which is quicker and far more exact than any
power is known; the systems that are solved are of double precision.

Lengths are in half depths of field; A is ``[[a1, a2], [a2, -a1]]``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from semagent.control.specimen import specimen_prior
from semagent.signature import RINGS, SECTORS, geometry_of
from semagent.spectrum import Array
from semagent.transfer import log_disc_transfer
from semagent.types import Signature

BEAM = 6
"""Parameters of the beam: f, a1, a2, ln c (pixels a half depth of field), ln of the spot (px), and
ln of how far the transfer is that of a normal distribution instead of a disc."""

RESPONSE = 4
"""More of them, if stigmators changed: (a1 by x, a1 by y, a2 by x, a2 by y) per unit."""

MODEL_SCATTER = 0.03
"""Error of the log of the transfer, where it is 1 ..."""
RING_SCATTER = 0.1
"""... and what every unit of q adds, as no beam is a perfect disc ..."""
MOST_SCATTER_AT = 8.0
"""... up to this q."""
NOISE_SCATTER = 0.05
"""Error of the noise in a bin: it is never exactly white."""
NOISE_LEVEL_STD = 0.1
"""Error of the noise level of a frame."""
BIN_STD = 0.1
"""Deviation of a bin of the specimen from its smooth spectrum, were there endless modes."""
GAIN_STD = 0.4
"""Changes of the contrast between frames, as logarithm of the power."""
BLUR_STD = 0.04
"""Relative error of the blur of a whole frame: relief, other content, a lens that is not linear."""
FOREIGN_SCATTER = 3.0
"""Error of the log of the transfer of power that leaks into a bin from directions beside it."""
TAIL = 10.0
"""Degrees of freedom of Student's distribution of the errors."""

_LARGEST_STEP = np.array([6.0, 1.5, 1.5, 0.3, 0.5, 1.0])
_LARGEST_RATE = 1.0
_LARGEST_OTHER = 3.0
_SOFT_UP_TO = 30.0
_LARGEST_SAME = np.array([0.05, 0.05, 0.05, 0.05, 0.2, 0.5])
_CROWDED = 0.5  # standard deviations
_NEXT_TO_NOTHING = np.array([0.01, 0.01, 0.01, 0.01, 0.05, 0.1])
_LEAVE = {2: 10, 4: 7, 6: 5}  # after so many steps, so many starts go on
_FARTHEST = 200.0
_SEEN = 2.0  # standard deviations above the noise that count as a signal
_LEAK = 0.45  # of a bin's power reaches the one beside it, when they are a mode of the tile wide

_TWICE = np.array([2, 2, 1], np.float32)
_Single = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Modes:
    """Local maxima of the posterior, in the order of the starts they were reached from.

    Attributes:
        beam: shape (M, W) with W = BEAM or BEAM + RESPONSE.
        covariance: shape (M, W, W).
        log_evidence: shape (M,).
        start: number of the start each was reached from, shape (M,).
        misfit: mean square of what is left unexplained, in units of the scatter, shape (M,).
    """

    beam: Array
    covariance: Array
    log_evidence: Array
    start: npt.NDArray[np.intp]
    misfit: Array

    def among(self, chosen: npt.NDArray[np.bool_ | np.intp]) -> "Modes":
        """Those of a mask, or at these indices."""
        return Modes(
            self.beam[chosen],
            self.covariance[chosen],
            self.log_evidence[chosen],
            self.start[chosen],
            self.misfit[chosen],
        )

    def up_to(self, width: int) -> "Modes":
        """The first so many parameters of the beam."""
        return replace(
            self, beam=self.beam[:, :width], covariance=self.covariance[:, :width, :width]
        )


class Series:
    """Signatures of one field, and where they were taken, ready to be fitted.

    Args:
        signatures: one or more, with the same ``tile_px``.
        places: working distances, shape (N,).
        ages: variance of the log power that a frame gained with time, shape (N,).
        stigmators: changes of (x, y) since the astigmatism of the beam was as it is fitted,
            shape (N, 2).
        focused: of a frame in focus, wherever that is.
    """

    def __init__(
        self,
        signatures: Sequence[Signature],
        places: Array,
        ages: Array,
        stigmators: Array,
        focused: Signature | None = None,
    ) -> None:
        self.by_focus = np.ones(len(places))
        if focused is not None:
            signatures = [focused, *signatures]
            places, ages = np.append(0.0, places), np.append(0.0, ages)
            stigmators = np.append(np.zeros((1, 2)), stigmators, axis=0)
            self.by_focus = np.append(0.0, self.by_focus)
        tile_px = signatures[0].tile_px
        geometry, specimen = geometry_of(tile_px), specimen_prior(tile_px)
        filled = geometry.share > 0
        log_power = np.array([each.log_power for each in signatures])
        noise = np.exp([each.log_noise for each in signatures])
        leaked = _leaked(tile_px, np.exp(log_power), noise)[:, filled]
        log_power, noise = log_power[:, filled], noise[:, filled]
        pixels = np.array([each.pixels for each in signatures])[:, None]
        modes = geometry.share[filled] * pixels / 2
        power = np.exp(log_power)
        # Only noise differs between frames; the specimen's own scatter is in s_j.
        scatter = np.maximum(2 * power * noise - noise**2, noise**2)
        variance = scatter / (power**2 * modes) + (NOISE_SCATTER * noise / power) ** 2
        variance += ages[:, None] + (FOREIGN_SCATTER * leaked / power) ** 2
        above = 1 - noise / power
        along, cosine, sine = geometry.quadratic[:, filled]
        nothing = np.zeros_like(along)
        form = [[along, -cosine, -sine], [-cosine, along, nothing], [-sine, nothing, along]]
        shapes = specimen.shapes[filled]
        bin_variance = BIN_STD**2 + 0.5 / modes.mean(axis=0)
        held = shapes / bin_variance[:, None]

        self.places, self.stigmators = places, _single(stigmators)
        self.log_power, self.noise, self.variance = map(_single, (log_power, noise, variance))
        self.visible = _single(np.clip(above, 1e-12, 1.0))
        # What noise alone may be is no signal: to take it for one would be evidence of nothing.
        self.surely_visible = _single(np.maximum(above - _SEEN * np.sqrt(variance), 0.0))
        # q / c² is half of (f - z, a1, a2) times this, times (f - z, a1, a2).
        self.along, self.form = _single(along), _single(2 * np.reshape(form, (3, -1)))
        self.mean, self.shapes = _single(specimen.mean[filled]), _single(shapes)
        self.shapes_std, self.bin_variance = specimen.std, _single(bin_variance)
        # Shapes as the deviations of bins leave them, and the products of each with each.
        self.held = _single(held)
        self.products = _single((held[:, :, None] * shapes[:, None, :]).reshape(len(shapes), -1))


def _single(values: Array) -> _Single:
    return values.astype(np.float32)


def _leaked(tile_px: int, power: Array, noise: Array) -> Array:
    """Power in each bin that comes from the directions beside it; all of shape (N, BINS).

    A tile's window smears the spectrum by a mode of the tile. Beside the one direction of grooves,
    in bins a few modes wide, next to all power is theirs, and is blurred as they are.
    """
    geometry = geometry_of(tile_px)
    signal = np.where(geometry.share > 0, np.maximum(power - noise, 0.0), 0.0)
    signal = signal.reshape(len(power), RINGS, SECTORS)
    beside = [np.roll(signal, turn, axis=2) for turn in (-1, 1)]
    more = np.maximum(np.subtract(beside, signal), 0.0).sum(axis=0)
    mode = 2 * np.pi / tile_px / np.exp(geometry.log_k)
    return np.asarray(_LEAK * mode * more.reshape(power.shape))


class _View(NamedTuple):
    """How the frames look from where each start is.

    Attributes:
        cost: half of what is to be minimised, shape (starts,).
        misfit: as in `Modes`.
        away: of focus from the places of the frames, shape (starts, frames).
        slopes: of the log power in units of its scatter, by a frame's own gain, noise level and
            blur and by the beam, and what is left to explain in the same units, shape
            (starts, frames, 3 + W + 1, bins) with W as in `Modes`.
    """

    cost: Array
    misfit: Array
    away: _Single
    slopes: _Single


class Fit:
    """Gauss-Newton steps from all starts at once; first axis of all arrays: the start.

    The parameters of a start are, in this order, those of the specimen's shapes, gain, noise level
    and blur of each frame, and the beam; the *others* are all but the beam.

    Args:
        series: the frames.
        mean: of the beam's prior, for each start or for all.
        std: of the same.
        starts: beams to start from, (starts, parameters).
        spared: so many of the last starts are never dropped.
        moments: when the frames were taken, from the last one on, shape (N,). Then focus is that
            of the last, and how far it moves in a unit of time is the last parameter of the beam.
    """

    def __init__(
        self,
        series: Series,
        mean: Array,
        std: Array,
        starts: Array,
        spared: int = 1,
        moments: Array | None = None,
    ) -> None:
        count, frames, bins = len(starts), *series.log_power.shape
        own = np.tile([GAIN_STD, NOISE_LEVEL_STD, BLUR_STD], frames)
        others_std = np.concatenate([series.shapes_std, own])
        self._series = series
        self._others = len(others_std)
        self._point = np.zeros((count, self._others + starts.shape[1]))
        self._mean, std_of_all = self._point.copy(), self._point.copy()
        self._point[:, self._others :] = starts
        self._mean[:, self._others :] = mean
        std_of_all[:, : self._others], std_of_all[:, self._others :] = others_std, std
        self._precision = std_of_all**-2
        self._deviations = np.zeros((count, bins), np.float32)
        by_response = _LARGEST_STEP[1] / max(float(np.abs(series.stigmators).max()), 1e-6)
        self._moments = None if moments is None else _single(moments)
        self._end = starts.shape[1] - (moments is not None)
        largest = np.full(starts.shape[1], _LARGEST_RATE)
        largest[:BEAM], largest[BEAM : self._end] = _LARGEST_STEP, by_response
        self._largest_step = np.tile(largest, (count, 1))
        self._best_cost = np.full(count, np.inf)
        self._best: list[npt.NDArray[Any]] = [np.zeros((0,))] * 5
        self._start = np.arange(count)
        self._spared = spared

    def run(self, steps: int) -> Modes:
        """Take some steps and return the best point that each start came by.

        Starts that lead nowhere are dropped on the way.
        """
        for step in range(1, steps + 1):
            if not self._step(first=step == 1, last=step == steps):
                break
            if step in _LEAVE:
                self._leave(_LEAVE[step])
        beam, covariance, _, _, misfit = self._best
        return Modes(beam, covariance, self._log_evidence(), self._start, misfit)

    def _log_evidence(self) -> Array:
        """Of the best point that each start came by."""
        _, covariance, inner, whole, _ = self._best
        log_volume = (
            np.linalg.slogdet(inner)[1]
            - np.linalg.slogdet(covariance)[1]
            + np.log(whole * self._series.bin_variance).sum(1)
        )
        log_precision = np.log(self._precision[:, self._others :]).sum(1)
        return np.asarray(0.5 * (log_precision - log_volume) - self._best_cost)

    def _leave(self, count: int) -> None:
        """Go on with the best of the starts and those that are spared."""
        total = len(self._best_cost)
        droppable = total - self._spared
        beam, covariance = self._best[0][:, :BEAM], self._best[1]
        std = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)[:, :BEAM])
        # Where nothing is told, many starts crowd on a plain: a few of them stand for it.
        near = np.maximum(_LARGEST_SAME, _CROWDED * np.minimum(std[:, None], std))
        same = (np.abs(beam[:, None] - beam) <= near).all(axis=2).tolist()
        kept: list[int] = []
        for index in np.argsort(-self._log_evidence()[:droppable], kind="stable").tolist():
            if not any(same[index][other] for other in kept):
                kept.append(index)
            if len(kept) == count:
                break
        kept += range(droppable, total)
        self._point, self._deviations = self._point[kept], self._deviations[kept]
        self._mean, self._precision = self._mean[kept], self._precision[kept]
        self._best_cost, self._start = self._best_cost[kept], self._start[kept]
        self._best = [each[kept] for each in self._best]

    def _step(self, *, first: bool, last: bool) -> bool:
        """Look at where each start is and, but for the last time, take a step from there.

        Returns whether to go on: any of them went further than next to nothing.
        """
        others, shapes = self._others, self._series.shapes
        view = self._look(first=first)
        system, rows, total, whole = self._system(view)
        inner = system[:, :others, :others]
        solved = np.linalg.solve(inner, system[:, :others, others:])
        left = system[:, others:, others:] - system[:, others:, :others] @ solved
        covariance = np.asarray(np.linalg.inv(left[:, :, :-1]))
        self._keep(view.cost, [self._point[:, others:], covariance, inner, whole, view.misfit])
        if last:
            return False
        move = (covariance @ left[:, :, -1:])[:, :, 0]
        limit = self._largest_step[: len(move)]
        limit[:, 0] = np.maximum(1.0, 0.3 * np.abs(view.away).max(axis=1))
        move = np.minimum(np.maximum(move, -limit), limit)
        other = solved[:, :, -1] - (solved[:, :, :-1] @ move[:, :, None])[:, :, 0]
        other = np.minimum(np.maximum(other, -_LARGEST_OTHER), _LARGEST_OTHER)
        step = np.concatenate([other, move], axis=1)
        self._point = self._point + step
        step = _single(step)
        moved = (step[:, None, shapes.shape[1] :] @ rows[:, :-1])[:, 0]
        moved += total * (step[:, : shapes.shape[1]] @ shapes.T)
        self._deviations += (rows[:, -1] - moved) / whole
        return bool((np.abs(move[:, :BEAM]) > _NEXT_TO_NOTHING).any())

    def _look(self, *, first: bool) -> _View:
        """The model and what is left to explain, where each start is.

        The first time the level of the specimen is set to that of the frames.
        """
        data, others, shapes = self._series, self._others, self._series.shapes.shape[1]
        point = _single(self._point)
        beam = point[:, others:]
        frames, bins = data.log_power.shape
        count, width = beam.shape
        own = point[:, shapes:others].reshape(count, frames, 3, 1)
        response = beam[:, BEAM : self._end].reshape(count, 2, -1)
        stigmators = data.stigmators[:, : response.shape[2]]
        blur = np.empty((count, frames, 3), np.float32)
        away = beam[:, :1] * data.by_focus - data.places
        if self._moments is not None:
            away += beam[:, -1:] * self._moments
        blur[:, :, 0] = np.minimum(np.maximum(away, -_FARTHEST), _FARTHEST)
        blur[:, :, 1:] = beam[:, None, 1:3] + stigmators @ response.transpose(0, 2, 1)
        by_blur = (blur @ data.form).reshape(count, frames, 3, bins)
        reach = np.maximum(0.5 * (blur[:, :, None] @ by_blur)[:, :, 0], 1e-9)
        slope2, spot2, softness = np.exp(beam[:, 3:6] * _TWICE).T[:, :, None, None]
        q = slope2 * np.exp(2 * own[:, :, 2]) * reach
        transfer, fall = log_disc_transfer(q)
        softer = softness * np.minimum(-np.minimum(q, _SOFT_UP_TO) - transfer, 0.0)
        fall += softness * np.where(q < _SOFT_UP_TO, np.minimum(-q - fall, 0.0), 0.0)
        narrower = -spot2 * data.along
        specimen = data.mean + point[:, :shapes] @ data.shapes.T + self._deviations
        log_signal = specimen[:, None] + transfer + softer + narrower
        if first:
            level = np.log(data.visible) + data.log_power - log_signal
            level = (level * data.visible).sum((1, 2)) / data.visible.sum()
            self._point[:, 0] += level
            log_signal += level[:, None, None]
        log_signal += own[:, :, 0]
        signal = np.exp(np.minimum(log_signal, 60.0))
        model = signal + data.noise * np.exp(own[:, :, 1])
        residual = data.log_power - np.log(model)
        share = signal / model
        scatter = MODEL_SCATTER**2 + (RING_SCATTER * np.minimum(q, MOST_SCATTER_AT)) ** 2
        variance = data.variance + share**2 * scatter
        chi2 = residual**2 / variance
        misfit = chi2.mean((1, 2))
        tail = 1 + chi2 / TAIL
        off = self._point - self._mean
        cost = 0.5 * ((TAIL + 1) * np.log(tail) + np.log(variance)).sum((1, 2))
        cost += 0.5 * (off**2 * self._precision).sum(1)
        cost += 0.5 * (self._deviations**2 / data.bin_variance).sum(1)

        # Slopes and residuals are in units of the scatter from here on.
        certainty = np.sqrt((1 + 1 / TAIL) / (tail * variance))
        # Where the model hides a signal that is there, its true visibility gives a step at all.
        weight = np.maximum(share, data.surely_visible) * certainty
        by_log_q = fall * weight
        slopes = np.empty((count, frames, 3 + width + 1, bins), np.float32)
        slopes[:, :, 0] = weight
        slopes[:, :, 1] = (1 - share) * certainty
        slopes[:, :, 2] = slopes[:, :, 6] = 2 * by_log_q
        slopes[:, :, 3:6] = by_blur * (by_log_q / reach)[:, :, None]
        slopes[:, :, 3] *= data.by_focus[:, None]
        slopes[:, :, 7] = 2 * narrower * weight
        slopes[:, :, 8] = softer * weight
        if self._end > BEAM:
            by_cause = slopes[:, :, 4:6, None] * stigmators[:, None, :, None]
            slopes[:, :, 3 + BEAM : 3 + self._end] = by_cause.reshape(count, frames, -1, bins)
        if self._moments is not None:
            slopes[:, :, -2] = slopes[:, :, 3] * self._moments[:, None]
        slopes[:, :, -1] = residual * certainty
        return _View(cost, misfit, blur[:, :, 0], slopes)

    def _system(self, view: _View) -> tuple[Array, _Single, _Single, _Single]:
        """The normal equations without the bins of the specimen, which are eliminated.

        Returns:
            Matrix and, as the last column, what pulls, shape (starts, P, P + 1) of P parameters;
            then, for the bins, slopes by all but the R shapes, and what pulls,
            (starts, P - R + 1, bins); and how sure all frames are of them, without and with the
            prior, (starts, bins) each.
        """
        data, others, shapes = self._series, self._others, self._series.shapes.shape[1]
        slopes, size = view.slopes, self._point.shape[1]
        count, frames, _, bins = slopes.shape
        squares = slopes[:, :, :-1] @ slopes.transpose(0, 1, 3, 2)
        # All of them against the bins of the specimen, which do what a gain does.
        on_bins = slopes * slopes[:, :, :1]
        rows = np.concatenate(
            [on_bins[:, :, :3].reshape(count, -1, bins), on_bins[:, :, 3:].sum(1)], axis=1
        )
        pull = rows[:, -1].copy()
        rows[:, -1] -= self._deviations / data.bin_variance
        total = on_bins[:, :, 0].sum(1)
        whole = total + 1 / data.bin_variance
        told = total / whole
        scaled = rows[:, :-1] / whole[:, None]

        system = np.zeros((count, size, size + 1))
        at = np.arange(shapes, others).reshape(frames, 3)
        system[:, at[:, :, None], at[:, None]] = squares[:, :, :3, :3]
        system[:, shapes:others, others:] = squares[:, :, :3, 3:].reshape(count, 3 * frames, -1)
        system[:, others:, shapes:others] = system[:, shapes:others, others:-1].transpose(0, 2, 1)
        system[:, others:, others:] = squares[:, :, 3:, 3:].sum(1)
        system[:, shapes:, shapes:] -= scaled @ rows.transpose(0, 2, 1)
        system[:, shapes:, :shapes] = scaled @ data.held
        system[:, :shapes, shapes:-1] = system[:, shapes:, :shapes].transpose(0, 2, 1)
        system[:, :shapes, :shapes] = (told @ data.products).reshape(count, shapes, shapes)
        system[:, :shapes, -1] = (pull - told * rows[:, -1]) @ data.shapes
        system[:, :, -1] -= (self._point - self._mean) * self._precision
        diagonal = np.arange(size)
        system[:, diagonal, diagonal] += self._precision
        return system, rows, total, whole

    def _keep(self, cost: Array, found: list[npt.NDArray[Any]]) -> None:
        """Remember the points that are better than any before."""
        better = cost < self._best_cost
        if better.all() or not np.isfinite(self._best_cost).any():
            self._best = found
        else:
            for best, each in zip(self._best, found, strict=True):
                np.copyto(best.T, each.T, where=better)  # the start is the last axis of these
        self._best_cost[better] = cost[better]
