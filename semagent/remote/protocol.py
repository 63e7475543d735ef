"""What the agent's machine and the microscope PC say to each other.

A question is ``[version, body]``, an answer ``[version, body, pixels?]``: the body is
MessagePack, the pixels are as in `semagent.wire`. The client's DEALER speaks to the server's
ROUTER. One client at a time holds the microscope, from its `Hello` to its `Bye` or until it
falls silent; its `session` is in everything it asks, so that nothing it said before a break in
the link can be taken for something it says after.
"""

from typing import Any

import msgspec

from semagent.errors import (
    UNREADABLE,
    AcquisitionStoppedError,
    CommandRefusedError,
    DisconnectedError,
    GateRefusedError,
    MicroscopeError,
    MicroscopeTimeoutError,
    NotReadyError,
    WireError,
    WireVersionError,
)
from semagent.types import (
    Capabilities,
    Frame,
    FrameHeader,
    MicroscopeAction,
    MicroscopeState,
    Pixels,
    Value,
)
from semagent.wire import PixelType, decode_pixels, encode_pixels

VERSION = b"semr1"


# -- questions --------------------------------------------------------------------------------


class Hello(Value, frozen=True, kw_only=True, tag="hello"):
    """Ask for the microscope. ``who`` is shown to people on the other side."""

    who: str


class Ping(Value, frozen=True, kw_only=True, tag="ping"):
    """A sign of life, and a look at the other machine's clock. Answered at any time."""


class ReadState(Value, frozen=True, kw_only=True, tag="read_state"):
    """`Microscope.read_state`."""


class Acquire(Value, frozen=True, kw_only=True, tag="acquire"):
    """`Microscope.acquire`."""

    timeout_s: float


class Apply(Value, frozen=True, kw_only=True, tag="apply"):
    """`Microscope.apply`."""

    action: MicroscopeAction


class StopNow(Value, frozen=True, kw_only=True, tag="stop_now"):
    """`Microscope.stop`: ends what this client has asked for so far. Has no answer."""


class Bye(Value, frozen=True, kw_only=True, tag="bye"):
    """Let go of the microscope."""


Work = ReadState | Acquire | Apply
"""What takes the microscope's own time, one after the other."""


class Question(Value, frozen=True, kw_only=True):
    """Something the client asks.

    Attributes:
        id: unique in a connection; the answer carries it.
        session: as in `Welcome`; empty in `Hello`.
        expires_ns: moment on the *server's* monotonic clock from which nobody waits for the
            answer any more. Work is then not begun, or stopped.
    """

    id: int
    ask: Hello | Ping | ReadState | Acquire | Apply | StopNow | Bye
    session: str = ""
    expires_ns: int | None = None


# -- answers ----------------------------------------------------------------------------------


class Welcome(Value, frozen=True, kw_only=True, tag="welcome"):
    """The microscope is yours.

    Attributes:
        session: to be named in everything that follows.
        heartbeat_timeout_s: silence after which the server takes the client for lost.
    """

    session: str
    capabilities: Capabilities
    heartbeat_timeout_s: float


class Pong(Value, frozen=True, kw_only=True, tag="pong"):
    """Answer to `Ping`: the server's monotonic clock."""

    monotonic_ns: int


class State(Value, frozen=True, kw_only=True, tag="state"):
    """Answer to `ReadState`."""

    state: MicroscopeState


class Picture(Value, frozen=True, kw_only=True, tag="picture"):
    """Answer to `Acquire`; the pixels come as a part of their own."""

    header: FrameHeader
    shape: tuple[int, int]
    dtype: PixelType


class Done(Value, frozen=True, kw_only=True, tag="done"):
    """Answer to `Apply` and `Bye`."""


class Failure(Value, frozen=True, kw_only=True, tag="failure"):
    """What went wrong: a fixed word for programs and a sentence for people."""

    code: str
    message: str


class Answer(Value, frozen=True, kw_only=True):
    """The server's answer to the question of the same id."""

    id: int
    result: Welcome | Pong | State | Picture | Done | Failure


# -- errors -----------------------------------------------------------------------------------

_ERRORS: dict[str, type[MicroscopeError]] = {
    "refused": CommandRefusedError,
    "gate": GateRefusedError,
    "not_ready": NotReadyError,
    "stopped": AcquisitionStoppedError,
    "timeout": MicroscopeTimeoutError,
    "disconnected": DisconnectedError,
    "failed": MicroscopeError,
}


def to_failure(error: MicroscopeError) -> Failure:
    """Write an error down; of a class the protocol does not know, the nearest base it does."""
    codes = {kind: code for code, kind in _ERRORS.items()}
    nearest = next(kind for kind in type(error).__mro__ if kind in codes)
    return Failure(code=codes[nearest], message=str(error))


def to_error(failure: Failure) -> MicroscopeError:
    """The error a failure was written from."""
    return _ERRORS.get(failure.code, MicroscopeError)(failure.message)


# -- bytes ------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()
_questions = msgspec.msgpack.Decoder(Question)
_answers = msgspec.msgpack.Decoder(Answer)


def encode_question(question: Question) -> list[Any]:
    """The parts to send."""
    return [VERSION, _encoder.encode(question)]


def decode_question(parts: list[Any]) -> Question:
    """Read received parts.

    Raises:
        WireVersionError: the client speaks another version.
        WireError: the message makes no sense.
    """
    _check(parts, (2,))
    try:
        return _questions.decode(parts[1])
    except UNREADABLE as error:
        raise WireError(f"a question that cannot be read: {error}") from error


def encode_answer(answer: Answer, part: memoryview | None = None) -> list[Any]:
    """The parts to send; ``part`` is the pixels of a `Picture`."""
    body = [VERSION, _encoder.encode(answer)]
    return body if part is None else [*body, part]


def decode_answer(parts: list[Any]) -> tuple[Answer, Pixels | None]:
    """Read received parts; pixels are not copied.

    Raises:
        WireVersionError: the server speaks another version.
        WireError: the message makes no sense.
    """
    _check(parts, (2, 3))
    try:
        answer = _answers.decode(parts[1])
    except UNREADABLE as error:
        raise WireError(f"an answer that cannot be read: {error}") from error
    picture = answer.result
    if isinstance(picture, Picture) != (len(parts) == 3):
        raise WireError("a picture without pixels, or pixels without a picture")
    if not isinstance(picture, Picture):
        return answer, None
    return answer, decode_pixels(picture.shape, picture.dtype, parts[2])


def picture_of(frame: Frame) -> tuple[Picture, memoryview]:
    """A frame as an answer and the part with its pixels, which are not copied."""
    shape, dtype, part = encode_pixels(frame.pixels)
    return Picture(header=frame.header, shape=shape, dtype=dtype), part


def _check(parts: list[Any], lengths: tuple[int, ...]) -> None:
    version = bytes(parts[0][:16]) if parts else b""
    if version != VERSION:
        raise WireVersionError(
            f"the other side speaks {version!r}, this is {VERSION!r}: install the same release of "
            "semagent on both machines"
        )
    if len(parts) not in lengths:
        raise WireError(f"a message of {len(parts)} parts")
