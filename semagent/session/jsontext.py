"""JSON that loses nothing: numbers that are not finite and nanosecond stamps survive.

JSON has no NaN and no infinity. They are written as ``{"$float": "NaN"}``, ``{"$float":
"Infinity"}`` and ``{"$float": "-Infinity"}``, so that every line stays valid JSON (RFC 8259)
and ``null`` keeps its one meaning: not known. Integers are written in full; readers that keep
all numbers as doubles, JavaScript among them, round those beyond 2**53. Text is pure ASCII,
with everything else escaped, so it can also stand inside XML.
"""

import json
import math
from typing import Any

import msgspec

_KEY = "$float"
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_json(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """Encode a value of `semagent.types`, or plain Python data, as JSON text.

    Raises:
        ValueError: the value has a part that JSON cannot hold.
    """
    try:
        plain = _mark(msgspec.to_builtins(value, str_keys=True))
        return json.dumps(plain, indent=indent, sort_keys=sort_keys, allow_nan=False)
    except TypeError as error:
        raise ValueError(str(error)) from error


def from_json(text: str | bytes) -> Any:
    """Decode what `to_json` made into plain Python data.

    Raises:
        ValueError: this is not JSON.
    """
    return json.loads(text, object_hook=_unmark)


def _mark(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_KEY: "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, dict):
        if _KEY in value:
            raise ValueError(f"the key {_KEY!r} is kept for numbers that are not finite")
        return {key: _mark(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mark(item) for item in value]
    return value


def _unmark(value: dict[str, Any]) -> Any:
    mark = value.get(_KEY)
    return _NOT_FINITE.get(mark, value) if isinstance(mark, str) else value
