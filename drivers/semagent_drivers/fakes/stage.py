"""A stage that takes its time, and may begin late."""

import time


class Stage:
    """Axes that go straight to where they are sent.

    Args:
        position: where they are at first, in the vendor's units.
    """

    def __init__(self, position: list[float]) -> None:
        self._position = position
        self._way: list[tuple[float, float]] = []
        self._begins_s = self._ends_s = 0.0

    @property
    def position(self) -> list[float]:
        """Where they are; may be written to while they rest."""
        way, now_s = self._way, time.perf_counter()
        if way and now_s >= self._ends_s:
            self._position[:], self._way = [to for _, to in way], []
        elif way and now_s > self._begins_s:
            part = (now_s - self._begins_s) / (self._ends_s - self._begins_s)
            self._position[:] = [here + (to - here) * part for here, to in way]
        return self._position

    @property
    def moving(self) -> bool:
        """Whether they are on their way; not yet, while a move has not begun."""
        return bool(self._way) and self._begins_s <= time.perf_counter() < self._ends_s

    def move(self, target: list[float], start_s: float, move_s: float) -> None:
        """Begin in ``start_s`` seconds and arrive ``move_s`` seconds later."""
        self._way = list(zip(self.position, target, strict=True))
        self._begins_s = time.perf_counter() + start_s
        self._ends_s = self._begins_s + move_s

    def halt(self) -> None:
        """Stay here, and begin nothing that has not begun."""
        self._position[:], self._way = self.position, []
