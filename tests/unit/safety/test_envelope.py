"""The envelope: nothing has a default, nothing implausible gets in."""

import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from semagent.errors import ConfigError
from semagent.options import parse_options
from semagent.safety import AxisLimits, Envelope, KeepOut, ReadbackTolerance, ScanLimits

from .bench import CASES, ENVELOPE, limits, make_envelope

AXIS_KEYS = sorted({case.axis.key for case in CASES})
BOX = {"working_distance_m": [0, 0.005], "stage_z_m": [0, 0.01], "stage_tilt_rad": [0, 1]}
CEILINGS = {
    "working_distance_m": 0.2,
    "stigmator": 1.0,
    "beam_shift_m": 0.005,
    "stage_x_m": 1.0,
    "stage_y_m": 1.0,
    "stage_z_m": 1.0,
    "stage_rotation_rad": 4 * math.pi,
    "stage_tilt_rad": math.pi,
}
TOLERANCE_CEILINGS = {
    "working_distance_m": 0.2,
    "stigmator": 1.0,
    "beam_shift_m": 5e-5,
    "stage_x_m": 0.01,
    "stage_y_m": 0.01,
    "stage_z_m": 0.01,
    "stage_rotation_rad": 0.05,
    "stage_tilt_rad": 0.05,
    "dwell_s": 5e-4,
    "region": 0.1,
}


def parse(**changes: Any) -> Envelope:
    return parse_options({**ENVELOPE, **changes}, Envelope, where="test.yaml")


def is_valid(schema: type[Any], data: dict[str, Any]) -> bool:
    try:
        msgspec.convert(data, schema)
    except msgspec.ValidationError:
        return False
    return True


def above(value: float) -> float:
    return math.nextafter(value, math.inf)


def below(value: float) -> float:
    return math.nextafter(value, -math.inf)


def test_a_complete_envelope_is_read() -> None:
    envelope = parse(keep_out=[BOX])
    assert envelope.limits("stage_z_m") == AxisLimits(**ENVELOPE["stage_z_m"])
    assert envelope.limits("stigmator") == envelope.stigmator
    assert envelope.keep_out[0].working_distance_m == (0, 0.005)


@pytest.mark.parametrize("schema", [Envelope, AxisLimits, ScanLimits, KeepOut, ReadbackTolerance])
def test_nothing_has_a_default(schema: type[msgspec.Struct]) -> None:
    for field in msgspec.structs.fields(schema):
        assert field.required, f"{schema.__name__}.{field.name}"


@pytest.mark.parametrize("key", sorted(ENVELOPE))
def test_a_missing_key_is_named(key: str) -> None:
    data = {name: value for name, value in ENVELOPE.items() if name != key}
    with pytest.raises(ConfigError, match=f"test.yaml: .*{key}"):
        parse_options(data, Envelope, where="test.yaml")


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(ConfigError, match="working_distance_mm"):
        parse(working_distance_mm=limits(4, 20, 1, 2))


def test_the_holder_has_to_be_named() -> None:
    with pytest.raises(ConfigError, match="specimen_holder"):
        parse(specimen_holder="")
    assert parse(specimen_holder="a").specimen_holder == "a"


@pytest.mark.parametrize("key", AXIS_KEYS)
def test_an_axis_may_be_locked_with_null(key: str) -> None:
    assert parse(**{key: None}).limits(key) is None


@pytest.mark.parametrize(
    ("data", "valid"),
    [
        (limits(1, 2, 1, 2), True),
        (limits(1, 1, 1, 2), False),
        (limits(1, below(1), 1, 2), False),
        (limits(1, above(1), 1, 2), True),
        (limits(-math.inf, 2, 1, 2), False),
        (limits(1, math.inf, 1, 2), False),
        (limits(math.nan, 2, 1, 2), False),
        (limits(1, math.nan, 1, 2), False),
        (limits(1, 2, 0, 2), False),
        (limits(1, 2, 5e-324, 2), True),
        (limits(1, 2, -1, 2), False),
        (limits(1, 2, math.nan, 2), False),
        (limits(1, 2, math.inf, math.inf), False),
        (limits(1, 2, 1, below(2)), False),
        (limits(1, 2, 1, math.inf), False),
        (limits(1, 2, 1, math.nan), False),
    ],
)
def test_axis_limits_have_to_make_sense(data: dict[str, float], valid: bool) -> None:
    assert is_valid(AxisLimits, data) is valid


