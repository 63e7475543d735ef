"""The decision function: what follows from one observation, and nothing but that.

Pure and deterministic: no clock, no socket, no chance. A recorded session that is fed through
it again gives the same commands. Time is known from ticks alone, so that stamps of another
machine's clock are never compared with it.
"""

import math

import msgspec

from semagent.control import autofocus, budget, ending, hold
from semagent.control.intervention import field_change, focus_change, settings_change
from semagent.control.options import ControlOptions
from semagent.control.situation import (
    Analysed,
    Autofocus,
    ControlState,
    Decision,
    Flagged,
    Follow,
    GateChanged,
    Observation,
    Pending,
    Replied,
    Requested,
    Return,
    Task,
    Ticked,
    in_words,
    says_something,
)
from semagent.control.turn import Turn
from semagent.lengths import show_distance, show_length
from semagent.types import (
    Arm,
    Cancel,
    Capabilities,
    Decline,
    Disarm,
    FocusBelief,
    FrameHeader,
    GateStatus,
    Issuer,
    Level,
    Mode,
    Note,
    Outcome,
    Reply,
    Request,
    SetMode,
    SetStigmator,
    SetWorkingDistance,
    StartAutofocus,
    Stop,
)

_SETTINGS_CHANGED = "settings_changed"
"""Refusal of the gate: the frame that a command rests on was taken with other settings."""
_MOVED_BY_HAND = "moved_by_hand"
"""An axis is not where it was left: the gate has shut, and says so itself."""
_SHUT = {_MOVED_BY_HAND, "disarmed"}


def decide(
    state: ControlState,
    observation: Observation,
    options: ControlOptions,
    capabilities: Capabilities,
) -> Decision:
    """Work through one observation.

    Args:
        state: what the last decision said to remember; `ControlState` with the mode at first.
        observation: what happened, in the order in which it came.
        options: the section ``control`` of the configuration.
        capabilities: of the microscope; its working distance range is never left.
    """
    turn = Turn(state, options, capabilities)
    match observation:
        case Analysed(analysis=analysis):
            if _see(turn, analysis.header):
                _on_analysed(turn, observation)
        case Flagged(header=header):
            if _see(turn, header):
                _on_flagged(turn, header)
        case Replied(reply=reply):
            _on_reply(turn, reply)
        case Requested(request=request):
            _on_request(turn, request)
        case GateChanged(status=status):
            _on_gate(turn, status)
        case Ticked(now_ns=now_ns):
            _on_tick(turn, now_ns)
    return turn.decision()


# -- frames -----------------------------------------------------------------------------------


def noticed(state: ControlState, header: FrameHeader, options: ControlOptions) -> ControlState:
    """The state once a frame was seen: with a new field, evidence begins anew.

    Stigmators that a search has set leave the field as it was, and so does a stage that follows
    the specimen.
    """
    epoch, first = state.field or (None, None)
    state = msgspec.structs.replace(state, header=header)
    if first is not None and epoch == state.epoch:
        known = (first, state.expected or first)
        if not all(field_change(before, header, options) for before in known):
            return state
        state = msgspec.structs.replace(state, epoch=state.epoch + 1, in_focus=None)
    return msgspec.structs.replace(state, field=(state.epoch, header.settings))


def _see(turn: Turn, header: FrameHeader) -> bool:
    """Take note of a frame; whether it may be used."""
    turn.state = noticed(turn.state, header, turn.options)
    if isinstance(turn.state.task, Autofocus):
        dose = turn.options.autofocus.max_dose_e_nm2
        turn.set_task(budget.counted(turn.state.task, header, dose))
    state = turn.state
    if not state.can_use(header):
        return False
    if state.expected is not None:
        change = field_change(state.expected, header, turn.options, state.detector) or focus_change(
            state.expected, header, turn.options
        )
        if change:
            ending.yield_to_operator(turn, change)
            return False
    turn.update(detector=header.detector)
    return True


def _on_analysed(turn: Turn, seen: Analysed) -> None:
    if not says_something(seen.analysis):
        _on_flagged(turn, seen.analysis.header)
        return
    if turn.state.task is not None and turn.state.expected is None:
        turn.update(expected=seen.analysis.header.settings)
    match turn.state.task:
        case Autofocus() as task:
            autofocus.on_frame(turn, task, seen)
        case Follow() as task:
            hold.on_frame(turn, task, seen.analysis)
        case Return() as task:
            ending.on_frame(turn, task)
        case None:
            _when_idle(turn, seen)


