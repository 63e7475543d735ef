"""What focus and stigmators do to the beam: one fit of a beam to the spectra of all frames.

The power of frame i in bin j, noise taken off, is modelled as ``exp(s_j + g_i - w t_i k²) T(q)``,
with the spectrum of the specimen s_j common to all frames, gains g_i, a focused spot that grows by
w, and the transfer T of a disc (see `semagent.transfer`) at::

    q = c² k' ((z_i - h_i d_i - f_i) I + A_i)² k,     f_i = f + u·S_i + v t_i,     A_i = A + K S_i

Here z is the set working distance, d = ±1 the direction it was approached from, h_i the play h of
the lens or, where focus has run less than 2 h since it turned round, what is taken up of it, S the
stigmators relative to the start, t the time. Specimen and gains are eliminated in closed form; the
rest are Gauss-Newton steps with the weights of Student's distribution. Only differences between
frames count, so that the specimen cannot bias the result.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semagent.calibration.shifts import Floats, Shot
from semagent.control.options import USUAL_SLOPE
from semagent.signature import geometry_of
from semagent.transfer import log_disc_transfer
from semagent.types import Signature

_NAMES = ("f", "ln c", "a1", "a2", "K11", "K12", "K21", "K22", "u1", "u2", "h", "v", "w")
_OF_FOCUS = [_NAMES.index(name) for name in ("f", "u1", "u2", "h", "v")]
_VISIBLE = 0.3  # least share of the specimen in the power of a bin that is used
_FLAT_ERROR, _RING_ERROR, _MOST_RINGS = 0.03, 0.1, 8.0  # of the log transfer, per unit of q
_SLOPE_ERROR = 0.01  # of the slope: scatter over simulated specimens beyond what the fit says
_LEAST_TOLD = 1.0  # precision of a jump, in half depths of field to the power of -2
_FEWEST_BESIDE = 2  # frames on either side of a jump
_TAIL = 6.0  # degrees of freedom of the errors
_STEPS = 40
_SHARPEST = 4  # frames that say where in its bins the power of the specimen is
MOST_RESIDUAL = 0.5
"""Root mean square of the logarithm of the power, above which a fit says nothing. Simulated beams
leave 0.15 to 0.35, most where there is little noise."""
_DAMPING = 1e-3
_LEAST_PRECISION = 1e-9  # of every parameter
_LARGEST_STEP = 3.0  # units of length a step may change anything by
_SLOPES = (0.5, 0.75, 1.0, 1.4, 2.0)  # starting points, of the slope expected


@dataclass(frozen=True, slots=True)
class BlurFit:
    """The fitted beam; lengths in metres, each value with its standard deviation.

    Attributes:
        focus_m: working distance that focuses the field, stigmators as at the start.
        slope_px_per_m: blur per metre of defocus, α/2p.
        per_stigmator_m: K, (a1, a2) by stigmators (x, y): rows a.
        focus_per_stigmator_m: u.
        hysteresis_m: h.
        jump_m: of focus between two frames, the surest that the residuals ask for, about.
        residual: root mean square of the logarithm of the power that is left.
    """

    focus_m: tuple[float, float]
    slope_px_per_m: tuple[float, float]
    per_stigmator_m: tuple[tuple[float, float], tuple[float, float]]
    per_stigmator_sigma_m: float
    focus_per_stigmator_m: tuple[float, float]
    focus_per_stigmator_sigma_m: float
    hysteresis_m: tuple[float, float]
    jump_m: tuple[float, float]
    residual: float


class _Problem:
    """The data, in units of half a depth of field."""

    def __init__(
        self,
        shots: Sequence[Shot],
        signatures: Sequence[Signature],
        unit_m: float,
        quadratics: Sequence[Floats] | None,
    ) -> None:
        geometry = geometry_of(signatures[0].tile_px)
        log_power = np.array([each.log_power for each in signatures])
        noise = np.exp(np.array([each.log_noise for each in signatures]))
        power = np.exp(log_power)
        visible = 1 - noise / power
        self.used = (geometry.share > 0) & (visible > _VISIBLE)
        self.signal = np.log(np.where(self.used, power - noise, 1.0))
        self.sharpness = log_power[:, self.used.any(axis=0)].sum(axis=1)
        pixels = np.array([each.pixels for each in signatures])[:, np.newaxis]
        modes = np.maximum(geometry.share * pixels / 2, 1.0)
        # Power is exponentially distributed; what the frames share of it is not noise.
        relative = np.maximum(1 - visible**2, 0.02) / np.maximum(visible, _VISIBLE) ** 2
        self.variance = relative / modes
        self.quadratic = geometry.quadratic
        if quadratics is not None:
            sharpest = self.sharpness.argsort()[-_SHARPEST:]
            self.quadratic = np.array(quadratics)[sharpest].mean(axis=0)
        first, self.shots = shots[0], shots
        self.origin_m = first.setting("focus")
        self.unit_m = unit_m
        self.places = np.array([s.setting("focus") - self.origin_m for s in shots]) / unit_m
        self.directions = np.array([s.directions.get("focus", 0) for s in shots], np.float64)
        self.stigmators = np.array(
            [
                [s.setting(name) - first.setting(name) for name in ("stigmator_x", "stigmator_y")]
                for s in shots
            ]
        )
        times = np.array([s.header.monotonic_ns - first.header.monotonic_ns for s in shots], float)
        self.times = times / max(float(times.max()), 1.0)
        free = np.ones(len(_NAMES), bool)
        free[[4, 6, 8]] = np.ptp(self.stigmators[:, 0]) > 0
        free[[5, 7, 9]] = np.ptp(self.stigmators[:, 1]) > 0
        # From one direction, defocus that comes with time and a spot that grows are much alike.
        free[[10, 12]] = np.ptp(self.directions) > 0
        self.free = np.flatnonzero(free)

    def focus_and_play(self) -> tuple[float, float]:
        """About where focus is, and the play, by the sharpest frame from either side."""
        ways = [self.directions == direction for direction in (1, -1)]
        if not all(way.any() for way in ways):
            return float(self.places[self.sharpness.argmax()]), 0.0
        above, below = (self.places[way][self.sharpness[way].argmax()] for way in ways)
        return float(above + below) / 2, max(0.0, float(above - below) / 2)

    def log_transfer(self, p: Floats) -> tuple[Floats, Floats]:
        """Log transfer and q of every frame and bin, each (N, BINS)."""
        along, cosine, sine = self.quadratic
        sx, sy = self.stigmators.T
        focus = p[0] + p[8] * sx + p[9] * sy + p[11] * self.times
        lag = np.array([shot.lag_m(p[10] * self.unit_m) for shot in self.shots]) / self.unit_m
        away = (self.places - lag - focus)[:, np.newaxis]
        a1 = (p[2] + p[4] * sx + p[5] * sy)[:, np.newaxis]
        a2 = (p[3] + p[6] * sx + p[7] * sy)[:, np.newaxis]
        reach = (away**2 + a1**2 + a2**2) * along + 2 * away * (a1 * cosine + a2 * sine)
        q = math.exp(2 * p[1]) * np.maximum(reach, 1e-9)
        grown = p[12] * self.times[:, np.newaxis] * along
        return log_disc_transfer(q)[0] - grown, q

    def without_nuisances(self, columns: Floats, weight: Floats) -> Floats:
        """Columns (m, N, BINS) less what specimen and gains explain of them."""
        total = np.maximum(weight.sum(axis=0), 1e-12)
        centred = columns - ((columns * weight).sum(axis=1) / total)[:, np.newaxis]
        gains = np.diag(weight.sum(axis=1)) - (weight / total) @ weight.T
        pull = (centred * weight).sum(axis=2)
        level = pull @ np.linalg.pinv(gains)
        by_gain = level[:, :, np.newaxis] - ((level @ weight) / total)[:, np.newaxis]
        return np.asarray(centred - by_gain)


def fit_blur(
    shots: Sequence[Shot],
    signatures: Sequence[Signature],
    *,
    unit_m: float,
    quadratics: Sequence[Floats] | None = None,
) -> BlurFit:
    """Fit the beam.

    Args:
        shots: frames of one field over a range of working distances that includes focus.
        signatures: theirs, in the same order.
        unit_m: half a depth of field, within a factor of three: it says how fast blur grows.
        quadratics: of the frames, see `semagent.signature.quadratic_of`; without them the power of
            the specimen is taken to be even within each bin.
    """
    problem = _Problem(shots, signatures, unit_m, quadratics)
    start = np.zeros(len(_NAMES))
    start[0], start[10] = problem.focus_and_play()
    best: tuple[float, Floats, Floats] | None = None
    for factor in _SLOPES:
        start[1] = math.log(factor * USUAL_SLOPE)
        found = _descend(problem, start.copy())
        if best is None or found[0] < best[0]:
            best = found
    assert best is not None  # noqa: S101 - there are starting points
    return _in_metres(problem, *best[1:])


def _descend(problem: _Problem, p: Floats) -> tuple[float, Floats, Floats]:
    """Cost, parameters and their covariance after Levenberg-Marquardt steps from ``p``."""
    damping = _DAMPING
    cost, residual, weight = _misfit(problem, p)
    for _ in range(_STEPS):
        jacobian = _jacobian(problem, p, weight)
        flat = jacobian.reshape(len(problem.free), -1)
        weighted = flat * weight.ravel()
        hessian, gradient = weighted @ flat.T, weighted @ residual.ravel()
        damped = hessian + np.diag(damping * np.diag(hessian) + _LEAST_PRECISION)
        step = np.clip(np.linalg.solve(damped, gradient), -_LARGEST_STEP, _LARGEST_STEP)
        trial = p.copy()
        trial[problem.free] += step
        new_cost, new_residual, new_weight = _misfit(problem, trial)
        if new_cost < cost:
            done = cost - new_cost < 1e-6 * cost
            p, cost, residual, weight = trial, new_cost, new_residual, new_weight
            damping = max(damping / 5, 1e-6)
            if done:
                break
        else:
            damping *= 5
            if damping > 1e6:
                break
    flat = _jacobian(problem, p, weight).reshape(len(problem.free), -1)
    hessian = (flat * weight.ravel()) @ flat.T
    # What the frames do not depend on is not known at all, instead of exactly.
    covariance = np.linalg.inv(hessian + _LEAST_PRECISION * np.eye(len(hessian)))
    return cost, p, np.asarray(covariance, np.float64)


def _misfit(problem: _Problem, p: Floats) -> tuple[float, Floats, Floats]:
    """Cost, residuals and weights at ``p``, each of the last two (N, BINS)."""
    transfer, q = problem.log_transfer(p)
    error = _FLAT_ERROR**2 + (_RING_ERROR * np.minimum(q, _MOST_RINGS)) ** 2
    variance = problem.variance + error
    weight = problem.used / variance
    raw = (problem.signal - transfer)[np.newaxis]
    residual = problem.without_nuisances(raw, weight)[0]
    robust = weight * (_TAIL + 1) / (_TAIL + residual**2 / variance)
    residual = problem.without_nuisances(raw, robust)[0]
    chi2 = residual**2 / variance
    terms = (_TAIL + 1) * np.log1p(chi2 / _TAIL) + np.log(variance)
    return float((terms * problem.used).sum()) / 2 + 1e4, residual, robust


def _jacobian(problem: _Problem, p: Floats, weight: Floats) -> Floats:
    """Derivatives of the log transfer by the free parameters, nuisances taken off."""
    columns = [_slope(problem, p, index) for index in problem.free.tolist()]
    return problem.without_nuisances(np.array(columns), weight)


def _slope(problem: _Problem, p: Floats, index: int) -> Floats:
    step = np.zeros_like(p)
    step[index] = 1e-4
    return (problem.log_transfer(p + step)[0] - problem.log_transfer(p - step)[0]) / 2e-4


def _asked_for(
    problem: _Problem,
    p: Floats,
    covariance: Floats,
    left: tuple[Floats, Floats],
    frames: npt.NDArray[np.bool_],
) -> tuple[Floats, Floats]:
    """Changes of focus that residuals ask for in some frames.

    Args:
        problem: the data.
        p: the parameters.
        covariance: theirs.
        left: residuals and their weights, each (N, BINS).
        frames: in which of them, shape (m, N).

    Returns:
        The changes, and their errors, shape (m,) each.
    """
    residual, weight = left
    by_focus = frames[:, :, np.newaxis] * _slope(problem, p, 0)
    columns = problem.without_nuisances(by_focus, weight).reshape(len(frames), -1)
    weighted = columns * weight.ravel()
    shared = weighted @ _jacobian(problem, p, weight).reshape(len(problem.free), -1).T
    # Where the play may do as much in its place, next to nothing tells of a change.
    told = (weighted * columns).sum(axis=1) - ((shared @ covariance) * shared).sum(axis=1)
    pull = np.where(told > _LEAST_TOLD, weighted @ residual.ravel(), 0.0)
    told = np.maximum(told, _LEAST_TOLD)
    return pull / told, told**-0.5


def _jump(
    problem: _Problem, p: Floats, covariance: Floats, left: tuple[Floats, Floats]
) -> tuple[float, float]:
    """The surest jump of focus between two frames, and its error."""
    frames = np.arange(len(problem.places))
    if len(frames) < 2 * _FEWEST_BESIDE:
        return 0.0, math.inf
    after = frames >= frames[_FEWEST_BESIDE : 1 - _FEWEST_BESIDE, np.newaxis]
    change, error = _asked_for(problem, p, covariance, left, after)
    surest = int(np.abs(change / error).argmax())
    return float(change[surest]), float(error[surest])


def _in_metres(problem: _Problem, p: Floats, covariance: Floats) -> BlurFit:
    _, residual, weight = _misfit(problem, p)
    sigma = np.full(len(_NAMES), np.inf)
    freedom = max(1.0, float(problem.used.sum()) - problem.used.any(axis=0).sum() - len(p))
    excess = max(1.0, float((residual**2 * weight).sum()) / freedom)
    sigma[problem.free] = np.sqrt(np.maximum(np.diag(covariance), 0) * excess)
    # Focus that wanders leaves little in any bin, but the same in all bins of a frame.
    left, each = (residual, weight), np.eye(len(problem.places), dtype=bool)
    wander, error = _asked_for(problem, p, covariance, left, each)
    sigma[_OF_FOCUS] *= math.sqrt(max(1.0, float(((wander / error) ** 2).mean()) / excess))
    jump, jump_sigma = _jump(problem, p, covariance, left)
    slope = math.exp(p[1]) / problem.unit_m
    metres, spread = p * problem.unit_m, sigma * problem.unit_m
    return BlurFit(
        focus_m=(problem.origin_m + float(metres[0]), float(spread[0])),
        slope_px_per_m=(slope, slope * math.hypot(float(sigma[1]), _SLOPE_ERROR)),
        per_stigmator_m=(
            (float(metres[4]), float(metres[5])),
            (float(metres[6]), float(metres[7])),
        ),
        per_stigmator_sigma_m=float(spread[4:8].max()),
        focus_per_stigmator_m=(float(metres[8]), float(metres[9])),
        focus_per_stigmator_sigma_m=float(spread[8:10].max()),
        hysteresis_m=(float(metres[10]), float(spread[10])),
        jump_m=(jump * problem.unit_m, jump_sigma * math.sqrt(excess) * problem.unit_m),
        residual=math.sqrt(float((residual**2 * problem.used).sum()) / freedom),
    )
