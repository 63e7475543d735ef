"""A simulated scanning electron microscope.

The physics and every option are described in ``docs/simulated-sem.md``.
"""

from collections.abc import Mapping
from typing import Any

from semagent.clock import Clock
from semagent.options import parse_options
from semagent_drivers.simulated.microscope import DRIVER, SimulatedMicroscope
from semagent_drivers.simulated.options import SimulatedOptions
from semagent_drivers.simulated.truth import SimulationTruth

__all__ = [
    "DRIVER",
    "SimulatedMicroscope",
    "SimulatedOptions",
    "SimulationTruth",
    "open_microscope",
]


def open_microscope(options: Mapping[str, Any], *, clock: Clock) -> SimulatedMicroscope:
    """Build the specimen and return the microscope, with the beam on unless told otherwise.

    Raises:
        ConfigError: an option is unknown or out of range, or a file cannot be used.
    """
    return SimulatedMicroscope(parse_options(options, SimulatedOptions, where="simulated"), clock)
