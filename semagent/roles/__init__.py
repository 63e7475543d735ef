"""The roles of the loop. Each is stepped by whoever runs it: a process, or one thread."""

from semagent.roles.acquire import AcquireRole
from semagent.roles.base import RoleLoop
from semagent.roles.control import ControlRole
from semagent.roles.infer import InferRole
from semagent.roles.record import RecordRole, SessionRecorder
from semagent.roles.restore import RestoreRole

__all__ = [
    "AcquireRole",
    "ControlRole",
    "InferRole",
    "RecordRole",
    "RestoreRole",
    "RoleLoop",
    "SessionRecorder",
]
