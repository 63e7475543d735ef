"""Hitachi microscopes through the external control port of the SEM PC.

See ``docs/drivers/hitachi.md``.
"""

from collections.abc import Mapping
from typing import Any

from semagent.clock import Clock
from semagent.options import parse_options
from semagent_drivers.hitachi.facts import DRIVER
from semagent_drivers.hitachi.microscope import Hitachi
from semagent_drivers.hitachi.options import HitachiOptions

__all__ = ["DRIVER", "Hitachi", "HitachiOptions", "open_microscope"]


def open_microscope(options: Mapping[str, Any], *, clock: Clock) -> Hitachi:
    """Wait for the SEM PC to call, and ask it what it is.

    Raises:
        ConfigError: an option is wrong.
        MicroscopeError: it does not call, or does not describe itself.
    """
    return Hitachi(parse_options(options, HitachiOptions, where="driver hitachi"), clock)
