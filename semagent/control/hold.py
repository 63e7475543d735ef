"""Hold mode: follow a specimen that drifts, with the frames that are taken anyway.

Every frame is compared with a reference of its field, and `semagent.control.tracking` says where
focus is and where it goes. Before the next frame the working distance goes there, and a little
beside it, to alternate sides: inside the depth of field nobody sees that, and it shows to which
side focus moves. The less is known, the larger these steps, up to ``dither``. Where focus has
jumped, a frame on the likelier side tells. Where the frames do not tell focus to within
``max_sigma``, or it is too far away to be followed, a search like that of an autofocus decides, and
where that fails the agent stops; only out of mere doubt, and once, it follows on with what it knew.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from semagent.control import autofocus, ending, tracking
from semagent.control.intervention import settings_change
from semagent.control.options import USUAL_SLOPE
from semagent.control.reading import mean_of, read
from semagent.control.situation import Follow, Seen, Track
from semagent.control.turn import Turn
from semagent.lengths import show_distance
from semagent.spectrum import Array
from semagent.types import (
    FocusBelief,
    FocusMode,
    FrameAnalysis,
    FrameHeader,
    MicroscopeState,
    Scan,
    Signature,
)

_WINDOW = 96  # frames that count
_RENEWALS = {4, 12, 24}  # frames after which the mean of all so far is a better reference
_RENEWED = 48  # frames after which it is renewed again: fields move and change
_KNOWN = 0.08  # half depths of field: known so well, focus is not looked for beside it
_WELL = 0.2  # known so well, two frames are taken on each side, with half as many moves
_OTHER_FIELD = 0.7  # variance by what has come into the field, over that of noise, that is too much
_SPARE = 0.25  # half depths of field: known so well, it can do without frames of another field
_FEWEST = 8  # frames that count all the same
_SURE = 0.5  # known so well, focus is followed over frames with faults
_STEPS = 2.0  # standard deviations that a dither goes
_LEAP = 2.0  # half depths of field: the furthest to either side that a jump is followed
_BESIDE = 1.0  # half depths of field: the furthest from focus that a frame shows the field in it
_WORTH_A_MOVE = 0.15
_FURTHEST = 3.0  # half depths of field that one correction may go; more is no drift
_MORE_DOUBT = 3.0  # times ``max_sigma``, once a search has told no more
_FELL, _FELL_FRAMES, _FELL_SIGMAS = 2.5, 6, 4.0
_NINETY = 1.645  # standard deviations that hold 90 % of a normal distribution on either side


def begin(turn: Turn, analysis: FrameAnalysis, home: MicroscopeState) -> None:
    """Start following from a point in focus, with the frame that has verified it."""
    options, header, verified = turn.options, analysis.header, turn.state.verified
    slope = options.scale.slope_of(header)
    task = Follow(
        home=home,
        origin_m=home.optics.working_distance_m,
        half_depth_m=options.scale.half_depth_of(header),
        slope=USUAL_SLOPE if slope is None else slope,
        slope_known=slope is not None,
        begun=tracking.start(options.hold.drift),
        track=tracking.start(options.hold.drift),
    )
    turn.update(task=task, expected=turn.state.expected or header.settings)
    here_m = home.optics.working_distance_m
    turn.tell("hold_started", f"following from {show_distance(here_m)}", working_distance_m=here_m)
    if verified is not None and abs(_place(task, verified.header)) <= _BESIDE:
        seen = _read(turn, task, verified)
        task = task if seen is None else _seen(task, seen, verified.header.scan)
    on_frame(turn, task, analysis)


def on_frame(turn: Turn, task: Follow, analysis: FrameAnalysis) -> None:
    """Take a usable frame into account and go where the next one should be taken."""
    turn.update(waiting_ns=turn.state.now_ns)
    if task.search_frames is not None:
        autofocus.begin(turn, task.search_frames, for_hold=True, stigmation=task.search_stigmation)
        return
    header = analysis.header
    if task.home.settings_rev != header.settings_rev:
        # While a command was carried out: what was read back with it is no surprise.
        ending.yield_to_operator(turn, settings_change(task.home, header.settings))
        return
    seen = _read(turn, task, analysis)
    task = _unseen(task, header) if seen is None else _seen(task, seen, header.scan)
    next_ = tracking.predict(task.track, 1.0)
    here = _place(task, header)
    target = next_.focus + _dither(turn, task, next_, here)
    jumped = _just_jumped(task)
    doubt = turn.options.hold.max_sigma * (_MORE_DOUBT if task.searched else 1.0)
    if next_.std > (_LEAP if jumped else doubt):
        why = f"focus is only known to {next_.std:.1f} half depths of field"
        _lost(turn, task, why, may_go_on=not (jumped or task.searched))
    elif has_blurred(task):
        _lost(turn, task, "the picture has become blurred")
    elif abs(target - here) > _FURTHEST:
        _lost(turn, task, f"focus seems to be {target - here:+.1f} half depths of field away")
    elif seen is None or abs(target - here) < _WORTH_A_MOVE:
        turn.set_task(task)
    else:
        turn.set_task(_at(task, next_.focus))
        turn.go(_metres(task, target), straight=True)


def on_flagged(turn: Turn, task: Follow, header: FrameHeader) -> None:
    """Take note of a frame with faults: go on as focus has drifted, while that is known well."""
    task = _unseen(task, header)
    next_ = tracking.predict(task.track, 1.0)
    if next_.std <= _SURE and abs(next_.focus - _place(task, header)) <= _FURTHEST:
        if abs(next_.focus - _place(task, header)) >= _WORTH_A_MOVE:
            turn.go(_metres(task, next_.focus), straight=True)
        turn.set_task(_at(task, next_.focus))
    else:
        turn.set_task(task)


def belief_of(task: Follow, header: FrameHeader, log_odds: float) -> FocusBelief:
    """Where focus is believed to be now; that there is one, the search before has found."""
    focus_m, sigma_m = _metres(task, task.track.focus), task.track.std * task.half_depth_m
    return FocusBelief(
        sequence=header.sequence,
        settings_rev=header.settings_rev,
        frames=len(task.seen),
        focus_m=focus_m,
        sigma_m=sigma_m,
        interval90_m=(focus_m - _NINETY * sigma_m, focus_m + _NINETY * sigma_m),
        log_odds=log_odds,
        modes=(FocusMode(weight=1.0, focus_m=focus_m, sigma_m=sigma_m),),
    )


def request_search(turn: Turn, task: Follow, frames: int, *, stigmation: bool = False) -> None:
    """Search for focus with the next frame."""
    turn.set_task(msgspec.structs.replace(task, search_frames=frames, search_stigmation=stigmation))


def _read(turn: Turn, task: Follow, analysis: FrameAnalysis) -> Seen | None:
    """What the frame tells; ``None`` if nothing, or if there is nothing to focus on."""
    signature, header = analysis.signature, analysis.header
    reference = task.reference or signature
    if signature is None or reference is None or signature.tile_px != reference.tile_px:
        return None
    if analysis.structure < turn.options.autofocus.min_structure:
        return None
    readings = read([signature], reference, task.slope)
    if readings is None:
        return None
    return Seen(
        time_ns=header.monotonic_ns,
        place=_place(task, header),
        signature=signature,
        change=tuple(readings.change[0].tolist()),
        covariance=tuple(readings.covariance[0].ravel().tolist()),
        shift=analysis.shift,
        by_content=float(readings.by_content[0]),
    )


def _unseen(task: Follow, header: FrameHeader) -> Follow:
    """The task after a frame that tells nothing: focus is known a little less well."""
    now_ns = header.monotonic_ns
    return msgspec.structs.replace(
        task,
        begun_ns=now_ns if task.begun_ns is None else task.begun_ns,
        at_ns=now_ns,
        blind=task.blind + 1,
        track=_predicted(task, now_ns, _frame_ns(task, now_ns)),
    )


def _predicted(task: Follow, now_ns: int, frame_ns: float) -> Track:
    since_ns = 0 if task.at_ns is None else now_ns - task.at_ns
    return tracking.predict(task.track, since_ns / frame_ns)


def _seen(task: Follow, new: Seen, scan: Scan) -> Follow:
    """The task after a frame that tells something."""
    begun_ns = new.time_ns if task.begun_ns is None else task.begun_ns
    seen = (*task.seen, new)[-_WINDOW:]
    if task.track.std < _SPARE:
        seen = _alike(seen, scan)
    # Where the field moves, the reference moves along.
    half = _RENEWED if len(seen) > len(task.seen) else len(seen) // 2
    task = msgspec.structs.replace(
        task,
        begun_ns=begun_ns,
        reference=task.reference or new.signature,
        seen=seen,
        first=task.first if len(task.first) == _FELL_FRAMES else (*task.first, new),
        frames=task.frames + 1,
    )
    if task.frames in _RENEWALS or task.frames % half == 0:
        task = _renewed(task)
    frame_ns = _frame_ns(task, new.time_ns)
    ages = np.array([(new.time_ns - each.time_ns) / frame_ns for each in seen])
    expected = _predicted(task, new.time_ns, frame_ns)
    told = tracking.Told(task.seen, ages, slope_known=task.slope_known)
    if tracking.has_jumped(told, expected):
        expected = tracking.after_jump(expected)
        task, begun_ns = _jumped(task, ages, expected), new.time_ns
        told = tracking.Told(task.seen, ages, slope_known=task.slope_known)
    track = tracking.update(told, task.begun, (new.time_ns - begun_ns) / frame_ns, expected)
    return msgspec.structs.replace(task, track=track, at_ns=new.time_ns, blind=0)


def _alike(seen: tuple[Seen, ...], scan: Scan) -> tuple[Seen, ...]:
    """The last frames, as far back as what has come into the field since may pass for noise."""
    last = seen[-1].shift
    for back, each in enumerate(reversed(seen)):
        shift = each.shift
        if back < _FEWEST or last is None or shift is None:
            continue
        moved = abs(shift.x_px - last.x_px) / scan.width_px
        moved += abs(shift.y_px - last.y_px) / scan.height_px
        elsewhere = shift.reference_sequence != last.reference_sequence
        if elsewhere or moved * seen[-1].by_content > _OTHER_FIELD:
            return seen[-back:]
    return seen


def _jumped(task: Follow, ages: Array, begun: Track) -> Follow:
    """The task after focus has jumped before the last frame."""
    *before, last = task.seen
    then = tracking.earlier(begun, ages).tolist()
    kept = (
        each if each.focus is not None else msgspec.structs.replace(each, focus=focus)
        for each, focus in zip(before, then, strict=False)
    )
    return msgspec.structs.replace(task, begun=begun, begun_ns=last.time_ns, seen=(*kept, last))


def _renewed(task: Follow) -> Follow:
    """The task with the mean of the last frames as the reference."""
    reference = mean_of([each.signature for each in task.seen])
    frames = (*task.first, *task.seen)
    readings = read([each.signature for each in frames], reference, task.slope)
    if readings is None:
        return task
    again = tuple(map(_with, frames, readings.change, readings.covariance))
    count = len(task.first)
    return msgspec.structs.replace(
        task, reference=reference, first=again[:count], seen=again[count:]
    )


def _with(seen: Seen, change: Array, covariance: Array) -> Seen:
    return msgspec.structs.replace(
        seen, change=tuple(change.tolist()), covariance=tuple(covariance.ravel().tolist())
    )


def _frame_ns(task: Follow, now_ns: int) -> float:
    """Time from one frame to the next."""
    if len(task.seen) > 1:
        return max(float(np.median(np.diff([each.time_ns for each in task.seen]))), 1.0)
    return max(float(now_ns - (task.at_ns or now_ns)), 1.0)


def _dither(turn: Turn, task: Follow, track: Track, here: float) -> float:
    """How far beside focus the next frame is taken."""
    if track.std < _KNOWN:
        return 0.0
    if _just_jumped(task):
        return math.copysign(track.std / 2, track.focus - here)
    on_each_side = 1 if track.std > _WELL else 2
    side = 1.0 if task.frames // on_each_side % 2 else -1.0
    return side * min(turn.options.hold.dither, _STEPS * track.std)


def _just_jumped(task: Follow) -> bool:
    """Whether focus has jumped before the last frame, which hardly tells to which side."""
    return len(task.seen) > 1 and task.begun_ns == task.seen[-1].time_ns


def has_blurred(task: Follow) -> bool:
    """Whether the last frames, or one after a jump, are far more blurred than the field's first."""
    last = task.seen[-1 if _just_jumped(task) else -_FELL_FRAMES :]
    if len(task.first) < _FELL_FRAMES:
        return False
    (then, then_variance), (now, now_variance) = _blur(task.first), _blur(last)
    return now - then > max(_FELL, _FELL_SIGMAS * math.sqrt(then_variance + now_variance))


