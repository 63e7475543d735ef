"""What control is doing, and why, in words for the operator."""

from semagent.control.situation import Autofocus, ControlState, Decision, Follow, Return
from semagent.types import Intent, Mode, SetWorkingDistance


def intent_of(state: ControlState, proposed: Decision | None) -> Intent:
    """Describe what control is doing; nothing is decided here.

    Args:
        state: the memory of control.
        proposed: the decision that made the proposal which still stands, if there is one.
    """
    proposal = proposed.proposal if proposed else None
    going = state.pending.action if state.pending else None
    target_m = going.working_distance_m if isinstance(going, SetWorkingDistance) else None
    intent = _task(state) or Intent(mode=state.mode, doing="watching", why=_idle(state))
    return Intent(
        mode=state.mode,
        doing=intent.doing,
        why=intent.why,
        frames=intent.frames,
        max_frames=intent.max_frames,
        moves=intent.moves,
        target_m=target_m,
        proposal_m=proposal.working_distance_m if proposal else None,
        basis=proposed.basis if proposed else None,
    )


def _task(state: ControlState) -> Intent | None:
    mode = state.mode
    match state.task:
        case Autofocus(start=None) as task:
            why = "waiting for a first frame with something to focus on"
            return Intent(mode=mode, doing="focusing", why=why, frames=task.frames)
        case Autofocus() as task:
            return Intent(
                mode=mode,
                doing="focusing",
                why="looking for the sharpest working distance with few frames",
                frames=task.frames,
                max_frames=task.max_frames,
                moves=task.moves,
            )
        case Follow(search_frames=int()):
            return Intent(mode=mode, doing="holding", why="focus was lost; about to look for it")
        case Follow() as task:
            why = f"follows focus, known to {task.track.std:.1f} half depths of field"
            return Intent(mode=mode, doing="holding", why=why)
        case Return() as task:
            why = f"putting focus and stigmators back: {task.reason}"
            return Intent(mode=mode, doing="returning", why=why)
    if state.paused:
        return Intent(mode=mode, doing="paused", why=state.paused)
    return None


def _idle(state: ControlState) -> str:
    match state.mode:
        case Mode.OBSERVE:
            return "mode observe: watches and says nothing"
        case Mode.ADVISE:
            return "mode advise: proposes and does not move"
    if not state.armed:
        return "mode hold, but the gate is disarmed: proposes and does not move"
    return "mode hold: waits for a request or the next frame"
