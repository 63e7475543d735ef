"""Thermo Fisher Phenom microscopes through the Phenom Programming Interface.

See ``docs/drivers/phenom.md``.
"""

from collections.abc import Mapping
from typing import Any

from semagent.clock import Clock
from semagent.options import parse_options
from semagent_drivers.phenom.facts import DRIVER
from semagent_drivers.phenom.microscope import Phenom
from semagent_drivers.phenom.options import PhenomOptions

__all__ = ["DRIVER", "Phenom", "PhenomOptions", "open_microscope"]


def open_microscope(options: Mapping[str, Any], *, clock: Clock) -> Phenom:
    """Connect to a Phenom that shows a live SEM image.

    Raises:
        ConfigError: an option is wrong, or PyPhenom is missing.
        MicroscopeError: it cannot be reached, or is not in its live SEM mode.
    """
    return Phenom(parse_options(options, PhenomOptions, where="driver phenom"), clock)