def _when_idle(turn: Turn, seen: Analysed) -> None:
    state, options = turn.state, turn.options
    if state.mode is Mode.HOLD and state.armed and options.hold.follow and not state.paused:
        if state.in_focus is not None:
            hold.begin(turn, seen.analysis, state.in_focus)
        else:
            autofocus.begin(turn, None, for_hold=True)
    elif state.mode is Mode.ADVISE or (state.mode is Mode.HOLD and not state.armed):
        _propose(turn, seen.analysis.header, seen.belief)


def _propose(turn: Turn, header: FrameHeader, belief: FocusBelief) -> None:
    """Say where focus is, once for each place."""
    options = turn.options.autofocus
    unit_m = turn.options.scale.half_depth_of(header)
    if (
        belief.focus_m is None
        or belief.sigma_m is None
        or belief.sigma_m > unit_m
        or belief.log_odds < options.min_log_odds
    ):
        return
    declined_m, epoch = turn.state.declined or (math.inf, 0)
    if epoch == turn.state.epoch and abs(belief.focus_m - declined_m) <= unit_m:
        return
    away_m = belief.focus_m - header.optics.working_distance_m
    if abs(away_m) <= max(unit_m / 2, options.significance * belief.sigma_m):
        return
    turn.proposal = SetWorkingDistance(working_distance_m=belief.focus_m)
    last_m = turn.state.proposed_m
    if last_m is None or abs(belief.focus_m - last_m) > unit_m / 2:
        turn.update(proposed_m=belief.focus_m)
        turn.tell(
            "proposal",
            f"focus is at {show_distance(belief.focus_m)}, "
            f"{show_length(away_m, sign=True)} from here",
            working_distance_m=belief.focus_m,
            sigma_m=belief.sigma_m,
        )


def _on_flagged(turn: Turn, header: FrameHeader) -> None:
    task = turn.state.task
    if isinstance(task, Follow):
        hold.on_flagged(turn, task, header)
    if isinstance(task, Return):
        ending.on_frame(turn, task)
    if not isinstance(task, Autofocus):
        return
    task = msgspec.structs.replace(task, flagged=task.flagged + 1, frames=task.frames + 1)
    turn.set_task(task)
    faults = ", ".join(header.faults) or "the engine gave figures that no frame can have"
    reason = f"{task.flagged} frames in a row could not be used ({faults})"
    if task.frames_affordable == 0:
        autofocus.hold(turn, reason)
    elif task.flagged >= turn.options.autofocus.max_flagged or not task.frames_left:
        ending.go_home(turn, "held", reason)


# -- replies ----------------------------------------------------------------------------------


def _on_reply(turn: Turn, reply: Reply) -> None:
    command, pending = reply.command, turn.state.pending
    turn.update(first_sequence=max(turn.state.first_sequence, reply.next_sequence))
    if command.issuer is Issuer.OPERATOR:
        _on_operator_reply(turn, reply)
        return
    if pending is None or command.action != pending.action:
        return
    applied = reply.outcome is Outcome.APPLIED
    hand = _hand_behind(turn, reply)
    differs = reply.code == ending.READBACK_DIFFERS
    turn.update(
        pending=None,
        waiting_ns=turn.state.now_ns,
        expected=reply.state,
        unconfirmed=reply.state is None or differs,
        task=_counted(turn.state.task, reply),
    )
    if hand and turn.state.task is not None:
        ending.yield_to_operator(turn, hand)
        return
    task = turn.state.task
    if task is not None and reply.code == _MOVED_BY_HAND:
        return  # how the gate stands comes next, and ends it
    if differs and isinstance(task, Autofocus | Follow):
        return  # the same
    became = "was refused" if reply.outcome is Outcome.REFUSED else "failed"
    what = f"the command to {in_words(command.action)} {became}: {reply.reason}"
    if not (applied or differs) and (task is not None or reply.code not in _SHUT):
        turn.tell("command_failed", what, Level.WARNING, code=reply.code)
    if isinstance(task, Return) and not task.done:
        ending.proceed(turn)  # this was still a command of the task that ended
    elif task is None:
        turn.update(expected=None)
    elif applied and pending.then:
        turn.command(pending.then[0], pending.then[1:])
    elif isinstance(task, Return):
        ending.on_reply(turn, task, reply)
    elif not applied:
        refused = reply.outcome is Outcome.REFUSED and isinstance(command.action, SetStigmator)
        if isinstance(task, Autofocus) and ending.took_too_long(turn, reply) and task.frames_left:
            turn.tell("looking_again", "the way takes longer than evidence lasts: one frame more")
        elif refused and isinstance(task, Autofocus) and task.stigmation and turn.state.armed:
            autofocus.on_refused_stigmators(turn, task, pending.then)
        else:
            ending.go_home(turn, "failed", what)


