"""Frames as they go to a browser.

A packet is the length of its head (four bytes, little-endian), the head (JSON, padded with spaces
so that what follows begins at a multiple of eight), and the image. ``lossless`` sends the pixels
as they are: two-byte pixels keep their depth, and the browser has nothing to decode. ``compact`` is
a JPEG for slow links, of the specimen's grey range stretched to a byte.
"""

from typing import Any, Literal, NamedTuple

import cv2
import msgspec
import numpy as np

from semagent.types import FrameAnalysis, FrameHeader, Pixels
from semagent.wire import Message, encode_pixels

Kind = Literal["raw", "restored"]
Coding = Literal["lossless", "compact"]
_JPEG_QUALITY = 85
_STRETCH = (0.05, 99.95)
_LENGTH_BYTES = 4
_ALIGN = 8


class _Image(NamedTuple):
    """An image as it is sent.

    Attributes:
        limits: grey values of its darkest and its brightest level.
    """

    form: Literal["u1", "u2", "jpeg"]
    limits: tuple[int, int]
    body: Any


class Packer:
    """Makes packets; a JPEG is made once, however many browsers look at it."""

    def __init__(self) -> None:
        self._made: dict[Kind, tuple[Message, _Image]] = {}

    def pack(self, message: Message, kind: Kind, coding: Coding, **more: Any) -> bytes:
        """Put a frame and what is known of it into one message for a browser.

        Args:
            message: of the channel ``frame``, or of ``analysis`` with restored pixels.
            kind: which of the two.
            coding: see the module.
            more: what else goes into the head.
        """
        pixels: Pixels = message.pixels
        header: FrameHeader = message.value if kind == "raw" else message.value.header
        image = _lossless(pixels) if coding == "lossless" else self._compact(message, kind)
        return _packet(header, pixels, image, kind, more)

    def _compact(self, message: Message, kind: Kind) -> _Image:
        last = self._made.get(kind)
        if last is None or last[0] is not message:
            last = self._made[kind] = (message, _jpeg(message.pixels))
        return last[1]


def pack_recorded(
    header: FrameHeader, pixels: Pixels, kind: Kind, coding: Coding, **more: Any
) -> bytes:
    """A packet of a frame that lies on the disk; see `Packer.pack`."""
    image = _lossless(pixels) if coding == "lossless" else _jpeg(pixels)
    return _packet(header, pixels, image, kind, more)


def figures_of(analysis: FrameAnalysis) -> dict[str, Any]:
    """What goes along with a restored frame."""
    names = (
        "engine",
        "consistency",
        "trustworthy",
        "empty",
        "consistency_map",
        "expert_weights",
        "expert_map",
    )
    return {name: getattr(analysis, name) for name in names}


def _packet(
    header: FrameHeader, pixels: Pixels, image: _Image, kind: Kind, more: dict[str, Any]
) -> bytes:
    head = msgspec.json.encode(
        {
            "kind": kind,
            "form": image.form,
            "limits": image.limits,
            "height": pixels.shape[0],
            "width": pixels.shape[1],
            "header": header,
            "exposed_ms": header.monotonic_ns / 1e6,
            **more,
        }
    )
    head += b" " * (-(_LENGTH_BYTES + len(head)) % _ALIGN)
    return b"".join((len(head).to_bytes(_LENGTH_BYTES, "little"), head, image.body))


def _lossless(pixels: Pixels) -> _Image:
    _, form, body = encode_pixels(pixels)
    return _Image(form, (0, int(np.iinfo(pixels.dtype).max)), body)


def _jpeg(pixels: Pixels) -> _Image:
    limits = (0, 255)
    if pixels.dtype == np.uint16:
        low, high = np.percentile(pixels[::4, ::4], _STRETCH)
        limits = (int(low), max(int(high), int(low) + 1))
        scaled = (pixels.astype(np.float32) - limits[0]) * (255.0 / (limits[1] - limits[0]))
        pixels = np.clip(scaled, 0, 255).astype(np.uint8)
    fine, body = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not fine:
        raise ValueError(f"no JPEG of {pixels.shape[1]} x {pixels.shape[0]} pixels could be made")
    return _Image("jpeg", limits, body.tobytes())
