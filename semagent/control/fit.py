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

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from semagent.control.series import Series, Single, single
from semagent.spectrum import Array
from semagent.transfer import log_disc_transfer

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
NOISE_LEVEL_STD = 0.1
"""Error of the noise level of a frame."""
GAIN_STD = 0.4
"""Changes of the contrast between frames, as logarithm of the power."""
BLUR_STD = 0.04
"""Relative error of the blur of a whole frame: relief, other content, a lens that is not linear."""
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

_SLOPES = 9  # of the log power of a frame by what `_Action` names, and what is left to explain
_TWICE = np.array([2, 2, 1], np.float32)


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


class _Action:
    """How the parameters of a beam act in the frames of a series.

    A frame's log power changes with its own gain, noise level and ln of the blur, with its
    (f - z, a1, a2), and with ln of the spot and of the softness. Each parameter acts by one of
    these *slopes*, the more the larger its *cause* in the frame is.

    Attributes:
        slope: that each parameter acts by and, at the end, the number of what is left to explain,
            shape (W + 1,).
        causes: shape (causes, frames).
        at: where the sum over the frames of a cause times a slope is for each parameter, and for
            what is left, among all of those, shape (W + 1,).
        times: the cause of each parameter, and 1 for what is left, shape (frames, 1, W + 1).
        mix: what each parameter does by each slope of each frame, shape (W, frames * slopes).
        to_blur: the same for (f - z, a1, a2) alone, shape (W, frames * 3).
    """

    def __init__(self, series: Series, width: int, moments: Array | None) -> None:
        slope, cause = [3, 4, 5, 2, 6, 7], [1, 0, 0, 0, 0, 0]
        causes = [np.ones(len(series.places)), series.by_focus]
        if moments is not None:
            causes.append(series.by_focus * moments)
        if width - (moments is not None) > BEAM:
            slope += [4, 4, 5, 5]
            cause += [len(causes), len(causes) + 1] * 2
            causes += list(series.stigmators.T)
        if moments is not None:
            slope, cause = [*slope, 3], [*cause, 2]
        self.slope = np.array([*slope, _SLOPES - 1])
        self.causes = np.array(causes, np.float32)
        self.at = np.array([*cause, 0]) * _SLOPES + self.slope
        times = self.causes[[*cause, 0]]
        self.times = times.T[:, None]
        mix = times[:-1, :, None] * (self.slope[:-1, None, None] == np.arange(_SLOPES - 1))
        self.mix = mix.reshape(width, -1)
        self.to_blur = mix[:, :, 3:6].reshape(width, -1)


