"""Micro-Manager: any camera, focus drive and XY stage it has an adapter for.

See ``docs/drivers/micromanager.md``.
"""

from collections.abc import Mapping
from typing import Any

from semagent.clock import Clock
from semagent.options import parse_options
from semagent_drivers.micromanager.facts import DRIVER
from semagent_drivers.micromanager.microscope import MicroManager
from semagent_drivers.micromanager.options import MicroManagerOptions

__all__ = ["DRIVER", "MicroManager", "MicroManagerOptions", "open_microscope"]


def open_microscope(options: Mapping[str, Any], *, clock: Clock) -> MicroManager:
    """Load a hardware configuration, or connect to a Micro-Manager that has loaded one.

    Raises:
        ConfigError: an option is wrong, or the software is missing.
        MicroscopeError: the hardware does not answer, or has no camera or focus drive.
    """
    parsed = parse_options(options, MicroManagerOptions, where="driver micromanager")
    return MicroManager(parsed, clock)
