"""Fake vendors, for tests and for rehearsing without a microscope: see ``docs/drivers/README.md``.

Each driver's fake lies beside it, as ``semagent_drivers.NAME.fake``; what they share is here.
"""

from semagent_drivers.fakes.bench import Bench
from semagent_drivers.fakes.lines import questions
from semagent_drivers.fakes.server import FakeServer, rehearse, until_ctrl_c
from semagent_drivers.fakes.stage import Stage
from semagent_drivers.fakes.trip import Fault, Trip, wired

__all__ = [
    "Bench",
    "FakeServer",
    "Fault",
    "Stage",
    "Trip",
    "questions",
    "rehearse",
    "until_ctrl_c",
    "wired",
]