def _hand_behind(turn: Turn, reply: Reply) -> str:
    """What somebody has changed that a command was refused for; empty if it was not for that."""
    before, header = turn.measured, turn.state.header
    if reply.code != _SETTINGS_CHANGED or reply.state is None or before is None or header is None:
        return ""
    if before.settings_rev == reply.state.settings_rev:
        before = header.settings  # read back already with the command before
    return settings_change(before, reply.state, turn.state.detector, header.detector)


def _counted(task: Task | None, reply: Reply) -> Task | None:
    """The task with the reply booked: one more move, and where it led."""
    if isinstance(task, Return):
        ended = _counted(task.task, reply)
        assert not isinstance(ended, Return | None)  # noqa: S101 - as it went in
        return msgspec.structs.replace(task, task=ended)
    if not isinstance(task, Autofocus) or reply.outcome is not Outcome.APPLIED:
        return task
    ways_m, action = task.ways_m, reply.command.action
    if isinstance(action, SetWorkingDistance) and reply.state is not None:
        led_m = reply.state.optics.working_distance_m
        ways_m = (*ways_m, (action.working_distance_m, led_m))
    return msgspec.structs.replace(task, moves=task.moves + 1, ways_m=ways_m)


def _on_operator_reply(turn: Turn, reply: Reply) -> None:
    action = reply.command.action
    if reply.outcome is not Outcome.APPLIED or isinstance(action, Arm | Disarm):
        return
    if not isinstance(action, SetWorkingDistance | Stop):
        turn.update(epoch=turn.state.epoch + 1)
    ending.yield_to_operator(turn, f"the operator's command: {in_words(action)}")


# -- requests and the gate --------------------------------------------------------------------


def _on_request(turn: Turn, request: Request) -> None:
    match request:
        case SetMode(mode=mode):
            _set_mode(turn, mode)
        case StartAutofocus():
            _start_autofocus(turn, request)
        case Cancel(reason=reason, planned=planned):
            if planned:
                turn.update(mode=Mode.OBSERVE)  # hold is over: it does not pause, which is trouble
            _cancel(turn, "held" if planned else "failed", reason)
        case Decline(working_distance_m=value_m):
            turn.update(declined=(value_m, turn.state.epoch))
            turn.tell("proposal_declined", f"declined: focus at {show_distance(value_m)}")
        case Note():
            pass


def _set_mode(turn: Turn, mode: Mode) -> None:
    turn.update(mode=mode, paused="", proposed_m=None, declined=None)
    turn.tell("mode_changed", f"mode {mode}")
    if mode is not Mode.HOLD:
        turn.update(in_focus=None)
        ending.go_home(turn, "failed", f"the mode was set to {mode}")


def _start_autofocus(turn: Turn, request: StartAutofocus) -> None:
    state = turn.state
    if state.mode is not Mode.HOLD:
        reason = f"in mode {state.mode} the agent does not move the microscope; use mode hold"
        autofocus.refuse(turn, reason)
        return
    if state.gate is not None and not state.armed:
        autofocus.refuse(turn, autofocus.DISARMED)
        return
    dose = turn.options.autofocus.max_dose_e_nm2
    unaffordable = budget.forbids(state.header, dose) if state.header else ""
    match state.task:
        case None | Follow() if unaffordable:
            autofocus.refuse(turn, unaffordable)
        case _ if request.max_frames is not None and request.max_frames < 1:
            autofocus.refuse(turn, f"max_frames is {request.max_frames}; it has to be 1 or more")
        case Autofocus(for_hold=False):
            turn.tell("request_refused", "focusing is going on already", Level.WARNING)
        case Return():
            turn.tell("request_refused", "focus is being put back; ask again", Level.WARNING)
        case Autofocus() as task:
            frames = request.max_frames or task.max_frames
            task = msgspec.structs.replace(
                task,
                for_hold=False,
                instead=None,
                max_frames=frames,
                stigmation=request.stigmation,
            )
            turn.set_task(task)
        case Follow() as task:
            frames = request.max_frames or turn.options.autofocus.max_frames
            hold.request_search(turn, task, frames, stigmation=request.stigmation)
        case None:
            turn.update(paused="")
            autofocus.begin(turn, request.max_frames, stigmation=request.stigmation)


