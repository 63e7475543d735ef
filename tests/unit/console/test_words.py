"""Actions in the words of an operator: the right axis, with its sign and unit."""

import math

import pytest

from semagent.console.words import action_words
from semagent.types import (
    Action,
    Arm,
    Disarm,
    MoveStage,
    Region,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
    Stop,
)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (SetWorkingDistance(working_distance_m=5.0012e-3), "working distance 5.0012 mm"),
        (SetStigmator(x=0.1, y=-0.02), "stigmators +0.1000, -0.0200"),
        (SetBeamShift(x_m=1.5e-6, y_m=-2e-7), "beam shift 1.5 µm, -200 nm"),
        (MoveStage(x_m=1e-3, y_m=-2e-6, z_m=0.01), "stage x 1 mm, y -2 µm, z 10 mm"),
        (
            MoveStage(rotation_rad=math.radians(30), tilt_rad=math.radians(-5)),
            "stage rotation 30°, tilt -5°",
        ),
        (SetScan(dwell_s=3e-7, frame_averages=4), "scan dwell 0.3 µs, 4 averages"),
        (
            SetScan(region=Region(left=0.25, top=0.5, width=0.125, height=0.0625)),
            "scan region left 0.25, top 0.5, width 0.125, height 0.0625",
        ),
        (SetBlanked(blanked=True), "blank the beam"),
        (SetBlanked(blanked=False), "let the beam on"),
        (Stop(), "stop"),
        (Arm(), "arm"),
        (Disarm(reason="lunch"), "disarm: lunch"),
    ],
)
def test_what_is_asked_for_is_in_words(action: Action, words: str):
    assert action_words(action) == words
