"""Notice when somebody else changes the microscope."""

from semagent.control.options import ControlOptions
from semagent.types import FrameHeader, MicroscopeState


def focus_change(before: MicroscopeState, header: FrameHeader, options: ControlOptions) -> str:
    """Say how the working distance was changed; empty if it was not."""
    was_m, is_m = before.optics.working_distance_m, header.optics.working_distance_m
    unit_m = options.scale.half_depth_of(header)
    if abs(is_m - was_m) > options.operator.working_distance_half_depths * unit_m:
        return f"the working distance was changed from {was_m * 1e3:.4f} to {is_m * 1e3:.4f} mm"
    return ""


def field_change(before: MicroscopeState, header: FrameHeader, options: ControlOptions) -> str:
    """Say what was changed that makes earlier frames no evidence any more; empty if nothing."""
    if before.settings_rev != header.settings_rev:
        return "scan, beam energy, magnification or detector were changed"
    for axis in ("stigmator_x", "stigmator_y"):
        was, now = getattr(before.optics, axis), getattr(header.optics, axis)
        if None not in (was, now) and abs(now - was) > options.operator.stigmator:
            return f"{axis} was changed from {was:+.4f} to {now:+.4f} of its range"
    moved_m = header.stage.moved(before.stage, "x_m", "y_m", "z_m")
    if moved_m > options.operator.field_fraction * _field_width(header, options):
        return f"the stage was moved by {moved_m * 1e6:.2f} µm"
    return ""


def _field_width(header: FrameHeader, options: ControlOptions) -> float:
    """Width of the field; where the pixel size is unknown, what its half depth stands for."""
    angle_rad = options.scale.assumed_convergence_angle_rad
    pixel_size_m = header.scan.pixel_size_m or options.scale.half_depth_of(header) * angle_rad
    return pixel_size_m * header.scan.width_px
