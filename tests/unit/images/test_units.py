import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semagent.images.units import (
    ANGLE,
    CURRENT,
    FRACTION,
    LENGTH,
    MAGNIFICATION,
    TIME,
    VOLTAGE,
    positive,
    text,
    to_si,
)


@pytest.mark.parametrize(
    ("written", "units", "default", "expected"),
    [
        ("6.2 mm", LENGTH, "", 6.2e-3),
        ("6,2 mm", LENGTH, "", 6.2e-3),
        ("8100 um", LENGTH, "", 8.1e-3),
        ("19.53 nm", LENGTH, "", 19.53e-9),
        ("543.0 pm", LENGTH, "", 543e-12),
        ("3 µm", LENGTH, "", 3e-6),
        ("3 μm", LENGTH, "", 3e-6),
        ("0.0104771", LENGTH, "m", 0.0104771),
        (4.878, LENGTH, "mm", 4.878e-3),
        ("1.5E-3", LENGTH, "m", 1.5e-3),
        ("1,234.5 nm", LENGTH, "", 1234.5e-9),
        ("=500.0 V", VOLTAGE, "", 500.0),
        ("15000 Volt", VOLTAGE, "", 15000.0),
        ("10kV", VOLTAGE, "", 1e4),
        ("15.00", VOLTAGE, "kv", 15e3),
        ("500.00 K X", MAGNIFICATION, "", 5e5),
        ("704 X", MAGNIFICATION, "", 704.0),
        ("-20.5 %", FRACTION, "", -0.205),
        ("181 pA", CURRENT, "", 181e-12),
        ("100 ns", TIME, "", 1e-7),
        ("180 °", ANGLE, "", math.pi),
        (0, LENGTH, "m", 0.0),
    ],
)
def test_written_numbers_become_si(written, units, default, expected):
    assert to_si(written, units, default) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    "written",
    [None, "", "mm", "6.2 furlong", "6.2", "1.2.3 mm", "nan mm", True, float("nan"), "1e400 mm"],
)
def test_what_is_no_length_is_none(written):
    assert to_si(written, LENGTH) is None


def test_a_unit_of_another_quantity_is_refused():
    assert to_si("5 kV", LENGTH) is None


@given(st.floats(-1e6, 1e6), st.sampled_from(sorted(LENGTH)))
def test_any_float_survives_writing_and_reading(number, unit):
    read = to_si(f"{number!r} {unit}", LENGTH)
    assert read == pytest.approx(number * LENGTH[unit], rel=1e-14, abs=1e-300)


@given(st.text(max_size=30))
def test_any_text_is_read_or_none(written):
    value = to_si(written, LENGTH, "m")
    assert value is None or math.isfinite(value)


def test_positive_and_text_drop_what_vendors_write_for_unknown():
    assert (positive(0.0), positive(-1.0), positive(None), positive(2.0)) == (None, None, None, 2.0)
    assert (text("  "), text(None), text(" SE2 "), text(3)) == (None, None, "SE2", "3")
