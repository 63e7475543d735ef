"""JSON that loses nothing."""

import json
import math
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semagent.session.jsontext import from_json, to_json
from semagent.types import Event

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text().filter(lambda key: key != "$float"), inner, max_size=4)
    ),
    max_leaves=20,
)


def same(left: Any, right: Any) -> bool:
    """Equal, with NaN equal to itself, 0.0 different from -0.0, and 1 different from 1.0."""
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    return type(left) is type(right) and repr(left) == repr(right)


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")


@given(PLAIN)
def test_what_goes_in_comes_out(value: Any) -> None:
    assert same(from_json(to_json(value)), value)


@given(PLAIN)
def test_the_text_is_strict_json_on_one_line_of_ascii(value: Any) -> None:
    text = to_json(value)

    json.loads(text, parse_constant=refuse)
    assert text.isascii()
    assert "\n" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, '{"$float": "NaN"}'),
        (math.inf, '{"$float": "Infinity"}'),
        (-math.inf, '{"$float": "-Infinity"}'),
        (None, "null"),
        (1_760_000_000_123_456_789, "1760000000123456789"),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_numbers_look_as_documented(value: Any, text: str) -> None:
    assert to_json(value) == text


def test_a_value_becomes_its_fields() -> None:
    event = Event(
        kind="k", role="r", message="µm", monotonic_ns=1, wall_ns=2, data={"x": (1, math.inf)}
    )

    assert from_json(to_json(event)) == {
        "kind": "k",
        "role": "r",
        "message": "µm",
        "monotonic_ns": 1,
        "wall_ns": 2,
        "level": "info",
        "data": {"x": [1, math.inf]},
    }


@pytest.mark.parametrize("value", [{"$float": "NaN"}, [{"$float": 1}], {"a": object()}])
def test_what_would_not_come_back_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"\$float|object"):
        to_json(value)


@pytest.mark.parametrize("text", ['{"$float": "1.5"}', '{"$float": ["NaN"]}', '{"$float": null}'])
def test_other_uses_of_the_mark_stay_what_they_are(text: str) -> None:
    assert from_json(text) == json.loads(text)


@pytest.mark.parametrize("text", ["", "{", b"\x00\x00", b"\xff"])
def test_what_is_not_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(text)
