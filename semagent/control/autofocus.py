"""One-shot autofocus: search, verify, and keep the result only if it is better than the start."""

import math

import msgspec

from semagent.control import budget, search
from semagent.control.ending import end_at, finish, go_home, not_begun
from semagent.control.intervention import settings_change
from semagent.control.options import AutofocusOptions
from semagent.control.situation import Analysed, Autofocus, Follow
from semagent.control.trim import Stigmators, Trim, setting
from semagent.control.turn import Turn
from semagent.lengths import show_distance, show_length
from semagent.types import (
    FocusBelief,
    FrameHeader,
    Level,
    MicroscopeAction,
    MicroscopeState,
    SetWorkingDistance,
    Signature,
)

DISARMED = "the safety gate is disarmed; arm it and ask again"
_WORTH_A_MOVE = 0.15  # half depths of field between the verifying frame and the estimate
_SURELY = 0.99  # probability of being nearer to focus than at the start, where it is not verified
_CONTRADICTS = 5.0  # standard deviations by which a verifying frame may not be less sharp


def begin(
    turn: Turn,
    max_frames: int | None,
    *,
    focused: Signature | None = None,
    for_hold: bool = False,
    instead: Follow | None = None,
    stigmation: bool = False,
) -> None:
    """Start a search with the next usable frame; evidence so far stops counting.

    ``focused`` is how the field looks in focus, where that is known.

    Where the dose budget does not even allow one frame, nothing is started; what goes on ends.
    """
    pending, header = turn.state.pending, turn.state.header
    unaffordable = budget.forbids(header, turn.options.autofocus.max_dose_e_nm2) if header else ""
    if unaffordable:
        _not_afforded(turn, unaffordable)
        return
    task = Autofocus(
        max_frames=max_frames or turn.options.autofocus.max_frames,
        focused=focused,
        for_hold=for_hold,
        instead=instead,
        stigmation=stigmation,
        since_ns=turn.state.now_ns,
        counted=header.sequence if header else None,
    )
    turn.update(
        task=task,
        pending=pending and msgspec.structs.replace(pending, then=()),
        epoch=turn.state.epoch + 1,
        expected=None,
        waiting_ns=turn.state.now_ns,
        proposed_m=None,
        in_focus=None,
    )
    turn.tell("autofocus_started", f"focusing in at most {task.max_frames} frames")


def refuse(turn: Turn, reason: str) -> None:
    """Answer a request that may not be granted: nothing moves."""
    turn.tell("request_refused", reason, Level.WARNING)
    turn.result = not_begun(turn.working_distance_m, reason)


def _not_afforded(turn: Turn, reason: str) -> None:
    """Let mode hold rest until it is asked again; what it followed is left in focus."""
    turn.result = not_begun(turn.working_distance_m, reason)
    if isinstance(turn.state.task, Follow):
        go_home(turn, "held", reason)
    else:
        turn.pause(reason)


def hold(turn: Turn, reason: str) -> None:
    """Go back to the start without a result; if that is for want of dose, say so first."""
    task, header = turn.state.task, turn.state.header
    if isinstance(task, Autofocus) and header is not None:
        spent = budget.used_up(task, header, turn.options.autofocus.max_dose_e_nm2)
        reason = f"{spent}; {reason}" if spent else reason
    go_home(turn, "held", reason)


def on_frame(turn: Turn, task: Autofocus, seen: Analysed) -> None:
    """Take a usable frame into account and do the next step of the search."""
    analysis, options = seen.analysis, turn.options.autofocus
    header = analysis.header
    if turn.state.gate is None:
        return  # the gate has not reported yet; the deadline for frames goes on
    start = task.start or header
    task = msgspec.structs.replace(
        task,
        start=start,
        frames=task.frames + 1,
        flagged=0,
        last=analysis,
    )
    turn.update(task=task, waiting_ns=turn.state.now_ns)
    if start.settings_rev != header.settings_rev:
        change = settings_change(start.settings, header.settings, start.detector, header.detector)
        go_home(turn, "failed", f"along with the working distance {change}")
        return
    if not task.samples and task.frames_left and turn.take_up_play():
        return  # the next frame is the first that counts
    if not task.samples:
        task = msgspec.structs.replace(task, poor=(*task.poor, analysis.structure))
        turn.set_task(task)
        if not (options.blind_search or options.shows_structure(task.poor)):
            _no_structure(turn, task)
            return
    task = msgspec.structs.replace(
        task,
        samples=(*task.samples, turn.sample(analysis)),
        sigma_m=seen.belief.sigma_m,
    )
    turn.set_task(task)
    _search_on(turn, task, seen)


