"""TESCAN microscopes through the Python package of TESCAN Automation.

See ``docs/drivers/tescan-automation.md``.
"""

from collections.abc import Mapping
from typing import Any

from semagent.clock import Clock
from semagent.options import parse_options
from semagent_drivers.tescan_automation.facts import DRIVER
from semagent_drivers.tescan_automation.microscope import TescanAutomation
from semagent_drivers.tescan_automation.options import TescanAutomationOptions

__all__ = ["DRIVER", "TescanAutomation", "TescanAutomationOptions", "open_microscope"]


def open_microscope(options: Mapping[str, Any], *, clock: Clock) -> TescanAutomation:
    """Connect to a TESCAN microscope.

    Raises:
        ConfigError: an option is wrong, or the package is missing.
        MicroscopeError: the microscope cannot be reached.
    """
    parsed = parse_options(options, TescanAutomationOptions, where="driver tescan-automation")
    return TescanAutomation(parsed, clock)
