"""The terminal view: drawn right, and plain where the terminal cannot do more."""

import sys

import msgspec
import numpy as np
import pytest
from rich.console import Console

from semagent.bus import LocalBus, LocalHub
from semagent.channels import Role
from semagent.cli.ledger import Ledger
from semagent.cli.output import Output
from semagent.cli.view import focus_panel, line, posterior_bar, sparkline, way_out
from semagent.clock import ManualClock
from semagent.config import find_config, load_config
from semagent.roles.base import Announcer
from semagent.testing.engines import frame_of
from semagent.types import (
    Command,
    FocusBelief,
    FocusMode,
    FrameFault,
    GateStatus,
    Intent,
    Issuer,
    Mode,
    Outcome,
    Reply,
    Stop,
)
from semagent_engines.sharpness import open_engine


def belief(
    focus_m: float = 5e-3, sigma_m: float = 1e-6, modes: tuple[FocusMode, ...] = ()
) -> FocusBelief:
    return FocusBelief(
        sequence=1,
        settings_rev=1,
        frames=4,
        focus_m=focus_m,
        sigma_m=sigma_m,
        log_odds=9.0,
        modes=modes,
    )


def test_the_sparkline_spans_the_values_but_does_not_blow_up_noise():
    assert sparkline([0.1, 0.5, 0.9], utf8=True) == "▁▅█"
    assert sparkline([0.900, 0.901, 0.900], utf8=True) == "▁▁▁"
    assert sparkline([0.1, 0.9], utf8=False) == "_#"
    assert sparkline([], utf8=True) == ""


@pytest.mark.parametrize(
    ("here_m", "place"), [(5e-3, 10), (4.9968e-3, 2), (5.0032e-3, 18), (5.002e-3, 15)]
)
def test_the_bar_marks_where_the_microscope_is(here_m: float, place: int):
    text = posterior_bar(belief(), here_m, 0.5e-6, width=21, utf8=True)
    low, bar, high = text.plain.rsplit(" µm", 1)[0].replace(" µm", "", 1).split(" ")
    assert (low, high) == ("-4.00", "+4.00")
    assert bar.index("┃") == place
    assert len(bar) == 21


def test_the_bar_reaches_as_far_as_the_microscope_is_away():
    text = posterior_bar(belief(), 5.05e-3, None, width=21, utf8=False)
    assert "60.0 µm" in text.plain
    assert "|" in text.plain
    assert text.plain.encode("cp437")  # of old consoles


def test_the_marker_is_green_only_within_the_depth_of_field():
    def style(here_m: float) -> str:
        text = posterior_bar(belief(), here_m, 2e-6, width=41, utf8=True)
        return next(str(span.style) for span in text.spans if text.plain[span.start] == "┃")

    assert style(5.0015e-3) == "bold green"
    assert style(5.0035e-3) == "bold red"


def test_the_bar_shows_all_places_where_focus_may_be():
    mirrored = tuple(
        FocusMode(weight=weight, focus_m=focus_m, sigma_m=0.5e-6)
        for weight, focus_m in ((0.6, 4.99e-3), (0.4, 5.01e-3))
    )
    both = belief(focus_m=4.998e-3, sigma_m=9.8e-6, modes=mirrored)
    text = posterior_bar(both, 4.998e-3, 2e-6, width=41, utf8=False)
    bar = text.plain.split(" ")[2]
    assert bar[16] == "#"
    assert bar[20] == "|"
    assert bar[26] == "+"  # less likely, as two to three
    assert set(bar[18:20] + bar[21:25]) == {"_"}
    # Halfway between them is no place to be in focus, and no depth of field is around it.
    assert "bold red" in {str(span.style) for span in text.spans}
    assert text.plain.index("#") in {s.start for s in text.spans if s.style == "cyan underline"}


@pytest.mark.parametrize("words", ["[timeout] on the axis", "cannot open [/dev/ttyS0]"])
def test_brackets_in_a_reason_are_shown_as_they_are(words: str):
    clock = ManualClock(start_ns=0)
    hub = LocalHub(clock)
    bus, acquire, control = (
        LocalBus(hub, role) for role in (Role.SUPERVISOR, Role.ACQUIRE, Role.CONTROL)
    )
    ledger = Ledger(bus.subscribe, Output(json=False), lambda _row: None)
    command = Command(id="1", issuer=Issuer.OPERATOR, action=Stop())
    failed = Reply(
        command=command, outcome=Outcome.FAILED, monotonic_ns=1, next_sequence=1, reason=words
    )
    acquire.publish("reply", failed)
    control.publish("intent", Intent(mode=Mode.HOLD, doing="paused", why=words))
    ledger.update()
    console = Console(width=120, record=True)
    config = load_config(find_config("simulated"))
    console.print(focus_panel(ledger, config, None, columns=120, utf8=True))
    assert console.export_text().count(words) == 2


