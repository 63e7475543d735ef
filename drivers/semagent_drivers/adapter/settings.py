"""Whether the settings are still the same: from frame to frame, and while one is exposed."""

import math
from typing import NamedTuple

from semagent.types import Optics, Region, Scan


class Settings(NamedTuple):
    """What frames have to have in common to be compared.

    Attributes:
        whole: counts and names, which are the same or are not.
        measured: numbers, which flicker.
    """

    whole: tuple[int | Region | None, ...]
    measured: tuple[float | None, ...]

    @classmethod
    def of(cls, scan: Scan, optics: Optics) -> "Settings":
        """Those of a scan and of the beam's energy and magnification."""
        return cls(
            (scan.width_px, scan.height_px, scan.bit_depth, scan.frame_averages, scan.region),
            (
                scan.pixel_size_m,
                scan.dwell_s,
                optics.accelerating_voltage_v,
                optics.magnification,
            ),
        )

    def same(self, other: "Settings", tolerance: float) -> bool:
        """Whether no measured one differs by more than ``tolerance``, relative, nor any other."""
        return self.whole == other.whole and all(
            then == now
            or (then is not None and now is not None and math.isclose(then, now, rel_tol=tolerance))
            for then, now in zip(self.measured, other.measured, strict=True)
        )


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
