"""The tile scan itself: in which order, what is concluded, and how it ends."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from semagent.config import RunConfig
from semagent.control.intervention import require_same_settings
from semagent.errors import CommandRefusedError, MicroscopeError, SemagentError
from semagent.legs import and_back
from semagent.places import Place, ScanOptions, spread
from semagent.surface import Expected, Focused, Surface, fit_surface, nearest
from semagent.survey.pilot import Look, Pilot
from semagent.types import FocusResult, FrameHeader

How = Literal["focused", "predicted", "held", "unusable"]
_LEAST_SIGMA = 0.15  # half depths of field: no focusing is believed to be better
_MISS_SIGMAS = 3.0  # by which focus is found beside the map, and half a depth of field at least
_STEP = 30.0  # half depths of field: standard deviation of the height of a step
_BEYOND = "the map expects focus outside the safety envelope, and it was not found inside"
_MOST_UNUSABLE = 3  # positions in a row whose frames cannot be used


class NoMapError(SemagentError):
    """Focus was found nowhere, so there is nothing to predict from."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A position that was visited.

    Attributes:
        index: in the order of the scan, from 0.
        place: where the stage read back.
        working_distance_m: at which the frames were taken.
        predicted_m: what the map said before.
        sigma_m: how sure it was.
        how: focused here, predicted by the map, predicted after focusing had failed here (or
            taken from the nearest focus, where the prediction is outside the envelope), or not
            acquired, as the frames cannot be used.
        focus_score: of the last frame; ``None`` if it cannot be used.
        sequences: of the frames that can be used.
        reason: why the others cannot, or why focus was looked for and not found.
    """

    index: int
    place: Place
    working_distance_m: float
    predicted_m: float
    sigma_m: float
    how: How
    focus_score: float | None
    sequences: tuple[int, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What a tile scan has found, so far as it came.

    Attributes:
        visits: the positions, in order.
        focused: the places where focus was found, and what it was.
        surface: the map at the end.
        doubtful: indices of predicted positions whose prediction is contradicted by what was
            found later: by the map, or by focus nearby.
    """

    visits: tuple[Visit, ...]
    focused: tuple[Focused, ...]
    surface: Surface
    doubtful: tuple[int, ...] = ()


