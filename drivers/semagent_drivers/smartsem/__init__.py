"""ZEISS microscopes through SmartSEM's remote interface (COM).

See ``docs/drivers/smartsem.md``.
"""

from collections.abc import Mapping
from typing import Any

from semagent.clock import Clock
from semagent.options import parse_options
from semagent_drivers.smartsem.facts import DRIVER
from semagent_drivers.smartsem.microscope import SmartSem
from semagent_drivers.smartsem.options import SmartSemOptions

__all__ = ["DRIVER", "SmartSem", "SmartSemOptions", "open_microscope"]


def open_microscope(options: Mapping[str, Any], *, clock: Clock) -> SmartSem:
    """Connect to the SmartSEM of this machine.

    Raises:
        ConfigError: an option is wrong, or the interface is missing.
        MicroscopeError: SmartSEM cannot be reached.
    """
    return SmartSem(parse_options(options, SmartSemOptions, where="driver smartsem"), clock)
