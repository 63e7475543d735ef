"""A belief about focus as a curve, for whoever draws it."""

import math

import numpy as np
import numpy.typing as npt

from semagent.types import FocusBelief, FocusMode

Places = npt.NDArray[np.float64]


def modes_of(belief: FocusBelief) -> tuple[FocusMode, ...]:
    """The modes, the likeliest first; where none are recorded, a bell of mean and deviation."""
    if belief.modes or belief.focus_m is None or belief.sigma_m is None:
        return belief.modes
    return (FocusMode(weight=1.0, focus_m=belief.focus_m, sigma_m=belief.sigma_m),)


def density_of(belief: FocusBelief, places_m: Places, *, narrowest_m: float = 0.0) -> Places:
    """How likely focus is at each of these places, against the likeliest of all.

    Args:
        belief: in which something is known.
        places_m: working distances.
        narrowest_m: standard deviation that a mode is drawn with at least, so that a narrow one
            does not fall between two places.
    """
    modes = modes_of(belief)
    # The likeliest place may lie outside of what is drawn.
    everywhere_m = np.concatenate([places_m, [mode.focus_m for mode in modes]])
    density = np.zeros(len(everywhere_m))
    for mode in modes:
        sigma_m = max(mode.sigma_m, narrowest_m)
        bell = np.exp(-0.5 * ((everywhere_m - mode.focus_m) / sigma_m) ** 2)
        density += mode.weight / sigma_m * bell
    return density[: len(places_m)] / float(density.max())


def probability_between(belief: FocusBelief, low_m: float, high_m: float) -> float:
    """The probability that focus lies between two working distances; 0 if nothing is known."""

    def below(mode: FocusMode, place_m: float) -> float:
        return 0.5 * (1.0 + math.erf((place_m - mode.focus_m) / (mode.sigma_m * math.sqrt(2.0))))

    return sum(
        mode.weight * (below(mode, high_m) - below(mode, low_m)) for mode in modes_of(belief)
    )
