"""A frame out of packets that repeat, get lost, or belong to another frame."""

import time
from collections.abc import Collection

import numpy as np

from semagent.errors import MicroscopeError, MicroscopeTimeoutError
from semagent.types import Pixels
from semagent_drivers.adapter import Wait
from semagent_drivers.sharksem.link import SharkLink
from semagent_drivers.sharksem.wire import Packet

_REPEAT_S = 0.5
"""How long a hole may wait to be filled once the last pixel is there."""


class Assembly:
    """A frame that fills.

    Args:
        shape: (height, width).
        bits: of a pixel, 8 or 16.
        channel: whose packets count.
        frame_ids: numbers of the frame; packets with another one are late ones of another scan.
    """

    def __init__(
        self, shape: tuple[int, int], bits: int, channel: int, frame_ids: Collection[int]
    ) -> None:
        self._dtype = np.dtype(np.uint8) if bits == 8 else np.dtype("<u2")
        self._pixels = np.zeros(shape[0] * shape[1], self._dtype)
        self._there = np.zeros(self._pixels.size, np.bool_)
        self._shape = shape
        self._bits, self._channel, self._frame_ids = bits, channel, frame_ids
        self.missing = self._pixels.size

    @property
    def begun(self) -> bool:
        """Whether anything has come."""
        return self.missing < self._pixels.size

    @property
    def ended(self) -> bool:
        """Whether the last pixel has come."""
        return bool(self._there[-1])

    @property
    def pixels(self) -> Pixels:
        """The frame; pixels that never came are 0."""
        native = self._pixels.reshape(self._shape)
        return native if self._bits == 8 else native.astype(np.uint16, copy=False)

    def add(self, packet: Packet) -> None:
        """Take a packet into account: it belongs where its index says, however often it comes.

        Raises:
            MicroscopeError: its pixels are of another depth, or lie outside the frame.
        """
        if packet.channel != self._channel or packet.frame_id not in self._frame_ids:
            return
        if packet.bits != self._bits or len(packet.data) % self._dtype.itemsize:
            raise MicroscopeError(
                f"pixels of {packet.bits} bits came where {self._bits} were asked"
            )
        values = np.frombuffer(packet.data, self._dtype)
        stop = packet.first + len(values)
        if stop > self._pixels.size:
            raise MicroscopeError(
                f"pixels {packet.first} to {stop} came for a frame of {self._pixels.size}"
            )
        here = slice(packet.first, stop)
        self.missing -= int(np.count_nonzero(~self._there[here]))
        self._pixels[here] = values
        self._there[here] = True


def receive(
    link: SharkLink, assembly: Assembly, *, frame_s: float, silence_s: float, wait: Wait
) -> None:
    """Fill a frame, until it is whole or nothing more comes.

    Args:
        link: where packets come from.
        assembly: the frame; look at ``missing`` afterwards.
        frame_s: time the scan takes, during which silence means nothing.
        silence_s: longest silence after that.
        wait: ends it early.

    Raises:
        AcquisitionStoppedError: ``wait`` says so.
        MicroscopeTimeoutError: not a single pixel came, or ``wait`` is over.
    """
    end_s = time.perf_counter() + frame_s
    while assembly.missing:
        wait.check("whole frame")
        left_s = max(0.0, end_s - time.perf_counter())
        patience_s = _REPEAT_S if assembly.ended else left_s + silence_s
        packet = link.packet(min(patience_s, wait.left_s), wait.stopped)
        if packet is not None:
            assembly.add(packet)
            continue
        wait.check("whole frame")
        if not assembly.begun:
            raise MicroscopeTimeoutError(f"not one pixel came for {patience_s:.3g} s")
        return
