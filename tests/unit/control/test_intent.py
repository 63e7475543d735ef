"""What control says it is doing is what it is doing."""

import msgspec
import pytest

from semagent.control import ControlState, Decision, intent_of
from semagent.control.situation import Autofocus, Pending
from semagent.types import Basis, GateStatus, Mode, SetWorkingDistance

ARMED = GateStatus(armed=True, reason="armed", monotonic_ns=1)


@pytest.mark.parametrize(
    ("state", "doing", "says"),
    [
        (ControlState(mode=Mode.OBSERVE), "watching", "observe"),
        (ControlState(mode=Mode.ADVISE), "watching", "proposes"),
        (ControlState(mode=Mode.HOLD), "watching", "disarmed"),
        (ControlState(mode=Mode.HOLD, gate=ARMED), "watching", "waits"),
        (ControlState(mode=Mode.HOLD, paused="a hand"), "paused", "a hand"),
        (ControlState(mode=Mode.HOLD, task=Autofocus(max_frames=9)), "focusing", "first frame"),
    ],
)
def test_words(state: ControlState, doing: str, says: str):
    intent = intent_of(state, None)
    assert intent.doing == doing
    assert says in intent.why
    assert intent.mode is state.mode


def test_the_command_on_its_way_and_the_proposal_are_named():
    going = SetWorkingDistance(working_distance_m=0.0051)
    state = ControlState(mode=Mode.HOLD, pending=Pending(action=going))
    assert intent_of(state, None).target_m == 0.0051
    proposed = Decision(
        state=msgspec.structs.replace(state, pending=None),
        basis=Basis(sequence=4, settings_rev=2),
        proposal=SetWorkingDistance(working_distance_m=0.0052),
    )
    intent = intent_of(proposed.state, proposed)
    assert intent.proposal_m == 0.0052
    assert intent.basis == Basis(sequence=4, settings_rev=2)
