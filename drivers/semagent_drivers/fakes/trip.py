"""Faults on call: what a fake does wrong, and at which call."""

import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Any

_LONGEST_HANG_S = 30.0


class Fault(StrEnum):
    """How a call goes wrong."""

    FAIL = "fail"
    """The vendor says that it failed."""
    HANG = "hang"
    """No answer comes."""
    DROP = "drop"
    """The link breaks, and stays broken."""


class Trip:
    """Counts the calls that reach a fake and trips at one of them.

    A fake asks `step` at each call, and does what it says in the vendor's own manner. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._fault: Fault | None = None
        self._at = 0
        self._dropped = False
        self.calls = 0

    def arm(self, fault: Fault | str, at: int) -> None:
        """Let the ``at``-th call from now go wrong, counted from 1."""
        with self._lock:
            self.calls, self._at, self._fault = 0, at, Fault(fault)
            self._dropped = False
            self._released.clear()

    def disarm(self) -> None:
        """Let all calls go right again, a dropped link too, and let go of calls that hang."""
        with self._lock:
            self.calls, self._fault, self._dropped = 0, None, False
            self._released.set()

    def step(self) -> Fault | None:
        """Count a call and say what it is to do."""
        with self._lock:
            self.calls += 1
            if self._dropped:
                return Fault.DROP
            if self._fault is None or self.calls != self._at:
                return None
            self._dropped = self._fault is Fault.DROP
            return self._fault

    @property
    def dropped_before(self) -> bool:
        """Whether the link had broken before the call that was counted last."""
        with self._lock:
            return self._dropped and self.calls > self._at

    def hang(self) -> None:
        """Wait until somebody lets go; for calls that are made in this process."""
        self._released.wait(_LONGEST_HANG_S)


def wired(
    target: Any, trip: Trip, *, fail: Callable[[str], Exception], drop: Callable[[str], Exception]
) -> Any:
    """A fake object model whose every attribute access, assignment and call may trip.

    Args:
        target: the object; objects of its own package that it returns are wired too.
        trip: what counts.
        fail: makes the vendor's exception for a failed call.
        drop: makes the one for a broken link.
    """
    return _Wired(target, _Rule(trip, fail, drop))


class _Rule:
    def __init__(
        self, trip: Trip, fail: Callable[[str], Exception], drop: Callable[[str], Exception]
    ) -> None:
        self._trip, self._fail, self._drop = trip, fail, drop

    def pass_(self, name: str) -> None:
        match self._trip.step():
            case Fault.FAIL:
                raise self._fail(name)
            case Fault.DROP:
                raise self._drop(name)
            case Fault.HANG:
                self._trip.hang()
                # Going on now would change what a later test looks at.
                raise self._drop(name)


class _Wired:
    """Stands before an object of a fake's model."""

    def __init__(self, target: Any, rule: _Rule) -> None:
        object.__setattr__(self, "_target", target)
        object.__setattr__(self, "_rule", rule)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if callable(value):
            return lambda *given, **named: self._called(name, value, given, named)
        if _of_the_model(value):
            return _Wired(value, self._rule)  # following a path is no call to the vendor
        self._rule.pass_(name)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        self._rule.pass_(name)
        setattr(self._target, name, value)

    def _called(self, name: str, call: Any, given: Any, named: Any) -> Any:
        self._rule.pass_(name)
        result = call(*given, **named)
        return _Wired(result, self._rule) if _of_the_model(result) else result


def _of_the_model(value: object) -> bool:
    """Objects with behaviour, as opposed to the plain values a vendor returns."""
    return bool(getattr(type(value), "WIRED", False))
