"""Where does a through-focus curve peak? A posterior on a grid.

The model is ours. The variance of the blur grows as ``slope² dz² + sigma0²`` with the defocus
``dz``, and a focus measure of a specimen with a power-law spectrum falls as a power of it, until
noise is all that is left. The logarithm of the measure is therefore::

    y = c - g * log(1 + u² / (1 + u²/U²)) + e,      u = (z - z_f) / w,  g >= 0

Focus ``z_f``, width ``w`` and the depth ``U`` of the floor are scanned on a grid. The offset
``c``, the gain ``g`` and a small difference of the widths on the two sides of focus are integrated
out in closed form, and so is a short list of hypotheses about the errors ``e``: how far the model
is off, and whether one of the frames that fit worst is an outlier.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# The grid: widths in half depths of field with a log-normal prior, floors in widths.
_WIDTHS = np.geomspace(1.2, 40.0, 7)
_WIDTH_PRIOR = np.exp(-0.5 * np.log(_WIDTHS / 4.0) ** 2)
_WIDTH_PRIOR /= _WIDTH_PRIOR.sum()
_FLOORS = np.array([2.5, 100.0])
_FLOORS2 = _FLOORS[:, None, None] ** 2
_COARSE_POINTS, _FINE_POINTS = 81, 41

# Standard deviations of what is integrated out: the gain, and the relative asymmetry times it.
_GAIN_SIGMA = 1.5
_ASYMMETRY_SIGMA = 0.02

# How far the model may be off, in log sharpness: everywhere the same, one of these ...
_MODEL_ERRORS = np.array([0.005, 0.02, 0.08])
_MODEL_ERROR_PRIOR = np.array([0.4, 0.4, 0.2])
# ... and by this share of the fall from the best frame.
_TAIL_ERROR = 0.04
_OUTLIER_SIGMA = 1.0
_OUTLIER_PRIOR = 0.02
_OUTLIER_CANDIDATES = 3


@dataclass(frozen=True, slots=True)
class Peak:
    """What is known about the place of the peak, in the unit of the positions.

    Attributes:
        mean: posterior mean.
        sigma: posterior standard deviation.
        low: 5 % quantile.
        high: 95 % quantile.
        log_odds: log evidence for a peak minus that for a constant.
    """

    mean: float
    sigma: float
    low: float
    high: float
    log_odds: float


def locate_peak(
    positions: Floats, values: Floats, sigmas: Floats, span: tuple[float, float]
) -> Peak:
    """Locate the peak of a noisy curve.

    Args:
        positions: where it was sampled, shape (n,), in half depths of field.
        values: natural logarithm of the focus measure, shape (n,).
        sigmas: standard deviation of ``values`` from noise and age, shape (n,).
        span: range in which the peak lies, uniformly, a priori.

    Raises:
        ValueError: no sample, or arrays of different length.
    """
    if positions.size == 0 or not positions.shape == values.shape == sigmas.shape:
        raise ValueError(
            "one value and one sigma a position, got "
            f"{positions.shape}, {values.shape}, {sigmas.shape}"
        )
    # The model is trusted less the further sharpness has fallen from the best.
    sigmas = np.hypot(sigmas, _TAIL_ERROR * (values.max() - values))
    values = values - values.mean()
    coarse = np.linspace(*span, _COARSE_POINTS)
    curves = _curves(coarse, positions)
    errors = _plain_errors(sigmas)
    errors = _with_outliers(errors, curves, values, sigmas)
    density, evidence = _density(curves, values, errors)
    log_odds = evidence - _log_sum(_constant(values, errors))

    spacing = coarse[1] - coarse[0]
    low, high = _quantiles(coarse, density, (0.0005, 0.9995))
    fine = np.linspace(max(span[0], low - spacing), min(span[1], high + spacing), _FINE_POINTS)
    density, _ = _density(_curves(fine, positions), values, errors)
    mean = float(density @ fine)
    sigma = float(np.sqrt(density @ (fine - mean) ** 2))
    low, high = _quantiles(fine, density, (0.05, 0.95))
    return Peak(mean, sigma, low, high, float(log_odds))


@dataclass(frozen=True, slots=True)
class _Curves:
    """Curves of unit gain (m, n), for each of (widths, floors, focus), and their products.

    ``odd`` is the change of a curve for a small relative difference of its widths on the two
    sides of focus.
    """

    curve: Floats
    odd: Floats
    curve_curve: Floats
    odd_odd: Floats
    curve_odd: Floats


@dataclass(frozen=True, slots=True)
class _Errors:
    """Hypotheses about the errors: weights (k, n) of the samples and log prior (k,) of each."""

    weights: Floats
    log_prior: Floats


def _plain_errors(sigmas: Floats) -> _Errors:
    weights = 1.0 / (sigmas**2 + _MODEL_ERRORS[:, None] ** 2)
    return _Errors(weights, np.log(_MODEL_ERROR_PRIOR))


def _with_outliers(plain: _Errors, curves: _Curves, values: Floats, sigmas: Floats) -> _Errors:
    """Add the hypotheses that one of the samples that fit worst is an outlier."""
    middle = _Errors(plain.weights[1:2], plain.log_prior[1:2])
    best = curves.curve[np.argmax(_peaked(curves, values, middle))]
    root = np.sqrt(middle.weights[0])
    design = np.stack([root, root * best], axis=1)
    fit, *_ = np.linalg.lstsq(design, root * values, rcond=None)
    misfit = (root * values - design @ fit) ** 2
    worst = np.argsort(misfit)[::-1][:_OUTLIER_CANDIDATES]
    reduced = np.repeat(middle.weights, worst.size, axis=0)
    reduced[np.arange(worst.size), worst] = 1.0 / (sigmas[worst] ** 2 + _OUTLIER_SIGMA**2)
    log_prior = np.full(worst.size, np.log(_OUTLIER_PRIOR))
    return _Errors(
        np.concatenate([plain.weights, reduced]), np.concatenate([plain.log_prior, log_prior])
    )


def _curves(focus: Floats, positions: Floats) -> _Curves:
    u = (focus[:, None] - positions) / _WIDTHS[:, None, None, None]
    slack = _FLOORS2 / (_FLOORS2 + u * u)
    signed = u * np.abs(u) * slack
    rise = 1.0 + np.abs(signed)
    curve = -np.log(rise).reshape(-1, positions.size)
    odd = (2.0 * signed * slack / rise).reshape(-1, positions.size)
    return _Curves(curve, odd, curve * curve, odd * odd, curve * odd)


def _constant(values: Floats, errors: _Errors) -> Floats:
    """Log evidence (k,) of each hypothesis if sharpness does not depend on focus."""
    total = errors.weights.sum(axis=1)
    mean = errors.weights @ values / total
    chi2 = errors.weights @ values**2 - total * mean**2
    normal = 0.5 * np.log(errors.weights).sum(axis=1) - 0.5 * np.log(total)
    log_evidence: Floats = errors.log_prior + normal - 0.5 * chi2
    return log_evidence


def _peaked(curves: _Curves, values: Floats, errors: _Errors) -> Floats:
    """Log evidence (m, k) of each curve and hypothesis, relative to that for a constant.

    Offset, asymmetry and gain are integrated out one after the other.
    """
    weights = errors.weights.T
    total = errors.weights.sum(axis=1)
    weights_y = weights * (values[:, None] - errors.weights @ values / total)
    sum_h, sum_a = curves.curve @ weights, curves.odd @ weights
    s_hh = curves.curve_curve @ weights - sum_h**2 / total
    s_aa = curves.odd_odd @ weights - sum_a**2 / total
    s_ha = curves.curve_odd @ weights - sum_h * sum_a / total
    s_hy, s_ay = curves.curve @ weights_y, curves.odd @ weights_y

    precision_a = np.maximum(s_aa, 0.0) + _ASYMMETRY_SIGMA**-2
    share = s_ha / precision_a
    precision_g = np.maximum(s_hh - share * s_ha, 0.0) + _GAIN_SIGMA**-2
    ratio = (s_hy - share * s_ay) / np.sqrt(precision_g)
    quadratic = s_ay * s_ay / precision_a + ratio * ratio
    volume = np.log(precision_a * precision_g * (_ASYMMETRY_SIGMA * _GAIN_SIGMA) ** 2)
    half_normal = np.log(2.0) + _log_normal_cdf(ratio)
    log_evidence: Floats = 0.5 * (quadratic - volume) + half_normal
    return log_evidence


def _density(curves: _Curves, values: Floats, errors: _Errors) -> tuple[Floats, float]:
    """Posterior (focus,) normalised to sum 1, and the log evidence."""
    constant = _constant(values, errors)
    log_evidence = _peaked(curves, values, errors) + constant
    top = log_evidence.max()
    mass = np.exp(log_evidence - top).sum(axis=1).reshape(_WIDTHS.size, _FLOORS.size, -1)
    density: Floats = _WIDTH_PRIOR @ mass.mean(axis=1)
    total = density.sum()
    return density / total, float(np.log(total / density.size) + top)


def _log_normal_cdf(x: Floats) -> Floats:
    """Log of the standard normal distribution function, to 2e-4 for x > -3, else pessimistic."""
    return -np.log1p(np.exp(np.minimum(-x * (1.5976 + 0.070566 * x * x), 500.0)))


def _log_sum(log_terms: Floats) -> float:
    top = log_terms.max()
    return float(top + np.log(np.exp(log_terms - top).sum()))


def _quantiles(points: Floats, density: Floats, levels: tuple[float, float]) -> tuple[float, float]:
    """Quantiles of a density given on equally spaced points, taken as constant around each."""
    cumulative = np.concatenate([[0.0], np.cumsum(density)])
    spacing = points[1] - points[0]
    edges = points[0] - spacing / 2 + spacing * np.arange(points.size + 1)
    low, high = np.interp(levels, cumulative, edges)
    return float(low), float(high)
