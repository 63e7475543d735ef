"""One-shot autofocus: search, verify, and keep the result only if it is better than the start."""

import math

import msgspec

from semagent.control import search
from semagent.control.ending import finish, go_home
from semagent.control.situation import Analysed, Autofocus
from semagent.control.turn import Turn
from semagent.types import FocusBelief, FocusResult, FrameHeader, Level, StartAutofocus


def begin(turn: Turn, max_frames: int | None, *, for_hold: bool = False) -> None:
    """Start a search with the next usable frame; evidence so far stops counting."""
    pending = turn.state.pending
    task = Autofocus(
        max_frames=max_frames or turn.options.autofocus.max_frames,
        for_hold=for_hold,
        since_ns=turn.state.now_ns,
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


def begin_requested(turn: Turn, request: StartAutofocus) -> None:
    """Start a search that the operator asked for."""
    begin(turn, request.max_frames)
    if request.stigmation:
        turn.tell("stigmators_kept", "stigmators stay as they are: this search sets focus alone")


def refuse(turn: Turn, reason: str) -> None:
    """Answer a request that may not be granted: nothing moves."""
    here_m = turn.working_distance_m
    turn.tell("request_refused", reason, Level.WARNING)
    turn.result = FocusResult(
        status="held",
        reason=reason,
        start_working_distance_m=here_m,
        final_working_distance_m=here_m,
        sigma_m=None,
        frames_used=0,
        moves=0,
        engine="",
    )


def on_frame(turn: Turn, task: Autofocus, seen: Analysed) -> None:
    """Take a usable frame into account and do the next step."""
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
        engine=analysis.engine,
    )
    turn.update(task=task, waiting_ns=turn.state.now_ns)
    if not turn.state.armed:
        go_home(turn, "held", "the safety gate is disarmed; arm it and ask again")
        return
    if start.settings_rev != header.settings_rev:
        go_home(turn, "failed", "the scan settings changed with the working distance")
        return
    if not task.samples and analysis.structure < options.min_structure:
        _no_structure(turn, task, analysis.structure)
        return
    task = msgspec.structs.replace(
        task,
        samples=(*task.samples, turn.sample(analysis)),
        sigma_m=seen.belief.sigma_m,
    )
    turn.set_task(task)
    field = _field(turn, task, start)
    step = search.next_step(
        task.samples, seen.belief, field, task.max_frames - task.frames, options
    )
    match step:
        case search.Look(working_distance_m):
            turn.go(working_distance_m)
        case search.GiveUp(reason):
            go_home(turn, "held", reason)
        case search.Found():
            _judge(turn, task, seen.belief, field)


def _field(turn: Turn, task: Autofocus, start: FrameHeader) -> search.Field:
    return search.field_around(
        start.optics.working_distance_m,
        turn.options.scale.half_depth_of(start),
        turn.capabilities.working_distance_range_m,
        turn.options.autofocus,
        task.resolution_m,
    )


def _no_structure(turn: Turn, task: Autofocus, structure: float) -> None:
    options = turn.options.autofocus
    task = msgspec.structs.replace(task, poor_frames=task.poor_frames + 1)
    turn.set_task(task)
    if task.poor_frames >= min(options.start_frames, task.max_frames):
        go_home(
            turn,
            "held",
            f"nothing to focus on: structure over noise {structure:.2g} in {task.poor_frames} "
            f"frames, {options.min_structure:.2g} is needed; use a longer dwell or another field",
        )


def _judge(turn: Turn, task: Autofocus, belief: FocusBelief, field: search.Field) -> None:
    """Keep the verified point if it is better than the start, otherwise go back.

    If the start is clearly out of focus by the belief but the gain in sharpness is not yet
    beyond the noise, both are looked at again, in turn, as long as there are frames.
    """
    options = turn.options.autofocus
    last = task.samples[-1]
    then = search.mean_of(search.near(task.samples, field.start_m, field))
    now = search.mean_of(search.near(task.samples, last.working_distance_m, field))
    if search.significant(now, then, options.significance):
        gain = math.exp(now.sharpness - then.sharpness)
        sigma_um = math.nan if belief.sigma_m is None else belief.sigma_m * 1e6
        finish(turn, "focused", f"sharpness grew {gain:.2f} times; sigma is {sigma_um:.2f} µm")
        return
    certain = search.certain(belief, field, options)
    away_m = abs((belief.focus_m or math.inf) - field.start_m)
    if certain and away_m <= field.unit_m:
        go_home(turn, "focused", "the start is in focus already, within half a depth of field")
    elif certain and now.sharpness > then.sharpness and task.max_frames - task.frames >= 2:
        turn.go(field.start_m)
    else:
        go_home(
            turn,
            "held",
            f"the best point found, {last.working_distance_m * 1e3:.4f} mm, is not significantly "
            "sharper than the start",
        )
