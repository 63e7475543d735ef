"""Hold mode: follow a specimen that drifts, with few moves.

At rest nothing is commanded. After a pause, or when sharpness falls, one frame is taken on either
side of the working point, and the vertex of the parabola through the three places says where
focus has gone. How strongly it bends is pooled over the pairs, because it hardly changes on one
field. The pause doubles while nothing has to be corrected. When a pair cannot tell, a wider one
is taken, then a search like that of an autofocus decides, and where that fails the agent stops.
"""

import math

import msgspec

from semagent.control import autofocus, search
from semagent.control.situation import Follow, Sample
from semagent.control.turn import Turn
from semagent.types import FrameAnalysis, FrameHeader, MicroscopeState

_MAX_LEAD = 0.5  # half depths of field that a correction may run ahead of the drift
_MAX_WIDER = 4.0  # times the usual step of a pair
_FORGET = 0.7  # weight that the bend of earlier pairs keeps when a new one is added
_MAX_OFFSET = 2.0  # steps of a pair up to which a parabola is believed
_BENT = 3.0  # standard deviations of the bend from a straight line that make it a peak


def begin(turn: Turn, header: FrameHeader, home: MicroscopeState) -> None:
    """Start following from a point in focus."""
    options = turn.options.hold
    task = Follow(
        home=home,
        half_depth_m=turn.options.scale.half_depth_of(header),
        pause=options.probe_every_frames,
        step=options.probe_step,
    )
    turn.update(task=task, expected=turn.state.expected or header.settings)
    here_m = home.optics.working_distance_m
    turn.tell("hold_started", f"following from {here_m * 1e3:.4f} mm", working_distance_m=here_m)


def on_frame(turn: Turn, task: Follow, analysis: FrameAnalysis) -> None:
    """Take a usable frame into account."""
    turn.update(waiting_ns=turn.state.now_ns)
    sample = turn.sample(analysis)
    task = msgspec.structs.replace(task, waited=task.waited + 1)
    if task.search_frames is not None:
        _search(turn, task)
    elif task.pair is None:
        _rest(turn, task, sample)
    elif len(task.pair) == 0:
        turn.set_task(msgspec.structs.replace(task, pair=(sample,)))
        turn.go(_centre_m(task) - task.step * task.half_depth_m)
    else:
        _weigh(turn, task, task.pair[0], sample)


def request_search(turn: Turn, task: Follow, frames: int, *, stigmation: bool = False) -> None:
    """Search for focus from the working point, once back there."""
    turn.set_task(msgspec.structs.replace(task, search_frames=frames, search_stigmation=stigmation))


def _search(turn: Turn, task: Follow) -> None:
    if task.pair is None:
        autofocus.begin(turn, task.search_frames, for_hold=True, stigmation=task.search_stigmation)
    else:
        turn.set_task(msgspec.structs.replace(task, pair=None))
        turn.go(_centre_m(task))


def _rest(turn: Turn, task: Follow, sample: Sample) -> None:
    options = turn.options.hold
    rest = (*task.rest, sample)[-options.average_frames :]
    task = msgspec.structs.replace(task, rest=rest)
    if len(rest) == options.average_frames:
        mean = search.mean_of(rest)
        reference = task.reference or mean
        task = msgspec.structs.replace(task, reference=reference)
        if search.significant(reference, mean, options.drop_significance):
            _fell(turn, task, reference.sharpness - rest[-1].sharpness)
            return
    if task.waited >= task.pause:
        _probe(turn, task)
    else:
        turn.set_task(task)


def _fell(turn: Turn, task: Follow, fall: float) -> None:
    """Sharpness fell: probe, or search at once if the fall means that focus is far away.

    A defocus ``e`` lowers log sharpness by ``k e²``, and ``k`` is known from the bend ``2 k d²``.
    """
    # Frames from before the fall would spoil the middle of the parabola.
    task = msgspec.structs.replace(task, rest=task.rest[-1:])
    if task.bend is not None and 2 * fall > _MAX_OFFSET**2 * task.bend:
        _search(turn, _lost(turn, task))
    else:
        _probe(turn, task)


