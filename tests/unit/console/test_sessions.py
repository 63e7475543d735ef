"""The session browser: what it shows, to whom, and that nothing outside of its folder is shown."""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tifffile

from semagent.bus import LocalBus, LocalHub
from semagent.channels import Role
from semagent.cli import main
from semagent.clock import ManualClock
from semagent.config import ConsoleOptions
from semagent.process import ConsolePlan, Plan, Wiring, _make_role
from semagent.session import EngineRecord, FrameRecord, SessionWriter
from semagent.session.jsontext import to_json
from semagent.session.layout import frame_file
from semagent.testing.engines import figures_of
from semagent.types import (
    Basis,
    Capabilities,
    Command,
    Event,
    FocusBelief,
    FocusResult,
    Frame,
    FrameAnalysis,
    FrameHeader,
    Intent,
    Issuer,
    Mode,
    Note,
    Optics,
    Outcome,
    Reply,
    Scan,
    SetWorkingDistance,
    StagePosition,
    StartAutofocus,
)

pytest.importorskip("starlette", reason="the extra 'console' is not installed")

from semagent.console import Browser, RunFacts, library, listen, recorded

from .bench import TOKENS, Answer, Run, Served

S = 1_000_000_000
SHAPE = (6, 8)


def header(sequence: int) -> FrameHeader:
    return FrameHeader(
        sequence=sequence,
        monotonic_ns=sequence * S,
        wall_ns=1_760_000_000 * S + sequence * S,
        detector="SE2",
        scan=Scan(width_px=SHAPE[1], height_px=SHAPE[0], bit_depth=16, pixel_size_m=4e-9),
        optics=Optics(working_distance_m=5e-3 + sequence * 1e-6),
        stage=StagePosition(),
        settings_rev=1,
    )


def pixels(sequence: int) -> Any:
    return np.random.default_rng(sequence).integers(0, 65536, SHAPE, dtype=np.uint16)


def figures(sequence: int, score: float, consistency: float | None = None) -> FrameAnalysis:
    return figures_of(
        header(sequence), engine="restorer/v1", focus_score=score, consistency=consistency
    )


