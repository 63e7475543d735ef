"""How the roles talk: one interface, in one process or over ZeroMQ."""

from semagent.bus.base import Bus, Delivered, Mailbox, Recorder
from semagent.bus.local import LocalBus, LocalHub

__all__ = ["Bus", "Delivered", "LocalBus", "LocalHub", "Mailbox", "Recorder"]
