"""Whether the microscope did what it was told, and nothing else."""

from collections.abc import Mapping

from semagent.display import show, show_alike, show_region
from semagent.safety.axes import AXES, Axis
from semagent.safety.envelope import ReadbackTolerance
from semagent.safety.travel import Track
from semagent.types import (
    WHOLE_FIELD,
    MicroscopeAction,
    MicroscopeState,
    SetBlanked,
    SetScan,
)


def differing_axis(
    tracks: Mapping[Axis, Track], state: MicroscopeState, tolerance: ReadbackTolerance
) -> str | None:
    """Sentence about the first axis that is not where it should be, if there is one.

    An axis the instrument does not report says nothing and is passed over.
    """
    for axis in AXES:
        measured = axis.read(state)
        if measured is None or axis not in tracks:
            continue
        expected = tracks[axis].position
        allowed: float = getattr(tolerance, axis.key)
        if not abs(measured - expected) <= allowed:
            here, there = show_alike(axis.quantity, measured, expected)
            return (
                f"{axis.name} reads {here} where {there} is expected, more than the "
                f"{show(axis.quantity, allowed)} of readback_tolerance.{axis.key}"
            )
    return None


def differing_setting(
    action: MicroscopeAction, state: MicroscopeState, tolerance: ReadbackTolerance
) -> str | None:
    """Sentence about the first setting other than an axis that was not taken, if there is one."""
    if isinstance(action, SetBlanked) and state.optics.blanked is not action.blanked:
        words = {True: "blanked", False: "on the specimen", None: "in an unknown state"}
        return (
            f"the beam reads back as {words[state.optics.blanked]} where "
            f"{words[action.blanked]} was commanded"
        )
    if isinstance(action, SetScan):
        return _differing_scan(action, state, tolerance)
    return None


def _differing_scan(
    action: SetScan, state: MicroscopeState, tolerance: ReadbackTolerance
) -> str | None:
    scan = state.scan
    if action.dwell_s is not None and (
        scan.dwell_s is None or not abs(scan.dwell_s - action.dwell_s) <= tolerance.dwell_s
    ):
        read = "nothing" if scan.dwell_s is None else show("dwell", scan.dwell_s)
        return (
            f"dwell time reads {read} where {show('dwell', action.dwell_s)} was commanded, more "
            f"than the {show('dwell', tolerance.dwell_s)} of readback_tolerance.dwell_s"
        )
    if action.frame_averages not in (None, scan.frame_averages):
        return (
            f"frame averages read {scan.frame_averages} where {action.frame_averages} were "
            "commanded"
        )
    if action.region is not None:
        read_region = scan.region or WHOLE_FIELD
        pairs = (
            (read_region.left, action.region.left),
            (read_region.top, action.region.top),
            (read_region.width, action.region.width),
            (read_region.height, action.region.height),
        )
        if not all(abs(read - asked) <= tolerance.region for read, asked in pairs):
            return (
                f"scan region reads {show_region(read_region)} where "
                f"{show_region(action.region)} was commanded, more than the {tolerance.region:g} "
                "of readback_tolerance.region"
            )
    return None
