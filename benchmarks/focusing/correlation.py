"""SBEMimage's heuristic: weighted sums over the autocorrelation of two perturbed frames.

From C. Binding, S. Mikula and W. Denk (2013), as in ``src/autofocus.py`` of SBEMimage: three
estimators of one frame, for focus and both stigmators, each the contrast of two weighted means of
the autocorrelation; the correction is a calibration factor times the difference between a frame
with all three settings lowered and one with all three raised.

Different here: SBEMimage takes the two frames on successive slices and corrects once a pair, to
follow small changes. It is given up to eight pairs, until the correction falls below half a depth
of field, so that it has a chance from afar. The three factors are fitted on the training
micrographs.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from focusing.outcome import Outcome
from focusing.scope import Image, Scope
from focusing.trials import Fields, Trial, make_trial

FOCUS_DELTA, STIGMATOR_DELTA = 2.0, 1.0
MAX_PAIRS = 8
LARGEST = 12.0
"""Half depths of field; SBEMimage, too, refuses corrections beyond a limit."""

_WIDTH = 64


@cache
def _masks() -> npt.NDArray[np.float64]:
    """The six weights of Binding et al. 2013, normalised; shape (6, 64, 64)."""
    alpha, beta, gamma, delta, epsilon = 6.0, 0.5, 3.0, 0.5, 9.0
    x, y = np.mgrid[:_WIDTH, :_WIDTH] - _WIDTH / 2
    r = np.hypot(x, y)
    r[r == 0] = 1
    sin, cos = x / r, y / r
    ring = np.exp(-(r**2) / alpha) - np.exp(-(r**2) / beta)
    masks = np.array(
        [
            np.exp(-(r**2) / gamma) - np.exp(-(r**2) / delta),
            np.exp(-(r**2) / epsilon) - np.exp(-(r**2) / gamma),
            sin**2 * ring,
            cos**2 * ring,
            0.5 * (sin + cos) ** 2 * ring,
            0.5 * (sin - cos) ** 2 * ring,
        ]
    )
    return masks / masks.sum(axis=(1, 2), keepdims=True)


def estimators(image: Image) -> npt.NDArray[np.float64]:
    """Focus and the two stigmation estimators of one frame."""
    grey = image - image.mean()
    shape = (2 * grey.shape[0], 2 * grey.shape[1])
    power = np.abs(np.fft.rfft2(grey, shape)) ** 2
    correlation = np.fft.fftshift(np.fft.irfft2(power, shape))
    top, left = shape[0] // 2 - _WIDTH // 2, shape[1] // 2 - _WIDTH // 2
    middle = correlation[top : top + _WIDTH, left : left + _WIDTH]
    first, second = (_masks() * middle).sum(axis=(1, 2)).reshape(3, 2).T
    return np.asarray((first - second) / (first + second))


def pair(scope: Scope) -> npt.NDArray[np.float64]:
    """Difference of the estimators between lowered and raised settings; ends where it began."""
    here = scope.position
    scope.go(here - FOCUS_DELTA)
    scope.stigmate(-STIGMATOR_DELTA, -STIGMATOR_DELTA)
    low = estimators(scope.image())
    scope.go(here + FOCUS_DELTA)
    scope.stigmate(2 * STIGMATOR_DELTA, 2 * STIGMATOR_DELTA)
    high = estimators(scope.image())
    scope.go(here)
    scope.stigmate(-STIGMATOR_DELTA, -STIGMATOR_DELTA)
    return low - high


def calibrate(fields: Fields, trials: int = 60) -> npt.NDArray[np.float64]:
    """The three factors, from known errors on training fields near focus."""
    seen, true = [], []
    for number in range(trials):
        trial = make_trial("focus", number, fields, seed=977)
        scope = Scope(trial)
        rng = np.random.default_rng(number)
        error = np.array([rng.uniform(-6, 6), *rng.uniform(-2, 2, 2)])
        scope.go(error[0] - trial.start)
        scope.stigmate(error[1] - trial.astigmatism[0], error[2] - trial.astigmatism[1])
        seen.append(pair(scope))
        true.append(error)
    x, y = np.array(seen), np.array(true)
    return np.asarray((x * y).sum(axis=0) / (x * x).sum(axis=0))


class Heuristic:
    """The method with its calibration."""

    def __init__(self, fields: Fields) -> None:
        self._factors = calibrate(fields)

    def __call__(self, trial: Trial) -> Outcome:
        """Run one trial."""
        scope = Scope(trial)
        for _ in range(MAX_PAIRS):
            focus, a1, a2 = (self._factors * pair(scope)).tolist()
            if abs(focus) > LARGEST:
                break
            scope.go(scope.position - focus)
            scope.stigmate(-a1, -a2)
            if abs(focus) < 1:
                break
        return scope.outcome("SBEMimage heuristic")
