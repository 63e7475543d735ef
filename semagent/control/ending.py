"""How tasks end: where they stand, or back where they began."""

import math
from typing import Literal

import msgspec

from semagent.control import budget
from semagent.control.situation import Autofocus, Follow, Return
from semagent.control.turn import Turn
from semagent.lengths import show_distance
from semagent.types import (
    FocusResult,
    Level,
    MicroscopeState,
    Mode,
    Optics,
    Outcome,
    Reply,
    SetWorkingDistance,
)

Status = Literal["focused", "held", "failed"]
_AT_HOME_M = 1e-9
DISARMED = "the safety gate is disarmed"
_AT_HOME_STIGMATOR = 1e-6  # of the full range
_TOO_OLD = {"expired", "stale"}
"""Refusals of the gate that a newer frame does away with."""
READBACK_DIFFERS = "readback_differs"
"""A command was not carried out as it was given: the gate has shut, and says so itself."""


def go_home(turn: Turn, status: Status, reason: str, told: str = "") -> None:
    """End the running task by putting focus and stigmators back to where it began. See `finish`.

    A command that is still outstanding is waited for first.
    """
    task = turn.state.task
    if not isinstance(task, Autofocus | Follow):
        return
    home = _home(task)
    if home is None:
        finish(turn, status, reason, told=told)
    else:
        end_at(turn, home, status, reason, told)


def end_at(turn: Turn, place: MicroscopeState, status: Status, reason: str, told: str = "") -> None:
    """End the running task with focus and stigmators as they are in ``place``. See `finish`."""
    task = turn.state.task
    assert isinstance(task, Autofocus | Follow)  # noqa: S101 - there is something to end
    turn.set_task(Return(home=place, task=task, status=status, reason=reason, told=told))
    if turn.state.pending is None:
        proceed(turn)


def yield_to_operator(turn: Turn, change: str) -> None:
    """The operator beats the agent, which rests until the next request."""
    leave(turn, change)
    if turn.state.mode is Mode.HOLD and not turn.state.paused:
        turn.pause(change)


def leave(turn: Turn, change: str, told: str = "") -> None:
    """End whatever goes on as the operator has set it: nothing is put back. See `finish`."""
    task = turn.state.task
    if task is not None:
        cut_short = isinstance(task, Return) and _leads_back(task)
        finish(turn, "failed", f"{change}; left as it is", barred=cut_short, told=told)


def on_reply(turn: Turn, task: Return, reply: Reply) -> None:
    """Go on with the way home after one of its commands was answered."""
    focusing = isinstance(reply.command.action, SetWorkingDistance)
    if reply.outcome is Outcome.APPLIED:
        proceed(turn)
    elif took_too_long(turn, reply) and _affords_a_frame(task.task):
        turn.set_task(msgspec.structs.replace(task, done=(), barred=""))
    elif reply.outcome is Outcome.REFUSED and focusing and not task.straight and turn.state.armed:
        # The gate keeps enough travel for the straight way back, not for one around the backlash.
        turn.set_task(msgspec.structs.replace(task, done=(), straight=True))
        proceed(turn)
    elif reply.outcome is Outcome.REFUSED and not focusing and not _leads_back(task):
        # Not the way back, but a last small change: it is as good as it was verified to be.
        finish(turn, task.status, f"{task.reason}; a last change of the stigmators was refused")
    else:
        why = DISARMED if reply.code == READBACK_DIFFERS else reply.reason
        turn.set_task(msgspec.structs.replace(task, barred=task.barred or why))
        proceed(turn)


def on_frame(turn: Turn, task: Return) -> None:
    """Go on with a way home that took longer than evidence lasts."""
    if isinstance(task.task, Autofocus):
        ended = msgspec.structs.replace(task.task, frames=task.task.frames + 1)
        if turn.state.header is not None:
            dose = turn.options.autofocus.max_dose_e_nm2
            ended = budget.counted(ended, turn.state.header, dose)
        turn.set_task(msgspec.structs.replace(task, task=ended))
    proceed(turn)


def took_too_long(turn: Turn, reply: Reply) -> bool:
    """Whether a command was refused only because those before it have taken so long.

    The gate lets nothing pass that rests on an old frame. Once there is a new one, the rest of the
    way is judged anew from where the microscope is by then.
    """
    header, state = turn.state.header, reply.state
    if header is None or state is None or not turn.state.armed or reply.code not in _TOO_OLD:
        return False
    return _knobs(state.optics) != _knobs(header.optics)


def _knobs(optics: Optics) -> tuple[float | None, ...]:
    return optics.working_distance_m, optics.stigmator_x, optics.stigmator_y


def finish(
    turn: Turn, status: Status, reason: str, *, barred: bool = False, told: str = ""
) -> None:
    """End the running task here.

    Where the way back was ``barred`` the last event says so, as ``put_back: false``. Where the
    reason has been said already it says what is ``told`` instead.
    """
    task = turn.state.task
    task = task.task if isinstance(task, Return) else task
    follows = turn.state.mode is Mode.HOLD and turn.options.hold.follow
    pauses = follows and status != "focused" and turn.state.armed
    left = {"put_back": False} if barred else {}
    if isinstance(task, Autofocus):
        turn.result = _result(turn, task, status, reason)
        level = Level.INFO if turn.result.verified else Level.WARNING
        turn.tell("autofocus_done", f"{status}: {told or reason}", level, **left)
    else:
        level = Level.WARNING if barred or pauses else Level.INFO
        turn.tell("hold_ended", told or reason, level, **left)
        # The estimator has not seen the frames in between, and focus has drifted.
        turn.update(epoch=turn.state.epoch + 1)
    here = turn.measured
    turn.update(
        task=None,
        # What was done to the stigmators, and to follow the specimen, has left the field as it was.
        field=here and (turn.state.epoch, here),
        in_focus=here if status == "focused" else None,
        verified=task.last if isinstance(task, Autofocus) else None,
        # While disarmed, the operator may do anything: following begins anew with the next arming.
        expected=turn.state.expected if follows and turn.state.armed else None,
        unconfirmed=False,
    )
    instead = task.instead if isinstance(task, Autofocus) and task.samples else None
    if pauses and status == "held" and instead is not None and not turn.state.paused:
        turn.set_task(instead)
        turn.tell("hold_started", "following on with what was known of focus before")
    elif pauses:
        turn.pause(reason)


