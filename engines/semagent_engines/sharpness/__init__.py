"""The ``sharpness`` engine: classical focus measures, no training, no GPU."""

from collections.abc import Mapping
from typing import Any

from semagent.errors import ConfigError
from semagent.options import parse_options
from semagent.ports import Engine
from semagent_engines.sharpness.engine import SharpnessEngine, SharpnessOptions
from semagent_engines.sharpness.measures import MEASURES

__all__ = ["SharpnessEngine", "SharpnessOptions", "open_engine"]


def open_engine(options: Mapping[str, Any]) -> Engine:
    """Open the engine; the options are those of `SharpnessOptions`.

    Raises:
        ConfigError: an option is unknown or not allowed.
    """
    where = "engine sharpness"
    parsed = parse_options(options, SharpnessOptions, where=where)
    if parsed.measure not in MEASURES:
        allowed = ", ".join(sorted(MEASURES))
        raise ConfigError(f"{where}: measure is {parsed.measure!r}; allowed: {allowed}")
    return SharpnessEngine(parsed)
