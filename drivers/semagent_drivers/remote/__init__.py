"""A microscope that is served by ``semagent serve`` on another machine.

See ``docs/remote.md``; the options are `RemoteOptions`.
"""

from semagent_drivers.remote.microscope import open_microscope
from semagent_drivers.remote.options import RemoteOptions

__all__ = ["RemoteOptions", "open_microscope"]
