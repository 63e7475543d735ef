"""Whether an action stays inside the envelope, judged from the measured state alone.

Comparisons are written so that NaN never passes: a value is allowed where it is shown to be
inside, not where it fails to be shown outside.
"""

from collections.abc import Iterable, Mapping

from semagent.display import show, show_alike, show_region
from semagent.safety.axes import AXES, STAGE_TILT, STAGE_Z, WORKING_DISTANCE, Axis, targets
from semagent.safety.envelope import AxisLimits, Envelope, KeepOut, ScanLimits
from semagent.safety.refusal import Code, Refusal
from semagent.safety.travel import Plan, Track
from semagent.types import (
    MicroscopeAction,
    MicroscopeState,
    MoveStage,
    Region,
    SetScan,
    SetWorkingDistance,
)


def check_position(envelope: Envelope, state: MicroscopeState) -> Refusal | None:
    """Whether the instrument stands inside the envelope: only then may it be armed.

    Axes that the instrument does not report are left out; no move along them would pass.
    """
    measured = {axis: axis.read(state) for axis in AXES}
    places = {axis: (value,) for axis, value in measured.items() if value is not None}
    return check_places(envelope, places) or _check_keep_out(
        envelope, state, {}, "the microscope stands in"
    )


def check_places(envelope: Envelope, places: Mapping[Axis, Iterable[float]]) -> Refusal | None:
    """Whether these places along some axes are inside the limits of the envelope.

    Axes that have none are left out; no move along them would pass.
    """
    for axis, along in places.items():
        limits = envelope.limits(axis.key)
        if limits is None:
            continue
        for place in along:
            refusal = _check_range(axis, place, limits)
            if refusal:
                return refusal
    return None


def check_action(
    envelope: Envelope,
    action: MicroscopeAction,
    state: MicroscopeState,
    tracks: Mapping[Axis, Track],
    now_ns: int,
) -> Refusal | None:
    """Range, step, travel and keep-out of a move, or the limits of a scan.

    Args:
        envelope: the limits.
        action: what is asked.
        state: the measured settings.
        tracks: the record of each axis that ``state`` reports.
        now_ns: the moment.
    """
    if isinstance(action, SetScan):
        return _check_scan(action, envelope.scan)
    moves = targets(action)
    for axis, target in moves.items():
        limits = envelope.limits(axis.key)
        measured = axis.read(state)
        if limits is None:
            return Refusal(
                Code.LOCKED,
                f"{axis.name} may not be moved through semagent: {axis.key} is null in the "
                "safety envelope; move it at the microscope's own console",
            )
        if measured is None:
            return Refusal(
                Code.POSITION_UNKNOWN,
                f"the microscope does not report {axis.name}, so a move to "
                f"{show(axis.quantity, target)} cannot be judged; move it at the microscope's "
                "own console",
            )
        refusal = (
            _check_range(axis, target, limits)
            or _check_step(axis, target, measured, limits)
            or _check_travel(axis, tracks[axis].plan(target, now_ns), limits, envelope)
        )
        if refusal:
            return refusal
    if isinstance(action, SetWorkingDistance | MoveStage):
        return _check_keep_out(envelope, state, moves, "the move would touch")
    return None


def _check_step(axis: Axis, target: float, measured: float, limits: AxisLimits) -> Refusal | None:
    step = abs(target - measured)
    if step <= limits.max_step:
        return None
    here, there = show_alike(axis.quantity, measured, target)
    step_text, limit_text = show_alike(axis.quantity, step, limits.max_step)
    return Refusal(
        Code.STEP_TOO_LARGE,
        f"{axis.name} from the measured {here} to {there} is a step of {step_text}, more than "
        f"the {limit_text} of {axis.key}.max_step; make smaller moves, or think it over and "
        "raise the limit in the safety envelope",
    )


