"""Whether to set the stigmators along with the next move of focus, and how it went.

Stigmators are changed where astigmatism is worth it and surely there, so that one verifying frame
serves focus and stigmators both.
"""

import math
from dataclasses import dataclass

from semagent.control.options import AutofocusOptions
from semagent.control.situation import Autofocus
from semagent.lengths import show_length
from semagent.types import Capabilities, FocusBelief, Optics

_WORTH_IT, _SIGMAS = 0.4, 1.8
"""Half depths of field of astigmatism to change, and how sure of it, where a frame is taken anyway
..."""
_WORTH_A_FRAME, _SURE = 1.0, 2.5
"""... and where one has to be taken for it: less is taken out with the last move."""
_WORTH_PROBES = 0.5
"""Half depths of field of astigmatism to learn for what the stigmators do, or to speak of."""
_WELL_ENOUGH, _SUSPICIOUS = 0.45, 0.7
"""Half depths of field to which astigmatism has to be known once the stigmators were changed, and
that are suspected before."""
_LAST_LEAST, _LAST_MOST, _LIKELY = 0.2, 2.0, 0.8
"""Half depths of field of astigmatism that are taken out at the end, without another frame, and how
sure of it once the stigmators were changed: then astigmatism is no mere suspicion."""
_MOST_TRIMS = 3
_TELL = 5  # frames since a probe or a trim that tell what the stigmators do, if any do
_LEAST_PROBE = 0.5  # of a probe that there has to be room for within the limits
_FRAMES_OF_PROBES = 4
"""Two probes, a verifying frame, and one if the stigmators have to go back."""

