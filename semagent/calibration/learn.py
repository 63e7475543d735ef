"""What a successful focusing teaches of the instrument: how fast blur grows with defocus."""

from collections.abc import Sequence

from semagent.calibration.blur import MOST_RESIDUAL, fit_blur
from semagent.calibration.shifts import Shot
from semagent.control.options import ScaleOptions
from semagent.memory import Measure, Memory, Settings, date_of
from semagent.types import FrameAnalysis

_LEAST_PLACES = 3  # working distances, fewer of which fit any slope
_LEAST_SPAN = 4.0  # half depths of field they have to span
_MOST_SIGMA = 0.05  # of the slope: less certain teaches nothing
_MOST_AWAY = 1.5  # half depths of field between the focus of the fit and the one that was found


def learn(
    memory: Memory, analyses: Sequence[FrameAnalysis], focus_m: float, scale: ScaleOptions
) -> Memory | None:
    """The memory with what the frames of one focusing teach; ``None`` if that is nothing.

    The spot in focus is not learned: no frame tells it from the finest detail of the specimen.

    Args:
        memory: what is known so far.
        analyses: of all frames of the focusing, in order.
        focus_m: where focus was found.
        scale: what half a depth of field is.
    """
    if not analyses:
        return None
    header = memory.with_angle(analyses[-1].header)
    seen = [
        (Shot(each.header, each.shift), each.signature)
        for each in analyses
        if each.signature is not None and each.header.settings_rev == header.settings_rev
    ]
    pixel_size_m = header.scan.pixel_size_m
    if not seen or pixel_size_m is None or len({each.tile_px for _, each in seen}) > 1:
        return None
    unit_m = scale.half_depth_of(header)
    places = {round(shot.setting("focus") / unit_m, 2) for shot, _ in seen}
    if len(places) < _LEAST_PLACES or max(places) - min(places) < _LEAST_SPAN:
        return None
    fit = fit_blur(
        [shot for shot, _ in seen],
        [signature for _, signature in seen],
        unit_m=unit_m,
    )
    slope, sigma = fit.slope_px_per_m
    away_m = abs(fit.focus_m[0] - focus_m)
    if not sigma < _MOST_SIGMA * slope or not fit.residual < MOST_RESIDUAL:
        return None
    if away_m > _MOST_AWAY * unit_m:
        return None
    measure = Measure(value=slope * pixel_size_m, sigma=sigma * pixel_size_m)
    return memory.with_focusing(Settings.of(analyses[-1].header), measure, date_of(header.wall_ns))
