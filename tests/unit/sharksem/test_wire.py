"""SharkSEM's bytes, written out by hand, and frames from packets that misbehave."""

import numpy as np
import pytest

from semagent.errors import DisconnectedError, MicroscopeError
from semagent_drivers.sharksem import wire
from semagent_drivers.sharksem.describe import property_map
from semagent_drivers.sharksem.frames import Assembly


def test_a_message_byte_for_byte():
    assert wire.message("SetWD", 8.5) == (
        b"SetWD\0\0\0\0\0\0\0\0\0\0\0"  # 16 bytes of name
        b"\x08\0\0\0"  # size of the body
        b"\0\0\0\0\0\0\0\0\0\0\0\0"  # identifier, flags, queue, reserved
        b"\x04\0\0\0"  # size of the text
        b"8.5\0"
    )
    assert wire.message("IsBusy", 1 << 10)[32:] == b"\0\x04\0\0"
    assert wire.message("X", -1)[32:] == b"\xff\xff\xff\xff"


@pytest.mark.parametrize(("text", "padded"), [("", 4), ("abc", 4), ("abcd", 8), ("abcdefg", 8)])
def test_text_ends_with_a_nul_and_fills_words(text, padded):
    body = wire.message("X", text)[32:]
    assert body[:4] == padded.to_bytes(4, "little")
    assert len(body) == 4 + padded
    assert body[-1] == 0
    assert wire.Body("X", body).text() == text


def test_text_that_is_not_padded_is_read_to_its_word():
    body = wire.Body("X", b"\x03\0\0\0" + b"1.5" + b"\0" + b"\x02\0\0\0" + b"25")
    assert body.numbers() == (1.5, 25.0)


@pytest.mark.parametrize("value", [8.02, 1e-5, -37.5, 0.1 + 0.2])
def test_a_float_survives(value):
    assert wire.Body("X", wire.message("X", value)[32:]).number() == value


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "answered GetWD with 0 bytes, which is too short"),
        (b"\x08\0\0\0" + b"8.5\0", "too short"),
        (wire.message("GetWD", "nan")[32:], "nan for a number"),
        (wire.message("GetWD", "busy")[32:], "'busy' for a number"),
    ],
)
def test_an_answer_that_is_none_is_an_error(data, says):
    with pytest.raises(MicroscopeError, match=says):
        wire.Body("GetWD", data).number()


def test_another_protocol_is_noticed():
    with pytest.raises(DisconnectedError, match="not SharkSEM"):
        wire.read_header(b"HTTP/1.1 400 Bad Request\r\nServer")


def packet(first, values, *, frame_id=7, channel=0, bits=8):
    return wire.Packet(frame_id, channel, first, bits, bytes(values))


@pytest.fixture
def assembly():
    return Assembly((2, 4), 8, 0, {7})


def test_packets_go_where_their_index_says_in_any_order_and_as_often_as_they_like(assembly):
    assembly.add(packet(4, [5, 6, 7, 8]))
    assembly.add(packet(0, [9, 9]))
    assembly.add(packet(0, [1, 2, 3, 4]))
    assembly.add(packet(4, [5, 6, 7, 8]))
    assert assembly.missing == 0
    assert assembly.pixels.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_a_lost_packet_leaves_a_hole_that_is_counted(assembly):
    assembly.add(packet(0, [1, 2, 3]))
    assembly.add(packet(6, [7, 8]))
    assert assembly.ended
    assert assembly.missing == 3


def test_packets_of_other_frames_and_channels_are_not_pixels_of_this_one(assembly):
    assembly.add(packet(0, [1, 2, 3, 4], frame_id=6))
    assembly.add(packet(0, [1, 2, 3, 4], channel=1))
    assert not assembly.begun


@pytest.mark.parametrize(
    "wrong", [packet(6, [1, 2, 3, 4]), packet(0, [1, 2], bits=16), packet(0, [], bits=32)]
)
def test_pixels_that_do_not_fit_are_an_error(assembly, wrong):
    with pytest.raises(MicroscopeError, match="came"):
        assembly.add(wrong)


def test_sixteen_bits_are_little_endian():
    assembly = Assembly((1, 2), 16, 0, {7})
    assembly.add(packet(0, [0x34, 0x12, 0xFF, 0xFF], bits=16))
    assert assembly.pixels.dtype == np.uint16
    assert assembly.pixels.tolist() == [[0x1234, 0xFFFF]]


def test_a_packet_goes_over_the_wire():
    data = wire.data_message(packet(12, [1, 2, 3]))
    header = wire.read_header(data[:32])
    assert header == ("ScData", 23)
    assert wire.read_packet(data[32:]) == packet(12, [1, 2, 3])
    with pytest.raises(MicroscopeError, match="3 bytes of pixels has only 2"):
        wire.read_packet(data[32:-1])
    with pytest.raises(MicroscopeError, match="only 10 bytes"):
        wire.read_packet(data[32:42])


def test_property_maps():
    assert property_map("det.0.name=SE\r\ndet.0.x=1\ndet.12.name=In-Beam SE\n") == {
        0: {"name": "SE", "x": "1"},
        12: {"name": "In-Beam SE"},
    }