def test_the_line_of_a_run_says_that_the_agent_rests_and_why():
    hub = LocalHub(ManualClock(start_ns=0))
    bus, control = LocalBus(hub, Role.SUPERVISOR), LocalBus(hub, Role.CONTROL)
    ledger = Ledger(bus.subscribe, Output(json=False), lambda _row: None)
    control.publish("intent", Intent(mode=Mode.HOLD, doing="holding", why="follows focus"))
    ledger.update()
    assert "rests" not in line(ledger)
    control.publish("intent", Intent(mode=Mode.HOLD, doing="paused", why="no usable frame"))
    ledger.update()
    assert line(ledger).endswith("rests until the next request: no usable frame")


def test_a_score_of_nothing_says_so():
    hub = LocalHub(ManualClock(start_ns=0))
    bus, infer = LocalBus(hub, Role.SUPERVISOR), LocalBus(hub, Role.INFER)
    ledger = Ledger(bus.subscribe, Output(json=False), lambda _row: None)
    noise = np.random.default_rng(1).integers(90, 110, (256, 256), dtype=np.uint8)
    bands = noise + np.random.default_rng(2).integers(0, 99, (256, 1), dtype=np.uint8)
    infer.publish("analysis", open_engine({}).analyse(frame_of(bands)).figures)
    ledger.update()
    assert ", nothing to see" in line(ledger)
    config = load_config(find_config("simulated"))
    console = Console(width=120, record=True)
    console.print(focus_panel(ledger, config, None, columns=120, utf8=True))
    assert ", nothing to see" in console.export_text()


def test_no_text_steers_the_terminal(capsys: pytest.CaptureFixture[str]):
    """Neither the name of a file nor what a vendor says clears the screen."""
    output = Output(json=False)
    text = "a\x1b[2Jb\x9bc\td\ne"
    output.say(text)
    output.warn(text)
    output.fail(text)
    output.table("of files", ["file"], [[text]])
    said = capsys.readouterr()
    assert said.out.startswith("a?[2Jb?c")
    for stream, count in ((said.out, 2), (said.err, 2)):
        assert not {"\x1b", "\x9b"} & set(stream)
        assert stream.count("?[2J") == count


def test_what_is_said_beside_a_bar_goes_above_it(monkeypatch: pytest.MonkeyPatch):
    """Through the console that draws the bar, where both streams end on one terminal."""
    assert Output(json=False).errors is not Output(json=False).people
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    output = Output(json=False)
    assert output.errors is output.people


def test_frames_that_cannot_be_used_in_a_row_are_news_once(capsys: pytest.CaptureFixture[str]):
    clock = ManualClock()
    hub = LocalHub(clock)
    bus, acquire = LocalBus(hub, Role.SUPERVISOR), LocalBus(hub, Role.ACQUIRE)
    ledger = Ledger(bus.subscribe, Output(json=True), lambda _row: None)
    say = Announcer(acquire, clock)
    frame = frame_of(np.zeros((64, 64), np.uint8)).header
    for sequence in range(1, 8):  # as after a night with the beam blanked
        faults = (FrameFault.BLANK,) if sequence < 7 else (FrameFault.SATURATED,)
        say.flagged(msgspec.structs.replace(frame, sequence=sequence, faults=faults))
        ledger.update()
        ledger.flush()
    assert ledger.flagged == 7
    said = [line for line in capsys.readouterr().err.splitlines() if "not used" in line]
    assert [line.rsplit(" ", 1)[1] for line in said] == ["blank", "saturated"]
    assert len(ledger.news) == 2


def test_refusals_are_counted_and_not_kept():
    hub = LocalHub(ManualClock())
    bus, acquire = LocalBus(hub, Role.SUPERVISOR), LocalBus(hub, Role.ACQUIRE)
    ledger = Ledger(bus.subscribe, Output(json=False), lambda _row: None)
    for number in range(1, 1001):
        command = Command(id=str(number), issuer=Issuer.AGENT, action=Stop())
        refused = Reply(
            command=command,
            outcome=Outcome.REFUSED,
            monotonic_ns=number,
            next_sequence=1,
            code="expired",
            reason=f"the {number}th time",
        )
        acquire.publish("reply", refused)
        ledger.update()
    assert ledger.refusals == {(Outcome.REFUSED, "expired"): 1000}
    assert ledger.last_refusal == refused


def test_of_many_warnings_held_back_the_last_are_printed(capsys: pytest.CaptureFixture[str]):
    output = Output(json=False)
    output.hold_warnings()
    for number in range(1000):
        output.warn(str(number))
    output.release_warnings()
    first, *rest = capsys.readouterr().err.splitlines()
    assert "900 earlier warnings are left out" in first
    assert rest == [f"warning: {number}" for number in range(900, 1000)]


def test_what_ctrl_c_does_depends_on_the_gate():
    armed = GateStatus(armed=True, reason="", monotonic_ns=1)
    assert "goes back" in way_out(armed)
    for gate in (None, GateStatus(armed=False, reason="", monotonic_ns=1)):
        assert "nothing is put back" in way_out(gate)
