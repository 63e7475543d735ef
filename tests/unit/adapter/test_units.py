"""Every vendor's units: the vendor's value, the SI value, and back, exactly."""

import math

import pytest

from semagent_drivers.adapter import units

ROUND_TRIPS = [
    # vendor, quantity, unit, vendor's value, SI value
    ("AutoScript", "working distance", units.METRES, 0.0045, 0.0045),
    ("AutoScript", "beam shift", units.METRES, -2e-6, -2e-6),
    ("AutoScript", "field width", units.METRES, 7.68e-6, 7.68e-6),
    ("AutoScript", "stage", units.METRES, 0.01, 0.01),
    ("AutoScript", "stage angle", units.RADIANS, 0.5, 0.5),
    ("AutoScript", "dwell", units.SECONDS, 1e-6, 1e-6),
    ("TESCAN", "working distance", units.MILLIMETRES, 4.5, 0.0045),
    ("TESCAN", "stigmator", units.PERCENT, -37.5, -0.375),
    ("TESCAN", "field width", units.MILLIMETRES, 0.01024, 10.24e-6),
    ("TESCAN", "image shift", units.MILLIMETRES, -0.002, -2e-6),
    ("TESCAN", "stage", units.MILLIMETRES, -12.345, -0.012345),
    ("TESCAN", "dwell", units.WHOLE_NANOSECONDS, 320.0, 320e-9),
    ("TESCAN", "stage angle", units.DEGREES, 30.0, math.pi / 6),
    ("TESCAN", "beam current", units.PICOAMPERES, 100.0, 100e-12),
    ("SmartSEM", "working distance", units.METRES, 0.0051, 0.0051),
    ("SmartSEM", "pixel size", units.METRES, 5.5e-9, 5.5e-9),
    ("SmartSEM", "frame time", units.MILLISECONDS, 4100.0, 4.1),
    ("SmartSEM", "stage", units.METRES, 0.0651, 0.0651),
    ("SmartSEM", "stigmator", units.PERCENT, 1.25, 0.0125),
    ("SmartSEM", "stage angle", units.DEGREES, 90.0, math.pi / 2),
    ("RemCon", "working distance", units.MILLIMETRES, 4.5, 0.0045),
    ("RemCon", "stigmator", units.PERCENT, -1.5, -0.015),
    ("RemCon", "stage", units.MILLIMETRES, 62.5, 0.0625),
    ("RemCon", "stage angle", units.DEGREES, -5.0, -math.pi / 36),
    ("RemCon", "pixel size", units.NANOMETRES, 12.5, 12.5e-9),
    ("RemCon", "acceleration", units.KILOVOLTS, 5.0, 5000.0),
    ("Phenom", "working distance", units.METRES, 0.006, 0.006),
    ("Phenom", "field width", units.METRES, 256e-6, 256e-6),
    ("Phenom", "dwell", units.SECONDS, 500e-9, 500e-9),
    ("Phenom", "stage", units.METRES, -2e-3, -2e-3),
    ("Phenom", "range of the stage, in the options", units.MILLIMETRES, -8.0, -0.008),
    ("OpenFIBSEM", "field width", units.METRES, 150e-6, 150e-6),
    ("OpenFIBSEM", "stage", units.METRES, 1e-3, 1e-3),
    ("OpenFIBSEM", "stage angle", units.RADIANS, 0.61, 0.61),
    ("OpenFIBSEM", "working distance", units.METRES, 0.004, 0.004),
    ("OpenFIBSEM", "dwell", units.SECONDS, 1e-6, 1e-6),
    ("OpenFIBSEM", "range of the focus, in the options", units.MILLIMETRES, 4.5, 0.0045),
    ("OpenFIBSEM", "range of the beam shift, in the options", units.MICROMETRES, 5.0, 5e-6),
    ("Hitachi", "working distance", units.WHOLE_MICROMETRES, 4501.0, 0.004501),
    ("Hitachi", "stigmator", units.DAC_16, 32768.0, 0.0),
    ("Hitachi", "stigmator", units.DAC_16, 0.0, -1.0),
    ("Hitachi", "stigmator", units.DAC_16, 49152.0, 0.5),
    ("Hitachi", "stage angle, the last", units.WHOLE_MILLIDEGREES, 359900.0, math.radians(359.9)),
    ("Hitachi", "stage", units.WHOLE_NANOMETRES, 1234567.0, 0.001234567),
    ("Hitachi", "stage angle", units.WHOLE_MILLIDEGREES, 45000.0, math.pi / 4),
    ("Micro-Manager", "stage", units.MICROMETRES, 250.0, 250e-6),
    ("Micro-Manager", "pixel size", units.MICROMETRES, 0.325, 325e-9),
    ("Micro-Manager", "focus", units.MICROMETRES, -12.5, -12.5e-6),
    ("Micro-Manager", "exposure", units.MILLISECONDS, 10.0, 0.01),
]

ROWS = {
    # what each interface gives in a unit; fractions of a range it tells itself have none
    "AutoScript": {"working distance", "field width", "dwell", "stage", "stage angle"},
    "TESCAN": {"working distance", "stigmator", "field width", "dwell", "stage", "stage angle"},
    "SmartSEM": {"working distance", "stigmator", "pixel size", "stage", "stage angle"},
    "RemCon": {"working distance", "stigmator", "pixel size", "stage", "stage angle"},
    "Phenom": {"working distance", "field width", "dwell", "stage"},
    "Hitachi": {"working distance", "stigmator", "stage", "stage angle"},
    "Micro-Manager": {"focus", "exposure", "stage", "pixel size"},
    "OpenFIBSEM": {"working distance", "field width", "dwell", "stage", "stage angle"},
}


@pytest.mark.parametrize("vendor", ROWS)
def test_no_quantity_of_a_vendor_is_left_out(vendor):
    assert ROWS[vendor] <= {quantity for name, quantity, *_ in ROUND_TRIPS if name == vendor}


@pytest.mark.parametrize(("vendor", "quantity", "unit", "theirs", "ours"), ROUND_TRIPS)
def test_round_trip(vendor, quantity, unit, theirs, ours):
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
