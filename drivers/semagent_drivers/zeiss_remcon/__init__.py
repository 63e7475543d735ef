"""ZEISS microscopes through RemCon, SmartSEM's serial line.

See ``docs/drivers/zeiss-remcon.md``.
"""

from collections.abc import Mapping
from typing import Any

from semagent.clock import Clock
from semagent.options import parse_options
from semagent_drivers.zeiss_remcon.facts import DRIVER
from semagent_drivers.zeiss_remcon.microscope import RemCon
from semagent_drivers.zeiss_remcon.options import RemConOptions

__all__ = ["DRIVER", "RemCon", "RemConOptions", "open_microscope"]


def open_microscope(options: Mapping[str, Any], *, clock: Clock) -> RemCon:
    """Open the serial port and speak to RemCon.

    Raises:
        ConfigError: an option is wrong, or pyserial is missing.
        MicroscopeError: nobody answers there.
    """
    return RemCon(parse_options(options, RemConOptions, where="driver zeiss-remcon"), clock)