def _search_on(turn: Turn, task: Autofocus, seen: Analysed) -> None:
    """Do what the frames so far call for: look elsewhere, correct astigmatism, or end."""
    header, options = seen.analysis.header, turn.options.autofocus
    field = _field(turn, task, task.start or header)
    step = search.next_step(
        task.places_m,
        seen.belief,
        field,
        task.frames_left,
        options,
        as_trimmed=task.as_trimmed,
        field_known=task.focused is not None,
        followed=task.for_hold,
    )
    step = search.attainable(step, task.places_m, seen.belief, field, options)
    trim = Trim(task, seen.belief, header.optics, field.unit_m, options, turn.capabilities)
    probe = trim.probe()
    match step:
        case search.GiveUp(reason):
            hold(turn, reason)
        case search.Sharpest(place_m, reason):
            _settle(turn, trim, field, place_m, reason)
        case search.Look() | search.Found() if probe is not None:
            turn.set_task(_trimming(task, probes=task.probes + 1))
            # Beside focus, where astigmatism shows most.
            _look_beside(turn, trim, field, probe)
        case search.Look(focus_m) if _is_verified(task, seen.belief, focus_m, field, options):
            _judge(turn, trim, field, focus_m)
        case search.Look(working_distance_m):
            _look(turn, trim, working_distance_m, trim.on_the_way())
        case search.Found(focus_m):
            stigmators = trim.for_itself()
            if not task.frames_left or _dulled(task, focus_m):
                _judge(turn, trim, field, focus_m)
            elif stigmators is not None and not task.trims:
                _look(turn, trim, focus_m, stigmators)
            elif task.verified is None and (stigmators is not None or trim.is_vague()):
                # At focus itself astigmatism shows its size, but hardly its direction.
                turn.set_task(msgspec.structs.replace(task, verified=task.samples[-1]))
                _look_beside(turn, trim, field)
            else:
                _judge(turn, trim, field, focus_m)


def _look(turn: Turn, trim: Trim, working_distance_m: float, stigmators: Stigmators | None) -> None:
    """Take the next frame there, with other stigmators unless what was done to them was bad."""
    task = turn.state.task
    assert isinstance(task, Autofocus)  # noqa: S101 - it is going on
    focus_m = trim.belief.focus_m
    bad = task.trims and focus_m is not None and _dulled(task, focus_m)
    if stigmators is not None and not bad:
        turn.set_task(_trimming(task, trims=task.trims + 1))
    else:
        stigmators = None
    turn.go(working_distance_m, stigmators)


def _trimming(task: Autofocus, **counts: int) -> Autofocus:
    """The task with the stigmators about to be changed."""
    return msgspec.structs.replace(task, trimmed_at=len(task.samples), **counts)


def _look_beside(
    turn: Turn, trim: Trim, field: search.Field, stigmators: Stigmators | None = None
) -> None:
    """Take the next frame beside focus, with other stigmators if some are given."""
    look = search.beside(trim.task.places_m, trim.belief, field, trim.options)
    turn.go(look.working_distance_m, stigmators)


def _field(turn: Turn, task: Autofocus, start: FrameHeader) -> search.Field:
    return search.field_around(
        start.optics.working_distance_m,
        turn.options.scale.half_depth_of(start),
        turn.capabilities.working_distance_range_m,
        turn.options.autofocus,
        task.ways_m,
    )


def _no_structure(turn: Turn, task: Autofocus) -> None:
    options, count = turn.options.autofocus, len(task.poor)
    if not task.frames_left or not options.may_show_structure(task.poor):
        hold(
            turn,
            f"nothing to focus on: structure over noise {sum(task.poor) / count:.2g} in {count} "
            f"frames, {options.min_structure / math.sqrt(count):.2g} is needed; use a longer dwell "
            "or another field, or set control.autofocus.blind_search",
        )


def _judge(turn: Turn, trim: Trim, field: search.Field, focus_m: float) -> None:
    """Keep the verified estimate if it is better than the start, otherwise go back."""
    task, options, belief = trim.task, turn.options.autofocus, trim.belief
    last, dulled = task.verified or task.samples[-1], _dulled(task, focus_m)
    here_m = task.samples[-1].working_distance_m
    changed = task.changed_stigmators
    trimmed = changed and not dulled and trim.improved()
    if changed and not dulled and trim.is_unclear():
        _look_beside(turn, trim, field, trim.first_probe())
    elif changed and not trimmed and task.frames_left:
        _untrim(turn, task, focus_m)
    elif dulled or (changed and not trimmed):
        hold(
            turn,
            f"the frame at {show_distance(last.working_distance_m)}, where focus should be, is "
            f"less sharp than {'an earlier one' if task.trims else 'the first'}: frames contradict "
            "each other, as where a specimen charges"
            if dulled
            else "astigmatism is not surely less than it was at the start",
        )
    elif trimmed or search.nearer(belief, focus_m, field.start_m) >= options.confidence:
        led_m = search.led_back(task.places_m, focus_m, field)
        away_m = 0.0 if led_m is None else abs(focus_m - led_m)
        within = (
            f"{show_length(away_m)} from focus, as near as the microscope goes"
            if away_m > field.unit_m
            else _within(belief, focus_m, field)
        )
        reason = f"{within}; sigma is {show_length(belief.sigma_m)}{trim.outlook()}"
        stigmators = trim.at_the_end()
        if stigmators is None and abs(focus_m - here_m) <= _WORTH_A_MOVE * field.unit_m:
            finish(turn, "focused", reason)
        else:
            end_at(turn, _at(turn, focus_m, stigmators), "focused", reason)
    elif search.certain(belief, field.start_m, field, options):
        reason = f"the start is in focus already, {_within(belief, field.start_m, field)}"
        go_home(turn, "focused", f"{reason}{trim.outlook()}")
    elif task.frames_left:
        _look_beside(turn, trim, field)
    else:
        hold(
            turn,
            f"the best point found, {show_distance(focus_m)}, is not surely better than the start",
        )


