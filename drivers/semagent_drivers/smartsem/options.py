"""The options of the driver over SmartSEM's remote interface."""

from typing import Annotated

from msgspec import Meta

from semagent.options import Positive
from semagent_drivers.adapter import AdapterOptions, Settling


class SmartSemOptions(AdapterOptions, frozen=True, kw_only=True):
    """What SmartSEM does not tell.

    Attributes:
        working_distance_range_mm: what the column can focus.
        readback_tolerance_um: how far the working distance may read back from what was set.
        focus_settle_s: time the beam takes to settle after focus or stigmators.
        blank_retries: how often a frame without anything is taken again: SmartSEM gives one now
            and then.
        stage: whether the stage may be moved at all; the ranges are SmartSEM's.
        stage_settle_s: how long after a command the stage may still say that it does not move.
        sdk: Python package; the fake's name rehearses without a microscope.
    """

    working_distance_range_mm: tuple[Positive, Positive] = (1.0, 50.0)
    readback_tolerance_um: Positive = 0.2
    focus_settle_s: Settling = 0.3
    blank_retries: Annotated[int, Meta(ge=0, le=10)] = 3
    stage: bool = False
    stage_settle_s: Settling = 1.0
    sdk: str = "win32com.client"
