"""How much charge the field in view has taken."""

import math
from typing import TypedDict, TypeGuard

from semagent.types import FrameHeader, MicroscopeState

ELEMENTARY_CHARGE_C = 1.602176634e-19
_SAME_FIELD = 0.25  # of the width of the field that the stage may have moved


class Dose(TypedDict):
    """What the meter reads; ``None`` where the microscope does not report what it takes.

    Attributes:
        frames: exposed since the microscope was opened.
        frames_here: exposed since the field was changed.
        per_frame_e_nm2: electrons a square nanometre, of one frame.
        here_e_nm2: the same, of all frames of this field.
    """

    frames: int
    frames_here: int
    per_frame_e_nm2: float | None
    here_e_nm2: float | None


class DoseMeter:
    """Adds up the frames of a field.

    Frames that were never seen are counted by their numbers and taken to have been like the
    next one that was.
    """

    def __init__(self) -> None:
        self._last: FrameHeader | None = None
        self._frames_here = 0
        self._here: float | None = None

    def add(self, header: FrameHeader) -> None:
        """Take a frame into account."""
        last = self._last
        count = header.sequence - (0 if last is None else last.sequence)
        if count <= 0:
            return
        dose = dose_of(header)
        if last is None or _other_field(last, header):
            self._frames_here, self._here = 0, 0.0
        self._frames_here += count
        self._here = None if dose is None or self._here is None else self._here + count * dose
        self._last = header

    def reading(self) -> Dose:
        """What it has come to."""
        last = self._last
        return Dose(
            frames=0 if last is None else last.sequence,
            frames_here=self._frames_here,
            per_frame_e_nm2=None if last is None else dose_of(last),
            here_e_nm2=self._here,
        )


def dose_of(settings: FrameHeader | MicroscopeState) -> float | None:
    """Electrons a square nanometre that one frame takes; ``None`` where that is not known."""
    scan, current_a = settings.scan, settings.optics.beam_current_a
    if not (_is_told(scan.pixel_size_m) and _is_told(scan.dwell_s) and _is_told(current_a)):
        return None
    charge_c = current_a * scan.dwell_s * scan.frame_averages
    return charge_c / ELEMENTARY_CHARGE_C / (scan.pixel_size_m * 1e9) ** 2


def missing_for_dose(settings: FrameHeader | MicroscopeState) -> list[str]:
    """What the microscope does not report of all that the dose is counted from."""
    scan = settings.scan
    reported = {
        "pixel size": scan.pixel_size_m,
        "dwell time": scan.dwell_s,
        "beam current": settings.optics.beam_current_a,
    }
    return [name for name, value in reported.items() if not _is_told(value)]


def _is_told(value: float | None) -> TypeGuard[float]:
    """Whether it is a length, a time or a current: with none at all there is no picture."""
    return value is not None and 0 < value < math.inf


def _other_field(before: FrameHeader, now: FrameHeader) -> bool:
    if before.settings_rev != now.settings_rev:
        return True
    width_m = (now.scan.pixel_size_m or 0.0) * now.scan.width_px
    return now.stage.moved(before.stage, "x_m", "y_m") > _SAME_FIELD * width_m > 0
