"""What a driver does when its microscope fails, hangs or drops the link, at every single call."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import msgspec
import pytest

from semagent import registry
from semagent.clock import SystemClock
from semagent.errors import (
    CommandRefusedError,
    DisconnectedError,
    MicroscopeError,
    MicroscopeTimeoutError,
)
from semagent.ports import Microscope
from semagent.types import (
    MicroscopeAction,
    MoveStage,
    Optics,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
)


class Injector(Protocol):
    """Makes a fake's calls go wrong: ``fail``, ``hang`` or ``drop`` the link."""

    calls: int

    def arm(self, fault: str, at: int) -> None:
        """Let the ``at``-th call from now go wrong, counted from 1."""

    def disarm(self) -> None:
        """Let all calls go right again, and count from 0."""


@dataclass(frozen=True, slots=True)
class Rig:
    """A fake microscope and how to reach it.

    Attributes:
        options: to open the driver with.
        trip: makes its calls go wrong.
        truth: what it is really set to, whatever it says to the driver.
        reset: what a person would do at the fake after a fault, such as ending an exposure.
    """

    options: Mapping[str, Any]
    trip: Injector
    truth: Callable[[], Optics]
    reset: Callable[[], None] = lambda: None


OPERATIONS = (
    "read_state",
    "acquire",
    "working_distance",
    "stigmator",
    "beam_shift",
    "stage",
    "scan",
    "blanker",
)
_OWN = {
    "working_distance": {"working_distance_m"},
    "stigmator": {"stigmator_x", "stigmator_y"},
    "blanker": {"blanked"},
}
_NAMES = {
    "working_distance_m": "working distance",
    "stigmator_x": "stigmator",
    "stigmator_y": "stigmator",
    "blanked": "blanker",
}


