"""Thermo Fisher microscopes through AutoScript.

See ``docs/drivers/autoscript.md``.
"""

from collections.abc import Mapping
from typing import Any

from semagent.clock import Clock
from semagent.options import parse_options
from semagent_drivers.autoscript.facts import DRIVER
from semagent_drivers.autoscript.microscope import AutoScript
from semagent_drivers.autoscript.options import AutoScriptOptions

__all__ = ["DRIVER", "AutoScript", "AutoScriptOptions", "open_microscope"]


def open_microscope(options: Mapping[str, Any], *, clock: Clock) -> AutoScript:
    """Connect to an AutoScript server.

    Raises:
        ConfigError: an option is wrong, or AutoScript's Python package is missing.
        MicroscopeError: the server cannot be reached, or does not tell its limits.
    """
    parsed = parse_options(options, AutoScriptOptions, where="driver autoscript")
    return AutoScript(parsed, clock)