Stigmators = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Trim:
    """What is known of astigmatism after a frame, and what may be done to it.

    Attributes:
        task: the search that is going on.
        belief: after its last frame.
        optics: of that frame.
        unit_m: half a depth of field.
        options: the section ``autofocus``.
        capabilities: of the microscope.
    """

    task: Autofocus
    belief: FocusBelief
    optics: Optics
    unit_m: float
    options: AutofocusOptions
    capabilities: Capabilities

    def on_the_way(self) -> Stigmators | None:
        """What to set before a frame that is taken anyway; ``None`` leaves them."""
        return self._if(self._may and self._astigmatic(_WORTH_IT, _SIGMAS))

    def for_itself(self) -> Stigmators | None:
        """What to set where it takes a frame more to see what became of it."""
        return self._if(self._may and self._astigmatic(_WORTH_A_FRAME, _SURE))

    def probe(self) -> Stigmators | None:
        """What to set to learn what the stigmators do: first the one, then the other."""
        here, step = setting(self.optics), self.options.probe_stigmator
        limits, probes = self.options.stigmator_range, self.task.probes
        begun = probes == 1 or (probes == 0 and self._astigmatic(_WORTH_PROBES, _SURE))
        if here is None or limits is None or not (step and self._unknown and begun):
            return None
        if self.task.frames_left < _FRAMES_OF_PROBES - probes:
            return None
        at, (low, high) = here[probes], limits
        up, down = min(at + step, high), max(at - step, low)
        place = up if up == at + step or up - at >= at - down else down
        if abs(place - at) < _LEAST_PROBE * step:
            return None
        return (place, here[1]) if probes == 0 else (here[0], place)

    def at_the_end(self) -> Stigmators | None:
        """A last small change that no frame verifies: less is to be expected with it."""
        sure = _LIKELY if self.task.trims else _SIGMAS
        return self._if(self._size <= _LAST_MOST and self._astigmatic(_LAST_LEAST, sure))

    def is_vague(self) -> bool:
        """Whether a frame beside focus is worth it, to know better how much is left."""
        sigma_m, suspected = self.belief.astigmatism_sigma_m, self._size > _WORTH_IT
        if sigma_m is None or isinstance(self._target(), str):
            return False
        sigma = math.hypot(*sigma_m) / self.unit_m
        if self.task.trims:
            probed = self.task.probes > 0 and self._size > _WORTH_PROBES
            return probed or sigma > _WELL_ENOUGH
        return suspected and math.hypot(self._size, sigma) > _SUSPICIOUS

    def is_unclear(self) -> bool:
        """Whether a few frames more may tell what the stigmators do, which were changed."""
        few = (self.task.as_trimmed or 0) < _TELL
        return self._unknown and few and self.task.frames_left > _FRAMES_OF_PROBES

    def first_probe(self) -> Stigmators | None:
        """Only the first stigmator changed, where both were to learn what they do.

        One frame has seen that; what each does is told by what lies between.
        """
        here = setting(self.optics)
        start = setting(self.task.start.optics) if self.task.start else None
        if self.task.trims or here is None or start is None or here[1] == start[1]:
            return None
        return here[0], start[1]

    def improved(self) -> bool:
        """Whether less astigmatism is to be expected than with the stigmators of the start."""
        change, sigma = self.belief.stigmator_correction, self.belief.stigmator_sigma
        if change is None or sigma is None or self.task.start is None:
            return False
        then, now = setting(self.task.start.optics), setting(self.optics)
        if then is None or now is None:
            return False
        was = (change[0] + now[0] - then[0], change[1] + now[1] - then[1])
        return math.hypot(*change, *sigma) < math.hypot(*was)

    def outlook(self) -> str:
        """What people should know of the stigmators at the end of a search; empty if nothing."""
        astigmatic = self._astigmatic(_WORTH_PROBES, self.options.significance)
        wanted = self.task.stigmation or self.task.stigmated
        if self.at_the_end() is not None or not (wanted and astigmatic):
            taken = self.task.changed_stigmators or self.at_the_end() is not None
            return "; astigmatism was taken out" if taken else ""
        why, left = self._target(), show_length(self._size * self.unit_m)
        stays = f"; this is the circle of least confusion, astigmatism of {left} stays"
        return f"{stays}: {why}" if isinstance(why, str) else stays

    @property
    def _unknown(self) -> bool:
        """Whether stigmators may be set, and nothing tells yet what they do."""
        return self.belief.stigmator_correction is None and not self._barred()

    @property
    def _may(self) -> bool:
        """Whether stigmators may be changed once more before the end."""
        return self.task.trims < _MOST_TRIMS

    @property
    def _size(self) -> float:
        """Half depths of field of astigmatism that are left."""
        return math.hypot(*(self.belief.astigmatism_m or (0.0, 0.0))) / self.unit_m

    def _astigmatic(self, worth: float, sure: float) -> bool:
        """Whether there is surely astigmatism, and enough of it."""
        left_m, sigma_m = self.belief.astigmatism_m, self.belief.astigmatism_sigma_m
        if left_m is None or sigma_m is None or self.belief.log_odds < self.options.min_log_odds:
            return False
        sigmas = math.hypot(left_m[0] / sigma_m[0], left_m[1] / sigma_m[1])
        return self._size > worth and sigmas > sure

    def _if(self, wanted: bool) -> Stigmators | None:
        target = self._target() if wanted else ""
        return None if isinstance(target, str) else target

    def _barred(self) -> str:
        """Why stigmators cannot be set at all; empty if they can."""
        if not self.task.stigmation:
            put_back = "nothing better can be had with the stigmators"
            return put_back if self.task.stigmated else "stigmators were to be left alone"
        if not self.capabilities.stigmator:
            return "stigmators cannot be set on this microscope"
        if self.options.stigmator_range is None:
            return "the safety envelope does not allow stigmators to be set"
        return "" if setting(self.optics) else "stigmators do not read back"

    def _target(self) -> Stigmators | str:
        """Where the stigmators would leave no astigmatism, or why they cannot be set so."""
        here, change = setting(self.optics), self.belief.stigmator_correction
        barred = self._barred()
        if barred or here is None or self.options.stigmator_range is None:
            return barred
        if change is None:
            return "it is not known what the stigmators do; run semagent calibrate"
        low, high = self.options.stigmator_range
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
