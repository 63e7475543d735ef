"""The dose of a search: what it has taken, and how many frames more its budget allows."""

import math

import msgspec

from semagent.control.situation import Autofocus
from semagent.dose import dose_of, missing_for_dose
from semagent.types import FrameHeader, MicroscopeState

_ROUNDING = 1e-9  # of a frame: ten frames have to fit into ten times the dose of one


def counted(task: Autofocus, header: FrameHeader, budget_e_nm2: float | None) -> Autofocus:
    """The search with what was exposed up to this frame.

    Frames that were skipped or came while a command was outstanding count too; they are told by
    their numbers and taken to have been like this one.
    """
    if budget_e_nm2 is None:
        return task
    frames = 1 if task.counted is None else header.sequence - task.counted
    if frames <= 0:
        return task
    frame, before = dose_of(header), task.dose_e_nm2
    if frame is None or before is None:
        return msgspec.structs.replace(
            task, counted=header.sequence, dose_e_nm2=None, frames_affordable=0
        )
    dose = before + frames * frame
    more = (budget_e_nm2 - dose) / frame + _ROUNDING
    return msgspec.structs.replace(
        task,
        counted=header.sequence,
        dose_e_nm2=dose,
        frames_affordable=max(math.floor(more), 0),
    )


def forbids(settings: FrameHeader | MicroscopeState, budget_e_nm2: float | None) -> str:
    """Why the budget does not even allow one frame with these settings; empty if it does."""
    if budget_e_nm2 is None:
        return ""
    frame = dose_of(settings)
    if frame is None:
        return _unknown(settings, budget_e_nm2)
    if frame * (1 - _ROUNDING) <= budget_e_nm2:
        return ""
    return f"{_the_budget(budget_e_nm2)} is less than the {frame:.3g} e/nm² of one frame"


def used_up(task: Autofocus, header: FrameHeader, budget_e_nm2: float | None) -> str:
    """Why the budget allows no frame more; empty if it does, or if there is none."""
    if budget_e_nm2 is None or task.frames_affordable != 0:
        return ""
    if task.dose_e_nm2 is None:
        return _unknown(header, budget_e_nm2)
    return (
        f"{_the_budget(budget_e_nm2)} allows no frame more: "
        f"{task.dose_e_nm2:.3g} e/nm² were taken, one more would add {dose_of(header):.3g} e/nm²"
    )


def _unknown(settings: FrameHeader | MicroscopeState, budget_e_nm2: float) -> str:
    missing = " and ".join(missing_for_dose(settings))
    return f"{_the_budget(budget_e_nm2)} cannot be kept: the microscope does not report {missing}"


def _the_budget(budget_e_nm2: float) -> str:
    return f"the dose budget of {budget_e_nm2:g} e/nm² (max_dose_e_nm2)"
