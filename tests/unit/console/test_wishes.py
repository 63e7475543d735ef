"""What is asked on the page takes the same way as the agent's commands, or is refused in words."""

import time
from typing import Any

import msgspec
import pytest

from semagent.testing.engines import frame_of
from semagent.types import (
    Arm,
    Basis,
    Cancel,
    Decline,
    Disarm,
    Intent,
    Issuer,
    MicroscopeState,
    Mode,
    Note,
    SetMode,
    SetStigmator,
    SetWorkingDistance,
    StartAutofocus,
    Stop,
)

from .bench import TOKENS, Run


@pytest.mark.parametrize(
    ("wish", "action"),
    [
        ({"type": "arm"}, Arm()),
        ({"type": "disarm"}, Disarm(reason="by hand, in the console")),
        ({"type": "stop"}, Stop()),
    ],
)
def test_commands_go_to_the_gate_as_the_operators(run: Run, wish: dict[str, Any], action: Any):
    assert run.wish(wish).json == {"outcome": "applied", "code": "", "reason": ""}
    (command,) = run.commands
    assert command.action == action
    assert command.issuer is Issuer.OPERATOR


@pytest.mark.parametrize(
    ("wish", "request_"),
    [
        ({"type": "mode", "mode": "hold"}, SetMode(mode=Mode.HOLD)),
        ({"type": "focus", "stigmation": False}, StartAutofocus(stigmation=False)),
        ({"type": "focus", "stigmation": True}, StartAutofocus(stigmation=True)),
        ({"type": "cancel"}, Cancel(reason="cancelled by the operator in the console")),
        ({"type": "note", "text": " a crack "}, Note(text="a crack")),
        ({"type": "mark", "sequence": 7}, Note(text="mark at frame 7")),
        ({"type": "mark", "sequence": 7, "text": "edge"}, Note(text="mark at frame 7: edge")),
        (
            {"type": "decline", "working_distance_m": 0.005},
            Decline(working_distance_m=0.005),
        ),
    ],
)
def test_requests_go_to_control(run: Run, wish: dict[str, Any], request_: Any):
    assert run.wish(wish).json["outcome"] == "applied"
    assert run.requests == [request_]


def test_a_refusal_comes_back_with_its_reason(run: Run):
    run.refuse = "4.1 mm is below 4.2 mm"
    refused = {"outcome": "refused", "reason": run.refuse}
    assert run.wish({"type": "arm"}).json == {**refused, "code": "range"}
    assert run.wish({"type": "focus", "stigmation": True}).json == {**refused, "code": "control"}


@pytest.mark.parametrize(
    "wish",
    [
        {"type": "arm", "really": True},
        {"type": "explode"},
        {"type": "mode", "mode": "autopilot"},
        {"type": "nudge", "axis": "stage_x", "by": 1.0},
        {},
    ],
)
def test_what_the_page_does_not_define_is_an_error(run: Run, wish: dict[str, Any]):
    assert run.wish(wish).status == 400
    assert run.commands == run.requests == []


def test_a_note_needs_words_and_not_too_many(run: Run):
    for text in ("  ", "x" * 3000):
        assert run.wish({"type": "note", "text": text}).json["outcome"] == "refused"
    assert run.requests == []


def test_what_comes_long_after_it_was_asked_is_refused_but_for_a_stop(run: Run):
    now_ms = time.perf_counter_ns() / 1e6
    late, soon = str(now_ms - 21_000), str(now_ms)
    refused = run.wish({"type": "arm"}, Semagent_Asked_Ms=late).json
    assert refused["outcome"] == "refused"
    assert "s ago and comes only now" in refused["reason"]
    for nonsense in ("once", "nan", ""):
        answer = run.wish({"type": "arm"}, Semagent_Asked_Ms=nonsense).json
        assert answer["outcome"] == "refused"
    assert run.commands == []
    assert run.wish({"type": "arm"}, Semagent_Asked_Ms=soon).json["outcome"] == "applied"
    assert run.wish({"type": "stop"}, Semagent_Asked_Ms=late).json["outcome"] == "applied"


def test_a_command_is_void_some_time_after_it_was_asked_for(run: Run):
    asked_ns = time.perf_counter_ns() - 10 * 10**9
    run.wish({"type": "arm"}, Semagent_Asked_Ms=str(asked_ns / 1e6))
    (command,) = run.commands
    longest_frame_s = 120
    assert command.expires_ns == pytest.approx(asked_ns + (longest_frame_s + 10) * 1e9, abs=1e6)


def test_a_wish_longer_than_any_is_not_read(run: Run):
    assert run.wish({"type": "note", "text": "x" * 20000}).status == 413


