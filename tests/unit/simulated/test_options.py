import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from semagent.clock import ManualClock
from semagent.errors import ConfigError
from semagent_drivers.simulated import SimulatedOptions, open_microscope
from semagent_drivers.simulated.options import Section

BAD: list[tuple[dict[str, Any], str]] = [
    ({"colum": {}}, "colum"),
    ({"column": {"working_distance": 5}}, "working_distance"),
    ({"column": {"working_distance_mm": "near"}}, "working_distance_mm"),
    ({"column": {"working_distance_mm": math.nan}}, "working_distance_mm"),
    ({"column": {"working_distance_mm": 0.5}}, "working_distance_mm: 0.5 mm is outside 1.0 to 25"),
    ({"column": {"working_distance_range_mm": [9, 2]}}, "working_distance_range_mm"),
    ({"column": {"astigmatism_um": [math.inf, 0.0]}}, "astigmatism_um"),
    ({"column": {"stigmator_coupling": [[1, 2], [2, 4]]}}, "singular"),
    ({"column": {"stigmator_x": 1.5}}, "stigmator_x"),
    ({"column": {"beam_shift_x_um": 20}}, "beam_shift_x_um"),
    ({"column": {"kernel": "airy"}}, "airy"),
    ({"scan": {"width_px": 8}}, "width_px"),
    ({"scan": {"bit_depth": 12}}, "bit_depth"),
    ({"scan": {"dwell_us": 2000.0}}, "dwell_us: 2000.0 us"),
    ({"scan": {"dwell_range_us": [0.0, 10.0]}}, "dwell_range_us"),
    ({"scan": {"info_bar_px": 5}}, "info_bar_px"),
    ({"scan": {"info_bar_px": 700}}, "info_bar_px"),
    ({"specimen": {"kind": "cheese"}}, "cheese"),
    ({"specimen": {"kind": "image"}}, "path"),
    ({"specimen": {"path": "a.png"}}, "path"),
    ({"specimen": {"tile_px": 9000}}, "tile_px"),
    ({"detector": {"yield_dark": 1.0}}, "yield_dark"),
    ({"detector": {"black_level": 0.95}}, "black_level"),
    ({"stage": {"x_mm": 60}}, "x_mm"),
    ({"stage": {"tilt_range_deg": [-10, 90]}}, "tilt_range_deg"),
    ({"stage": {"z_range_mm": [30, 0]}}, "z_range_mm"),
    ({"charging": {"strength": 2}}, "strength"),
    ({"faults": {"frozen": {"at": [0]}}}, "at"),
    ({"faults": {"late": {"probability": 1.5}}}, "probability"),
    ({"faults": {"incomplete": {"fraction": 1.0}}}, "fraction"),
    ({"speed": -1}, "speed"),
    ({"seed": -1}, "seed"),
]


@pytest.mark.parametrize(("options", "said"), BAD)
def test_wrong_options_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        open_microscope(options, clock=ManualClock())
    assert str(caught.value).startswith("simulated: ")


def test_defaults_need_no_options() -> None:
    with_defaults = msgspec.convert({}, SimulatedOptions)
    assert with_defaults == SimulatedOptions()


def sections() -> list[type[Section]]:
    found: list[type[Section]] = []
    waiting: list[type[Section]] = [SimulatedOptions]
    while waiting:
        section = waiting.pop()
        found.append(section)
        waiting += [
            type(field.default)
            for field in msgspec.structs.fields(section)
            if isinstance(field.default, Section) and type(field.default) not in found
        ]
    return found


def test_the_user_page_lists_every_option_with_its_default() -> None:
    page = (Path(__file__).parents[3] / "docs" / "simulated-sem.md").read_text(encoding="utf-8")
    for section in sections():
        for field in msgspec.structs.fields(section):
            if isinstance(field.default, Section):
                assert f"`{field.name}`" in page, f"{section.__name__}.{field.name} is missing"
                continue
            default = msgspec.json.encode(field.default).decode().strip('"')
            rows = re.findall(rf"^\| `{field.name}` \| (.+?) \|", page, re.MULTILINE)
            assert default in [row.strip("`") for row in rows], (
                f"{section.__name__}.{field.name}: default {default} not among {rows}"
            )