def _blur(frames: Sequence[Seen]) -> tuple[float, float]:
    """Mean change of u² if that of astigmatism is none, and its variance."""
    changes, covariances = tracking.stacked(frames)
    rows = np.linalg.inv(covariances)[:, 0]
    alone = (rows * changes).sum(1) / rows[:, 0]
    return float(alone.mean()), float((1 / rows[:, 0]).mean()) / len(frames)


def _lost(turn: Turn, task: Follow, why: str, *, may_go_on: bool = False) -> None:
    turn.set_task(task)
    turn.tell("hold_lost", f"{why}; looking for it")
    frames, focused = turn.options.hold.search_frames, _focused(task)
    instead = msgspec.structs.replace(task, searched=True) if may_go_on else None
    autofocus.begin(turn, frames, focused=focused, for_hold=True, instead=instead)


def _focused(task: Follow) -> Signature | None:
    """How the field looks in focus: as before focus has jumped, if it has of late."""
    sharp = [
        each.signature
        for each in task.seen
        if each.focus is not None and abs(each.place - each.focus) <= _BESIDE
    ]
    return mean_of(sharp) if sharp else None


def _place(task: Follow, header: FrameHeader) -> float:
    """A working distance in half depths of field from where following began."""
    return (header.optics.working_distance_m - task.origin_m) / task.half_depth_m


def _metres(task: Follow, place: float) -> float:
    return task.origin_m + place * task.half_depth_m


def _at(task: Follow, focus: float) -> Follow:
    """The task with the settings to go back to in focus."""
    optics = msgspec.structs.replace(task.home.optics, working_distance_m=_metres(task, focus))
    return msgspec.structs.replace(task, home=msgspec.structs.replace(task.home, optics=optics))