def _check_travel(axis: Axis, plan: Plan, limits: AxisLimits, envelope: Envelope) -> Refusal | None:
    if plan.total <= limits.max_travel:
        return None
    past, way, back, total, limit = show_alike(
        axis.quantity,
        *(float(part) for part in (plan.past, plan.way, plan.back, plan.total)),
        limits.max_travel,
    )
    return Refusal(
        Code.TRAVEL_USED_UP,
        f"{axis.name}: {past} travelled in the last {envelope.travel_window_s:g} s, {way} for "
        f"this move and {back} kept for the way back make {total}, more than the {limit} of "
        f"{axis.key}.max_travel; wait, or look at the microscope and arm again, or think it "
        "over and raise the limit in the safety envelope",
    )


def _check_range(axis: Axis, value: float, limits: AxisLimits) -> Refusal | None:
    if limits.min <= value <= limits.max:
        return None
    text, low, high = show_alike(axis.quantity, value, limits.min, limits.max)
    return Refusal(
        Code.OUT_OF_RANGE,
        f"{axis.name} {text} is outside {low} to {high}, the limits {axis.key} of the safety "
        "envelope; stay inside, or check that the envelope fits instrument and specimen holder",
    )


def _check_keep_out(
    envelope: Envelope, state: MicroscopeState, moves: Mapping[Axis, float], what: str
) -> Refusal | None:
    for box in envelope.keep_out:
        if _touches(box, state, moves):
            distance = show_alike("length", *box.working_distance_m)
            height = show_alike("length", *box.stage_z_m)
            tilt = show_alike("angle", *box.stage_tilt_rad)
            return Refusal(
                Code.KEEP_OUT,
                f"{what} the keep-out region of working distance "
                f"{distance[0]} to {distance[1]}, stage z {height[0]} to {height[1]} and stage "
                f"tilt {tilt[0]} to {tilt[1]}; an axis the microscope does not report counts "
                "as inside. Go round it, or drive clear of it at the microscope's own console",
            )
    return None


def _touches(box: KeepOut, state: MicroscopeState, moves: Mapping[Axis, float]) -> bool:
    """Whether the box and the box spanned by start and end of the moves have a point in common.

    That spanned box holds every path on which no axis turns back, in whatever order the
    instrument moves its axes.
    """
    sides = (
        (WORKING_DISTANCE, box.working_distance_m),
        (STAGE_Z, box.stage_z_m),
        (STAGE_TILT, box.stage_tilt_rad),
    )
    for axis, (low, high) in sides:
        start = axis.read(state)
        if start is None:
            continue
        end = moves.get(axis, start)
        if (start < low and end < low) or (start > high and end > high):
            return False
    return True


def _check_scan(action: SetScan, limits: ScanLimits | None) -> Refusal | None:
    if limits is None:
        return Refusal(
            Code.LOCKED,
            "the scan may not be changed through semagent: scan is null in the safety envelope; "
            "change it at the microscope's own console",
        )
    shortest, longest = limits.dwell_s
    if action.dwell_s is not None and not shortest <= action.dwell_s <= longest:
        dwell, low, high = show_alike("dwell", action.dwell_s, shortest, longest)
        return Refusal(
            Code.OUT_OF_RANGE,
            f"dwell time {dwell} is outside {low} to {high}, the limits scan.dwell_s of the "
            "safety envelope; stay inside",
        )
    averages = action.frame_averages
    if averages is not None and not 1 <= averages <= limits.max_frame_averages:
        return Refusal(
            Code.OUT_OF_RANGE,
            f"{averages} frame averages are outside 1 to {limits.max_frame_averages}, the "
            "limits scan.max_frame_averages of the safety envelope; stay inside",
        )
    if action.region is not None and not _region_allowed(action.region, limits.min_region):
        return Refusal(
            Code.OUT_OF_RANGE,
            f"scan region {show_region(action.region)} must lie within 0 to 1 of the field and "
            f"be at least {limits.min_region:g} wide and high, the limit scan.min_region of the "
            "safety envelope",
        )
    return None


def _region_allowed(region: Region, smallest: float) -> bool:
    return (
        region.left >= 0
        and region.top >= 0
        and region.width >= smallest
        and region.height >= smallest
        and region.width <= 1 - region.left
        and region.height <= 1 - region.top
    )
