"""Control: from what engines say of frames to what the microscope should do next.

Pure: imports values, ports and options, and knows no clock, no socket and no thread.
"""

from semagent.control.budget import forbids
from semagent.control.controller import Controller
from semagent.control.decide import decide
from semagent.control.drift import Stabiliser
from semagent.control.ending import not_begun
from semagent.control.estimator import SpectralEstimator
from semagent.control.intent import intent_of
from semagent.control.options import ControlOptions
from semagent.control.reach import Axis, Reach
from semagent.control.situation import (
    Analysed,
    ControlState,
    Decision,
    Flagged,
    GateChanged,
    Notice,
    Observation,
    Replied,
    Requested,
    Ticked,
)

__all__ = [
    "Analysed",
    "Axis",
    "ControlOptions",
    "ControlState",
    "Controller",
    "Decision",
    "Flagged",
    "GateChanged",
    "Notice",
    "Observation",
    "Reach",
    "Replied",
    "Requested",
    "SpectralEstimator",
    "Stabiliser",
    "Ticked",
    "decide",
    "forbids",
    "intent_of",
    "not_begun",
]
