"""TESCAN microscopes over SharkSEM, the TCP interface of their remote control.

See ``docs/drivers/sharksem.md``.
"""

from collections.abc import Mapping
from typing import Any

from semagent.clock import Clock
from semagent.options import parse_options
from semagent_drivers.sharksem.facts import DRIVER
from semagent_drivers.sharksem.microscope import SharkSem
from semagent_drivers.sharksem.options import SharkSemOptions

__all__ = ["DRIVER", "SharkSem", "SharkSemOptions", "open_microscope"]


def open_microscope(options: Mapping[str, Any], *, clock: Clock) -> SharkSem:
    """Connect to a TESCAN microscope.

    Raises:
        ConfigError: an option is wrong.
        MicroscopeError: the microscope cannot be reached, or does not answer as it should.
    """
    return SharkSem(parse_options(options, SharkSemOptions, where="driver sharksem"), clock)
