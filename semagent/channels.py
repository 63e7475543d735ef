"""The one table of everything that is said between the roles.

Delivery, recording, liveness and the table in ``docs/wire.md`` derive from it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from semagent.types import (
    Command,
    Event,
    FocusBelief,
    FocusResult,
    FrameAnalysis,
    FrameHeader,
    GateStatus,
    Heard,
    Heartbeat,
    Intent,
    Reply,
    Request,
)


class Role(StrEnum):
    """Who speaks. Each is a process of its own, or all share one."""

    ACQUIRE = "acquire"
    INFER = "infer"
    RESTORE = "restore"
    CONTROL = "control"
    RECORD = "record"
    CONSOLE = "console"
    SUPERVISOR = "supervisor"
    """The process that starts the others, on the operator's terminal."""


class Delivery(StrEnum):
    """What happens when the reader is slower than the writer."""

    LATEST = "latest"
    """The reader sees the newest message; what it skipped is counted."""

    LOSSLESS = "lossless"
    """Every message arrives, in order; a hole in the numbering is counted and shown."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One kind of message.

    Attributes:
        name: topic on the wire.
        type: type of the value, for the decoder.
        publishers: roles that say it.
        delivery: what happens when the reader is slow.
        recorded: is handed to the session record before anybody else sees it.
        rate_hz: how often it comes at least while its role is well, ``None`` if only on occasion.
        about: one line for the documentation.
    """

    name: str
    type: Any
    publishers: tuple[Role, ...]
    delivery: Delivery
    recorded: bool
    rate_hz: float | None
    about: str


HEARTBEAT_RATE_HZ = 10.0

_EVERYONE = (Role.ACQUIRE, Role.INFER, Role.RESTORE, Role.CONTROL, Role.RECORD)

_TABLE = (
    Channel(
        "frame",
        FrameHeader,
        (Role.ACQUIRE,),
        Delivery.LATEST,
        recorded=True,
        rate_hz=None,
        about="a raw frame, with its pixels",
    ),
    Channel(
        "analysis",
        FrameAnalysis,
        (Role.INFER,),
        Delivery.LATEST,
        recorded=True,
        rate_hz=None,
        about="what the engine says of a frame, with restored pixels if there are any",
    ),
    Channel(
        "restored",
        FrameAnalysis,
        (Role.RESTORE,),
        Delivery.LATEST,
        recorded=True,
        rate_hz=None,
        about="a restored frame for people to look at, from an engine that control does not hear",
    ),
    Channel(
        "belief",
        FocusBelief,
        (Role.CONTROL,),
        Delivery.LATEST,
        recorded=True,
        rate_hz=None,
        about="where focus is thought to be",
    ),
    Channel(
        "intent",
        Intent,
        (Role.CONTROL,),
        Delivery.LATEST,
        recorded=True,
        rate_hz=None,
        about="what control is doing and why, whenever that changes and about once a second",
    ),
    Channel(
        "result",
        FocusResult,
        (Role.CONTROL,),
        Delivery.LOSSLESS,
        recorded=True,
        rate_hz=None,
        about="how an autofocus ended",
    ),
    Channel(
        "request",
        Request,
        (Role.CONTROL,),
        Delivery.LOSSLESS,
        recorded=True,
        rate_hz=None,
        about="what was asked of the control role, in the order it took it up",
    ),
    Channel(
        "heard",
        Heard,
        (Role.CONTROL,),
        Delivery.LOSSLESS,
        recorded=True,
        rate_hz=None,
        about="what the control role took up, in its order, so that a session can be replayed",
    ),
    Channel(
        "command",
        Command,
        (Role.ACQUIRE,),
        Delivery.LOSSLESS,
        recorded=True,
        rate_hz=None,
        about="what was asked of the acquire role, in the order it took it up",
    ),
    Channel(
        "reply",
        Reply,
        (Role.ACQUIRE,),
        Delivery.LOSSLESS,
        recorded=True,
        rate_hz=None,
        about="what became of a command, with the read-back",
    ),
    Channel(
        "gate",
        GateStatus,
        (Role.ACQUIRE,),
        Delivery.LATEST,
        recorded=True,
        rate_hz=None,
        about="the safety gate, whenever it changes and about once a second",
    ),
    Channel(
        "event",
        Event,
        _EVERYONE,
        Delivery.LOSSLESS,
        recorded=True,
        rate_hz=None,
        about="something happened",
    ),
    Channel(
        "heartbeat",
        Heartbeat,
        (*_EVERYONE, Role.CONSOLE),
        Delivery.LATEST,
        recorded=False,
        rate_hz=HEARTBEAT_RATE_HZ,
        about="a role is alive, and since when it has been busy with one thing",
    ),
)

CHANNELS: dict[str, Channel] = {channel.name: channel for channel in _TABLE}
if len(CHANNELS) != len(_TABLE):
    raise ImportError("two channels share a name")


def documentation_table() -> str:
    """The table as Markdown, for ``docs/wire.md``."""
    rows = [
        "| topic | value | said by | delivery | recorded | rate | about |",
        "|---|---|---|---|---|---|---|",
    ]
    for channel in CHANNELS.values():
        value = getattr(channel.type, "__name__", "Request")
        by = "everyone" if channel.publishers is _EVERYONE else ", ".join(channel.publishers)
        rate = "on occasion" if channel.rate_hz is None else f"{channel.rate_hz:g} Hz"
        rows.append(
            f"| `{channel.name}` | `{value}` | {by} | {channel.delivery} "
            f"| {'yes' if channel.recorded else 'no'} | {rate} | {channel.about} |"
        )
    return "\n".join(rows)
