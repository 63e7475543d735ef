"""The wire ``sem1``: how a value and its pixels become parts of a ZeroMQ message and back.

``[topic, b"sem1", header, pixels?]``: the header is MessagePack, the pixels are raw bytes, rows
first, little-endian. See ``docs/wire.md``.
"""

from typing import Any, Literal

import msgspec
import numpy as np

from semagent.channels import CHANNELS
from semagent.errors import UNREADABLE, WireError, WireVersionError
from semagent.types import Pixels

VERSION = b"sem1"

PixelType = Literal["u1", "u2"]
"""Pixels of one byte, or of two with the lower one first."""

_DTYPES: dict[PixelType, np.dtype[Any]] = {"u1": np.dtype("u1"), "u2": np.dtype("<u2")}


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message as the roles see it.

    Attributes:
        topic: name of the channel.
        sender: role that sent it.
        number: counts the sender's messages on this channel, from 1.
        value: value of the channel's type.
        pixels: pixels that belong to it, (height, width), read-only, or ``None``.
    """

    topic: str
    sender: str
    number: int
    value: Any
    pixels: Any = None


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    sender: str
    number: int
    value: msgspec.Raw
    shape: tuple[int, int] | None = None
    dtype: PixelType | None = None


_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(_Header)
_value_decoders = {
    name: msgspec.msgpack.Decoder(channel.type) for name, channel in CHANNELS.items()
}


def encode(message: Message) -> list[Any]:
    """Turn a message into the parts to send; pixels are not copied."""
    pixels: Pixels | None = message.pixels
    shape, dtype, part = (None, None, None) if pixels is None else encode_pixels(pixels)
    header = _Header(
        sender=message.sender,
        number=message.number,
        value=msgspec.Raw(_encoder.encode(message.value)),
        shape=shape,
        dtype=dtype,
    )
    parts: list[Any] = [message.topic.encode(), VERSION, _encoder.encode(header)]
    return parts if part is None else [*parts, part]


def decode(parts: list[Any]) -> Message:
    """Turn received parts, buffers of any kind, into a message; pixels are not copied.

    Raises:
        WireVersionError: the sender speaks another major version.
        WireError: the message is not of this wire, or its parts contradict each other.
    """
    if len(parts) not in (3, 4):
        raise WireError(f"a message has {len(parts)} parts; the wire has 3 or 4")
    topic = bytes(parts[0]).decode("ascii", "replace")
    version = bytes(parts[1])
    if version != VERSION:
        raise WireVersionError(
            f"peer speaks {version[:16]!r}, this is {VERSION!r}: install the same release on both"
        )
    if topic not in CHANNELS:
        raise WireError(f"unknown channel {topic[:40]!r}")
    try:
        header = _header_decoder.decode(parts[2])
        value = _value_decoders[topic].decode(header.value)
    except UNREADABLE as error:
        raise WireError(f"channel {topic}: {error}") from error
    return Message(
        topic=topic,
        sender=header.sender,
        number=header.number,
        value=value,
        pixels=_pixels(topic, header, parts[3] if len(parts) == 4 else None),
    )


def encode_pixels(pixels: Pixels) -> tuple[tuple[int, int], PixelType, memoryview]:
    """Shape (height, width), type and bytes of ``pixels``; nothing is copied."""
    dtype: PixelType = "u1" if pixels.dtype == np.uint8 else "u2"
    little_endian = np.ascontiguousarray(pixels.astype(_DTYPES[dtype], copy=False))
    return (pixels.shape[0], pixels.shape[1]), dtype, little_endian.data.cast("B")


def decode_pixels(shape: tuple[int, int], dtype: PixelType, part: Any) -> Pixels:
    """A read-only view of shape (height, width) on ``part``, a buffer of any kind.

    Raises:
        WireError: the buffer does not hold exactly that many pixels.
    """
    height, width = shape
    data = memoryview(part).cast("B")
    # Before any view is made: numbers from outside decide how much memory is looked at.
    if height < 1 or width < 1 or data.nbytes != height * width * _DTYPES[dtype].itemsize:
        raise WireError(f"{data.nbytes} bytes of pixels for {height} x {width} {dtype}")
    return np.frombuffer(data.toreadonly(), dtype=_DTYPES[dtype]).reshape(height, width)


def _pixels(topic: str, header: _Header, part: Any) -> Pixels | None:
    if part is None and header.shape is None:
        return None
    if part is None or header.shape is None or header.dtype is None:
        raise WireError(f"channel {topic}: pixels without a shape, or a shape without pixels")
    try:
        return decode_pixels(header.shape, header.dtype, part)
    except WireError as error:
        raise WireError(f"channel {topic}: {error}") from error