def record(folder: Path) -> None:
    """Three frames, a decision, a refusal and a mark; the second frame was restored too."""
    writer = SessionWriter(
        folder,
        configuration={"instrument": "SEM <3>"},
        capabilities=Capabilities(driver="simulated", microscope="bench", verified_on=None),
        engine=EngineRecord(name="restorer/v1"),
        clock=ManualClock(start_ns=1_760_000_000 * S),
        sync=False,
    )
    for sequence in (1, 2, 3):
        writer.write_frame(Frame(header(sequence), pixels(sequence)))
        writer.write_value("analysis", figures(sequence, sequence / 4), sequence * S)
    writer.write_derived(header(2), pixels(2) // 2, figures(2, 0.5, 1.1), {})
    belief = FocusBelief(
        sequence=2,
        settings_rev=1,
        frames=2,
        focus_m=5.01e-3,
        sigma_m=1e-6,
        interval90_m=(5.008e-3, 5.012e-3),
    )
    writer.write_value("belief", belief, 2 * S)
    intent = Intent(mode=Mode.HOLD, doing="focusing", why="looking for the sharpest place")
    for moment in (2.1, 2.2):  # the second says nothing new
        writer.write_value("intent", intent, int(moment * S))
    for number, (outcome, reason) in enumerate(
        [(Outcome.APPLIED, ""), (Outcome.REFUSED, "5.3 mm is beyond 5.2 mm")]
    ):
        command = Command(
            id=f"agent-{number}",
            issuer=Issuer.AGENT,
            action=SetWorkingDistance(working_distance_m=5.3e-3),
            basis=Basis(sequence=2, settings_rev=1),
        )
        reply = Reply(
            command=command,
            outcome=outcome,
            monotonic_ns=int((3.3 + number / 10) * S),
            next_sequence=3,
            reason=reason,
        )
        writer.write_value("reply", reply, reply.monotonic_ns)
    mark = Note(text="mark at frame 1: a crack <script>")
    writer.write_value("request", mark, int(3.9 * S))
    writer.close(summary={})


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with two sessions and things that are none."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    record(folder / "monday run")
    shutil.copytree(folder / "monday run", folder / "tuesday")
    (folder / "no session").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    record(tmp_path / "elsewhere")
    return folder


@pytest.fixture
def served(shelf: Path) -> Iterator[Served]:
    listener = listen(ConsoleOptions(port=0))
    browser = Browser(shelf, listener, TOKENS)
    yield Served(listener.port)
    browser.close()


Ask = Callable[..., Answer]


@pytest.fixture
def ask(served: Served) -> Ask:
    """``ask(path, method="GET", body=None, token=operator's, **headers)``, signed in."""
    cookies: dict[str, str] = {}

    def fetch(path: str, *rest: Any, token: str = TOKENS.operator, **headers: str) -> Answer:
        if token not in cookies:
            cookies[token] = served.cookie(token)
        return served.fetch(path, *rest, **({"Cookie": cookies[token]} | headers))

    return fetch


@pytest.fixture
def make(ask: Ask, served: Served) -> Ask:
    def start(path: str, **changes: str) -> Answer:
        given = {"Origin": served.origin, "Content_Type": "application/json"}
        return ask(path, "POST", b"{}", **(given | changes))

    return start


def finished(ask: Ask, session: str, work: str) -> Any:
    until_s = time.perf_counter() + 60
    while time.perf_counter() < until_s:
        job = ask(f"/sessions/{session}/work").json["jobs"][work]
        if job["state"] != "working":
            return job
        time.sleep(0.02)
    raise AssertionError("not finished in time")


def unpack(answer: Answer) -> tuple[Any, bytes]:
    assert answer.status == 200
    length = int.from_bytes(answer.body[:4], "little")
    return json.loads(answer.body[4 : 4 + length]), answer.body[4 + length :]


def test_without_a_run_the_way_in_leads_to_the_list(ask: Ask, served: Served):
    assert served.fetch("/sessions").status == 401
    assert served.fetch("/sessions/tuesday/frames/1").status == 401
    assert ask("/").headers["location"] == "/sessions"

    text = ask("/sessions").body.decode()

    assert '<a href="/sessions/monday%20run">monday run</a>' in text
    assert '<a href="/sessions/tuesday">tuesday</a>' in text
    assert "SEM &lt;3&gt;" in text
    assert "no session" not in text
    assert ">Live<" not in text


def test_a_record_in_the_folder_one_stands_in_has_a_name(
    shelf: Path, facts: RunFacts, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(shelf / "tuesday")
    tokens = ConsolePlan(operator_token=TOKENS.operator, viewer_token=TOKENS.viewer)
    plan = Plan(role=Role.CONSOLE, config=facts.config, token="", session=".", console=tokens)
    wiring = Wiring(roles={}, capabilities=facts.capabilities, engine=facts.engine)
    listener, clock = listen(ConsoleOptions(port=0)), ManualClock()
    bus: Any = LocalBus(LocalHub(clock), Role.CONSOLE)

    with contextlib.closing(_make_role(plan, wiring, listener, bus, clock)):
        served = Served(listener.port)
        text = served.fetch("/sessions", Cookie=served.cookie(TOKENS.viewer)).body.decode()

    assert '<a href="/sessions/tuesday">tuesday</a>' in text
    assert '<a href="/sessions/monday%20run">monday run</a>' in text


def test_a_session_is_told_with_its_reasons(ask: Ask):
    answer = ask("/sessions/monday%20run/record", token=TOKENS.viewer).json
    told = answer["record"]

    assert (answer["level"], answer["map"]) == ("viewer", False)
    assert (told["frames"], told["restored"], told["shown"], told["last_s"]) == (3, 1, 2, 2.0)
    drawn = {
        "index": 1,
        "t_s": 1.0,
        "working_distance_m": 5.002e-3,
        "score": 0.5,
        "focus_m": 5.01e-3,
        "sigma_m": 1e-6,
    }
    assert told["curve"]["frames"][1] == drawn
    steps = ask("/sessions/monday%20run/steps/0").json
    assert [step["sequence"] for step in steps] == [1, 2, 3]
    assert steps[1] == drawn | {"sequence": 2, "restored": True, "next_restored": 1}
    assert ask("/sessions/monday%20run/steps/2").json == steps[2:]
    assert ask("/sessions/monday%20run/record/2").json["record"]["shown"] == 1

    meant, applied, refused, mark = told["happenings"]["entries"]
    assert (meant["text"], meant["why"]) == ("hold, focusing", "looking for the sharpest place")
    assert (applied["kind"], applied["sequence"], applied["t_s"]) == ("decision", 2, 2.3)
    assert applied["why"] == (
        "looking for the sharpest place; focus believed at 5.0100 mm ± 1.00 µm"
    )
    assert (refused["kind"], refused["why"]) == ("refused", "5.3 mm is beyond 5.2 mm")
    assert (mark["kind"], mark["sequence"], mark["index"]) == ("note", 1, 0)
    told = ask("/sessions/monday%20run/happenings/refused").json
    assert told == {"count": 1, "first": 0, "entries": [refused]}


def test_what_people_asked_for_and_how_it_ended_is_told(ask: Ask, shelf: Path):
    by_hand = Command(
        id="1", issuer=Issuer.OPERATOR, action=SetWorkingDistance(working_distance_m=5.3e-3)
    )
    done = Reply(command=by_hand, outcome=Outcome.APPLIED, monotonic_ns=S, next_sequence=2)
    focused = FocusResult(
        status="focused",
        reason="clearly sharper",
        start_working_distance_m=5e-3,
        final_working_distance_m=5.01e-3,
        sigma_m=1e-6,
        frames_used=4,
        moves=3,
        engine="restorer/v1",
    )
    held = msgspec.structs.replace(focused, status="held", reason="no structure")
    news = Event(
        kind="autofocus_done", role="control", message="focused", monotonic_ns=S, wall_ns=S
    )
    with SessionWriter(
        shelf / "wednesday",
        configuration={},
        capabilities=Capabilities(driver="simulated", microscope="bench", verified_on=None),
        engine=EngineRecord(name="restorer/v1"),
        clock=ManualClock(start_ns=1_760_100_000 * S),
        sync=False,
    ) as writer:
        writer.write_frame(Frame(header(1), pixels(1)))
        for channel, value in (
            ("request", StartAutofocus(stigmation=True)),
            ("request", StartAutofocus(stigmation=False)),
            ("reply", done),
            ("event", news),  # which only says what the result does
            ("result", focused),
            ("result", held),
        ):
            writer.write_value(channel, value, 2 * S)
    told = ask("/sessions/wednesday/record").json["record"]
    assert told["zero_wall_ms"] == header(1).wall_ns / 1e6
    entries = told["happenings"]["entries"]
    assert [(each["kind"], each["level"], each["text"], each["why"]) for each in entries] == [
        ("operator", "info", "focus and stigmate", ""),
        ("operator", "info", "focus", ""),
        ("operator", "info", "working distance 5.3 mm", ""),
        ("decision", "info", "focused", "clearly sharper"),
        ("decision", "warning", "held", "no structure"),
    ]
    text = ask("/sessions").body.decode()
    assert text.index(">wednesday<") < text.index(">tuesday<")  # the newest first


def test_how_long_it_lasted_does_not_follow_a_wall_clock_that_is_set(ask: Ask, shelf: Path):
    class SetBack(ManualClock):
        def wall_ns(self) -> int:
            moved_s = 3600 if self.monotonic_ns() > 1000 * S else 0
            return 1_760_000_000 * S + self.monotonic_ns() - moved_s * S

    clock = SetBack()
    with SessionWriter(
        shelf / "set back",
        configuration={},
        capabilities=Capabilities(driver="simulated", microscope="bench", verified_on=None),
        engine=EngineRecord(name="restorer/v1"),
        clock=clock,
        sync=False,
    ):
        clock.advance(1500.0)
    assert b"<td>25:00</td>" in ask("/sessions").body
    assert ask("/sessions/set%20back/record").json["record"]["lasted_s"] == 1500.0

    manifest = shelf / "set back" / "manifest.json"
    older = {**json.loads(manifest.read_text()), "lasted_ns": None}
    manifest.write_text(json.dumps(older))
    assert b"<td>\xe2\x80\x93</td>" in ask("/sessions").body
    older["ended_wall_ns"] = older["started_wall_ns"] + 1500 * S
    manifest.write_text(json.dumps(older))
    assert b"<td>25:00</td>" in ask("/sessions").body


def test_frames_come_as_they_were_recorded(ask: Ask):
    head, body = unpack(ask("/sessions/tuesday/frames/3"))
    assert (head["kind"], head["form"], head["header"]["sequence"]) == ("raw", "u2", 3)
    assert body == pixels(3).tobytes()

    head, body = unpack(ask("/sessions/tuesday/restored/2"))
    assert (head["kind"], head["consistency"], head["trustworthy"]) == ("restored", 1.1, True)
    assert body == (pixels(2) // 2).tobytes()

    head, body = unpack(ask("/sessions/tuesday/frames/3?coding=compact"))
    assert head["form"] == "jpeg"
    assert body.startswith(b"\xff\xd8")

    assert ask("/sessions/tuesday/restored/1").status == 404
    assert ask("/sessions/tuesday/frames/99").status == 422


OUTSIDE = [
    "..",
    "../elsewhere",
    "..%2Felsewhere",
    "%2e%2e%2felsewhere",
    "..%5Celsewhere",
    "tuesday%2F..%2F..%2Felsewhere",
    "tuesday%00",
    "no%20session",
    "link",
    ".",
]


def test_no_name_leads_out_of_the_folder(ask: Ask, shelf: Path):
    (shelf / "link").symlink_to(shelf.parent / "elsewhere", target_is_directory=True)
    (shelf.parent / "elsewhere.html").write_text("secret")
    (shelf.parent / "elsewhere" / "focus-map.png").write_text("secret")

    for name in OUTSIDE:
        for what in ("record", "frames/1", "report.html", "map.png", "work"):
            answer = ask(f"/sessions/{name}/{what}")

            assert answer.status == 404, (name, what)
            assert b"secret" not in answer.body


def test_the_height_map_of_a_tile_scan_is_shown(ask: Ask, shelf: Path):
    (shelf / "tuesday" / "focus-map.png").write_bytes(b"\x89PNG of a map")
    assert ask("/sessions/tuesday/record").json["map"]
    answer = ask("/sessions/tuesday/map.png")
    assert (answer.body, answer.headers["content-type"]) == (b"\x89PNG of a map", "image/png")


@pytest.mark.parametrize(
    ("planted", "path"),
    [
        ("tuesday.html", "report.html"),
        ("tuesday.png", "report.png"),
        ("tuesday/focus-map.png", "map.png"),
    ],
)
def test_a_link_to_another_place_is_not_followed(ask: Ask, shelf: Path, planted: str, path: str):
    (shelf / planted).symlink_to(shelf.parent / "secret.txt")
    assert ask(f"/sessions/tuesday/{path}").status == 404


def test_a_report_is_made_and_shown_without_scripts(ask: Ask, make: Ask, shelf: Path):
    pytest.importorskip("matplotlib")
    assert ask("/sessions/tuesday/report.html").status == 404

    assert make("/sessions/tuesday/work/report").status == 202

    assert finished(ask, "tuesday", "report") == {
        "state": "done",
        "done": 0,
        "total": 0,
        "text": "tuesday.html, beside the session",
    }
    assert (shelf / "tuesday.html").is_file()
    assert ask("/sessions/tuesday/work").json["report"]
    page = ask("/sessions/tuesday/report.html", token=TOKENS.viewer)
    assert b"<svg" in page.body
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "sandbox" in page.headers["content-security-policy"]
    assert ask("/sessions/tuesday/report.png").body.startswith(b"\x89PNG")


def test_an_export_lies_beside_the_session_and_is_never_overwritten(
    ask: Ask, make: Ask, shelf: Path
):
    assert make("/sessions/tuesday/work/ome-tiff").status == 202
    job = finished(ask, "tuesday", "ome-tiff")

    assert (job["state"], job["done"], job["total"]) == ("done", 4, 4)
    with tifffile.TiffFile(shelf / "tuesday.ome.tif") as tiff:
        assert np.array_equal(tiff.series[0].asarray(), [pixels(n) for n in (1, 2, 3)])
    make("/sessions/tuesday/work/ome-tiff")
    assert "is there already" in finished(ask, "tuesday", "ome-tiff")["text"]


def test_having_something_made_is_for_operators_on_this_page(make: Ask, shelf: Path):
    path = "/sessions/tuesday/work/ome-tiff"
    assert make(path, token=TOKENS.viewer).status == 403
    assert make(path, Origin="http://evil.example").status == 403
    assert make(path, Content_Type="text/plain").status == 415
    assert make("/sessions/tuesday/work/anything").status == 404
    assert make("/sessions/link/work/report").status == 404
    assert not (shelf / "tuesday.ome.tif").exists()


def test_a_damaged_session_is_shown_as_far_as_it_can_be_read(ask: Ask, shelf: Path):
    events = shelf / "tuesday" / "events.jsonl"
    lines = events.read_bytes().splitlines(keepends=True)
    events.write_bytes(b"".join([*lines[:2], b'{"chan\n', *lines[3:], b'{"torn']))
    (shelf / "tuesday" / "frames" / "frame-00000001.ome.tif").write_bytes(b"")
    (shelf / "monday run" / "manifest.json").write_text("{")

    told = ask("/sessions/tuesday/record").json["record"]
    steps = ask("/sessions/tuesday/steps/0").json
    assert [step["sequence"] for step in steps] == [1, 3]
    kinds = {problem["kind"] for problem in told["problems"]}
    assert {"damaged_line", "torn_line", "unacknowledged"} <= kinds
    broken = ask("/sessions/tuesday/frames/1")
    assert broken.status == 422
    assert b"frame-00000001" in broken.body
    assert ask("/sessions/tuesday/frames/3").status == 200

    assert b"not JSON" in ask("/sessions").body
    assert ask("/sessions/monday%20run").status == 200
    assert ask("/sessions/monday%20run/record").status == 422


def test_a_session_that_grows_is_told_anew(ask: Ask, shelf: Path):
    events = shelf / "tuesday" / "events.jsonl"
    whole = events.read_bytes()
    events.write_bytes(b"".join(whole.splitlines(keepends=True)[:1]))
    assert ask("/sessions/tuesday/record").json["record"]["frames"] == 1
    events.write_bytes(whole)
    assert ask("/sessions/tuesday/record").json["record"]["frames"] == 3


def test_a_session_that_grows_is_read_on(shelf: Path, monkeypatch: pytest.MonkeyPatch):
    tuesday = shelf / "tuesday"
    events = tuesday / "events.jsonl"
    lines = events.read_bytes().splitlines(keepends=True)
    events.write_bytes(b"".join(lines[:1]) + lines[1][:20])
    shown = library.Library(shelf, growing="tuesday")
    first = shown.chronicle(tuesday)
    assert first.outline()["problems"] == []  # of the end of a record that has none yet

    taken = []
    take = recorded.Chronicle._take

    def counted(self: Any, line: Any) -> None:
        taken.append(line.channel)
        take(self, line)

    monkeypatch.setattr(recorded.Chronicle, "_take", counted)
    with events.open("ab") as file:
        file.write(lines[1][20:] + b"".join(lines[2:]))
    assert shown.chronicle(tuesday) is first
    assert len(taken) == len(lines) - 1
    assert first.frame(3).header.sequence == 3
    assert shown.chronicle(tuesday) is first
    assert len(taken) == len(lines) - 1

    whole = recorded.Chronicle(tuesday)
    whole.read_on()
    assert whole.outline() == first.outline()

    events.write_bytes(b"".join(lines[:1]))  # another record than before
    assert len(shown.chronicle(tuesday)) == 1
    shown.close()


def test_a_run_keeps_up_with_its_own_session(shelf: Path, monkeypatch: pytest.MonkeyPatch):
    """After hours its page would wait until all of it has been read."""
    monkeypatch.setattr(library, "_READ_ON_S", 0.01)
    running = library.Library(shelf, growing="tuesday")
    until_s = time.perf_counter() + 10
    while "tuesday" not in running._chronicles and time.perf_counter() < until_s:
        time.sleep(0.01)
    running.close()
    assert len(running._chronicles["tuesday"]) == 3


def test_the_page_of_a_long_session_is_told_in_parts(tmp_path: Path):
    """Of hours no page gets more than it shows; nothing that stands out is left out."""
    folder, count = tmp_path / "long", 4000
    record(folder)
    lines = []
    for sequence in range(1, count + 1):
        seen = FrameRecord(file=frame_file(sequence), sha256="", header=header(sequence))
        score = 0.9 if sequence == 1234 else 0.5
        meant = Intent(mode=Mode.HOLD, doing="focusing", why="", proposal_m=sequence * 1e-6)
        values = {"frame": seen, "analysis": figures(sequence, score), "intent": meant}
        lines += [
            to_json({"channel": name, "monotonic_ns": sequence * S, "value": value})
            for name, value in values.items()
        ]
    (folder / "events.jsonl").write_text("\n".join([*lines, ""]), encoding="ascii")
    chronicle = recorded.Chronicle(folder)
    chronicle.read_on()

    told = chronicle.outline()
    assert told["frames"] == count
    assert len(msgspec.json.encode(told)) < 300_000
    drawn = {point["index"]: point["score"] for point in told["curve"]["frames"]}
    assert (drawn[0], drawn[1233], drawn[count - 1]) == (0.5, 0.9, 0.5)
    assert len(told["curve"]["marks"]) <= 502

    near = chronicle.curve(1000.0, 1100.0)
    assert [point["index"] for point in near["frames"]] == list(range(999, 1102))
    assert [mark["t_s"] for mark in near["marks"]] == list(range(1000, 1101))

    last = told["happenings"]
    before = chronicle.happenings("decision", last["first"])
    assert (last["count"], before["count"], before["first"]) == (count, count, count - 600)
    assert before["entries"][-1]["index"] + 1 == last["entries"][0]["index"]
    assert [step["sequence"] for step in chronicle.steps(3900)] == list(range(3901, count + 1))


@pytest.mark.parametrize("name", ["frames/frame-00000002", "derived/frame-00000002-restored"])
def test_pixels_that_are_not_those_that_were_recorded_are_not_shown(
    ask: Ask, shelf: Path, name: str
):
    file = shelf / "tuesday" / f"{name}.ome.tif"
    with tifffile.TiffFile(file) as tiff:
        at = tiff.pages.first.dataoffsets[0]
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    kind = "restored" if "restored" in name else "frames"
    refused = ask(f"/sessions/tuesday/{kind}/2")
    assert refused.status == 422
    assert b"SHA-256 differs" in refused.body


def test_one_odd_session_does_not_end_the_list(ask: Ask, shelf: Path):
    manifest = shelf / "tuesday" / "manifest.json"
    known = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**known, "started_wall_ns": 10**22}))
    if sys.platform == "linux":
        shutil.copytree(os.fsencode(shelf / "monday run"), os.fsencode(shelf) + b"/caf\xe9")
    page = ask("/sessions")
    assert page.status == 200
    assert b"tuesday" in page.body
    assert b"monday run" in page.body
    assert b"caf" not in page.body


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="permissions do not bind this user"
)
def test_a_folder_that_may_not_be_looked_into_is_left_out(ask: Ask, shelf: Path):
    closed = shelf / "lost+found"
    closed.mkdir(mode=0)
    page = ask("/sessions")
    closed.chmod(0o700)
    assert page.status == 200
    assert b"tuesday" in page.body
    assert b"lost" not in page.body


def test_one_session_alone_can_be_browsed(shelf: Path):
    listener = listen(ConsoleOptions(port=0))
    browser = Browser(shelf / "tuesday", listener, TOKENS)
    try:
        served = Served(listener.port)
        cookie = served.cookie(TOKENS.viewer)
        assert served.fetch("/sessions/tuesday/record", Cookie=cookie).status == 200
        assert served.fetch("/sessions/monday%20run/record", Cookie=cookie).status == 404
    finally:
        browser.close()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["browse", str(tmp_path / "missing"), "--port", "0"]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_a_run_that_is_not_recorded_says_so(run: Run):
    page = run.fetch("/sessions", Cookie=run.cookie(TOKENS.viewer)).body.decode()
    assert "This run is not recorded" in page
    assert ">Live<" in page
    assert "stop.js" not in page


def test_a_run_can_be_stopped_from_the_list_too(run: Run):
    page = run.fetch("/sessions", Cookie=run.cookie(TOKENS.operator)).body.decode()
    assert "stop.js" in page
