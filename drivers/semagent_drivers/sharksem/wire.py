"""SharkSEM's messages: a 32-byte header, then arguments in multiples of four bytes.

The header is the function's name, padded with NUL to 16 bytes, then little-endian the size of
the body, an identifier, flags, a queue and a reserved word. Integers take four bytes; floats
travel as text, and text as its padded length and at least one NUL.
"""

import math
import struct
from typing import NamedTuple

from semagent.errors import DisconnectedError, MicroscopeError

HEADER = struct.Struct("<16sIIHHI")
DATA = "ScData"
_DATA = struct.Struct("<IIIII")
_LONGEST_BODY = 1 << 28

Argument = int | float | str


class Header(NamedTuple):
    """What a header says."""

    name: str
    body_size: int


class Packet(NamedTuple):
    """Pixels of one frame and channel, from pixel ``first`` on."""

    frame_id: int
    channel: int
    first: int
    bits: int
    data: bytes


def message(name: str, *arguments: Argument) -> bytes:
    """A request or an answer."""
    body = b"".join(map(_encoded, arguments))
    return HEADER.pack(name.encode("ascii"), len(body), 0, 0, 0, 0) + body


def data_message(packet: Packet) -> bytes:
    """A message of the data connection."""
    numbers = (packet.frame_id, packet.channel, packet.first, packet.bits, len(packet.data))
    body = _DATA.pack(*numbers) + packet.data
    return HEADER.pack(DATA.encode("ascii"), len(body), 0, 0, 0, 0) + body


def read_header(data: bytes) -> Header:
    """Read 32 bytes.

    Raises:
        DisconnectedError: they are no header, and where the next one begins is not known.
    """
    name, size, *_ = HEADER.unpack(data)
    if size > _LONGEST_BODY:
        raise DisconnectedError(
            f"the microscope announces a message of {size} bytes: not SharkSEM?"
        )
    return Header(name.partition(b"\0")[0].decode("ascii", "replace"), size)


def read_packet(body: bytes) -> Packet:
    """Read the body of a message called ``ScData``.

    Raises:
        MicroscopeError: it is shorter than it says.
    """
    if len(body) < _DATA.size:
        raise MicroscopeError(f"a packet of pixels has only {len(body)} bytes")
    frame_id, channel, first, bits, size = _DATA.unpack_from(body)
    data = body[_DATA.size : _DATA.size + size]
    if len(data) < size:
        raise MicroscopeError(f"a packet of {size} bytes of pixels has only {len(data)}")
    return Packet(frame_id, channel, first, bits, data)


class Body:
    """The arguments of a message, read one after the other.

    Every reader raises `MicroscopeError` if there is no such argument.
    """

    def __init__(self, name: str, data: bytes) -> None:
        self._name = name
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        """Whether there are more arguments."""
        return self._at < len(self._data)

    def integer(self) -> int:
        """The next 32-bit integer."""
        return int.from_bytes(self._take(4), "little", signed=True)

    def text(self) -> str:
        """The next text."""
        size = int.from_bytes(self._take(4), "little")
        text = self._take(size).partition(b"\0")[0]
        self._at = (self._at + 3) // 4 * 4
        return text.decode("utf-8", "replace")

    def number(self) -> float:
        """The next floating-point number, which has to be finite."""
        text = self.text()
        try:
            value = float(text)
        except ValueError as error:
            raise self._wrong(f"{text!r} for a number") from error
        if not math.isfinite(value):
            raise self._wrong(f"{text} for a number")
        return value

    def numbers(self) -> tuple[float, ...]:
        """All floating-point numbers that are left."""
        found = []
        while self.left:
            found.append(self.number())
        return tuple(found)

    def _take(self, size: int) -> bytes:
        data = self._data[self._at : self._at + size]
        if len(data) < size:
            raise self._wrong(f"{len(self._data)} bytes, which is too short")
        self._at += size
        return data

    def _wrong(self, what: str) -> MicroscopeError:
        return MicroscopeError(f"the microscope answered {self._name} with {what}")


def _encoded(argument: Argument) -> bytes:
    if isinstance(argument, int):
        return struct.pack("<i" if argument < 0 else "<I", argument)
    text = str(argument).encode("utf-8")
    text += b"\0" * (4 - len(text) % 4)
    return struct.pack("<I", len(text)) + text
