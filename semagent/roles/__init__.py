"""The roles of the loop. Each is stepped by whoever runs it: a process, or one thread."""

from semagent.roles.acquire import AcquireRole
from semagent.roles.base import RoleLoop
from semagent.roles.control import CONTROL_IDS, ControlRole
from semagent.roles.infer import InferRole
from semagent.roles.record import RecordRole, SessionRecorder
from semagent.roles.restore import RestoreRole

__all__ = [
    "CONTROL_IDS",
    "AcquireRole",
    "ControlRole",
    "InferRole",
    "RecordRole",
    "RestoreRole",
    "RoleLoop",
    "SessionRecorder",
]