def _cancel(turn: Turn, status: ending.Status, reason: str) -> None:
    task = turn.state.task
    if isinstance(task, Autofocus | Follow):
        ending.go_home(turn, status, reason)
    elif isinstance(task, Return):
        if turn.state.mode is Mode.HOLD:
            turn.update(paused=reason)  # nothing may begin when it has arrived
    elif turn.state.mode is Mode.HOLD and not turn.state.paused:
        turn.pause(reason)
    else:
        turn.tell("request_refused", "nothing is going on that could be cancelled")


def _on_gate(turn: Turn, status: GateStatus) -> None:
    shuts = turn.state.armed and not status.armed
    turn.update(gate=status)
    if status.armed:
        return
    if shuts and status.code == _MOVED_BY_HAND:
        ending.leave(turn, status.reason, "the safety gate has closed; left as it is")
        return
    reason = f"the safety gate was disarmed ({status.reason})"
    match turn.state.task:
        case Autofocus(start=None):
            ending.go_home(turn, "held", autofocus.DISARMED)
        case Autofocus() | Follow():
            ending.go_home(turn, "failed", reason, "the safety gate has closed")


# -- deadlines --------------------------------------------------------------------------------


def _on_tick(turn: Turn, now_ns: int) -> None:
    _start_clocks(turn, now_ns)
    state, limits = turn.state, turn.options.deadlines
    pending, task = state.pending, state.task
    if pending is not None:
        if _late(pending.since_ns, now_ns, limits.reply_s):
            _on_silence(turn, pending)
        return
    if isinstance(task, Autofocus) and _late(task.since_ns, now_ns, limits.task_s):
        ending.go_home(turn, "failed", f"focusing took longer than {limits.task_s:g} s")
    elif isinstance(task, Autofocus) and _late(state.waiting_ns, now_ns, limits.frame_s):
        reason = f"no word of the safety gate within {limits.frame_s:g} s"
        if state.gate:
            reason = (
                f"no usable frame within {limits.frame_s:g} s: the engine did not answer, or a "
                "scan does not take less than control.deadlines.frame_s and than four fifths of "
                "safety.max_evidence_age_s"
            )
        ending.go_home(turn, "failed", reason)
    elif isinstance(task, Return) and _late(state.waiting_ns, now_ns, limits.frame_s):
        ending.give_up(turn, task, f"no frame within {limits.frame_s:g} s")


def _start_clocks(turn: Turn, now_ns: int) -> None:
    """Take the time; what began before the first tick begins with it."""
    state = turn.state
    turn.update(now_ns=now_ns)
    if state.now_ns is not None:
        return
    turn.update(waiting_ns=now_ns)
    if state.pending is not None:
        turn.update(pending=msgspec.structs.replace(state.pending, since_ns=now_ns))
    if isinstance(state.task, Autofocus):
        turn.set_task(msgspec.structs.replace(state.task, since_ns=now_ns))


def _late(since_ns: int | None, now_ns: int, limit_s: float) -> bool:
    return since_ns is not None and now_ns - since_ns > limit_s * 1e9


def _on_silence(turn: Turn, pending: Pending) -> None:
    turn.update(pending=None, unconfirmed=True)
    what = f"the command to {in_words(pending.action)}"
    reason = f"{what} was not answered within {turn.options.deadlines.reply_s:g} s"
    turn.tell("command_failed", reason, Level.ERROR, code="no_reply")
    task = turn.state.task
    if isinstance(task, Return):
        ending.give_up(turn, task, "the command was not answered in time")
    else:
        ending.go_home(turn, "failed", reason)
