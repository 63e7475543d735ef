"""The operator beats the agent: a hand on the microscope pauses it."""

from collections.abc import Callable

import msgspec
import pytest

from semagent.types import (
    Disarm,
    Issuer,
    MoveStage,
    Outcome,
    Reply,
    SetStigmator,
    SetWorkingDistance,
    StartAutofocus,
    Stop,
)

from .bench import UNIT_M, Bench


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (SetWorkingDistance(working_distance_m=4.9e-3), "set working distance"),
        (SetStigmator(x=0.5, y=0.0), "set stigmator"),
        (MoveStage(x_m=1e-3), "move stage"),
    ],
)
def test_command_of_the_operator_pauses(
    bench: Bench, action: SetWorkingDistance, words: str
) -> None:
    bench.operator(action)
    result = bench.results[-1]
    assert result.status == "failed"
    assert f"the operator's command: {words}; left as it is" in result.reason
    given = len(bench.commands)
    bench.run(10)
    assert len(bench.commands) == given
    assert "paused" in bench.kinds


def change(**optics: float) -> Callable[[Bench], None]:
    def apply(bench: Bench) -> None:
        bench.optics = msgspec.structs.replace(bench.optics, **optics)

    return apply


def move_stage(bench: Bench) -> None:
    bench.stage = msgspec.structs.replace(bench.stage, y_m=5e-6)


def other_magnification(bench: Bench) -> None:
    bench.settings_rev = 2


@pytest.mark.parametrize(
    ("hand", "words"),
    [
        (change(working_distance_m=5.2e-3), "working distance was changed"),
        (change(stigmator_y=0.2), "stigmator_y was changed from -0.1000 to +0.2000"),
        (move_stage, "the stage was moved by 5.00 µm"),
        (other_magnification, "scan, beam energy, magnification or detector were changed"),
    ],
)
def test_hand_on_the_microscope_pauses(
    bench: Bench, hand: Callable[[Bench], None], words: str
) -> None:
    hand(bench)
    given = len(bench.commands)
    bench.run(5)
    assert words in bench.results[-1].reason
    assert len(bench.commands) == given
    assert words in bench.controller.state.paused
    bench.request(StartAutofocus())
    assert bench.controller.state.paused == ""
    bench.frame()
    assert len(bench.commands) > given


def test_small_change_of_the_read_back_is_not_a_hand(bench: Bench) -> None:
    wobble_m = bench.optics.working_distance_m + 0.4 * UNIT_M
    bench.optics = msgspec.structs.replace(bench.optics, working_distance_m=wobble_m)
    bench.frame()
    assert not bench.results


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.FAILED])
def test_refused_command_of_the_operator_does_not_pause(bench: Bench, outcome: Outcome) -> None:
    reply = bench.reply(SetWorkingDistance(working_distance_m=1.0), Issuer.OPERATOR)
    reply = msgspec.structs.replace(reply, outcome=outcome)
    bench.follow(bench.controller.replied(reply))
    assert not bench.results


def test_stop_ends_and_leaves(bench: Bench) -> None:
    bench.operator(Stop())
    bench.arm(False, "stopped")
    assert bench.results[-1].status == "failed"
    assert len(bench.results) == 1


def test_arming_and_disarming_are_no_hands(bench: Bench) -> None:
    reply = bench.reply(Disarm(reason="x"), Issuer.OPERATOR)
    bench.follow(bench.controller.replied(reply))
    assert not bench.results


def test_answer_after_the_operator_took_over_leads_nowhere(bench: Bench) -> None:
    kept: list[Reply] = []
    bench.answer = kept.append
    bench.frame()
    bench.operator(SetStigmator(x=0.0, y=0.0))
    given = len(bench.commands)
    bench.answer = lambda reply: reply
    bench.follow(bench.controller.replied(kept[0]))
    bench.run(3)
    assert len(bench.commands) == given
    assert bench.controller.state.pending is None
    assert bench.controller.state.expected is None
