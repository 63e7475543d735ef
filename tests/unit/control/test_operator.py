"""The operator beats the agent: a hand on the microscope pauses it."""

from collections.abc import Callable

import msgspec
import pytest

from semagent.control import ControlOptions
from semagent.control.situation import Follow, Return
from semagent.types import (
    Cancel,
    Disarm,
    Issuer,
    Level,
    MoveStage,
    Outcome,
    Region,
    Reply,
    SetStigmator,
    SetWorkingDistance,
    StartAutofocus,
    Stop,
)

from .bench import OPTIONS, UNIT_M, Bench

Hand = Callable[[Bench], None]


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


@pytest.mark.parametrize(
    ("action", "frames"),
    [(SetWorkingDistance(working_distance_m=5.01e-3), 4), (SetStigmator(x=0.105, y=-0.1), 1)],
)
def test_what_the_operator_does_to_more_than_focus_voids_the_belief(
    action: SetWorkingDistance, frames: int
) -> None:
    bench = Bench(options=ControlOptions())
    bench.run(3)
    bench.operator(action)
    bench.frame()
    belief = bench.controller.belief
    assert belief is not None
    assert belief.frames == frames


def change(**optics: float) -> Hand:
    def apply(bench: Bench) -> None:
        bench.optics = msgspec.structs.replace(bench.optics, **optics)

    return apply


def rescan(**scan: object) -> Hand:
    def apply(bench: Bench) -> None:
        bench.scan = msgspec.structs.replace(bench.scan, **scan)

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
        (change(stigmator_x=-0.2), "stigmator_x was changed from +0.1000 to -0.2000"),
        (move_stage, "the stage was moved by 5.00 µm"),
        (
            other_magnification,
            "scan, its rotation, beam energy, magnification or detector were changed",
        ),
    ],
)
def test_hand_on_the_microscope_pauses(bench: Bench, hand: Hand, words: str) -> None:
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


# -- settings that are changed once the frame was taken that a command rests on ---------------


def after_the_frame(bench: Bench, hand: Hand) -> None:
    """Let a hand be quicker than the next command; the gate refuses what rests on older frames."""

    def answer(reply: Reply) -> Reply:
        if bench.settings_rev == 1:
            hand(bench)
            bench.settings_rev = 2
        return msgspec.structs.replace(
            reply, outcome=Outcome.REFUSED, code="settings_changed", state=bench.state()
        )

    bench.answer = answer


def nothing_reported(_bench: Bench) -> None:
    """Of a detector, for example, only frames tell."""


@pytest.mark.parametrize(
    ("hand", "words"),
    [
        (rescan(dwell_s=4e-7), "the settings were changed: dwell from unknown to 0.4 µs"),
        (rescan(pixel_size_m=5e-9), "pixel size from 10 nm to 5 nm"),
        (rescan(frame_averages=4), "averages from 1 to 4"),
        (
            rescan(width_px=512, height_px=384),
            "frame from 1024 x 768 pixels of 8 bit to 512 x 384 pixels of 8 bit",
        ),
        (
            rescan(region=Region(left=0.25, top=0.0, width=0.5, height=0.5)),
            "region from the whole field to 0.5 x 0.5 of the field at 0.25, 0",
        ),
        (change(accelerating_voltage_v=12345.6), "beam energy from unknown to 12.3 kV"),
        (change(magnification=200_000.0), "magnification from unknown to 200000"),
        (
            nothing_reported,
            "scan, its rotation, beam energy, magnification or detector were changed",
        ),
    ],
)
def test_settings_changed_before_a_command_end_the_search_once(
    bench: Bench, hand: Hand, words: str
) -> None:
    given, told = len(bench.commands), len(bench.events)
    after_the_frame(bench, hand)
    bench.run(3)
    assert len(bench.commands) == given + 1
    result = bench.results[-1]
    assert result.status == "failed"
    assert result.reason.endswith(f"{words}; left as it is")
    assert result.final_working_distance_m == bench.optics.working_distance_m
    news = bench.events[told:]
    assert [event.kind for event in news if event.level is not Level.INFO] == ["autofocus_done"]
    assert not any(event.data.get("put_back") is False for event in news)
    assert bench.controller.state.paused
    bench.answer = lambda reply: reply
    bench.request(StartAutofocus())
    bench.frame()
    assert len(bench.commands) > given + 1


