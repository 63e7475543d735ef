"""Tile scans: focus at a few positions, a map of focus from them, frames of all.

A person starts one; it moves the stage as the agent, one command at a time, through the gate.
"""

from semagent.survey.pilot import Pilot, for_survey, usual_approach_m
from semagent.survey.work import Found, NoMapError, Survey, Visit

__all__ = [
    "Found",
    "NoMapError",
    "Pilot",
    "Survey",
    "Visit",
    "for_survey",
    "usual_approach_m",
]
