"""A gate on a bench: an envelope, a microscope that obeys, and time that is told.

Limits and positions are powers of two, so that sums and differences at the limits are exact.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from semagent.safety import Envelope, Refusal, SafetyGate
from semagent.safety.axes import AXES, Axis
from semagent.types import (
    Action,
    Arm,
    Basis,
    Command,
    Issuer,
    MicroscopeAction,
    MicroscopeState,
    MoveStage,
    Optics,
    Scan,
    SetBeamShift,
    SetStigmator,
    SetWorkingDistance,
    StagePosition,
)

STATE = MicroscopeState(
    scan=Scan(width_px=1024, height_px=768, bit_depth=8, dwell_s=2.0**-20),
    optics=Optics(
        working_distance_m=2.0**-7,
        stigmator_x=0.0,
        stigmator_y=0.0,
        beam_shift_x_m=0.0,
        beam_shift_y_m=0.0,
        blanked=False,
    ),
    stage=StagePosition(x_m=0.0, y_m=0.0, z_m=0.0, rotation_rad=0.0, tilt_rad=0.0),
    settings_rev=3,
)


def limits(low: float, high: float, step: float, travel: float) -> dict[str, float]:
    return {"min": low, "max": high, "max_step": step, "max_travel": travel}


ENVELOPE: dict[str, Any] = {
    "specimen_holder": "12.7 mm stub",
    "working_distance_m": limits(2.0**-8, 2.0**-6, 2.0**-10, 2.0**-8),
    "stigmator": limits(-0.5, 0.5, 0.125, 0.5),
    "beam_shift_m": limits(-(2.0**-15), 2.0**-15, 2.0**-17, 2.0**-15),
    "stage_x_m": limits(-(2.0**-5), 2.0**-5, 2.0**-7, 2.0**-5),
    "stage_y_m": limits(-(2.0**-5), 2.0**-5, 2.0**-7, 2.0**-5),
    "stage_z_m": limits(-(2.0**-6), 2.0**-6, 2.0**-8, 2.0**-6),
    "stage_rotation_rad": limits(-2.0, 2.0, 0.5, 2.0),
    "stage_tilt_rad": limits(-1.0, 1.0, 0.25, 1.0),
    "scan": {"dwell_s": [2.0**-23, 2.0**-17], "max_frame_averages": 16, "min_region": 0.125},
    "allow_unblank": True,
    "keep_out": [],
    "travel_window_s": 60.0,
    "max_evidence_age_s": 2.0,
    "operator_hold_s": 1.0,
    "heartbeat_timeout_s": 0.5,
    "readback_tolerance": {
        "working_distance_m": 2.0**-20,
        "stigmator": 2.0**-10,
        "beam_shift_m": 2.0**-24,
        "stage_x_m": 2.0**-18,
        "stage_y_m": 2.0**-18,
        "stage_z_m": 2.0**-18,
        "stage_rotation_rad": 2.0**-10,
        "stage_tilt_rad": 2.0**-10,
        "dwell_s": 2.0**-28,
        "region": 2.0**-8,
    },
}


def make_envelope(**changes: Any) -> Envelope:
    return msgspec.convert({**ENVELOPE, **changes}, Envelope)


@dataclass(frozen=True)
class AxisCase:
    """One axis of the gate: how to ask for a position and where it is measured."""

    axis: Axis
    part: str
    field: str
    ask: Callable[[float], MicroscopeAction]

    @property
    def limits(self) -> dict[str, float]:
        found: dict[str, float] = ENVELOPE[self.axis.key]
        return found

    @property
    def tolerance(self) -> float:
        found: float = ENVELOPE["readback_tolerance"][self.axis.key]
        return found

    @property
    def start(self) -> float:
        value = self.axis.read(STATE)
        assert value is not None
        return value

    def at(self, value: float | None, state: MicroscopeState = STATE) -> MicroscopeState:
        """``state`` with this axis measured at ``value``."""
        part = msgspec.structs.replace(getattr(state, self.part), **{self.field: value})
        return msgspec.structs.replace(state, **{self.part: part})

    def __str__(self) -> str:
        return self.field


_CASES: list[tuple[str, str, Callable[[float], MicroscopeAction]]] = [
    ("optics", "working_distance_m", lambda v: SetWorkingDistance(working_distance_m=v)),
    ("optics", "stigmator_x", lambda v: SetStigmator(x=v, y=0.0)),
    ("optics", "stigmator_y", lambda v: SetStigmator(x=0.0, y=v)),
    ("optics", "beam_shift_x_m", lambda v: SetBeamShift(x_m=v, y_m=0.0)),
    ("optics", "beam_shift_y_m", lambda v: SetBeamShift(x_m=0.0, y_m=v)),
    ("stage", "x_m", lambda v: MoveStage(x_m=v)),
    ("stage", "y_m", lambda v: MoveStage(y_m=v)),
    ("stage", "z_m", lambda v: MoveStage(z_m=v)),
    ("stage", "rotation_rad", lambda v: MoveStage(rotation_rad=v)),
    ("stage", "tilt_rad", lambda v: MoveStage(tilt_rad=v)),
]
CASES = [
    AxisCase(axis, part, field, ask) for axis, (part, field, ask) in zip(AXES, _CASES, strict=True)
]
WD, Z, TILT = CASES[0], CASES[7], CASES[9]


def obey(state: MicroscopeState, action: MicroscopeAction) -> MicroscopeState:
    """What a perfect microscope reads after ``action``, for actions that move axes."""
    for case in CASES:
        asked = {
            SetWorkingDistance: {"working_distance_m": "working_distance_m"},
            SetStigmator: {"stigmator_x": "x", "stigmator_y": "y"},
            SetBeamShift: {"beam_shift_x_m": "x_m", "beam_shift_y_m": "y_m"},
            MoveStage: {name: name for name in MoveStage.__struct_fields__},
        }[type(action)]
        if case.part == ("stage" if isinstance(action, MoveStage) else "optics"):
            value = getattr(action, asked[case.field]) if case.field in asked else None
            if value is not None:
                state = case.at(value, state)
    return state


class Bench:
    """A gate with everything around it that a command needs to pass."""

    def __init__(self, *, state: MicroscopeState = STATE, **changes: Any) -> None:
        self.gate = SafetyGate(make_envelope(**changes))
        self.state = state
        self.now_ns = 10**12

    def arm(self) -> "Bench":
        assert self.check(Arm(), Issuer.OPERATOR) is None
        self.wait(1e-9)
        return self

    def wait(self, seconds: float) -> None:
        """Let time pass while the control role lives."""
        self.now_ns += round(seconds * 1e9)
        self.gate.heartbeat(self.now_ns)

    def command(self, action: Action, issuer: Issuer = Issuer.AGENT, **changes: Any) -> Command:
        basis = Basis(sequence=7, settings_rev=3) if issuer is Issuer.AGENT else None
        return Command(**{"id": "c", "issuer": issuer, "action": action, "basis": basis, **changes})

    def check(
        self, action: Action, issuer: Issuer = Issuer.AGENT, **changes: Any
    ) -> Refusal | None:
        """Judge an action whose basis, for the agent, is a frame exposed this moment."""
        return self.gate.check(
            self.command(action, issuer, **changes),
            now_ns=self.now_ns,
            state=self.state,
            basis_ns=self.now_ns if issuer is Issuer.AGENT else None,
        )

    def applied(
        self, action: Action, after: MicroscopeState | None, issuer: Issuer = Issuer.AGENT
    ) -> Refusal | None:
        return self.gate.applied(self.command(action, issuer), after=after, now_ns=self.now_ns)

    def send(self, action: MicroscopeAction, issuer: Issuer = Issuer.AGENT) -> Refusal | None:
        """Check an action that moves axes and, if it passes, carry it out perfectly."""
        refusal = self.check(action, issuer)
        if refusal is None:
            self.state = obey(self.state, action)
            assert self.applied(action, self.state, issuer) is None
        return refusal

    @property
    def armed(self) -> bool:
        return self.gate.status.armed


def code(refusal: Refusal | None) -> str | None:
    return None if refusal is None else refusal.code


def with_optics(**changes: Any) -> MicroscopeState:
    return msgspec.structs.replace(STATE, optics=msgspec.structs.replace(STATE.optics, **changes))


def with_scan(**changes: Any) -> MicroscopeState:
    return msgspec.structs.replace(STATE, scan=msgspec.structs.replace(STATE.scan, **changes))