def test_settings_changed_on_a_way_of_several_commands(bench: Bench) -> None:
    """What was read back with the first knows of the change already."""
    original = bench.carry_out

    def carry_out(action: object) -> None:
        original(action)
        pending = bench.controller.state.pending
        if pending is None or not pending.then:
            return
        bench.scan = msgspec.structs.replace(bench.scan, pixel_size_m=5e-9)
        bench.settings_rev = 2
        after_the_frame(bench, nothing_reported)

    bench.carry_out = carry_out
    while not bench.results:
        bench.frame()
    assert "pixel size from 10 nm to 5 nm; left as it is" in bench.results[-1].reason


def test_another_detector_is_known_from_a_frame(bench: Bench) -> None:
    header = msgspec.structs.replace(bench.header(), detector="BSE", settings_rev=2)
    bench.follow(bench.controller.flagged(header))
    reason = "the settings were changed: detector from SE to BSE; left as it is"
    assert bench.results[-1].reason == reason


def test_settings_changed_before_a_command_of_hold_end_it_once() -> None:
    bench = Bench(drift=0.1, focus=3.0)
    bench.arm()
    bench.run(40)
    assert isinstance(bench.controller.state.task, Follow)
    given, told = len(bench.commands), len(bench.events)
    after_the_frame(bench, rescan(pixel_size_m=5e-9))
    bench.run(20)
    assert len(bench.commands) == given + 1
    news = bench.events[told:]
    assert [event.kind for event in news] == ["hold_ended", "paused"]
    assert [event.level for event in news] == [Level.WARNING, Level.INFO]
    assert "pixel size from 10 nm to 5 nm; left as it is" in news[0].message
    assert "pixel size" not in news[1].message


def test_settings_changed_while_a_command_of_hold_is_carried_out_end_it() -> None:
    """Frames of another magnification are not compared with the reference of this one."""
    bench = Bench(drift=0.1, focus=3.0)
    bench.arm()
    bench.run(40)
    original = bench.carry_out

    def carry_out(action: object) -> None:
        original(action)
        bench.scan = msgspec.structs.replace(bench.scan, pixel_size_m=5e-9)
        bench.settings_rev = 2

    bench.carry_out = carry_out
    bench.run(20)
    assert bench.controller.state.task is None
    assert "pixel size from 10 nm to 5 nm; left as it is" in bench.controller.state.paused


def test_settings_changed_on_the_way_back_are_said_to_have_cut_it_short(bench: Bench) -> None:
    given = len(bench.commands)
    after_the_frame(bench, rescan(pixel_size_m=5e-9))
    bench.request(Cancel())
    assert len(bench.commands) == given + 1
    assert "pixel size from 10 nm to 5 nm; left as it is" in bench.results[-1].reason
    (event,) = (event for event in bench.events if event.kind == "autofocus_done")
    assert event.data == {"put_back": False}


def before_the_last_move(code: str) -> Bench:
    """A search whose last move, from the verifying frame to the estimate, is refused."""
    for seed in range(20):
        bench = Bench(focus=3.0, seed=seed, options=OPTIONS)

        def answer(reply: Reply, bench: Bench = bench) -> Reply:
            if not isinstance(bench.controller.state.task, Return):
                return reply
            bench.settings_rev = 2
            return msgspec.structs.replace(
                reply, outcome=Outcome.REFUSED, code=code, reason="no", state=bench.state()
            )

        bench.answer = answer
        bench.arm()
        bench.request(StartAutofocus())
        if bench.run_until_result().status == "failed":
            return bench
    raise AssertionError("no search ended with a move")


def test_settings_changed_before_the_last_move_are_not_a_way_back_that_failed() -> None:
    bench = before_the_last_move("settings_changed")
    assert bench.results[-1].reason.endswith("were changed; left as it is")
    assert not any(event.data.get("put_back") is False for event in bench.events)


def test_a_last_move_that_is_refused_is_not_called_a_way_back() -> None:
    bench = before_the_last_move("limit")
    assert "could not be put back" not in bench.results[-1].reason
    assert "could not go on to 5.00" in bench.results[-1].reason
    assert bench.events[-1].data == {"put_back": False}


# -- an axis that is moved by hand: the gate shuts --------------------------------------------


def hand_shuts(bench: Bench) -> None:
    bench.arm(False, "moved by hand: stage x reads 5 µm", "moved_by_hand")


def assert_left_to_the_hand(bench: Bench, given: int) -> None:
    assert len(bench.commands) == given
    assert bench.controller.state.task is None
    assert bench.controller.state.pending is None
    assert "command_failed" not in bench.kinds
    assert bench.events[-1].message.endswith("the safety gate has closed; left as it is")