def test_a_nudge_starts_from_what_was_measured(run: Run, pixels: Any):
    wish = {"type": "nudge", "axis": "working_distance", "by": 2e-6}
    assert "no frame" in run.wish(wish).json["reason"]
    run.expose(frame_of(pixels))
    assert run.wish(wish).json["outcome"] == "applied"
    assert run.commands[-1].action == SetWorkingDistance(working_distance_m=0.005 + 2e-6)
    wish = {"type": "nudge", "axis": "stigmator_y", "by": 0.01}
    assert "stigmators" in run.wish(wish).json["reason"]
    run.expose(frame_of(pixels, sequence=2), stigmator_x=0.1, stigmator_y=-0.2)
    run.wish(wish)
    assert run.commands[-1].action == SetStigmator(x=0.1, y=-0.2 + 0.01)


def test_a_nudge_starts_from_what_was_read_back_after_the_last_command(run: Run, pixels: Any):
    def moved(**optics: float) -> MicroscopeState:
        return msgspec.structs.replace(
            state, optics=msgspec.structs.replace(state.optics, **optics)
        )

    frame = frame_of(pixels)
    state = frame.header.settings
    run.expose(frame, stigmator_x=0.1, stigmator_y=-0.2)
    run.read_back = moved(working_distance_m=0.004, stigmator_x=0.12, stigmator_y=-0.2)
    run.wish({"type": "nudge", "axis": "stigmator_x", "by": 0.02})
    assert run.commands[-1].action == SetStigmator(x=0.1 + 0.02, y=-0.2)
    # No frame has come since.
    run.wish({"type": "nudge", "axis": "stigmator_y", "by": 0.01})
    assert run.commands[-1].action == SetStigmator(x=0.12, y=-0.2 + 0.01)
    run.wish({"type": "nudge", "axis": "working_distance", "by": 2e-6})
    assert run.commands[-1].action == SetWorkingDistance(working_distance_m=0.004 + 2e-6)
    facts = run.fetch("/api/facts", Cookie=run.cookie(TOKENS.viewer)).json
    assert facts["optics"]["working_distance_m"] == 0.004
    # Somebody else has moved meanwhile, and the next frame says so.
    run.expose(frame_of(pixels, sequence=2), stigmator_x=0.3, stigmator_y=0.4)
    run.wish({"type": "nudge", "axis": "stigmator_y", "by": 0.01})
    assert run.commands[-1].action == SetStigmator(x=0.3, y=0.4 + 0.01)


class TestProposals:
    """Only what stands and was seen can be accepted."""

    wish = {"type": "accept", "working_distance_m": 0.00501}

    def propose(self, run: Run, proposal_m: float | None = 0.00501, **basis: int) -> None:
        rests_on = Basis(**{"sequence": 1, "settings_rev": 1, **basis})
        run.say(
            "control",
            "intent",
            Intent(
                mode=Mode.ADVISE, doing="watching", why="", proposal_m=proposal_m, basis=rests_on
            ),
        )

    def test_an_accepted_proposal_is_the_operators_command(self, run: Run, pixels: Any):
        run.expose(frame_of(pixels))
        self.propose(run)
        assert run.wish(self.wish).json["outcome"] == "applied"
        (command,) = run.commands
        assert command.action == SetWorkingDistance(working_distance_m=0.00501)
        assert command.issuer is Issuer.OPERATOR

    def test_what_was_seen_is_accepted_though_the_proposal_trembles(self, run: Run, pixels: Any):
        run.expose(frame_of(pixels))
        for tremor_m in (-1e-7, 1e-7):
            self.propose(run, 0.00501 + tremor_m)
            assert run.wish(self.wish).json["outcome"] == "applied"
            assert run.commands[-1].action == SetWorkingDistance(working_distance_m=0.00501)

    def test_before_the_first_frame_nothing_can_be_accepted(self, run: Run):
        self.propose(run)
        assert "nothing any more" in run.wish(self.wish).json["reason"]

    @pytest.mark.parametrize(
        ("proposal_m", "basis", "says"),
        [
            (None, {}, "nothing any more"),
            (0.00502, {}, "moved on to 5.0200 mm"),
            (0.00500, {}, "moved on to 5.0000 mm"),
            (0.00501, {"settings_rev": 2}, "have changed"),
            (0.00501, {"sequence": -100}, "frames ago"),
        ],
    )
    def test_what_no_longer_stands_is_refused(
        self,
        run: Run,
        pixels: Any,
        proposal_m: float | None,
        basis: dict[str, int],
        says: str,
    ):
        run.expose(frame_of(pixels))
        self.propose(run, proposal_m, **basis)
        assert says in run.wish(self.wish).json["reason"]
        assert run.commands == []


def test_a_wish_that_is_no_text_is_refused_in_words(run: Run):
    headers = {"Origin": run.origin, "Content_Type": "application/json"}
    headers["Cookie"] = run.cookie(TOKENS.operator)
    answer = run.fetch("/api/wish", "POST", b'{"type": "note", "text": "\xff"}', **headers)
    assert answer.status == 400
    assert b"not understood" in answer.body
