"""Questions and answers: what goes in comes out, the rest is refused."""

import math

import msgspec
import numpy as np
import pytest

from semagent import errors
from semagent.errors import (
    CommandRefusedError,
    MicroscopeError,
    MicroscopeTimeoutError,
    WireError,
    WireVersionError,
)
from semagent.remote.protocol import (
    VERSION,
    Acquire,
    Answer,
    Apply,
    Bye,
    Done,
    Failure,
    Hello,
    Picture,
    Ping,
    Pong,
    Question,
    ReadState,
    StopNow,
    decode_answer,
    decode_question,
    encode_answer,
    encode_question,
    picture_of,
    to_error,
    to_failure,
)
from semagent.types import Frame, FrameHeader, Optics, Scan, SetWorkingDistance, StagePosition


def frame(pixels):
    header = FrameHeader(
        sequence=3,
        monotonic_ns=2**62,
        wall_ns=5,
        detector="SE2",
        scan=Scan(width_px=4, height_px=3, bit_depth=8),
        optics=Optics(working_distance_m=0.005),
        stage=StagePosition(),
        settings_rev=1,
    )
    return Frame(header, pixels)


@pytest.mark.parametrize(
    "ask",
    [
        Hello(who="a"),
        Ping(),
        ReadState(),
        Acquire(timeout_s=0.25),
        Apply(action=SetWorkingDistance(working_distance_m=0.0051)),
        StopNow(),
        Bye(),
    ],
    ids=lambda ask: type(ask).__name__,
)
def test_questions_survive(ask):
    question = Question(id=7, ask=ask, session="s", expires_ns=2**62 + 1)
    assert decode_question(encode_question(question)) == question


def test_not_a_number_survives_and_is_the_gates_to_refuse():
    action = SetWorkingDistance(working_distance_m=math.nan)
    question = decode_question(encode_question(Question(id=1, ask=Apply(action=action))))
    assert math.isnan(question.ask.action.working_distance_m)


def test_pixels_are_neither_copied_in_nor_out():
    sent = frame(np.arange(12, dtype=np.uint16).reshape(3, 4))
    picture, part = picture_of(sent)
    assert np.shares_memory(np.frombuffer(part, np.uint16), sent.pixels)
    parts = encode_answer(Answer(id=1, result=picture), part)
    answer, pixels = decode_answer(parts)
    assert answer.result.header == sent.header
    assert np.array_equal(pixels, sent.pixels)
    assert np.shares_memory(pixels, sent.pixels)
    assert not pixels.flags.writeable


def picture_parts(**changes):
    picture, part = picture_of(frame(np.zeros((3, 4), np.uint8)))
    return encode_answer(Answer(id=1, result=msgspec.structs.replace(picture, **changes)), part)


@pytest.mark.parametrize(
    "parts",
    [
        picture_parts(shape=(3, 5)),
        picture_parts(shape=(-3, -4)),
        picture_parts(shape=(0, 0)),
        picture_parts(dtype="u2"),
        picture_parts()[:2],
        [*encode_answer(Answer(id=1, result=Done())), b"pixels"],
        [VERSION],
        [VERSION, b""],
        [VERSION, b"\xc1"],
        [VERSION, msgspec.msgpack.encode({"id": "one"})],
        [*picture_parts(), b""],
    ],
)
def test_answers_that_contradict_themselves_are_refused(parts):
    with pytest.raises(WireError):
        decode_answer(parts)


@pytest.mark.parametrize("parts", [[], [b""], [b"sem1", b""], [VERSION + b"0", b""], [b"x" * 999]])
def test_another_version_is_refused_by_both_sides(parts):
    for decode in (decode_question, decode_answer):
        with pytest.raises(WireVersionError, match="install the same release"):
            decode(parts)


def test_a_question_has_no_pixels():
    with pytest.raises(WireError, match="3 parts"):
        decode_question([*encode_question(Question(id=1, ask=Ping())), b""])


@pytest.mark.parametrize(
    "body",
    [
        msgspec.msgpack.encode({"id": 1, "session": "?"}).replace(b"?", b"\xff"),
        msgspec.msgpack.encode({"id": 1, "ask": {"type": "p?ng"}}).replace(b"?", b"\xff"),
        b"\x82\xa2id\x01\xa1x" + b"\x91" * 60_000 + b"\xc0",
    ],
    ids=["no text", "no tag", "too deep"],
)
def test_what_is_no_text_or_has_no_end_is_refused(body):
    with pytest.raises(WireError, match="cannot be read"):
        decode_question([VERSION, body])
    with pytest.raises(WireError, match="cannot be read"):
        decode_answer([VERSION, body.replace(b"\xa3ask", b"\xa6result")])


def test_an_answer_is_no_question():
    with pytest.raises(WireError):
        decode_question(encode_answer(Answer(id=1, result=Pong(monotonic_ns=1))))


MICROSCOPE_ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, MicroscopeError)
]


@pytest.mark.parametrize("kind", MICROSCOPE_ERRORS)
def test_every_microscope_error_has_a_code_of_its_own(kind):
    failure = to_failure(kind("working distance 9 mm"))
    assert type(to_error(failure)) is kind
    assert str(to_error(failure)) == "working distance 9 mm"
    codes = {to_failure(other("")).code for other in MICROSCOPE_ERRORS}
    assert len(codes) == len(MICROSCOPE_ERRORS)


def test_an_unknown_class_or_code_falls_back_on_its_base():
    class VendorTimeoutError(MicroscopeTimeoutError):
        pass

    assert to_failure(VendorTimeoutError("x")).code == "timeout"
    error = to_error(Failure(code="of_a_later_release", message="x"))
    assert type(error) is MicroscopeError
    assert not isinstance(error, CommandRefusedError)


def test_the_picture_says_what_its_pixels_are():
    picture, part = picture_of(frame(np.zeros((3, 4), np.uint16)))
    assert isinstance(picture, Picture)
    assert (picture.shape, picture.dtype, part.nbytes) == ((3, 4), "u2", 24)
