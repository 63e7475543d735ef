"""What an operator may ask for on the page, and the action or request it stands for."""

from typing import Literal

import msgspec

from semagent.console.facts import Board
from semagent.errors import UNREADABLE
from semagent.lengths import show_distance
from semagent.types import (
    Action,
    Arm,
    Cancel,
    Decline,
    Disarm,
    Mode,
    Note,
    Request,
    SetMode,
    SetStigmator,
    SetWorkingDistance,
    StartAutofocus,
    Stop,
)

_PROPOSAL_FRAMES = 100


class WishRefusedError(Exception):
    """What was asked for cannot be put into an action; the message says why."""


class _Wish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base: anything the page does not define is an error."""


class WishArm(_Wish, frozen=True, tag="arm"):
    """Let commands through the gate."""


class WishDisarm(_Wish, frozen=True, tag="disarm"):
    """Refuse every further command."""


class WishStop(_Wish, frozen=True, tag="stop"):
    """End what is going on at once."""


class WishMode(_Wish, frozen=True, kw_only=True, tag="mode"):
    """Change how much the agent may do."""

    mode: Mode


class WishFocus(_Wish, frozen=True, kw_only=True, tag="focus"):
    """Focus once, and correct the stigmators too if ``stigmation``."""

    stigmation: bool


class WishCancel(_Wish, frozen=True, tag="cancel"):
    """Give up what is going on and put things back."""


class WishNudge(_Wish, frozen=True, kw_only=True, tag="nudge"):
    """Move one axis by a little; metres, or fractions of the stigmator's range."""

    axis: Literal["working_distance", "stigmator_x", "stigmator_y"]
    by: float


class WishAccept(_Wish, frozen=True, kw_only=True, tag="accept"):
    """Go where the agent proposes; names the place, so that nothing newer is accepted unseen."""

    working_distance_m: float


class WishDecline(_Wish, frozen=True, kw_only=True, tag="decline"):
    """Do not go where the agent proposes, nor hear of it again."""

    working_distance_m: float


class WishNote(_Wish, frozen=True, kw_only=True, tag="note"):
    """A remark for the record."""

    text: str


class WishMark(_Wish, frozen=True, kw_only=True, tag="mark"):
    """A remark on one frame, for the record."""

    sequence: int
    text: str = ""


Wish = (
    WishArm
    | WishDisarm
    | WishStop
    | WishMode
    | WishFocus
    | WishCancel
    | WishNudge
    | WishAccept
    | WishDecline
    | WishNote
    | WishMark
)

_decoder: msgspec.json.Decoder[Wish] = msgspec.json.Decoder(Wish)
_LONGEST_TEXT = 2000


def parse_wish(body: bytes) -> Wish:
    """Read a wish.

    Raises:
        WishRefusedError: it is none.
    """
    try:
        return _decoder.decode(body)
    except UNREADABLE as error:
        raise WishRefusedError(f"not understood: {error}") from error


def to_command(wish: Wish, board: Board) -> Action | None:
    """The action a wish stands for; ``None`` if it is a request.

    Raises:
        WishRefusedError: nobody knows from where to nudge, or the proposal no longer stands.
    """
    match wish:
        case WishArm():
            return Arm()
        case WishDisarm():
            return Disarm(reason="by hand, in the console")
        case WishStop():
            return Stop()
        case WishNudge():
            return _nudge(wish, board)
        case WishAccept(working_distance_m=value_m):
            return _accept(value_m, board)
    return None


def to_request(wish: Wish) -> Request:
    """The request a wish stands for that is not a command.

    Raises:
        WishRefusedError: a remark without words, or with far too many.
    """
    match wish:
        case WishMode(mode=mode):
            return SetMode(mode=mode)
        case WishFocus(stigmation=stigmation):
            return StartAutofocus(stigmation=stigmation)
        case WishCancel():
            return Cancel(reason="cancelled by the operator in the console")
        case WishDecline(working_distance_m=value_m):
            return Decline(working_distance_m=value_m)
        case WishMark(sequence=sequence, text=text):
            return Note(text=_text(f"mark at frame {sequence}" + (f": {text}" if text else "")))
        case WishNote(text=text):
            return Note(text=_text(text))
    raise WishRefusedError(f"{type(wish).__name__} is not a request")


def _text(text: str) -> str:
    if not text.strip():
        raise WishRefusedError("a note needs words")
    if len(text) > _LONGEST_TEXT:
        raise WishRefusedError(f"a note of {len(text)} characters; {_LONGEST_TEXT} are allowed")
    return text.strip()


def _nudge(wish: WishNudge, board: Board) -> Action:
    optics = board.optics
    if optics is None:
        raise WishRefusedError("there is no frame yet, so nobody knows from where to move")
    if wish.axis == "working_distance":
        return SetWorkingDistance(working_distance_m=optics.working_distance_m + wish.by)
    x, y = optics.stigmator_x, optics.stigmator_y
    if x is None or y is None:
        raise WishRefusedError("this microscope does not report its stigmators")
    return (
        SetStigmator(x=x + wish.by, y=y)
        if wish.axis == "stigmator_x"
        else SetStigmator(x=x, y=y + wish.by)
    )


def _accept(value_m: float, board: Board) -> Action:
    intent, header = board.intent, board.header
    if intent is None or intent.proposal_m is None or intent.basis is None or header is None:
        raise WishRefusedError("the agent proposes nothing any more")
    if intent.basis.settings_rev != header.settings_rev:
        raise WishRefusedError("scan, beam energy, magnification or detector have changed since")
    if header.sequence - intent.basis.sequence > _PROPOSAL_FRAMES:
        raise WishRefusedError(
            f"the proposal rests on frame {intent.basis.sequence}, more than {_PROPOSAL_FRAMES} "
            "frames ago"
        )
    half_depth_m = board.half_depth_m or 0.0
    if abs(intent.proposal_m - value_m) > half_depth_m:
        raise WishRefusedError(
            f"the proposal has moved on to {show_distance(intent.proposal_m)}; look again"
        )
    return SetWorkingDistance(working_distance_m=value_m)