class _View(NamedTuple):
    """How the frames look from where each start is.

    Attributes:
        cost: half of what is to be minimised, shape (starts,).
        misfit: as in `Modes`.
        away: of focus from the places of the frames, shape (starts, frames).
        slopes: of the log power in units of its scatter as in `_Action`, and what is left to
            explain in the same units, shape (starts, frames, _SLOPES, bins).
    """

    cost: Array
    misfit: Array
    away: Single
    slopes: Single


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
        self._action = _Action(series, starts.shape[1], moments)
        largest = np.full(starts.shape[1], by_response)
        largest[:BEAM] = _LARGEST_STEP
        if moments is not None:
            largest[-1] = _LARGEST_RATE
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
        step = single(step)
        moved = (step[:, None, shapes.shape[1] :] @ rows[:, :-1])[:, 0]
        moved += total * (step[:, : shapes.shape[1]] @ shapes.T)
        self._deviations += (rows[:, -1] - moved) / whole
        return bool((np.abs(move[:, :BEAM]) > _NEXT_TO_NOTHING).any())

    def _look(self, *, first: bool) -> _View:
        """The model and what is left to explain, where each start is.

        The first time the level of the specimen is set to that of the frames.
        """
        data, others, shapes = self._series, self._others, self._series.shapes.shape[1]
        point = single(self._point)
        beam = point[:, others:]
        frames, bins = data.log_power.shape
        count = len(beam)
        own = point[:, shapes:others].reshape(count, frames, 3, 1)
        blur = (beam @ self._action.to_blur).reshape(count, frames, 3)
        away = blur[:, :, 0] - data.places
        blur[:, :, 0] = np.minimum(np.maximum(away, -_FARTHEST), _FARTHEST)
        by_blur = (blur @ data.form).reshape(count, frames, 3, bins)
        reach = np.maximum(0.5 * (blur[:, :, None] @ by_blur)[:, :, 0], 1e-9)
        slope2, spot2, softness = np.exp(beam[:, 3:6] * _TWICE).T[:, :, None, None]
        q = slope2 * np.exp(2 * own[:, :, 2]) * reach
        transfer, fall = log_disc_transfer(q)
        softer = softness * np.minimum(-np.minimum(q, _SOFT_UP_TO) - transfer, 0.0)
        fall += softness * (q < _SOFT_UP_TO) * np.minimum(-q - fall, 0.0)
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
        misfit = chi2.sum((1, 2)) / (frames * bins)
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
        slopes = np.empty((count, frames, _SLOPES, bins), np.float32)
        slopes[:, :, 0] = weight
        slopes[:, :, 1] = (1 - share) * certainty
        slopes[:, :, 2] = 2 * by_log_q
        slopes[:, :, 3:6] = by_blur * (by_log_q / reach)[:, :, None]
        slopes[:, :, 6] = 2 * narrower * weight
        slopes[:, :, 7] = softer * weight
        slopes[:, :, 8] = residual * certainty
        return _View(cost, misfit, blur[:, :, 0], slopes)

    def _system(self, view: _View) -> tuple[Array, Single, Single, Single]:
        """The normal equations without the bins of the specimen, which are eliminated.

        Returns:
            Matrix and, as the last column, what pulls, shape (starts, P, P + 1) of P parameters;
            then, for the bins, slopes by all but the R shapes, and what pulls,
            (starts, P - R + 1, bins); and how sure all frames are of them, without and with the
            prior, (starts, bins) each.
        """
        data, others, shapes = self._series, self._others, self._series.shapes.shape[1]
        slopes, action, size = view.slopes, self._action, self._point.shape[1]
        count, frames, _, bins = slopes.shape
        squares = slopes[:, :, :-1] @ slopes.transpose(0, 1, 3, 2)
        by_beam = squares.take(action.slope, axis=3) * action.times
        # All of them against the bins of the specimen, which do what a gain does.
        on_bins = slopes * slopes[:, :, :1]
        sums = (action.causes @ on_bins.reshape(count, frames, -1)).reshape(count, -1, bins)
        rows = np.concatenate(
            [on_bins[:, :, :3].reshape(count, -1, bins), sums.take(action.at, axis=1)], axis=1
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
        system[:, shapes:others, others:] = by_beam[:, :, :3].reshape(count, 3 * frames, -1)
        system[:, others:, shapes:others] = system[:, shapes:others, others:-1].transpose(0, 2, 1)
        by_beam = by_beam.reshape(count, -1, size - others + 1)
        system[:, others:, others:] = action.mix @ by_beam
        system[:, shapes:, shapes:] -= scaled @ rows.transpose(0, 2, 1)
        system[:, shapes:, :shapes] = scaled @ data.held
        system[:, :shapes, shapes:-1] = system[:, shapes:, :shapes].transpose(0, 2, 1)
        system[:, :shapes, :shapes] = (told @ data.products).reshape(count, shapes, shapes)
        system[:, :shapes, -1] = (pull - told * rows[:, -1]) @ data.shapes
        system[:, :, -1] -= (self._point - self._mean) * self._precision
        diagonal = np.einsum("...ii->...i", system[:, :, :-1])
        diagonal += self._precision
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