class MicroscopeFaults:
    """Subclass it with a name that starts with ``Test``, and provide the fixture ``rig``.

    At every call an operation makes, each fault in turn. The operation either succeeds all the
    same, or raises a `MicroscopeError` in time. Focus, stigmators and blanker are as the user
    left them, except for what the operation was to change, or the error names what is not.

    Attributes:
        driver: name of the entry point.
        working_distance_step_m: a change of the working distance it can make.
        stage_step_m: a stage move along x it can make.
        within_s: longest time an operation may take, whatever happens.
        hang_options: changes to the options for the tests of calls that hang: time-outs of a
            fraction of a second.
        tolerance: how far each of the fields of `Optics` may be off and count as put back.
    """

    driver: ClassVar[str]
    working_distance_step_m: ClassVar[float] = 5e-6
    stage_step_m: ClassVar[float] = 10e-6
    within_s: ClassVar[float] = 2.0
    hang_options: ClassVar[Mapping[str, Any]] = {"call_timeout_s": 0.2}
    tolerance: ClassVar[Mapping[str, float]] = {"working_distance_m": 1e-9}

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        """The fake, running, and ended after the test."""
        raise NotImplementedError

    @pytest.mark.parametrize("fault", ["fail", "hang", "drop"])
    def test_a_fault_at_each_call_while_opening(self, rig: Rig, fault: str) -> None:
        rig.trip.disarm()
        self._open(rig).close()
        calls = rig.trip.calls
        for at in range(1, calls + 1):
            rig.trip.arm(fault, at)
            started_s = time.perf_counter()
            with contextlib.suppress(MicroscopeError):
                self._open(rig, fault).close()
            assert time.perf_counter() - started_s < 2 * self.within_s, f"{fault} at call {at}"
            rig.trip.disarm()
        self._open(rig).close()

    @pytest.mark.parametrize("fault", ["fail", "hang", "drop"])
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_a_fault_at_each_call_of(self, rig: Rig, operation: str, fault: str) -> None:
        rig.trip.disarm()
        with contextlib.closing(self._open(rig)) as microscope:
            action = self._action(microscope, operation)
            if action is None and operation not in ("read_state", "acquire"):
                pytest.skip(f"this microscope has no {operation} to set")
            rig.trip.disarm()
            self._do(microscope, operation, action)
            calls = rig.trip.calls
        if operation == "scan" and not calls:
            pytest.skip("what this driver averages it averages itself")
        assert calls, "an operation without a call to the vendor: a setting from memory?"
        opened: Microscope | None = None
        failed = False
        try:
            for at in range(1, calls + 1):
                opened, action = self._ready(rig, opened, operation, fault)
                failed |= self._one_fault(rig, opened, operation, action, fault, at) is not None
                if fault != "fail":  # a link that broke stays broken
                    opened.close()
                    opened = None
        finally:
            rig.trip.disarm()
            if opened is not None:
                opened.close()
        assert failed, f"{operation} succeeds whichever call goes wrong: does the fake {fault}?"

    def _ready(
        self,
        rig: Rig,
        opened: Microscope | None,
        operation: str,
        fault: str,
        tries: int = 3,
    ) -> tuple[Microscope, MicroscopeAction | None]:
        """A microscope, and a change to try.

        With time-outs of a fraction of a second a busy machine runs into one now and then though
        nothing hangs, and then it is opened anew.
        """
        try:
            opened = opened or self._open(rig, fault)
            return opened, self._action(opened, operation)
        except (MicroscopeTimeoutError, DisconnectedError):
            if fault != "hang" or tries == 1:
                raise
        if opened is not None:
            opened.close()
        rig.reset()
        return self._ready(rig, None, operation, fault, tries - 1)

    def _one_fault(
        self,
        rig: Rig,
        microscope: Microscope,
        operation: str,
        action: MicroscopeAction | None,
        fault: str,
        at: int,
    ) -> MicroscopeError | None:
        """Let one call go wrong and look at what has become of the microscope.

        Returns:
            What the operation raised.
        """
        where = f"{operation}, {fault} at call {at}"
        before = rig.truth()
        rig.trip.arm(fault, at)
        error: MicroscopeError | None = None
        started_s = time.perf_counter()
        try:
            self._do(microscope, operation, action)
        except MicroscopeError as raised:
            error = raised
        assert time.perf_counter() - started_s < self.within_s, where
        # Before the fault ends: a call that hangs may do its work after all.
        self._compare(before, rig.truth(), operation, error, where)
        if fault == "fail":
            rig.trip.disarm()
            rig.reset()
            assert not isinstance(error, DisconnectedError), f"{where}: {error}"
            if not microscope.read_state().optics.blanked:  # some then refuse to expose
                microscope.acquire(self.within_s)
            return error
        if isinstance(error, DisconnectedError | MicroscopeTimeoutError):
            started_s = time.perf_counter()
            with pytest.raises(MicroscopeError):
                microscope.read_state()
            microscope.close()
            assert time.perf_counter() - started_s < 2 * self.within_s, f"{where}, and then"
        rig.trip.disarm()
        rig.reset()
        return error

    def _compare(
        self,
        before: Optics,
        after: Optics,
        operation: str,
        error: MicroscopeError | None,
        where: str,
    ) -> None:
        then, now = (msgspec.structs.asdict(optics) for optics in (before, after))
        changed = {
            field
            for field in _NAMES
            if then[field] != now[field]
            and not abs(now[field] - then[field]) <= self.tolerance.get(field, 0.0)
        }
        if isinstance(error, CommandRefusedError):
            assert not changed, f"{where}: refused, but {changed} changed: {error}"
        for field in changed - _OWN.get(operation, set()):
            named = error is not None and f"not put back: {_NAMES[field]}" in str(error)
            assert named, f"{where}: {field} {then[field]} became {now[field]}: {error}"

    def _do(self, microscope: Microscope, operation: str, action: MicroscopeAction | None) -> None:
        if action is not None:
            microscope.apply(action)
        elif operation == "acquire":
            microscope.acquire(self.within_s)
        else:
            microscope.read_state()

    def _action(self, microscope: Microscope, operation: str) -> MicroscopeAction | None:
        """A change to try; ``None`` if there is nothing to change that way."""
        can = microscope.capabilities
        state = microscope.read_state()
        optics, stage = state.optics, state.stage
        match operation:
            case "working_distance":
                low_m, high_m = can.working_distance_range_m or (0.0, 1.0)
                up_m = optics.working_distance_m + self.working_distance_step_m
                down_m = optics.working_distance_m - self.working_distance_step_m
                return SetWorkingDistance(
                    working_distance_m=up_m if low_m <= up_m <= high_m else down_m
                )
            case "stigmator" if can.stigmator:
                return SetStigmator(x=-0.02 if (optics.stigmator_x or 0.0) > 0 else 0.02, y=0.01)
            case "beam_shift" if can.beam_shift:
                return SetBeamShift(
                    x_m=-1e-7 if (optics.beam_shift_x_m or 0.0) > 0 else 1e-7, y_m=0.0
                )
            case "stage" if "x_m" in can.stage_axes:
                x_m = stage.x_m or 0.0
                return MoveStage(
                    x_m=x_m - self.stage_step_m if x_m > 0 else x_m + self.stage_step_m
                )
            case "scan" if can.scan_control:
                return SetScan(frame_averages=1 if state.scan.frame_averages > 1 else 2)
            case "blanker" if can.blanker:
                return SetBlanked(blanked=not optics.blanked)
            case _:
                return None

    def _open(self, rig: Rig, fault: str = "") -> Microscope:
        options = {**rig.options, **(self.hang_options if fault == "hang" else {})}
        return self.open_microscope(options)

    def open_microscope(self, options: Mapping[str, Any]) -> Microscope:
        """Open the driver; override it for one that has no entry point."""
        return registry.opener(self.driver)(options, clock=SystemClock())