@pytest.mark.parametrize(
    ("first", "code"),
    [("gate", "moved_by_hand"), ("gate", "disarmed"), ("reply", "moved_by_hand")],
)
def test_a_hand_that_shuts_the_gate_before_a_command_ends_the_search_once(
    bench: Bench, first: str, code: str
) -> None:
    def answer(reply: Reply) -> Reply:
        if first == "gate":
            hand_shuts(bench)
        return msgspec.structs.replace(reply, outcome=Outcome.REFUSED, code=code, reason="no")

    given = len(bench.commands)
    bench.answer = answer
    bench.frame()
    if first == "reply":
        assert not bench.results
        hand_shuts(bench)
    assert_left_to_the_hand(bench, given + 1)
    hand_shuts(bench)  # it is said about once a second
    (result,) = bench.results
    assert result.status == "failed"
    assert result.reason == "moved by hand: stage x reads 5 µm; left as it is"
    assert not any(event.data.get("put_back") is False for event in bench.events)


def test_a_hand_that_shuts_the_gate_ends_hold_until_it_is_armed() -> None:
    bench = Bench(drift=0.1, focus=3.0)
    bench.arm()
    bench.run(40)
    assert isinstance(bench.controller.state.task, Follow)
    given = len(bench.commands)
    hand_shuts(bench)
    assert bench.events[-1].kind == "hold_ended"
    assert bench.events[-1].data == {}
    assert_left_to_the_hand(bench, given)
    bench.arm()
    bench.run(5)
    assert len(bench.commands) > given


def test_a_hand_that_shuts_the_gate_on_the_way_back_is_said_to_have_cut_it_short(
    bench: Bench,
) -> None:
    given = len(bench.commands)
    bench.answer = lambda reply: msgspec.structs.replace(
        reply, outcome=Outcome.REFUSED, code="moved_by_hand", reason="no"
    )
    bench.request(Cancel())
    hand_shuts(bench)
    assert_left_to_the_hand(bench, given + 1)
    assert bench.events[-1].data == {"put_back": False}


# -- a lens that does not follow: the gate shuts ----------------------------------------------

READING = "working distance reads 5 mm where 5.03 mm is expected"


def lens_stays(bench: Bench, first: str) -> None:
    """The next command changes nothing, of which either the gate or the reply tells first."""

    def answer(reply: Reply) -> Reply:
        if first == "gate":
            bench.arm(False, READING, "readback_differs")
        changes = {"code": "readback_differs", "reason": f"{READING}. The gate is disarmed"}
        return msgspec.structs.replace(reply, outcome=Outcome.FAILED, **changes)

    bench.answer = answer


@pytest.mark.parametrize("first", ["gate", "reply"])
def test_a_lens_that_does_not_follow_is_told_of_by_the_gate_alone(bench: Bench, first: str) -> None:
    given = len(bench.commands)
    lens_stays(bench, first)
    bench.frame()
    bench.arm(False, READING, "readback_differs")
    assert len(bench.commands) == given + 1
    (result,) = bench.results
    assert READING in result.reason
    assert "could not be put back to 5.0000 mm" in result.reason
    assert not any(READING in event.message for event in bench.events)
    assert "the safety gate has closed; could not be put back" in bench.events[-1].message
    assert bench.events[-1].data == {"put_back": False}


@pytest.mark.parametrize("first", ["gate", "reply"])
def test_a_reading_from_before_the_move_is_no_proof_that_focus_is_where_it_was(
    bench: Bench, first: str
) -> None:
    lens_stays(bench, first)
    answer = bench.answer

    def stale(reply: Reply) -> Reply:
        assert reply.state is not None
        optics = msgspec.structs.replace(reply.state.optics, working_distance_m=bench.origin_m)
        state = msgspec.structs.replace(reply.state, optics=optics)
        return msgspec.structs.replace(answer(reply), state=state)

    bench.answer = stale
    bench.frame()
    bench.arm(False, READING, "readback_differs")
    assert "could not be put back to" in bench.events[-1].message
    assert bench.events[-1].data == {"put_back": False}


def test_a_lens_that_does_not_follow_on_the_way_back_is_told_of_by_the_gate_alone(
    bench: Bench,
) -> None:
    lens_stays(bench, "reply")
    bench.request(Cancel())
    bench.arm(False, READING, "readback_differs")
    assert bench.controller.state.task is None
    assert not any(READING in event.message for event in bench.events)
    assert "could not be put back to" in bench.events[-1].message
    assert bench.events[-1].data == {"put_back": False}


def test_a_search_that_is_asked_for_while_the_gate_is_shut_is_told_to_arm(bench: Bench) -> None:
    hand_shuts(bench)
    bench.request(StartAutofocus())
    assert bench.results[-1].reason == "the safety gate is disarmed; arm it and ask again"
