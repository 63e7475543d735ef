"""How the gate says no."""

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """Fixed words for programs; `Refusal.reason` is for people."""

    # The gate is shut, or shuts now and stays shut until a person arms again.
    DISARMED = "disarmed"
    HEARTBEAT_LOST = "heartbeat_lost"
    MOVED_BY_HAND = "moved_by_hand"
    READBACK_DIFFERS = "readback_differs"
    REMOTE_GATE = "remote_gate"

    # The command does not qualify.
    NOT_OPERATOR = "not_operator"
    EXPIRED = "expired"
    STATE_UNKNOWN = "state_unknown"
    NO_BASIS = "no_basis"
    FRAME_UNKNOWN = "frame_unknown"
    STALE = "stale"
    SETTINGS_CHANGED = "settings_changed"
    OPERATOR_FIRST = "operator_first"

    # What it asks for lies outside the envelope.
    LOCKED = "locked"
    OUT_OF_RANGE = "out_of_range"
    POSITION_UNKNOWN = "position_unknown"
    STEP_TOO_LARGE = "step_too_large"
    TRAVEL_USED_UP = "travel_used_up"
    KEEP_OUT = "keep_out"
    UNBLANK = "unblank"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a command may not pass, or why the gate has disarmed itself.

    Attributes:
        code: fixed word; from the gate itself always a `Code`.
        reason: sentence with value, unit, limit and what to do.
    """

    code: str
    reason: str
