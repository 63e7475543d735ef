"""A whole run from the operator's chair: look, arm, focus, hold, take over, stop, look back."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import LAPTOP, NAMELESS, SMALL, TABLET, WIDE, until

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

Start = Callable[..., Any]

KEEP_WHAT_IS_SAID = """() => {
  window.said = [];
  const [doing, progress] = ["doing", "progress"].map((id) => document.getElementById(id));
  const keep = () => said.push(doing.textContent + (progress.hidden ? "" : ", frames counted"));
  for (const part of [doing, progress]) {
    new MutationObserver(keep).observe(part, { attributes: true, childList: true });
  }
}"""


def test_from_the_first_frame_to_the_report(
    program: Start, browse: Start, visit: Start, photograph: Start
):
    expect = playwright.expect
    run = program(drift={"z_nm_per_s": 0})
    with visit(run.operator, LAPTOP) as page:
        gate, doing, toasts = (
            page.locator(f"#{name}") for name in ("gate-state", "doing", "toasts")
        )

        def press(name: str) -> None:
            page.get_by_role("button", name=name, exact=True).click()

        def set_mode(name: str) -> None:
            mode = page.get_by_role("radio", name=name)
            mode.click()
            expect(mode).to_have_attribute("aria-checked", "true")

        assert "token" not in page.url
        expect(page.locator("#veil")).to_have_text("")
        expect(gate).to_have_text("DISARMED")

        # In advise nothing moves, and the refusal is said in words.
        page.keyboard.press("f")
        expect(toasts).to_contain_text("Refused: in mode advise")

        press("Arm")
        expect(gate).to_have_text("ARMED")
        page.keyboard.press("4")
        page.evaluate(KEEP_WHAT_IS_SAID)  # a search from near focus is over in a second
        set_mode("Hold")
        expect(doing).to_have_text("holding")
        assert "focusing, frames counted" in page.evaluate("said")
        expect(page.locator("#log")).to_contain_text("focused")
        expect(page.locator("#focus-words")).to_contain_text("from here; in focus with")
        expect(page.locator("#log li").first).to_contain_text(re.compile(r"· \d+ moves"))
        expect(toasts).to_be_empty()
        until(page, f"semagent.restored() >= {page.evaluate('semagent.sequence()')}")
        photograph(page, "console")

        # The operator's hand wins: the agent lets go, and proposes the way back.
        page.keyboard.press("]")
        expect(page.locator("#log")).to_contain_text("operator")
        expect(doing).not_to_have_text("holding")
        set_mode("Advise")
        proposal = page.locator("#proposal")
        for key in "[[]]" * 2:  # turning through focus, until the agent knows where it is
            page.keyboard.press(key)
            until(page, f"semagent.sequence() > {page.evaluate('semagent.sequence()') + 4}")
            if proposal.is_visible():
                break
        expect(page.locator("#stigmator-words")).to_contain_text("Δx ")
        photograph(page, "console-proposal")
        page.keyboard.press("n")
        expect(proposal).to_be_hidden()
        set_mode("Advise")  # asks for advice anew
        expect(proposal).to_be_visible()
        proposed_mm = float(page.locator("#proposal-value").text_content().removesuffix(" mm"))
        page.keyboard.press("y")
        distance = "parseFloat(document.getElementById('wd-now').textContent)"
        until(page, f"Math.abs({distance} - {proposed_mm}) < 0.0005")

        page.get_by_label("Note").fill("a crack at the edge")
        press("Mark M")
        expect(toasts).to_contain_text("is marked")

        page.get_by_label("Note").focus()
        page.keyboard.press("Escape")  # from anywhere, also while typing
        expect(gate).to_have_text("DISARMED")
        expect(toasts).to_contain_text("Stopped")
        press("Working distance up")
        expect(page.locator("#refusals")).to_contain_text("disarmed")

        # What was recorded so far can be looked at while the run goes on, and stopped from there.
        page.get_by_role("link", name="Sessions").click()
        expect(page.locator("tbody tr")).to_contain_text("being recorded")
        page.get_by_role("link", name=run.session.name, exact=True).click()
        expect(page.locator("#problems")).to_contain_text("still being recorded")
        expect(page.locator("#tag-left")).to_contain_text("RAW")
        page.keyboard.press("Escape")
        expect(toasts).to_contain_text("Stopped")
        page.get_by_role("link", name="Live").click()
        expect(page.locator("#veil")).to_have_text("")

        assert run.end() == 130
        expect(page.locator("#freshness")).to_have_text("no connection")
        expect(page.locator("#veil")).to_contain_text("What you see is old")
        for part in (page.locator("#focus-words").locator(".."), page.locator("#gate-reason")):
            expect(part).to_have_css("opacity", "0.35")
    events = [json.loads(line) for line in (run.session / "events.jsonl").read_text().splitlines()]
    noted = [event["value"].get("text", "") for event in events if event["channel"] == "request"]
    assert any(text.endswith(": a crack at the edge") for text in noted)

    look_back(run, browse, visit, photograph)


def look_back(run: Any, browse: Start, visit: Start, photograph: Start) -> None:
    """The session afterwards: frames, decisions, notes, a report and an export."""
    expect = playwright.expect
    with visit(browse(run.session.parent), WIDE) as page:
        expect(page.locator("tbody tr")).to_contain_text("complete")
        page.get_by_role("link", name=run.session.name, exact=True).click()
        happenings = page.get_by_role("list", name="What happened, in order")
        expect(page.locator("#problems")).to_be_empty()
        # The last frame is shown, and so is what happened then.
        expect(happenings.get_by_role("button").last).to_be_in_viewport()
        page.set_viewport_size({"width": SMALL[0], "height": SMALL[1]})
        for place in ("#frame-facts", "#timeline", "#scrubber", "#kinds"):
            expect(page.locator(place)).to_be_in_viewport(ratio=1)
        page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})

        # From a note to its frame, and from frame to frame.
        page.get_by_role("radio", name="Notes").click()
        marked = happenings.get_by_role("button").filter(has_text="a crack at the edge")
        marked.click()
        number = int(marked.get_attribute("data-sequence"))
        expect(page.locator("#tag-left")).to_contain_text(f"frame {number}")
        assert page.url.endswith(f"#frame={number}")
        page.keyboard.press(".")
        until(page, f"semagent.sequence() === {number + 1}")
        page.reload()
        until(page, f"semagent.sequence() === {number + 1}")
        page.get_by_label("Frame", exact=True).focus()
        page.keyboard.press("Home")
        until(page, "semagent.sequence() === 1")
        page.keyboard.press("p")
        until(page, "semagent.sequence() > 3")
        page.keyboard.press("p")

        # The left end of the timeline: close to the frame that is shown, or the begin of it all.
        marked.click()
        until(page, f"semagent.sequence() === {number}")
        timeline, left = page.locator("#timeline"), {"x": 60, "y": 20}
        for _ in range(10):
            page.keyboard.press("]")
        timeline.click(position=left)
        until(page, f"semagent.sequence() < {number}")
        assert page.evaluate("semagent.sequence()") > number / 2
        page.mouse.wheel(0, 5000)
        timeline.click(position=left)
        until(page, "semagent.sequence() < 10")

        page.get_by_role("radio", name="Refused").click()
        expect(happenings).to_contain_text("disarmed")
        page.get_by_role("radio", name="Decisions").click()
        focused = happenings.get_by_role("button").filter(has_text="focused").first
        focused.click()
        expect(focused).to_have_attribute("aria-current", "true")
        page.keyboard.press("4")
        page.keyboard.press("r")
        expect(page.locator("#tag-right")).to_contain_text("restored from frame")

        page.get_by_role("button", name="OME-TIFF").click()
        expect(page.locator("#made progress")).to_have_count(0)
        expect(page.locator("#made")).to_contain_text(f"{run.session.name}.ome.tif")
        page.get_by_role("button", name="Make report").click()
        report = page.get_by_role("link", name="Report (HTML)")
        expect(report).to_be_visible()
        photograph(page, "session")
        assert page.evaluate("document.documentElement.scrollHeight") <= WIDE[1]
        with page.expect_popup() as opened:
            report.click()
        expect(opened.value.get_by_role("heading", name="Simulated SEM")).to_be_visible()

        page.set_viewport_size({"width": TABLET[0], "height": TABLET[1]})
        page.keyboard.press("1")
        expect(page.get_by_role("button", name="Make report")).to_be_in_viewport(ratio=1)
        assert page.evaluate("document.documentElement.scrollWidth") <= TABLET[0]
        assert page.evaluate(NAMELESS) == []
        photograph(page, "session-tablet")
    assert run.session.with_name(f"{run.session.name}.ome.tif").is_file()
