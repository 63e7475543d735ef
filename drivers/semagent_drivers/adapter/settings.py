"""Whether the settings are still the same: from frame to frame, and while one is exposed."""

import math
from typing import NamedTuple

from semagent.types import TURNED_RAD, Optics, Region, Scan


class Settings(NamedTuple):
    """What frames have to have in common to be compared.

    Attributes:
        whole: counts and names, which are the same or are not.
        measured: numbers, which flicker.
        lengths: edge of a pixel in metres, and the inverse of the magnification. On some columns
            they follow the focus, at most in proportion to the working distance.
        working_distance_m: where focus is.
        rotation_rad: how far the scan is turned.
    """

    whole: tuple[int | Region | None, ...]
    measured: tuple[float | None, ...]
    lengths: tuple[float | None, ...]
    working_distance_m: float
    rotation_rad: float | None

    @classmethod
    def of(cls, scan: Scan, optics: Optics, rotation_rad: float | None) -> "Settings":
        """Those of a scan and of the beam's energy and magnification."""
        return cls(
            (scan.width_px, scan.height_px, scan.bit_depth, scan.frame_averages, scan.region),
            (scan.dwell_s, optics.accelerating_voltage_v),
            (scan.pixel_size_m, 1 / optics.magnification if optics.magnification else None),
            optics.working_distance_m,
            rotation_rad,
        )

    def same(self, now: "Settings", tolerance: float) -> bool:
        """Whether nobody has changed them: by no more than ``tolerance``, relative."""
        then_m, now_m = self.working_distance_m, now.working_distance_m
        focus = now_m / then_m if then_m > 0 and now_m > 0 else 1.0
        return (
            self.whole == now.whole
            and _within(self.measured, now.measured, 1.0, tolerance)
            and _within(self.lengths, now.lengths, focus, tolerance)
            and not _turned(self.rotation_rad, now.rotation_rad)
        )


def _within(
    then: tuple[float | None, ...], now: tuple[float | None, ...], factor: float, tolerance: float
) -> bool:
    """Whether all have stayed as they were, or changed by ``factor`` at most."""
    low, high = min(1.0, factor) * (1 - tolerance), max(1.0, factor) * (1 + tolerance)
    return all(
        before == after
        or (before is not None and after is not None and low * before <= after <= high * before)
        for before, after in zip(then, now, strict=True)
    )


def _turned(then: float | None, now: float | None) -> bool:
    if then is None or now is None:
        return then is not now
    return abs(math.remainder(now - then, 2 * math.pi)) > TURNED_RAD


class Revisions:
    """Counts the settings there have been, for `MicroscopeState.settings_rev`.

    Args:
        tolerance: relative change of a measured setting that is still the same setting.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._settings: Settings | None = None
        self._detector: str | None = None
        self._count = 1

    def count(self, settings: Settings, detector: str | None = None) -> int:
        """The number of these settings; ``detector`` is that of a frame, ``None`` without one."""
        other_detector = detector is not None and self._detector not in (None, detector)
        self._detector = detector or self._detector
        if self._settings is None:
            self._settings = settings
        # Against the settings of the revision, not the last ones: a slow change adds up.
        elif other_detector or not self._settings.same(settings, self._tolerance):
            self._settings = settings
            self._count += 1
        return self._count


def same_beam(then: Optics, now: Optics, *, focus_m: float, stigmator: float) -> bool:
    """Whether the beam is still as sharp, and still on.

    Args:
        then: as it was.
        now: as it is.
        focus_m: largest difference of the working distance that is none.
        stigmator: the same of either stigmator, as a fraction of its full range.
    """
    return (
        abs(now.working_distance_m - then.working_distance_m) <= focus_m
        and abs((now.stigmator_x or 0.0) - (then.stigmator_x or 0.0)) <= stigmator
        and abs((now.stigmator_y or 0.0) - (then.stigmator_y or 0.0)) <= stigmator
        and now.blanked == then.blanked
    )
