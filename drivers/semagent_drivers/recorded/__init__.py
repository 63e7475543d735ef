"""Recorded focus stacks as if they were the microscope.

``open_microscope`` is the entry point of the driver; `load_stack` and `Stack` serve whoever
only needs the frames.
"""

from semagent_drivers.recorded.microscope import (
    DRIVER,
    RecordedMicroscope,
    RecordedOptions,
    open_microscope,
)
from semagent_drivers.recorded.stack import Stack, StackEntry, load_stack

__all__ = [
    "DRIVER",
    "RecordedMicroscope",
    "RecordedOptions",
    "Stack",
    "StackEntry",
    "load_stack",
    "open_microscope",
]
