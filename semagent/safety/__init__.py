"""The safety gate: the last step before the driver.

Pure: it owns no clock, no socket and no thread, and the only thing it does is say no.
`docs/safety.md` states the case for people who answer for an instrument.
"""

from semagent.safety.axes import AXES, STAGE_X, STAGE_Y
from semagent.safety.envelope import AxisLimits, Envelope, KeepOut, ReadbackTolerance, ScanLimits
from semagent.safety.gate import SafetyGate
from semagent.safety.limits import check_places
from semagent.safety.refusal import Code, Refusal

__all__ = [
    "AXES",
    "STAGE_X",
    "STAGE_Y",
    "AxisLimits",
    "Code",
    "Envelope",
    "KeepOut",
    "ReadbackTolerance",
    "Refusal",
    "SafetyGate",
    "ScanLimits",
    "check_places",
]
