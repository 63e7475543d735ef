"""Whether to set the stigmators along with the next move of focus, and how it went.

Pure functions of the belief. Stigmators are changed where astigmatism is worth it and surely
there, so that one verifying frame serves focus and stigmators both.
"""

import math

from semagent.control.options import AutofocusOptions
from semagent.control.situation import Autofocus
from semagent.types import Capabilities, FocusBelief, Optics

_WORTH_IT, _SIGMAS = 0.3, 1.2
"""Half depths of field of astigmatism to change, and how sure of it, where a frame is taken anyway
..."""
_WORTH_A_FRAME, _SURE = 0.5, 2.5
"""... and where one has to be taken for it."""
_MOST_TRIMS = 3

Stigmators = tuple[float, float]


def next_trim(
    task: Autofocus,
    belief: FocusBelief,
    optics: Optics,
    unit_m: float,
    options: AutofocusOptions,
    capabilities: Capabilities,
    *,
    for_itself: bool = False,
) -> Stigmators | None:
    """What to set the stigmators to before the next frame; ``None`` leaves them.

    Args:
        task: the search that is going on.
        belief: after its last frame.
        optics: of that frame.
        unit_m: half a depth of field.
        options: the section ``autofocus``.
        capabilities: of the microscope.
        for_itself: the frame would be taken for the stigmators alone.
    """
    worth, sigmas = (_WORTH_A_FRAME, _SURE) if for_itself else (_WORTH_IT, _SIGMAS)
    if task.trims >= _MOST_TRIMS or not _astigmatic(belief, worth * unit_m, sigmas, options):
        return None
    target = _target(task, belief, optics, options, capabilities)
    return None if isinstance(target, str) else target


def improved(task: Autofocus, belief: FocusBelief, optics: Optics) -> bool:
    """Whether less astigmatism is to be expected than with the stigmators of the start."""
    change, sigma = belief.stigmator_correction, belief.stigmator_sigma
    if change is None or sigma is None or task.start is None:
        return False
    then, now = setting(task.start.optics), setting(optics)
    if then is None or now is None:
        return False
    was = (change[0] + now[0] - then[0], change[1] + now[1] - then[1])
    return math.hypot(*change, *sigma) < math.hypot(*was)


def outlook(
    task: Autofocus,
    belief: FocusBelief,
    optics: Optics,
    unit_m: float,
    options: AutofocusOptions,
    capabilities: Capabilities,
) -> str:
    """What people should know of the stigmators at the end of a search; empty if nothing."""
    left_m = math.hypot(*(belief.astigmatism_m or (0.0, 0.0)))
    if not task.stigmation or not _astigmatic(
        belief, _WORTH_A_FRAME * unit_m, options.significance, options
    ):
        return "; astigmatism was taken out" if task.trims else ""
    why = _target(task, belief, optics, options, capabilities)
    stays = f"; this is the circle of least confusion, astigmatism of {left_m * 1e6:.2f} µm stays"
    return f"{stays}: {why}" if isinstance(why, str) else stays


def _astigmatic(
    belief: FocusBelief, worth_m: float, sure: float, options: AutofocusOptions
) -> bool:
    """Whether there is surely astigmatism, and enough of it."""
    left_m, sigma_m = belief.astigmatism_m, belief.astigmatism_sigma_m
    if left_m is None or sigma_m is None or belief.log_odds < options.min_log_odds:
        return False
    sigmas = math.hypot(left_m[0] / sigma_m[0], left_m[1] / sigma_m[1])
    return math.hypot(*left_m) > worth_m and sigmas > sure


def _target(
    task: Autofocus,
    belief: FocusBelief,
    optics: Optics,
    options: AutofocusOptions,
    capabilities: Capabilities,
) -> Stigmators | str:
    """Where the stigmators would leave no astigmatism, or why they cannot be set so."""
    here, change = setting(optics), belief.stigmator_correction
    if not task.stigmation:
        return "stigmators were to be left alone"
    if not capabilities.stigmator:
        return "stigmators cannot be set on this microscope"
    if options.stigmator_range is None:
        return "the safety envelope does not allow stigmators to be set"
    if here is None:
        return "stigmators do not read back"
    if change is None:
        return "it is not known what the stigmators do; run semagent calibrate"
    low, high = options.stigmator_range
    target = (here[0] + change[0], here[1] + change[1])
    if not all(low <= each <= high for each in target):
        return (
            f"stigmators would have to be at {target[0]:+.3f}, {target[1]:+.3f}, "
            f"{low:g} to {high:g} is allowed"
        )
    return target


def setting(optics: Optics) -> Stigmators | None:
    """Where the stigmators are; ``None`` where they do not read back."""
    if optics.stigmator_x is None or optics.stigmator_y is None:
        return None
    return optics.stigmator_x, optics.stigmator_y
