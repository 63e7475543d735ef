"""Notice when somebody else changes the microscope."""

import math

from semagent.control.options import ControlOptions
from semagent.errors import MicroscopeError
from semagent.lengths import show_distances, show_length
from semagent.types import TURNED_RAD, FrameHeader, MicroscopeState, Region


def focus_change(before: MicroscopeState, header: FrameHeader, options: ControlOptions) -> str:
    """Say how the working distance was changed; empty if it was not."""
    was_m, is_m = before.optics.working_distance_m, header.optics.working_distance_m
    unit_m = options.scale.half_depth_of(header)
    if abs(is_m - was_m) > options.operator.working_distance_half_depths * unit_m:
        return f"the working distance was changed from {show_distances(was_m, is_m)}"
    return ""


def field_change(
    before: MicroscopeState, header: FrameHeader, options: ControlOptions, detector: str = ""
) -> str:
    """Say what was changed that makes earlier frames no evidence any more; empty if nothing.

    Args:
        before: the settings so far.
        header: of a frame.
        options: for what counts as a change.
        detector: the one so far; empty where it is not known.
    """
    if before.settings_rev != header.settings_rev:
        return settings_change(before, header.settings, detector, header.detector)
    for axis in ("stigmator_x", "stigmator_y"):
        was, now = getattr(before.optics, axis), getattr(header.optics, axis)
        if None not in (was, now) and abs(now - was) > options.operator.stigmator:
            return f"{axis} was changed from {was:+.4f} to {now:+.4f} of its range"
    moved_m = header.stage.moved(before.stage, "x_m", "y_m", "z_m")
    if moved_m > options.operator.field_fraction * _field_width(header, options):
        return f"the stage was moved by {show_length(moved_m)}"
    turned_rad = header.stage.moved(before.stage, "rotation_rad", "tilt_rad")
    if turned_rad > TURNED_RAD:
        return f"the stage was turned by {math.degrees(turned_rad):.2f}°"
    return ""


def settings_change(
    before: MicroscopeState, now: MicroscopeState, detector_before: str = "", detector: str = ""
) -> str:
    """Say what was changed, from what to what, where ``settings_rev`` says that something was.

    A detector is not part of what is read back: it is known from frames, or empty.
    """
    then, here = _in_words(before), _in_words(now)
    if detector_before:
        then["detector"], here["detector"] = detector_before, detector
    changes = [
        f"{name} from {then[name]} to {here[name]}" for name in then if then[name] != here[name]
    ]
    if not changes:
        return "scan, its rotation, beam energy, magnification or detector were changed"
    return f"the settings were changed: {', '.join(changes)}"


def require_same_settings(first: FrameHeader, last: FrameHeader) -> None:
    """See to it that two frames were taken with the same settings.

    Raises:
        MicroscopeError: they were not; the message says what was changed.
    """
    if last.settings_rev != first.settings_rev:
        raise MicroscopeError(
            settings_change(first.settings, last.settings, first.detector, last.detector)
        )


def _in_words(state: MicroscopeState) -> dict[str, str]:
    """What frames have to have in common; numbers to three digits, as they flicker."""
    scan, optics = state.scan, state.optics
    return {
        "beam energy": _number(optics.accelerating_voltage_v, 1e-3, " kV"),
        "magnification": _number(optics.magnification, 1.0, ""),
        "pixel size": _number(scan.pixel_size_m, 1e9, " nm"),
        "dwell": _number(scan.dwell_s, 1e6, " µs"),
        "averages": f"{scan.frame_averages}",
        "frame": f"{scan.width_px} x {scan.height_px} pixels of {scan.bit_depth} bit",
        "region": _region(scan.region),
    }


def _number(value: float | None, factor: float, unit: str) -> str:
    return "unknown" if value is None else f"{float(f'{value * factor:.3g}'):.9g}{unit}"


def _region(region: Region | None) -> str:
    if region is None:
        return "the whole field"
    return (
        f"{region.width:.3g} x {region.height:.3g} of the field at {region.left:.3g}, "
        f"{region.top:.3g}"
    )


def _field_width(header: FrameHeader, options: ControlOptions) -> float:
    """Width of the field; where the pixel size is unknown, what its half depth stands for."""
    angle_rad = options.scale.assumed_convergence_angle_rad
    pixel_size_m = header.scan.pixel_size_m or options.scale.half_depth_of(header) * angle_rad
    return pixel_size_m * header.scan.width_px
