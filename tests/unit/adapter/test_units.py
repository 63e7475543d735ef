"""Every vendor's units: the vendor's value, the SI value, and back, exactly."""

import math

import pytest

from semagent_drivers.adapter import units

ROUND_TRIPS = [
    # unit, vendor's value, SI value
    (units.METRES, 0.0651, 0.0651),
    (units.MILLIMETRES, 4.5, 0.0045),
    (units.MILLIMETRES, -12.345, -0.012345),
    (units.MICROMETRES, -12.5, -12.5e-6),
    (units.NANOMETRES, 12.5, 12.5e-9),
    (units.WHOLE_MICROMETRES, 4501.0, 0.004501),
    (units.WHOLE_NANOMETRES, 1234567.0, 0.001234567),
    (units.MILLISECONDS, 4100.0, 4.1),
    (units.WHOLE_NANOSECONDS, 320.0, 320e-9),
    (units.DEGREES, -5.0, -math.pi / 36),
    (units.WHOLE_MILLIDEGREES, 359900.0, math.radians(359.9)),
    (units.WHOLE_TENTHS_OF_DEGREES, -1805.0, math.radians(-180.5)),
    (units.PICOAMPERES, 100.0, 100e-12),
    (units.KILOVOLTS, 5.0, 5000.0),
    (units.PERCENT, -37.5, -0.375),
    (units.DAC_16, 32768.0, 0.0),
    (units.DAC_16, 0.0, -1.0),
    (units.DAC_16, 49152.0, 0.5),
]


def test_no_unit_is_left_out():
    known = {each for each in vars(units).values() if isinstance(each, units.Unit)}
    assert {unit for unit, *_ in ROUND_TRIPS} == known


@pytest.mark.parametrize(("unit", "theirs", "ours"), ROUND_TRIPS)
def test_round_trip(unit, theirs, ours):
    assert unit.to_si(theirs) == pytest.approx(ours, rel=1e-15, abs=1e-30)
    assert unit.from_si(ours) == pytest.approx(theirs, rel=1e-12, abs=1e-12)
    assert unit.from_si(unit.to_si(theirs)) == pytest.approx(theirs, rel=1e-12)


def test_a_length_is_off_by_the_last_digit_at_most():
    for micrometres in range(1000, 50000, 37):
        exact_m = float(f"{micrometres}e-6")
        ours_m = units.MILLIMETRES.to_si(micrometres / 1e3)
        assert abs(ours_m - exact_m) <= math.ulp(exact_m)


def test_whole_numbers_are_the_nearest_and_never_leave_the_converter():
    assert units.WHOLE_MICROMETRES.from_si(0.0045014) == 4501.0
    assert units.WHOLE_MICROMETRES.step_si == 1e-6
    assert units.DAC_16.from_si(1.0) == 65535.0
    assert units.DAC_16.from_si(-1.0) == 0.0
