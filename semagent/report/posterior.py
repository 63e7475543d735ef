"""A belief about focus as a curve, for whoever draws it."""

import numpy as np
import numpy.typing as npt

from semagent.types import FocusBelief

Places = npt.NDArray[np.float64]


def density_of(belief: FocusBelief, places_m: Places, *, narrowest_m: float = 0.0) -> Places:
    """How likely focus is at each of these places, against the likeliest of all.

    Args:
        belief: in which something is known.
        places_m: working distances.
        narrowest_m: standard deviation that a mode is drawn with at least, so that a narrow one
            does not fall between two places.
    """
    modes = belief.mixture
    # The likeliest place may lie outside of what is drawn.
    everywhere_m = np.concatenate([places_m, [mode.focus_m for mode in modes]])
    density = np.zeros(len(everywhere_m))
    for mode in modes:
        sigma_m = max(mode.sigma_m, narrowest_m)
        bell = np.exp(-0.5 * ((everywhere_m - mode.focus_m) / sigma_m) ** 2)
        density += mode.weight / sigma_m * bell
    return density[: len(places_m)] / float(density.max())