@pytest.mark.parametrize("key", AXIS_KEYS)
def test_a_limit_in_the_wrong_unit_is_caught(key: str) -> None:
    top = CEILINGS[key]
    low = ENVELOPE[key]["min"]
    step = ENVELOPE[key]["max_step"]
    assert is_valid(Envelope, {**ENVELOPE, key: limits(low, top, step, 2 * step)})
    with pytest.raises(ConfigError, match=f"{key}: .*metres"):
        parse(**{key: limits(low, above(top), step, 2 * step)})
    assert is_valid(Envelope, {**ENVELOPE, key: limits(-top, top, step, 2 * step)})
    with pytest.raises(ConfigError, match=f"{key}: "):
        parse(**{key: limits(below(-top), top, step, 2 * step)})


def test_a_locked_axis_does_not_hide_what_is_wrong_with_another() -> None:
    with pytest.raises(ConfigError, match="stage_tilt_rad"):
        parse(working_distance_m=None, stage_tilt_rad=limits(-60, 60, 1, 2))


def test_the_message_about_a_wrong_unit_says_what_is_expected() -> None:
    with pytest.raises(
        ConfigError, match=re.escape("working_distance_m: 20 is more than any microscope has (0.2)")
    ):
        parse(working_distance_m=limits(0.004, 20, 0.001, 0.002))


@pytest.mark.parametrize("key", AXIS_KEYS)
def test_a_tolerance_that_hides_a_whole_step_is_refused(key: str) -> None:
    step = 2 * ENVELOPE["readback_tolerance"][key]
    axis = limits(ENVELOPE[key]["min"], ENVELOPE[key]["max"], step, 2 * step)
    for tolerance, valid in ((below(step), True), (step, False)):
        data = {**ENVELOPE["readback_tolerance"], key: tolerance}
        assert is_valid(Envelope, {**ENVELOPE, "readback_tolerance": data, key: axis}) is valid
        assert is_valid(Envelope, {**ENVELOPE, "readback_tolerance": data, key: None})


@pytest.mark.parametrize("key", sorted(ENVELOPE["readback_tolerance"]))
def test_tolerances_are_not_negative_and_in_the_right_unit(key: str) -> None:
    most = TOLERANCE_CEILINGS[key]
    for value, valid in (
        (0, True),
        (-5e-324, False),
        (most, True),
        (above(most), False),
        (math.inf, False),
        (math.nan, False),
    ):
        data = {**ENVELOPE["readback_tolerance"], key: value}
        assert is_valid(ReadbackTolerance, data) is valid, value


def test_a_tolerance_in_micrometres_is_caught_where_the_axis_is_locked_too() -> None:
    data = {**ENVELOPE["readback_tolerance"], "stage_x_m": 2.0}
    with pytest.raises(ConfigError, match=r"stage_x_m: 2 is more than any microscope .*metres"):
        parse(stage_x_m=None, readback_tolerance=data)


@pytest.mark.parametrize(
    ("key", "shortest_s", "longest_s"),
    [
        ("travel_window_s", 1.0, 604800.0),
        ("max_evidence_age_s", 0.001, 600.0),
        ("heartbeat_timeout_s", 0.01, 60.0),
    ],
)
def test_a_time_in_the_wrong_unit_is_caught(key: str, shortest_s: float, longest_s: float) -> None:
    for value, valid in (
        (shortest_s, True),
        (below(shortest_s), False),
        (longest_s, True),
        (above(longest_s), False),
        (math.nan, False),
    ):
        assert is_valid(Envelope, {**ENVELOPE, key: value}) is valid, value


def test_the_operator_hold_may_be_nothing_but_not_less() -> None:
    for value, valid in ((0, True), (-5e-324, False), (math.inf, False), (math.nan, False)):
        assert is_valid(Envelope, {**ENVELOPE, "operator_hold_s": value}) is valid, value


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({"dwell_s": [1e-6, 1e-6]}, True),
        ({"dwell_s": [5e-324, 1e-6]}, True),
        ({"dwell_s": [0, 1e-6]}, False),
        ({"dwell_s": [1e-6, below(1e-6)]}, False),
        ({"dwell_s": [1e-6, 0.01]}, True),
        ({"dwell_s": [1e-6, above(0.01)]}, False),
        ({"dwell_s": [math.nan, 1e-6]}, False),
        ({"dwell_s": [1e-6, math.nan]}, False),
        ({"max_frame_averages": 1}, True),
        ({"max_frame_averages": 0}, False),
        ({"min_region": 5e-324}, True),
        ({"min_region": 0}, False),
        ({"min_region": 1}, True),
        ({"min_region": above(1)}, False),
        ({"min_region": math.nan}, False),
    ],
)
def test_scan_limits_have_to_make_sense(changes: dict[str, Any], valid: bool) -> None:
    assert is_valid(ScanLimits, {**ENVELOPE["scan"], **changes}) is valid


