"""What makes frames incomparable, each alone."""

from typing import Any

import msgspec
import pytest

from semagent.types import Optics, Region, Scan
from semagent_drivers.adapter.settings import Settings

SCAN = Scan(width_px=128, height_px=96, bit_depth=8, pixel_size_m=10e-9, dwell_s=1e-6)
OPTICS = Optics(working_distance_m=5e-3, accelerating_voltage_v=5e3, magnification=20_000.0)
HALF = Region(left=0.25, top=0.25, width=0.5, height=0.5)


def are_same(scan: dict[str, Any], optics: dict[str, Any]) -> bool:
    now = Settings.of(
        msgspec.structs.replace(SCAN, **scan), msgspec.structs.replace(OPTICS, **optics), 0.0
    )
    return Settings.of(SCAN, OPTICS, 0.0).same(now, 0.01)


@pytest.mark.parametrize(
    ("scan", "optics"),
    [
        ({"width_px": 256}, {}),
        ({"height_px": 128}, {}),
        ({"bit_depth": 16}, {}),
        ({"frame_averages": 2}, {}),
        ({"region": HALF}, {}),
        ({"dwell_s": 1.02e-6}, {}),
        ({"dwell_s": None}, {}),
        ({"pixel_size_m": 10.2e-9}, {}),
        ({"pixel_size_m": 9.8e-9}, {}),
        ({}, {"accelerating_voltage_v": 5.1e3}),
        ({}, {"magnification": 20_400.0}),
        ({}, {"magnification": None}),
    ],
)
def test_another_setting_is_one(scan: dict[str, Any], optics: dict[str, Any]):
    assert not are_same(scan, optics)


@pytest.mark.parametrize(
    ("scan", "optics"),
    [
        ({"dwell_s": 1.005e-6}, {"accelerating_voltage_v": 4.99e3}),
        ({}, {"working_distance_m": 6e-3}),
        ({"pixel_size_m": 12e-9}, {"working_distance_m": 6e-3, "magnification": 20_000 / 1.2}),
        ({}, {"beam_current_a": 1e-10, "stigmator_x": 0.1, "beam_shift_x_m": 1e-6}),
    ],
)
def test_flicker_focus_and_what_follows_it_are_none(scan: dict[str, Any], optics: dict[str, Any]):
    assert are_same(scan, optics)
