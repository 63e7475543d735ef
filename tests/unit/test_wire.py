"""The wire: what goes in comes out, and what is wrong is refused before it is looked at."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from semagent import wire
from semagent.channels import CHANNELS, documentation_table
from semagent.errors import WireError, WireVersionError
from semagent.types import (
    Event,
    FrameHeader,
    GateStatus,
    Optics,
    Scan,
    SetWorkingDistance,
    StagePosition,
)
from semagent.wire import Message


def header(width: int, height: int, **changes: object) -> FrameHeader:
    value = FrameHeader(
        sequence=7,
        monotonic_ns=2**62 + 1,
        wall_ns=1_790_000_000_123_456_789,
        detector="SE2",
        scan=Scan(width_px=width, height_px=height, bit_depth=8, pixel_size_m=1e-8),
        optics=Optics(working_distance_m=0.00512345678901234, stigmator_x=float("nan")),
        stage=StagePosition(x_m=-0.0),
        settings_rev=3,
    )
    return msgspec.structs.replace(value, **changes)


def received(message: Message) -> list[memoryview]:
    return [memoryview(bytes(part)) for part in wire.encode(message)]


@given(
    hnp.arrays(
        dtype=st.sampled_from([np.uint8, np.uint16]),
        shape=hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
    )
)
def test_a_frame_survives_bit_for_bit(pixels):
    sent = Message(
        topic="frame",
        sender="acquire",
        number=1,
        value=header(pixels.shape[1], pixels.shape[0]),
        pixels=pixels,
    )
    got = wire.decode(received(sent))
    assert got.pixels.dtype == pixels.dtype
    assert np.array_equal(got.pixels, pixels)
    assert got.value.monotonic_ns == 2**62 + 1
    assert got.value.wall_ns == 1_790_000_000_123_456_789
    assert got.value.optics.working_distance_m == 0.00512345678901234
    assert np.isnan(got.value.optics.stigmator_x)


def test_received_pixels_cannot_be_written_to():
    pixels = np.zeros((4, 5), np.uint8)
    message = Message(topic="frame", sender="acquire", number=1, value=header(5, 4), pixels=pixels)
    got = wire.decode([memoryview(bytearray(part)) for part in wire.encode(message)])
    with pytest.raises(ValueError, match="read-only"):
        got.pixels[0, 0] = 1


def test_pixels_are_sent_without_a_copy():
    pixels = np.zeros((4, 5), np.uint8)
    message = Message(topic="frame", sender="acquire", number=1, value=header(5, 4), pixels=pixels)
    assert np.shares_memory(np.frombuffer(wire.encode(message)[3], np.uint8), pixels)


def gate_message() -> Message:
    status = GateStatus(armed=False, reason="at start", monotonic_ns=1)
    return Message(topic="gate", sender="acquire", number=2, value=status)


def test_a_message_without_pixels_has_three_parts():
    parts = wire.encode(gate_message())
    assert len(parts) == 3
    assert wire.decode(parts) == gate_message()


def test_another_major_version_is_refused_by_name():
    parts = wire.encode(gate_message())
    parts[1] = b"sem2"
    with pytest.raises(WireVersionError, match="sem2"):
        wire.decode(parts)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda parts: parts[:2], "2 parts"),
        (lambda parts: [b"weather", *parts[1:]], "weather"),
        (lambda parts: [b"\xff\xfe", *parts[1:]], "unknown channel"),
        (lambda parts: [parts[0], parts[1], b"\x01\x02"], "frame"),
        (lambda parts: [*parts[:3], bytes(parts[3])[:-1]], "19 bytes of pixels for 4 x 5 u1"),
        (lambda parts: parts[:3], "shape without pixels"),
        (lambda parts: [b"gate", *parts[1:]], "gate"),
        (lambda parts: [*parts[:2], bytes(parts[2]).replace(b"acq", b"\xff\xfe\xfd")], "utf-8"),
        (lambda parts: [*parts[:2], b"\x81\xa1x" + b"\x91" * 60_000 + b"\xc0"], "recursion"),
    ],
)
def test_what_contradicts_itself_is_refused(change, match):
    message = Message(
        topic="frame",
        sender="acquire",
        number=1,
        value=header(5, 4),
        pixels=np.zeros((4, 5), np.uint8),
    )
    with pytest.raises(WireError, match=match):
        wire.decode(change(wire.encode(message)))


@pytest.mark.parametrize("shape", [(-4, -5), (0, 0), (2**31, 2**31)])
def test_a_shape_from_outside_is_not_believed(shape):
    parts = wire.encode(
        Message(
            topic="frame",
            sender="acquire",
            number=1,
            value=header(5, 4),
            pixels=np.zeros((4, 5), np.uint8),
        )
    )
    raw = msgspec.msgpack.decode(parts[2])
    raw["shape"] = shape
    parts[2] = msgspec.msgpack.encode(raw)
    with pytest.raises(WireError, match="bytes of pixels"):
        wire.decode(parts)


def test_an_action_keeps_its_type():
    encoded = msgspec.msgpack.encode(SetWorkingDistance(working_distance_m=0.005))
    assert msgspec.msgpack.decode(encoded)["type"] == "set_working_distance"


def test_event_data_is_plain():
    event = Event(kind="k", role="r", message="m", monotonic_ns=1, wall_ns=2, data={"a": [1, None]})
    sent = Message(topic="event", sender="infer", number=1, value=event)
    assert wire.decode(wire.encode(sent)).value.data == {"a": [1, None]}


def test_the_table_names_every_channel():
    table = documentation_table()
    assert all(f"`{name}`" in table for name in CHANNELS)


def test_the_documentation_shows_the_table_as_it_is():
    text = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- channels -->\n")[2].partition("\n<!-- /channels -->")[0]
    assert shown == documentation_table()
