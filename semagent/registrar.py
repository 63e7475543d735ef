"""Follows the displacement of one field over successive frames."""

from dataclasses import dataclass
from math import hypot

import msgspec

from semagent.registration import Fingerprint, fingerprint, shift_between
from semagent.types import TURNED_RAD, Frame, FrameHeader, ImageShift

_STAGE_FRACTION = 0.25  # of the width of the field: a stage move beyond it shows another field
_FAR_FRACTION = 0.25  # of an edge: a frame displaced as far becomes the one to compare with
_LOST_FRAMES = 5  # in a row that match nothing: this must be another field


@dataclass(frozen=True, slots=True)
class _Placed:
    """A frame whose place in the field is known."""

    fingerprint: Fingerprint
    x_px: float = 0.0
    y_px: float = 0.0
    sigma_px: float = 0.0


class Registrar:
    """Says of each frame of a field how far its content has moved since the first.

    Frames are compared with an anchor, at first the first frame of the field, and where that
    fails (focus has changed too much, or the specimen has) with the last frame that was placed,
    which then becomes the anchor. Displacements add up, and so do their uncertainties. A field
    ends when scan, energy, magnification or detector change, the stage moves on, or nothing matches
    any more; the next frame with structure then begins a new one.

    Deterministic: the same frames in the same order give the same shifts.
    """

    def __init__(self) -> None:
        self._first: FrameHeader | None = None
        self._anchor: _Placed | None = None
        self._latest: _Placed | None = None
        self._lost = 0

    def register(self, frame: Frame) -> ImageShift | None:
        """Where a frame lies; ``None`` if that cannot be told."""
        seen = fingerprint(frame.specimen)
        if seen is None or not seen.signal.any():
            return None
        if self._first is None or self._lost >= _LOST_FRAMES or _moved_on(self._first, frame):
            self._first = frame.header
            self._anchor = self._latest = _Placed(seen)
            self._lost = 0
            return self._shift(self._latest)
        placed = self._place(seen)
        if placed is None:
            self._lost += 1
            return None
        self._lost = 0
        self._latest = placed
        return self._shift(placed)

    def _place(self, seen: Fingerprint) -> _Placed | None:
        placed = _against(self._anchor, seen)
        if placed is None and self._latest is not self._anchor:
            placed = _against(self._latest, seen)
            if placed is not None:
                self._anchor = self._latest
        if placed is not None and self._anchor is not None:
            height, width = seen.shape
            far_x = abs(placed.x_px - self._anchor.x_px) > _FAR_FRACTION * width
            far_y = abs(placed.y_px - self._anchor.y_px) > _FAR_FRACTION * height
            if far_x or far_y:
                self._anchor = placed
        return placed

    def _shift(self, placed: _Placed) -> ImageShift:
        assert self._first is not None  # noqa: S101 - set together with the anchor
        return ImageShift(
            reference_sequence=self._first.sequence,
            x_px=placed.x_px,
            y_px=placed.y_px,
            sigma_px=placed.sigma_px,
        )


def _against(known: _Placed | None, seen: Fingerprint) -> _Placed | None:
    shift = None if known is None else shift_between(known.fingerprint, seen)
    if known is None or shift is None:
        return None
    return _Placed(
        seen,
        known.x_px + shift.x_px,
        known.y_px + shift.y_px,
        hypot(known.sigma_px, shift.sigma_px),
    )


def _moved_on(first: FrameHeader, frame: Frame) -> bool:
    """Whether a frame shows another field than the first did."""
    header = frame.header
    # On some columns the field follows the focus, and so does the size of a pixel.
    scan = msgspec.structs.replace(header.scan, pixel_size_m=first.scan.pixel_size_m)
    if header.settings_rev != first.settings_rev or scan != first.scan:
        return True
    stage, before = header.stage, first.stage
    field_m = (header.scan.pixel_size_m or 0.0) * header.scan.width_px
    if stage.moved(before, "x_m", "y_m") > _STAGE_FRACTION * field_m > 0:
        return True
    return stage.moved(before, "rotation_rad", "tilt_rad") > TURNED_RAD
