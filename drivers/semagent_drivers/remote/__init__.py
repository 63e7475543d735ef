"""A microscope that is served by ``semagent serve`` on another machine.

See ``docs/remote.md``; the options are `RemoteOptions`.
"""

from semagent.requirements import DriverFacts
from semagent_drivers.remote.microscope import open_microscope
from semagent_drivers.remote.options import RemoteOptions

__all__ = ["DRIVER", "RemoteOptions", "open_microscope"]

DRIVER = DriverFacts(verified_on="as the driver at the other end says")