def _within(belief: FocusBelief, place_m: float, field: search.Field) -> str:
    """How near focus a place is known to be."""
    sure_m = max(abs(end_m - place_m) for end_m in belief.interval90_m or (place_m,))
    if sure_m <= field.unit_m:
        return "within half a depth of field"
    return f"within {show_length(sure_m)}, as finely as the microscope follows"


def _settle(turn: Turn, trim: Trim, field: search.Field, place_m: float, reason: str) -> None:
    """End where what shows is sharpest, if that is surely nearer to focus than the start.

    The last frame tells, with the stigmators of the start.
    """
    options, belief = turn.options.autofocus, trim.belief
    changed = trim.task.changed_stigmators
    if changed and trim.task.frames_left:
        _untrim(turn, trim.task, place_m)
        return
    task = msgspec.structs.replace(trim.task, astigmatism_open=True)
    turn.set_task(task)
    first, last = task.samples[0], task.samples[-1]
    sharper = search.significant(last, first, options.significance)
    duller = search.significant(first, last, options.significance)
    if changed:
        hold(turn, reason)
    elif not duller and search.nearer(belief, place_m, field.start_m) >= _SURELY:
        why = f"what shows is as sharp as it can be, and focus nearer than at the start; {reason}"
        end_at(turn, _at(turn, place_m, None), "focused", why)
    elif not sharper and search.near(belief, field.start_m, field, options):
        why = f"at the start what shows is as sharp as it can be; {reason}"
        go_home(turn, "focused", why)
    else:
        hold(turn, reason)


def _is_verified(
    task: Autofocus,
    belief: FocusBelief,
    focus_m: float,
    field: search.Field,
    options: AutofocusOptions,
) -> bool:
    """Whether a frame was taken at this focus before one beside it, and all agree."""
    return (
        task.verified is not None
        and abs(task.verified.working_distance_m - focus_m) <= search.AGREE * field.unit_m
        and search.certain(belief, focus_m, field, options)
    )


def _dulled(task: Autofocus, focus_m: float) -> bool:
    """Whether the verifying or last frame is less sharp than those it has to be compared with.

    With new stigmators none may be sharper that is no nearer to focus; without, the first.
    """
    last = task.verified or task.samples[-1]
    away_m = abs(last.working_distance_m - focus_m)
    earlier = [
        each
        for each in task.samples
        if not task.trims or abs(each.working_distance_m - focus_m) >= away_m
    ]
    return any(
        search.significant(each, last, _CONTRADICTS)
        for each in (earlier if task.trims else earlier[:1])
    )


def on_refused_stigmators(turn: Turn, task: Autofocus, then: tuple[MicroscopeAction, ...]) -> None:
    """The gate does not let the stigmators be set: go on to the same place without them."""
    ways_m = [each.working_distance_m for each in then if isinstance(each, SetWorkingDistance)]
    _untrim(turn, task, ways_m[-1] if ways_m else turn.working_distance_m)


def _untrim(turn: Turn, task: Autofocus, place_m: float) -> None:
    """Put the stigmators back and leave them alone; the next frame is taken at ``place_m``."""
    assert task.start is not None  # noqa: S101 - there was a frame
    turn.tell("stigmators_back", "the stigmators are as at the start: nothing better can be had")
    turn.set_task(msgspec.structs.replace(task, stigmation=False, trims=0, probes=0, verified=None))
    turn.go(place_m, setting(task.start.optics))


def _at(turn: Turn, focus_m: float, stigmators: Stigmators | None) -> MicroscopeState:
    """The settings as they are, at another working distance and with other stigmators."""
    here = turn.measured
    assert here is not None  # noqa: S101 - there was a frame
    optics = msgspec.structs.replace(here.optics, working_distance_m=focus_m)
    if stigmators is not None:
        x, y = stigmators
        optics = msgspec.structs.replace(optics, stigmator_x=x, stigmator_y=y)
    return msgspec.structs.replace(here, optics=optics)
