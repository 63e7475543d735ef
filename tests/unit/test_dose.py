"""The charge on the field in view."""

import math
from typing import Any

import msgspec
import pytest

from semagent.dose import DoseMeter, dose_of, missing_for_dose
from semagent.types import FrameHeader, Optics, Scan, StagePosition


def header(sequence: int = 1, **changes: Any) -> FrameHeader:
    made = FrameHeader(
        sequence=sequence,
        monotonic_ns=sequence,
        wall_ns=0,
        detector="SE",
        scan=Scan(width_px=1000, height_px=500, bit_depth=8, pixel_size_m=1e-8, dwell_s=1e-6),
        optics=Optics(working_distance_m=0.005, beam_current_a=1.602176634e-10),
        stage=StagePosition(x_m=0.0, y_m=0.0),
        settings_rev=1,
    )
    return msgspec.structs.replace(made, **changes)


def test_a_thousand_electrons_on_a_pixel_of_ten_nanometres_are_ten_a_square_nanometre():
    assert dose_of(header()) == pytest.approx(10.0)
    averaged = msgspec.structs.replace(header().scan, frame_averages=4)
    assert dose_of(header(scan=averaged)) == pytest.approx(40.0)


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"optics": Optics(working_distance_m=0.005)}, "beam current"),
        ({"scan": msgspec.structs.replace(header().scan, dwell_s=None)}, "dwell time"),
        ({"scan": msgspec.structs.replace(header().scan, pixel_size_m=None)}, "pixel size"),
    ],
)
def test_what_is_not_reported_is_not_guessed(changes: dict[str, Any], missing: str):
    blind = header(**changes)
    assert dose_of(blind) is None
    assert missing_for_dose(blind) == [missing]
    meter = DoseMeter()
    meter.add(blind)
    meter.add(header(2))
    reading = meter.reading()
    assert (reading["here_e_nm2"], reading["frames_here"]) == (None, 2)
    assert reading["per_frame_e_nm2"] == pytest.approx(10.0)


def test_before_the_first_frame_there_is_no_dose():
    assert DoseMeter().reading() == {
        "frames": 0,
        "frames_here": 0,
        "per_frame_e_nm2": None,
        "here_e_nm2": None,
    }


@pytest.mark.parametrize("current_a", [0.0, -1e-10, math.nan, math.inf])
def test_what_is_no_current_is_not_reported(current_a: float):
    told = header(optics=Optics(working_distance_m=0.005, beam_current_a=current_a))
    assert dose_of(told) is None
    assert missing_for_dose(told) == ["beam current"]


def test_frames_that_were_skipped_have_been_exposed_all_the_same():
    meter = DoseMeter()
    for sequence in (1, 2, 5, 5, 4):  # the last two are told of once more
        meter.add(header(sequence))
    assert meter.reading()["frames_here"] == 5
    assert meter.reading()["here_e_nm2"] == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("changes", "frames"),
    [
        ({"stage": StagePosition(x_m=3e-6, y_m=0.0)}, 1),
        ({"stage": StagePosition(x_m=1e-6, y_m=0.0)}, 2),
        ({"settings_rev": 2}, 1),
    ],
)
def test_another_field_begins_at_nothing(changes: dict[str, Any], frames: int):
    meter = DoseMeter()
    meter.add(header(1))
    meter.add(header(2, **changes))
    assert meter.reading()["frames_here"] == frames
    assert meter.reading()["frames"] == 2
