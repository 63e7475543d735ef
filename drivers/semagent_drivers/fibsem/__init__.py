"""OpenFIBSEM: the electron beam of any microscope that the package fibsem drives.

See ``docs/drivers/fibsem.md``.
"""

from collections.abc import Mapping
from typing import Any

from semagent.clock import Clock
from semagent.options import parse_options
from semagent_drivers.fibsem.facts import DRIVER
from semagent_drivers.fibsem.microscope import Fibsem
from semagent_drivers.fibsem.options import FibsemOptions

__all__ = ["DRIVER", "Fibsem", "FibsemOptions", "open_microscope"]


def open_microscope(options: Mapping[str, Any], *, clock: Clock) -> Fibsem:
    """Connect through OpenFIBSEM.

    Raises:
        ConfigError: an option is wrong, or the software is missing.
        MicroscopeError: the microscope does not answer, or cannot be focused this way.
    """
    return Fibsem(parse_options(options, FibsemOptions, where="driver fibsem"), clock)