class Survey:
    """One tile scan from where the microscope stands now; it is left there again.

    Args:
        pilot: of the microscope, armed.
        config: under which it runs.
        options: the section ``scan``.
        first: a frame of the place where it begins.
        places: to be visited, in order.
        on_focus: told of every focusing, with the number of the place.
        on_visit: told of every position that was visited.
    """

    def __init__(
        self,
        pilot: Pilot,
        config: RunConfig,
        options: ScanOptions,
        first: FrameHeader,
        places: Sequence[Place],
        *,
        on_focus: Callable[[int, FocusResult], None] = lambda _index, _result: None,
        on_visit: Callable[[Visit], None] = lambda _visit: None,
    ) -> None:
        self._pilot = pilot
        self._options = options
        self._first = first
        self._places = tuple(places)
        self._home = Place(first.stage.x_m or 0.0, first.stage.y_m or 0.0)
        self._on_focus = on_focus
        self._on_visit = on_visit
        self._unit_m = config.half_depth_of(first)
        self._limits = config.safety.working_distance_m
        self._expected = Expected(
            slope=options.slope,
            sag_m=options.sag * self._unit_m,
            drift_m_per_s=options.drift * self._unit_m / 60,
            step_m=_STEP * self._unit_m,
            reach_m=max(_reach_m(self._places), 1e-9),
        )
        self._focused: list[Focused] = []
        self._visits: list[Visit] = []
        self._visited_s: list[float] = []
        self._unverified: list[int] = []
        self._missed: set[int] = set()
        self._since = self._unusable = 0  # positions, since the last that was looked for, in a row
        self._astray = False  # whether focus, last found, lay beside the map

    @property
    def found(self) -> Found | None:
        """What was found, however it ended; ``None`` as long as focus was found nowhere."""
        if not self._focused:
            return None
        surface = self._surface()
        doubtful = tuple(
            visit.index
            for visit, time_s in zip(self._visits, self._visited_s, strict=True)
            if visit.how == "predicted"
            and (
                visit.index in self._missed
                or surface.doubted(*visit.place, self._focused)
                or abs(surface.at(*visit.place, time_s)[0] - visit.predicted_m) > self._unit_m
            )
        )
        return Found(tuple(self._visits), tuple(self._focused), surface, doubtful)

    def run(self) -> None:
        """Do it, and put stage and focus back, whatever happens.

        Raises:
            NoMapError: focus was found nowhere.
            CommandRefusedError: the gate or the microscope refused a move.
            MicroscopeError: it failed, several positions in a row could not be acquired, or not
                everything could be put back.
        """
        with and_back(self._put_back, check="the stage and the working distance"):
            self._map()
            self._acquire()

    def _map(self) -> None:
        """Focus at a few places far from each other, each time where the map expects it."""
        left = spread(self._places, self._options.focus_at)
        here = self._home
        while left:
            index = min(left, key=lambda each: math.dist(self._places[each], here))
            left.remove(index)
            here = self._places[index]
            self._pilot.go(here, self._from(here, self._predict(here)[0]))
            self._focus(index)
        if not self._focused:
            raise NoMapError(
                "focus was found at none of the positions it was looked for: focus by hand at "
                "one of them, and check that there is structure"
            )

    def _acquire(self) -> None:
        """Visit all positions, then once more those whose prediction has come into doubt."""
        for index in range(len(self._places)):
            self._acquire_at(index)
        here = self._places[-1]
        while (found := self.found) is not None and found.doubtful:
            index = min(found.doubtful, key=lambda each: math.dist(self._places[each], here))
            here = self._places[index]
            try:
                self._pilot.require_way_home(here, self._home)
                self._acquire_at(index, again=True)
            except CommandRefusedError as error:
                raise type(error)(
                    f"position {index}, in doubt, is not visited again: {error}"
                ) from error

    def _acquire_at(self, index: int, again: bool = False) -> None:
        """Visit a position; where that is once more, focus is looked for."""
        place = self._places[index]
        surface = self._surface()
        predicted_m, sigma_m = surface.at(*place, self._now_s())
        start_m = self._from(place, predicted_m)
        self._pilot.go(place, start_m)
        every = self._options.verify_every
        self._since += 1
        how: How = "predicted"
        missing = ""
        uncertain = sigma_m > self._options.max_sigma * self._unit_m
        doubted = again or self._astray or surface.doubted(*place, self._focused)
        beyond = start_m != predicted_m
        if (every and self._since > every) or uncertain or doubted or beyond:
            self._since = 0
            missing = self._focus(index)
            how = "held" if missing else "focused"
            self._astray = how == "focused" and self._missed_by(predicted_m, sigma_m)
        else:
            self._unverified.append(index)
        if missing and beyond:
            missing = f"{_BEYOND}: {missing}"
        visit = self._visit(index, self._looks(), predicted_m, sigma_m, how, missing)
        self._visits[index : index + 1] = [visit]
        self._visited_s[index : index + 1] = [self._now_s()]
        self._on_visit(visit)
        self._unusable = self._unusable + 1 if visit.how == "unusable" else 0
        if self._unusable == _MOST_UNUSABLE:
            raise MicroscopeError(
                f"the frames of {_MOST_UNUSABLE} positions in a row cannot be used: {visit.reason}"
            )

    def _looks(self) -> list[Look]:
        """As many as are wanted here, up to one that cannot be used."""
        looks = [self._pilot.look()]
        while len(looks) < self._options.frames and looks[-1].analysis is not None:
            looks.append(self._pilot.look())
        self._require_unchanged()
        return looks

    def _require_unchanged(self) -> None:
        if self._pilot.last is not None:
            require_same_settings(self._first, self._pilot.last)

    def _visit(
        self,
        index: int,
        looks: Sequence[Look],
        predicted_m: float,
        sigma_m: float,
        how: How,
        missing: str,
    ) -> Visit:
        last = looks[-1]
        stage = last.header.stage
        return Visit(
            index=index,
            place=Place(stage.x_m or 0.0, stage.y_m or 0.0),
            working_distance_m=last.header.optics.working_distance_m,
            predicted_m=predicted_m,
            sigma_m=sigma_m,
            how="unusable" if last.analysis is None else how,
            focus_score=None if last.analysis is None else last.analysis.focus_score,
            sequences=tuple(look.header.sequence for look in looks if look.analysis is not None),
            reason=last.fault or missing,
        )

    def _focus(self, index: int) -> str:
        """Focus here and learn from it; why focus was not found, empty if it was."""
        result, belief = self._pilot.focus()
        self._on_focus(index, result)
        self._require_unchanged()
        if result.status != "focused":
            return result.reason
        focus_m, sigma_m = result.final_working_distance_m, self._unit_m
        if belief is not None and belief.focus_m is not None and belief.sigma_m is not None:
            focus_m, sigma_m = belief.focus_m, belief.sigma_m
        self._focused.append(
            Focused(
                x_m=self._places[index].x_m,
                y_m=self._places[index].y_m,
                time_s=self._now_s(),
                working_distance_m=focus_m,
                sigma_m=max(sigma_m, _LEAST_SIGMA * self._unit_m),
            )
        )
        return ""

    def _missed_by(self, predicted_m: float, sigma_m: float) -> bool:
        """Whether focus, just found, lies beside what the map said: then it was wrong before too.

        The positions since the last one that agreed with the map are in doubt then.
        """
        off_m = abs(self._focused[-1].working_distance_m - predicted_m)
        missed = off_m > max(self._unit_m, _MISS_SIGMAS * sigma_m)
        if missed:
            self._missed |= set(self._unverified)
        self._unverified.clear()
        return missed

    def _predict(self, place: Place) -> tuple[float, float]:
        """Focal working distance and its standard deviation; at first that of the start."""
        if not self._focused:
            return self._first.optics.working_distance_m, math.inf
        return self._surface().at(place.x_m, place.y_m, self._now_s())

    def _from(self, place: Place, predicted_m: float) -> float:
        """Where focus is looked for from, or taken to be.

        Beyond a step a surface may lead anywhere. Where that is outside the envelope, it is focus
        at the nearest place instead, which may itself be believed to lie a little outside.
        """
        limits = self._limits
        if not self._focused or limits is None or limits.min <= predicted_m <= limits.max:
            return predicted_m
        nearby_m = self._focused[nearest(*place, self._focused)].working_distance_m
        return min(max(nearby_m, limits.min), limits.max)

    def _surface(self) -> Surface:
        return fit_surface(self._focused, self._expected)

    def _now_s(self) -> float:
        """Time of the last frame since the first."""
        return ((self._pilot.last or self._first).monotonic_ns - self._first.monotonic_ns) * 1e-9

    def _put_back(self) -> None:
        if self._pilot.moved:
            self._pilot.put_back(self._home, self._first.optics.working_distance_m)


def _reach_m(places: Sequence[Place]) -> float:
    """Half the longer edge of the rectangle that holds the places."""
    xs, ys = [place.x_m for place in places], [place.y_m for place in places]
    return max(max(xs) - min(xs), max(ys) - min(ys)) / 2
