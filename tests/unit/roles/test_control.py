"""The control role on the bus: what is asked is answered truthfully, and what is heard is told."""

import pytest

from semagent.bus import LocalBus, LocalHub
from semagent.channels import Role
from semagent.clock import ManualClock
from semagent.config import find_config, load_config
from semagent.control import ControlOptions
from semagent.parts import make_control, within_envelope
from semagent.types import Cancel, Capabilities, GateStatus, Mode, Request, SetMode, StartAutofocus


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock()
        hub = LocalHub(self.clock)
        self.console = LocalBus(hub, Role.CONSOLE)
        self.heard = self.console.subscribe("heard")
        self.acquire = LocalBus(hub, Role.ACQUIRE)
        self.acquire.serve("command")
        capabilities = Capabilities(driver="simulated", microscope="test", verified_on=None)
        config = load_config(find_config("simulated"))
        bus = LocalBus(hub, Role.CONTROL)
        self.role = make_control(bus, config, capabilities, self.clock)

    def ask(self, request: Request) -> str:
        self.console.send("request", request)
        self.role.step()
        (answer,) = self.console.answers()
        return str(answer.kind)


def test_what_is_done_is_answered_as_taken():
    assert Bench().ask(SetMode(mode=Mode.HOLD)) == "request_taken"


@pytest.mark.parametrize("request_", [Cancel(), StartAutofocus()])
def test_what_is_not_done_is_answered_as_refused(request_: Request):
    bench = Bench()
    bench.ask(SetMode(mode=Mode.OBSERVE))
    assert bench.ask(request_) == "request_refused"
    assert bench.acquire.deliveries() == []


@pytest.mark.parametrize("name", ["hitachi", "smartsem", "zeiss-remcon", "simulated"])
def test_slow_frames_are_waited_for_and_so_are_the_commands_that_wait_for_their_end(name: str):
    envelope = load_config(find_config(name)).safety
    deadlines = within_envelope(ControlOptions(), envelope).deadlines
    assert deadlines.frame_s < envelope.max_evidence_age_s < deadlines.reply_s


def test_what_it_says_carries_the_time_of_both_clocks(monkeypatch: pytest.MonkeyPatch):
    bench = Bench()
    monkeypatch.setattr(bench.clock, "wall_ns", lambda: 1_760_000_000 * 10**9)
    events = bench.console.subscribe("event")
    bench.ask(SetMode(mode=Mode.HOLD))
    event = events.take().value
    assert event.monotonic_ns == bench.clock.monotonic_ns()
    assert event.wall_ns == bench.clock.wall_ns()


def test_what_it_took_up_is_told_in_order():
    bench = Bench()
    bench.acquire.publish("gate", GateStatus(armed=False, reason="at start", monotonic_ns=7))
    bench.role.step()
    bench.clock.advance(1.0)
    bench.role.step()
    bench.ask(SetMode(mode=Mode.HOLD))
    told = []
    while (message := bench.heard.take()) is not None:
        told.append((message.value.kind, message.value.key, message.value.tick_ns))
    assert told == [("gate", 7, 0), ("request", 1, bench.clock.monotonic_ns())]


def test_it_says_since_when_it_decides(monkeypatch: pytest.MonkeyPatch):
    """Of a decision that hangs the bus would beat on; the gate and the supervisor have to know."""
    bench = Bench()
    beats = bench.console.subscribe("heartbeat")
    busy_since: list[int | None] = []

    def note() -> None:
        while (message := beats.take()) is not None:
            busy_since.append(message.value.busy_since_ns)

    monkeypatch.setattr(bench.role, "_tick", note)
    bench.clock.advance(1.0)
    bench.role.step()
    note()
    assert busy_since == [bench.clock.monotonic_ns(), None]


def test_who_comes_late_hears_what_goes_on():
    bench = Bench()
    intents = bench.console.subscribe("intent")
    bench.role.step()
    assert intents.take() is not None
    bench.clock.advance(0.9)
    bench.role.step()
    assert intents.take() is None
    bench.ask(SetMode(mode=Mode.OBSERVE))
    assert intents.take() is not None
    bench.clock.advance(1.1)
    bench.role.step()
    assert intents.take() is not None
