"""Whether the frame a command of the agent rests on still says something about now."""

from semagent.display import show, show_alike
from semagent.safety.refusal import Code, Refusal
from semagent.types import Basis, MicroscopeState


def check_evidence(
    basis: Basis | None,
    *,
    basis_ns: int | None,
    now_ns: int,
    limit_ns: int,
    after_ns: int,
    state: MicroscopeState,
) -> Refusal | None:
    """Refuse a basis that is missing, unknown, too old, of other settings, or overtaken.

    Args:
        basis: what the command says it rests on.
        basis_ns: end of that frame's exposure, ``None`` if the frame is not known.
        now_ns: the moment.
        limit_ns: greatest age allowed.
        after_ns: the frame has to be exposed after this moment, which the operator's last
            command or arming has set.
        state: the settings measured now.
    """
    if basis is None:
        return Refusal(
            Code.NO_BASIS,
            "the agent's command names no frame it rests on; decide again from a new frame",
        )
    if basis_ns is None:
        return Refusal(
            Code.FRAME_UNKNOWN,
            f"frame {basis.sequence}, on which the command rests, is not among the frames "
            "remembered; decide again from a new frame",
        )
    if not 0 <= now_ns - basis_ns <= limit_ns:
        age, limit = show_alike("time", (now_ns - basis_ns) / 1e9, limit_ns / 1e9)
        return Refusal(
            Code.STALE,
            f"frame {basis.sequence}, on which the command rests, is {age} old where 0 to "
            f"{limit} is allowed (max_evidence_age_s); decide again from a new frame",
        )
    if basis.settings_rev != state.settings_rev:
        return Refusal(
            Code.SETTINGS_CHANGED,
            f"frame {basis.sequence}, on which the command rests, has settings revision "
            f"{basis.settings_rev}, the microscope is at {state.settings_rev}: scan, beam "
            "energy, magnification or detector have changed; decide again from a new frame",
        )
    if basis_ns <= after_ns:
        early = show("time", (after_ns - basis_ns) / 1e9)
        return Refusal(
            Code.OPERATOR_FIRST,
            f"frame {basis.sequence}, on which the command rests, was exposed {early} too "
            "early: the agent has to wait for a frame exposed after the gate was armed, and "
            "more than operator_hold_s after a command of the operator; decide again from a "
            "new frame",
        )
    return None