def not_begun(here_m: float, reason: str) -> FocusResult:
    """The result of a search that may not take its first frame."""
    return FocusResult(
        status="held",
        reason=reason,
        start_working_distance_m=here_m,
        final_working_distance_m=here_m,
        sigma_m=None,
        frames_used=0,
        moves=0,
        engine="",
    )


def _result(turn: Turn, task: Autofocus, status: Status, reason: str) -> FocusResult:
    start = task.start
    final_m = turn.working_distance_m
    return FocusResult(
        status=status,
        reason=reason,
        astigmatism_open=task.astigmatism_open,
        start_working_distance_m=start.optics.working_distance_m if start else final_m,
        final_working_distance_m=final_m,
        sigma_m=task.sigma_m,
        frames_used=task.frames,
        moves=task.moves,
        engine=task.last.engine if task.last else "",
    )


def _home(task: Autofocus | Follow) -> MicroscopeState | None:
    if isinstance(task, Follow):
        return task.home
    return task.start.settings if task.start else None


def _leads_back(task: Return) -> bool:
    """Whether it is the way back, and not a last small change to what was found."""
    return task.home == _home(task.task)


def proceed(turn: Turn) -> None:
    """Give the next command on the way home, or end there."""
    while isinstance(task := turn.state.task, Return) and turn.state.pending is None:
        here = turn.measured
        assert here is not None  # noqa: S101 - a home comes from a frame
        if "focus" not in task.done:
            turn.set_task(msgspec.structs.replace(task, done=("focus",)))
            away_m = here.optics.working_distance_m - task.home.optics.working_distance_m
            if turn.state.unconfirmed or abs(away_m) > _AT_HOME_M:
                if not turn.state.armed:
                    give_up(turn, task, task.barred or DISARMED)
                    return
                turn.go(task.home.optics.working_distance_m, straight=task.straight)
        elif "stigmators" not in task.done:
            turn.set_task(msgspec.structs.replace(task, done=("focus", "stigmators")))
            stigmators = _stigmators_to_restore(turn, task, here.optics)
            if stigmators is not None:
                if not turn.state.armed:
                    give_up(turn, task, task.barred or DISARMED)
                    return
                turn.stigmate(stigmators)
        elif task.barred:
            give_up(turn, task, task.barred)
        else:
            finish(turn, task.status, task.reason, told=task.told)


def _stigmators_to_restore(turn: Turn, task: Return, here: Optics) -> tuple[float, float] | None:
    """What to put the stigmators back to, if we have moved them, or something dragged them along.

    What we have set is put back however small it is: on strong coils it may be much.
    """
    home = task.home.optics
    if not turn.capabilities.stigmator or home.stigmator_x is None or home.stigmator_y is None:
        return None
    x = math.inf if here.stigmator_x is None else here.stigmator_x
    y = math.inf if here.stigmator_y is None else here.stigmator_y
    ours = isinstance(task.task, Autofocus) and task.task.stigmated
    ours |= not _leads_back(task)
    tolerance = _AT_HOME_STIGMATOR if ours else turn.options.operator.stigmator
    if max(abs(x - home.stigmator_x), abs(y - home.stigmator_y)) <= tolerance:
        return None
    return home.stigmator_x, home.stigmator_y


def give_up(turn: Turn, task: Return, why: str) -> None:
    """End where the microscope is: the way home is barred.

    Focus that is held is as good as home anywhere in the depth of field.
    """
    home, here = task.home.optics, turn.measured
    assert here is not None  # noqa: S101 - a home comes from a frame
    stigmators = _stigmators_to_restore(turn, task, here.optics) is not None
    away_m = abs(here.optics.working_distance_m - home.working_distance_m)
    held = isinstance(task.task, Follow) and away_m <= task.task.half_depth_m
    if held and not (stigmators or turn.state.unconfirmed):
        finish(turn, task.status, task.reason, told=task.told)
        return
    failed = "could not be put back to" if _leads_back(task) else "could not go on to"
    left = (
        f"; {failed} {_in_words(home, stigmators)} ({why}): last read back "
        f"{_in_words(here.optics, stigmators)}, check it"
    )
    told = task.told and task.told + left
    finish(turn, "failed", task.reason + left, barred=True, told=told)


def _in_words(optics: Optics, stigmators: bool) -> str:
    focus = show_distance(optics.working_distance_m)
    if not stigmators or optics.stigmator_x is None or optics.stigmator_y is None:
        return focus
    return f"{focus}, stigmators {optics.stigmator_x:+.4f} and {optics.stigmator_y:+.4f}"


def _affords_a_frame(task: Autofocus | Follow) -> bool:
    """Whether the dose budget allows a frame more: it goes before the way home."""
    return not (isinstance(task, Autofocus) and task.frames_affordable == 0)
