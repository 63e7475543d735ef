"""A report tells what is in the record: every focusing, frame, decision and refusal."""

import errno
import re
import shutil
import sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from semagent.cli import main
from semagent.errors import InputFileError, UsageError
from semagent.report import Story, read_story, write_report
from semagent.report.figures import GREEN, decision_lines, focusing_figure, overview, shown
from semagent.report.page import render
from semagent.report.posterior import density_of
from semagent.report.story import Step
from semagent.report.words import command_in_words
from semagent.session import storage
from semagent.types import (
    Action,
    Command,
    FocusBelief,
    FocusMode,
    FocusResult,
    FrameFault,
    Issuer,
    Outcome,
    Pixels,
    SetBeamShift,
    SetBlanked,
    SetStigmator,
    SetWorkingDistance,
)


def test_the_story_has_every_focusing_with_its_frames(session: Path) -> None:
    story = read_story(session)
    first, second = story.focusings
    assert first.result is not None
    assert first.result.status == "focused"
    assert len(first.steps) == first.result.frames_used
    assert all(step.analysis and step.belief for step in first.steps)
    assert [step.header.sequence for step in story.steps] == list(range(1, len(story.steps) + 1))
    assert second.result is not None
    assert second.result.status != "focused"


def test_every_command_stands_with_the_frame_it_rests_on_and_its_answer(session: Path) -> None:
    story = read_story(session)
    said = [(step, *pair) for step in story.steps for pair in step.commands]
    assert said
    for step, command, reply in said:
        assert command.basis is not None
        assert command.basis.sequence == step.header.sequence
        assert reply is not None
        assert reply.command.id == command.id
    moves = [
        command
        for step in story.focusings[0].steps
        for command, reply in step.commands
        if isinstance(command.action, SetWorkingDistance)
        and reply is not None
        and reply.outcome is Outcome.APPLIED
    ]
    assert story.focusings[0].result is not None
    assert len(moves) == story.focusings[0].result.moves


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def report(session: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report as `semagent report` writes it."""
    output = tmp_path_factory.mktemp("out") / "page.html"
    assert main(["report", str(session), "--output", str(output)]) == 0
    return output


def test_the_page_needs_nothing_but_itself(session: Path, report: Path) -> None:
    page = _Page()
    page.feed(report.read_text(encoding="utf-8"))
    assert page.tags.count("svg") == 3  # the whole session and two focusings
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert not [link for link in page.links if re.match(r"\w+:|//", link)]
    assert "b" not in page.tags  # what a person wrote is text, not markup
    story = read_story(session)
    assert f"{story.session.manifest.started[11:19]} UTC" in page.text
    for focusing in story.focusings:
        assert focusing.result is not None
        assert focusing.result.reason in page.text


def test_the_picture_shows_the_same(report: Path) -> None:
    picture = cv2.imread(str(report.with_suffix(".png")))
    assert picture is not None
    height, width, _ = picture.shape
    assert width > 1000
    assert height > 800


def test_the_page_gives_the_figures_of_the_record(session: Path) -> None:
    story = read_story(session)
    focusing, odd = story.focusings[0], story.steps[1]
    result = focusing.result
    assert result is not None
    assert odd.analysis is not None
    optics = msgspec.structs.replace(odd.header.optics, stigmator_x=0.02, stigmator_y=-0.01)
    odd.header = msgspec.structs.replace(odd.header, optics=optics, faults=(FrameFault.FROZEN,))
    [(command, _)] = odd.commands
    odd.commands = [(command, None)]
    html, _ = render(story)
    page = _Page()
    page.feed(html)

    assert "Simulated SEM (simulated), " in page.text
    facts = {row[0]: row[1] for row in page.rows if len(row) == 2}
    said = _lines(session)
    moves = [line for line in said if b'"channel": "command"' in line and b'"agent"' in line]
    refused = [line for line in said if b'"outcome": "refused"' in line]
    assert facts["frames"] == f"{len(story.steps)}, 1 of them unusable"
    assert facts["commands of the agent"] == f"{len(moves)}; {len(refused)} refused or failed"

    number, ended, way, frames, reason = next(row for row in page.rows if len(row) == 5)
    assert (number, ended, frames) == ("1", "focused", str(result.frames_used))
    assert reason == result.reason
    start_m, final_m = result.start_working_distance_m, result.final_working_distance_m
    moved = f"{(final_m - start_m) * 1e6:+.1f} µm"
    assert way == f"{start_m * 1e3:.4f} mm → {final_m * 1e3:.4f} mm ({moved})"
    assert f"{result.frames_used} frames, {result.moves} moves." in page.text

    rows = [row for row in page.rows if len(row) == 7]
    assert len(rows) == sum(len(each.steps) for each in story.focusings)
    for step, row in zip(focusing.steps, rows, strict=False):
        assert step.belief is not None
        assert row[0] == str(step.header.sequence)
        assert row[1] == f"{step.header.optics.working_distance_m * 1e3:.4f} mm"
        if step.belief.focus_m is not None:
            assert row[5].startswith(f"{step.belief.focus_m * 1e3:.4f} mm ± ")
    assert rows[1][2:5] == ["+0.0200, -0.0100", f"{odd.analysis.focus_score:.3f}", "frozen"]
    assert isinstance(command.action, SetWorkingDistance)
    target = f"focus to {command.action.working_distance_m * 1e3:.4f} mm"
    assert rows[1][6] == f"{target} – not answered"
    assert f'<span class="bad">{target} – not answered</span>' in html


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (SetStigmator(x=0.1, y=-0.2), "stigmators to +0.1000, -0.2000"),
        (SetBeamShift(x_m=1e-6, y_m=-2e-6), "beam shift to +1.00 µm, -2.00 µm"),
        (SetBlanked(blanked=True), "blank the beam"),
        (SetBlanked(blanked=False), "unblank the beam"),
    ],
)
def test_what_was_asked_for_is_in_words(action: Action, words: str) -> None:
    assert command_in_words(Command(id="1", issuer=Issuer.OPERATOR, action=action)) == words


def test_the_drawings_show_places_and_times_of_the_record(session: Path) -> None:
    story = read_story(session)
    first_ns = story.steps[0].header.monotonic_ns
    seconds = [(step.header.monotonic_ns - first_ns) / 1e9 for step in story.steps]
    places_mm = [step.header.optics.working_distance_m * 1e3 for step in story.steps]
    curve = overview(story).axes[0].lines[0]
    assert list(curve.get_xdata()) == pytest.approx(seconds)
    assert list(curve.get_ydata()) == pytest.approx(places_mm)

    focusing, drawn = story.focusings[0], []

    def pixels(sequence: int) -> Pixels:
        drawn.append(sequence)
        return story.session.frame(sequence).pixels

    _, believed, done = focusing_figure(focusing, pixels).axes
    assert drawn == [step.header.sequence for step in focusing.steps]
    assert focusing.result is not None
    ending = next(text for text in done.texts if text.get_text().startswith("focused: "))
    assert ending.get_position()[1] > len(focusing.steps) - 1
    assert ending.get_color() == GREEN
    *beliefs, left_at = believed.lines
    start_m = focusing.steps[0].header.optics.working_distance_m
    frames = [line for line in beliefs if line.get_marker() == "v"]
    away_um = [(step.header.optics.working_distance_m - start_m) * 1e6 for step in focusing.steps]
    assert [line.get_xdata()[0] for line in frames] == pytest.approx(away_um, abs=1e-6)
    final_m = focusing.result.final_working_distance_m
    assert left_at.get_xdata()[0] == pytest.approx((final_m - start_m) * 1e6, abs=1e-6)
    last = focusing.steps[-1].belief
    assert last is not None
    assert last.interval90_m is not None
    ends_um = [(end_m - start_m) * 1e6 for end_m in last.interval90_m]
    assert list(beliefs[-2].get_xdata()) == pytest.approx(ends_um)
    # The hump of the belief stands where the interval is.
    edge = believed.collections[-1].get_paths()[0].vertices
    assert ends_um[0] < edge[edge[:, 1].argmin(), 0] < ends_um[1]


def test_of_a_long_focusing_the_beginning_and_the_end_are_drawn(session: Path) -> None:
    header = read_story(session).steps[0].header
    steps = [Step(msgspec.structs.replace(header, sequence=number)) for number in range(30)]
    assert shown(steps) == [*steps[:12], *steps[-12:]]


def test_what_a_vendor_says_is_no_formula(session: Path) -> None:
    story = read_story(session)
    refused = next(step for step in story.focusings[1].steps if step.commands)
    command, reply = refused.commands[-1]
    assert reply is not None
    failed = msgspec.structs.replace(reply, outcome=Outcome.FAILED, reason=r"no $\beam{ for $x")
    refused.commands = [(command, failed)]
    html, _ = render(story)
    assert r"no $\beam{ for $x" in html


def test_where_focus_is_known_not_to_be_nothing_is_drawn() -> None:
    mirrored = tuple(
        FocusMode(weight=0.5, focus_m=focus_m, sigma_m=1e-6) for focus_m in (4.98e-3, 5.02e-3)
    )
    belief = FocusBelief(
        sequence=1, settings_rev=1, frames=1, focus_m=5e-3, sigma_m=20e-6, modes=mirrored
    )
    density = density_of(belief, np.array([4.98e-3, 5e-3, 5.02e-3]))
    assert density == pytest.approx([1.0, 0.0, 1.0], abs=1e-9)
    # Of a peak that is not in the picture there is its foot only.
    assert density_of(belief, np.array([5.022e-3])) == pytest.approx([np.exp(-2)])
    without = msgspec.structs.replace(belief, modes=())
    density = density_of(without, np.array([4.98e-3, 5e-3]))
    assert density == pytest.approx([np.exp(-0.5), 1.0])


def test_a_guess_is_not_drawn_as_a_belief(session: Path) -> None:
    def curves(story: Story) -> list[str]:
        return [str(line.get_label()) for line in overview(story).axes[0].lines]

    story = read_story(session)
    assert "focus believed at" in curves(story)
    for step in story.steps:
        if step.belief is not None and step.belief.focus_m is not None:
            step.belief = msgspec.structs.replace(step.belief, sigma_m=1e-3)
    assert "focus believed at" not in curves(story)


def test_how_a_focusing_ended_is_drawn_below_a_long_refusal(session: Path) -> None:
    [step] = [step for step in read_story(session).steps if step.commands][:1]
    [(command, reply)] = step.commands[:1]
    assert reply is not None
    refused = msgspec.structs.replace(reply, outcome=Outcome.REFUSED, reason="too far " * 60)
    step.commands = [(command, refused)]
    held = FocusResult(
        status="held",
        reason="the gate refuses",
        start_working_distance_m=5e-3,
        final_working_distance_m=5e-3,
        sigma_m=None,
        frames_used=2,
        moves=0,
        engine="test",
    )
    lines = [line for line, _ in decision_lines(step, held)]
    assert lines[-1] == "held: the gate refuses"
    assert lines[-2].endswith(" …")
    assert len(lines) == 4
    step.commands = []
    assert [line for line, _ in decision_lines(step, None)] == ["stay"]


def _lines(session: Path) -> list[bytes]:
    return (session / "events.jsonl").read_bytes().splitlines(keepends=True)


def _place_of(text: bytes, lines: list[bytes]) -> int:
    return next(i for i, line in enumerate(lines) if text in line)


def _rewritten(session: Path, lines: list[bytes], copy: Path) -> Path:
    """A copy of the session with other lines, which nobody closed."""
    shutil.copytree(session, copy)
    manifest = (session / "manifest.json").read_text(encoding="utf-8")
    (copy / "manifest.json").write_text(
        manifest.replace('"complete": true', '"complete": false'), encoding="utf-8"
    )
    (copy / "events.jsonl").write_bytes(b"".join(lines))
    return copy


def test_a_focusing_begins_with_the_first_frame_it_used_though_that_was_exposed_before(
    session: Path, tmp_path: Path
) -> None:
    lines = _lines(session)
    first = lines.pop(_place_of(b'"channel": "frame"', lines))
    lines.insert(_place_of(b'"autofocus_started"', lines), first)
    story = read_story(_rewritten(session, lines, tmp_path / "live"))
    whole = [step.header.sequence for step in read_story(session).focusings[0].steps]
    assert [step.header.sequence for step in story.focusings[0].steps] == whole
    # And not with those that control had looked at.
    assert story.focusings[1].steps[0].header.sequence == whole[-1] + 1


def test_a_record_that_breaks_off_is_told_to_its_end(session: Path, tmp_path: Path) -> None:
    lines = _lines(session)
    cut = _place_of(b'"channel": "result"', lines)
    broken = _rewritten(session, lines[:cut], tmp_path / "broken")
    [focusing] = read_story(broken).focusings
    assert focusing.result is None
    assert focusing.steps
    write_report(broken, tmp_path / "broken.html")
    page = (tmp_path / "broken.html").read_text(encoding="utf-8")
    assert "the record ends before it" in page
    problems = read_story(broken).session.problems
    assert problems
    assert all(escape(problem.message) in page for problem in problems)


def test_what_is_no_session_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"manifest\.json"):
        write_report(tmp_path, tmp_path / "page.html")


def test_without_matplotlib_it_says_what_to_install(
    session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("semagent.report.")]:
        if name.endswith((".page", ".figures")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"semagent\[report\]"):
        write_report(session, tmp_path / "page.html")


def test_a_report_that_cannot_be_written_leaves_the_one_before(
    session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    page.write_text("the one before", encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "rename", full)
    with pytest.raises(UsageError, match=r"page\.html: the disk is full"):
        write_report(session, page)
    assert page.read_text(encoding="utf-8") == "the one before"
    assert list(tmp_path.glob("page*")) == [page]


def test_a_report_is_an_html_file(
    session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(session), "--output", str(tmp_path / "out.txt")]) == 2
    assert "does not end in .html" in capsys.readouterr().err


def test_a_report_of_the_folder_one_stands_in_has_its_name(
    session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(session)
    page = tmp_path / "page.html"
    assert main(["report", ".", "--output", str(page)]) == 0
    assert f"<title>{session.name} – semagent report</title>" in page.read_text(encoding="utf-8")
