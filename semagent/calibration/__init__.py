"""Measuring an instrument: what its knobs do to focus, astigmatism and the place of the image.

A person starts it, and every move passes the safety gate. Nothing is taken from the driver on
trust: all figures come from frames.
"""

from semagent.calibration.procedure import (
    CalibrationOptions,
    NotCalibratedError,
    Stage,
    calibrate,
)

__all__ = ["CalibrationOptions", "NotCalibratedError", "Stage", "calibrate"]