@pytest.mark.parametrize("key", sorted(BOX))
def test_keep_out_sides_have_to_make_sense(key: str) -> None:
    top = CEILINGS[key]
    for side, valid in (
        ([0, 0], True),
        ([0, below(0)], False),
        ([math.nan, 0], False),
        ([0, math.nan], False),
        ([-math.inf, 0], True),
        ([0, math.inf], True),
        ([-top, top], True),
        ([below(-top), 0], False),
        ([0, above(top)], False),
    ):
        assert is_valid(KeepOut, {**BOX, key: side}) is valid, side


def test_limits_made_in_python_are_checked_too() -> None:
    with pytest.raises(ValueError, match="min must be below max, both finite"):
        AxisLimits(min=1, max=0, max_step=1, max_travel=2)


def test_messages_say_what_is_allowed() -> None:
    for changes, message in (
        ({"stage_x_m": limits(0, 1, 0, 2)}, "max_step must be positive - at `$.stage_x_m`"),
        ({"stage_x_m": limits(0, 1, 1, 1)}, "at least twice max_step: it counts the way back"),
        ({"travel_window_s": -1}, "travel_window_s: -1 s: must be 1 to 604800 s"),
        ({"heartbeat_timeout_s": 2000}, "heartbeat_timeout_s: 2000 s: must be 0.01 to 60 s"),
        ({"operator_hold_s": -1}, "operator_hold_s must be finite, not negative"),
        ({"keep_out": [{**BOX, "stage_z_m": [1, 0]}]}, "stage_z_m must be [low, high]"),
        (
            {"scan": {**ENVELOPE["scan"], "dwell_s": [1, 0]}},
            "dwell_s must be [shortest, longest], positive",
        ),
        (
            {"readback_tolerance": {**ENVELOPE["readback_tolerance"], "region": -1}},
            "region: -1 must not be negative",
        ),
        (
            {"stigmator": limits(-1, 1, 2.0**-10, 1)},
            "readback_tolerance.stigmator must be below stigmator.max_step",
        ),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            parse(**changes)


def test_the_example_in_the_safety_case_is_valid() -> None:
    page = Path(__file__).parents[3] / "docs" / "safety.md"
    examples = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for example in examples:
        parse_options(yaml.safe_load(example)["safety"], Envelope, where="docs/safety.md")
    assert examples


@pytest.mark.parametrize(
    "value",
    [
        AxisLimits(**ENVELOPE["stage_x_m"]),
        msgspec.convert(ENVELOPE["scan"], ScanLimits),
        msgspec.convert(BOX, KeepOut),
        ReadbackTolerance(**ENVELOPE["readback_tolerance"]),
        make_envelope(),
    ],
)
def test_limits_are_frozen_and_written_with_their_names(value: msgspec.Struct) -> None:
    fields = msgspec.structs.asdict(value)
    with pytest.raises(AttributeError):
        setattr(value, *fields.popitem())
    with pytest.raises(TypeError):
        type(value)(*msgspec.structs.astuple(value))


def test_envelopes_compare_by_content() -> None:
    assert make_envelope() == parse()


@pytest.mark.parametrize(
    ("tolerance", "longest"),
    [(0.0, 2e-4 * (1 - 1e-9)), (1e-6, 2e-4 - 1e-6), (1.9e-4, 1e-4)],
)
def test_the_longest_step_leaves_room_for_where_an_axis_reads_back(
    tolerance: float, longest: float
) -> None:
    axis = {"min": 0.004, "max": 0.02, "max_step": 2e-4, "max_travel": 1e-3}
    tolerances = {**ENVELOPE["readback_tolerance"], "working_distance_m": tolerance}
    envelope = parse(working_distance_m=axis, readback_tolerance=tolerances)
    assert envelope.longest_step("working_distance_m") == pytest.approx(longest, rel=1e-12, abs=0)


def test_an_axis_that_may_not_move_has_no_longest_step() -> None:
    assert parse(stage_x_m=None).longest_step("stage_x_m") is None