def _probe(turn: Turn, task: Follow) -> None:
    """Take a pair, the far side first: so only one of its moves arrives from above."""
    turn.set_task(msgspec.structs.replace(task, pair=()))
    turn.go(_centre_m(task) + task.step * task.half_depth_m)


def _weigh(turn: Turn, task: Follow, above: Sample, below: Sample) -> None:
    """Say from a pair where focus has gone.

    Of ``y = c - k (z - e)²`` at ``z = 0, ±d``, the tilt ``y(d) - y(-d)`` is ``4 k d e`` and the
    bend ``2 y(0) - y(d) - y(-d)`` is ``2 k d²``, so that ``e = d * tilt / (2 * bend)``.
    """
    middle = search.mean_of(task.rest)
    tilt = above.sharpness - below.sharpness
    bend = 2 * middle.sharpness - above.sharpness - below.sharpness
    variance = above.sigma**2 + below.sigma**2
    noise = math.sqrt(variance + 4 * middle.sigma**2)
    if task.bend is not None and abs(bend - task.bend) < _BENT * noise:
        bend = (1 - _FORGET) * bend + _FORGET * task.bend
    if bend < _BENT * noise:
        _widen(turn, task)
        return
    offset = task.step * tilt / (2 * bend)
    sigma = task.step * math.sqrt(variance) / (2 * bend)
    if abs(offset) > _MAX_OFFSET * task.step:
        _search(turn, _lost(turn, task))
        return
    if bend > 4 * _BENT * noise and task.step > turn.options.hold.probe_step:
        task = msgspec.structs.replace(task, bend=None, step=task.step / 2)
    else:
        task = msgspec.structs.replace(task, bend=bend)
    _settle(turn, task, offset, sigma)


def _widen(turn: Turn, task: Follow) -> None:
    """A pair did not tell: take a wider one, or search."""
    if task.step >= _MAX_WIDER * turn.options.hold.probe_step:
        _search(turn, _lost(turn, task))
    else:
        _probe(turn, msgspec.structs.replace(task, step=2 * task.step, bend=None))


def _lost(turn: Turn, task: Follow) -> Follow:
    return msgspec.structs.replace(task, search_frames=turn.options.hold.search_frames)


def _settle(turn: Turn, task: Follow, offset: float, sigma: float) -> None:
    """Follow focus by an offset, in half depths of field, if that is worth a move."""
    options, autofocus_options = turn.options.hold, turn.options.autofocus
    often, seldom = options.probe_every_frames, options.probe_every_frames_max
    rate, move = task.rate / 2, 0.0
    if abs(offset) > task.step:
        # A jump, not drift, and further than the pair reached: look again soon.
        pause, rate, move = options.average_frames, task.rate, offset
    elif abs(offset) > max(options.deadband, autofocus_options.significance * sigma):
        pause, rate = max(often, task.pause // 2), (task.rate + offset / task.waited) / 2
        move = offset + max(-_MAX_LEAD, min(_MAX_LEAD, rate * pause / 2))
    else:
        pause = max(often, min(seldom, 2 * task.pause))
    if move:
        turn.tell("hold_corrected", f"focus followed by {move * task.half_depth_m * 1e6:+.2f} µm")
    target_m = _centre_m(task) + move * task.half_depth_m
    optics = msgspec.structs.replace(task.home.optics, working_distance_m=target_m)
    turn.set_task(
        msgspec.structs.replace(
            task,
            home=msgspec.structs.replace(task.home, optics=optics),
            rest=(),
            reference=None,
            waited=0,
            pause=pause,
            pair=None,
            rate=rate,
        )
    )
    turn.go(target_m)


def _centre_m(task: Follow) -> float:
    return task.home.optics.working_distance_m
