"""The picture, the keyboard, and those who may only look."""

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from .conftest import LAPTOP, NAMELESS, PHONE, TABLET, WIDE, until

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

Start = Callable[..., Any]

# Changes of grey along the middle row of the picture, as a share of its pixels.
CHANGES = """() => {
    const canvas = document.getElementById("canvas");
    const row = canvas.getContext("2d").getImageData(0, canvas.height >> 1, canvas.width, 1).data;
    let changes = 0;
    for (let i = 4; i < row.length; i += 4) changes += row[i] !== row[i - 4];
    return changes / canvas.width;
}"""

# What a page of another origin gets out of somebody who is signed in.
FOREIGN = """async ([origin, socket]) => {
    const wish = { method: "POST", credentials: "include", mode: "no-cors",
                   body: JSON.stringify({ type: "disarm" }) };
    await fetch(`${origin}/api/wish`, wish).catch(() => null);
    const read = await fetch(`${origin}/api/facts`, { credentials: "include" })
        .then(() => "read", () => "kept out");
    const watched = await new Promise((done) => {
        const link = new WebSocket(socket);
        link.onmessage = () => done("watched");
        link.onclose = () => done("kept out");
    });
    return [read, watched];
}"""

# What the server says to somebody who gets round the missing buttons.
WISH = """() => fetch("/api/wish", {
    method: "POST", body: '{"type": "disarm"}', headers: { "Content-Type": "application/json" },
}).then((answer) => answer.status)"""

# A second link, told that it has heard nothing for long; it says what it makes of that.
SILENT = """async () => {
    const { Link } = await import("/static/link.js");
    const states = [];
    const nothing = () => {};
    const state = (name) => states.push(name);
    const link = new Link({ hello: nothing, facts: nothing, frame: nothing, state });
    const pause = () => new Promise((done) => setTimeout(done, 20));
    const until = async (name, count) => {
        while (states.filter((each) => each === name).length < count) await pause();
    };
    await until("open", 1);
    link.heard -= 8000;
    link.beat();
    await until("silent", 1);
    await until("open", 2); // it has only been slow
    link.heard -= 60000;
    link.beat();
    await until("lost", 1);
    await until("open", 3);
    link.drop = nothing;
    link.socket.onclose = nothing;
    link.socket.close();
    return states;
}"""

# What cannot be shown is acknowledged all the same, or nothing would follow it.
UNSHOWN = """async () => {
    const { Link } = await import("/static/link.js");
    const said = [];
    const link = { say: (value) => said.push(value) };
    const fail = () => { throw new Error("this one cannot be shown"); };
    await Link.prototype.dealWith.call(link, undefined, "facts", fail).catch(() => null);
    return said;
}"""

# A console that was started again hears the agent before it sees a frame.
PROPOSAL = """async () => {
    const { Panels } = await import("/static/panels.js");
    const intent = { mode: "advise", doing: "", why: "", proposal_m: 0.005, target_m: null };
    Panels.prototype.agent({ intent, optics: null });
    return document.getElementById("proposal-value").textContent;
}"""

# Where focus is, said of a belief that was heard before it is known where the microscope stands.
BELIEF = """async () => {
    const { Panels } = await import("/static/panels.js");
    const belief = { focus_m: 0.005, sigma_m: 1e-7, interval90_m: null };
    return Panels.prototype.inWords.call(null, belief, undefined, null, null);
}"""

# What stands at the distances of a microscope whose depth of field is a tenth of a micrometre.
TICKS = """async () => {
    const plots = await import("/static/plots.js");
    const canvas = document.getElementById("distances");
    const said = [];
    const context = canvas.getContext("2d");
    context.fillText = (text) => said.push(text);
    const places = [5e-3, 5.0001e-3];
    const points = places.map((place, t_s) => ({ t_s, working_distance_m: place, focus_m: null }));
    plots.distances(canvas, points, { end: 1, seconds: 20 }, 50e-9);
    delete context.fillText;
    return said.filter((text) => text.includes("."));
}"""

# What stands at the restored picture of an old frame, where it is shown alone.
RESTORED = """async (head) => {
    const { View } = await import("/static/view.js");
    const names = ["tagLeft", "tagRight", "wipe", "veil"];
    const el = Object.fromEntries(names.map((name) => [name, document.createElement("p")]));
    const restored = { sequence: 12, head };
    const view = { el, layout: "restored", raws: [{ sequence: 40 }], restored, trouble: "" };
    Object.setPrototypeOf(view, View.prototype).label();
    return el.tagRight.textContent;
}"""

# Where auto contrast puts black and white in a picture whose grey values run from low to high.
CONTRAST = """async ([low, high, bytes]) => {
    const { Contrast, Picture } = await import("/static/picture.js");
    const [width, height] = [300, 200];
    const grey = new (bytes === 1 ? Uint8Array : Uint16Array)(width * height);
    grey.forEach((_, i) => { grey[i] = low + ((i * 7919) % (high - low + 1)); });
    const contrast = new Contrast();
    contrast.calm = 1;
    contrast.follow(new Picture({ width, height, header: { info_bar_px: 0 } }, grey));
    const { limits } = contrast;
    return [limits.low * contrast.top, limits.high * contrast.top];
}"""


def test_what_is_old_looks_old(program: Start, visit: Start):
    expect = playwright.expect
    saturated = {"at": list(range(4, 400))}
    run = program("--mode", "observe", restored=False, faults={"saturated": saturated})
    with visit(run.operator, LAPTOP) as page:
        expect(page.locator("#focus-words")).to_contain_text("No frame has been analysed for")
        expect(page.locator("#score-now")).to_contain_text("s ago")
        expect(page.locator("#focus-value").locator("..")).to_have_class(re.compile("vague"))
        expect(page.locator("#warnings")).to_contain_text("score and focus are old")
        expect(page.locator("#log li").first).to_contain_text(re.compile(r"· \d+ frames"))


def test_the_score_of_a_field_without_a_specimen(program: Start, visit: Start):
    run = program("--mode", "observe", restored=False, specimen={"kind": "flat"})
    with visit(run.operator, LAPTOP) as page:
        playwright.expect(page.locator("#score-now")).to_contain_text(", nothing to see")


def test_a_line_that_is_cut(program: Start, visit: Start):
    expect = playwright.expect
    run = program("--mode", "observe", restored=False)
    with visit(run.operator, PHONE) as page:
        expect(page.locator("#veil")).to_have_text("")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        expect(page.get_by_role("button", name="STOP")).to_be_in_viewport(ratio=1)
        assert page.evaluate(SILENT) == ["open", "silent", "open", "lost", "open"]
        assert page.evaluate(UNSHOWN) == [{"ack": "facts"}]
        assert page.evaluate(PROPOSAL) == "5.0000 mm"

        assert page.evaluate(BELIEF) == "How far that is from here is known with the next frame."
        ticks = page.evaluate(TICKS)
        assert len(ticks) == len(set(ticks)) > 1
        untold = {"trustworthy": None, "consistency": None, "empty": False}
        assert page.evaluate(RESTORED, untold).endswith("28 behind the newest")
        of_noise = {"trustworthy": False, "consistency": 1.0, "empty": True}
        assert page.evaluate(RESTORED, of_noise).endswith("the frame shows nothing")

        page.route("**/api/wish", lambda route: route.abort())
        note = page.get_by_label("Note")
        note.fill("a crack at the edge")
        note.press("Enter")
        expect(page.locator("#toasts")).to_contain_text("semagent cannot be reached")
        expect(note).to_have_value("a crack at the edge")
        note.blur()
        page.unroute_all()

        page.route("**/api/wish", lambda _route: None)  # nobody answers
        for _ in range(5):
            page.keyboard.press("]")
        # The browser has no more connections than it needs for these and for STOP.
        expect(page.locator("#toasts")).to_contain_text("Not asked: 4 others")
        page.keyboard.press("Escape")
        expect(page.locator("#toasts")).to_contain_text("STOP has not been answered yet")
        page.unroute_all(behavior="ignoreErrors")


def test_before_the_first_frame(program: Start, visit: Start):
    """It may take minutes, and the line may be cut meanwhile."""
    expect = playwright.expect
    run = program("--mode", "observe", restored=False)
    lines: list[Any] = []

    def has_frame(said: str | bytes) -> bool:
        return isinstance(said, bytes) or '"facts"' in said

    def keep_frames_back(line: Any) -> None:
        server = line.connect_to_server()
        server.on_message(lambda said: None if has_frame(said) else line.send(said))
        lines.append(line)

    with visit(run.operator, LAPTOP) as page:
        page.route_web_socket("**/live", keep_frames_back)
        page.reload()
        fresh, step = page.locator("#freshness"), page.get_by_label("Step of the stigmators")
        expect(fresh).to_have_text("connected")
        expect(page.locator("#veil")).to_have_text("Waiting for the first frame…")
        page.get_by_role("button", name="Working distance up").click()
        expect(page.locator("#toasts")).to_contain_text("Not asked: there is no frame yet")

        step.select_option("0.001")
        page.route("**/api/facts", lambda _route: None)
        lines[-1].close()
        expect(fresh).to_have_text("no connection")
        page.unroute("**/api/facts")
        expect(fresh).to_have_text("connected")
        expect(step).to_have_value("0.001")

        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for _ in range(5):
            page.keyboard.down("Escape")  # and is held
        page.keyboard.up("Escape")
        expect(page.locator("#toasts")).to_contain_text("Stopped")
        assert len([url for url in asked if url.endswith("/api/wish")]) == 1
        page.keyboard.press("Escape")
        expect(page.locator("#toasts p").filter(has_text="Stopped")).to_have_count(2)


def test_the_picture(program: Start, visit: Start, photograph: Start):
    expect = playwright.expect
    run = program("--mode", "observe")
    with visit(run.operator, LAPTOP) as page:
        expect(page.locator("#veil")).to_have_text("")
        whole = page.evaluate(CHANGES)
        assert whole > 0.3  # a specimen, and no empty canvas

        page.keyboard.press("9")
        for _ in range(8):
            page.keyboard.press("+")
        until(page, f"({CHANGES})() < 0.1")  # single pixels are squares now
        page.keyboard.press("0")
        until(page, f"({CHANGES})() > {0.7 * whole}")

        for low, high, bytes_ in ((20, 200, 1), (300, 900, 2), (30_000, 60_000, 2)):
            # Ten or twelve bits come in sixteen, and then all lies in a corner of the scale.
            black, white = page.evaluate(CONTRAST, [low, high, bytes_])
            near = 0.02 * (high - low)
            assert abs(black - low) < near
            assert abs(white - high) < near
        auto = page.get_by_role("button", name="Auto contrast")
        page.get_by_label("bright").fill("0.02")
        expect(auto).to_have_attribute("aria-pressed", "false")
        until(page, f"({CHANGES})() < {0.5 * whole}")  # nearly all is white
        auto.click()
        expect(auto).to_have_attribute("aria-pressed", "true")

        page.keyboard.press("3")
        expect(page.locator("#tag-right")).to_contain_text("DERIVED")
        expect(page.locator("#tag-right")).to_contain_text("consistency")
        page.get_by_role("button", name="Consistency").click()
        expect(page.locator("#legend")).to_contain_text("Reduced χ²")
        page.keyboard.press("x")
        expect(page.locator("#legend")).to_contain_text("expert 1")
        photograph(page, "console-experts")

        page.keyboard.press("4")
        wipe = page.get_by_role("slider", name="Raw to the left")
        wipe.focus()
        page.keyboard.press("Home")
        expect(wipe).to_have_attribute("aria-valuenow", "0")

        page.get_by_role("radio", name="Observe").focus()
        page.keyboard.press("ArrowRight")  # goes there and chooses nothing
        expect(page.get_by_role("radio", name="Advise")).to_be_focused()
        expect(page.get_by_role("radio", name="Observe")).to_have_attribute("aria-checked", "true")

        for role in ("acquire", "infer", "control", "record", "restore"):
            row = page.locator("#roles div").filter(has=page.get_by_text(role, exact=True))
            expect(row).to_contain_text("MiB")

        page.keyboard.press("?")
        expect(page.get_by_role("complementary", name="Keyboard")).to_be_visible()


@pytest.fixture
def armed(program: Start) -> Iterator[Any]:
    return program("--mode", "observe", "--arm", restored=False)


def test_who_may_only_look(armed: Any, visit: Start, photograph: Start):
    expect = playwright.expect
    with visit(armed.viewer) as page:
        expect(page.locator("#veil")).to_have_text("")
        expect(page.locator("#gate-state")).to_have_text("ARMED")
        for name in ("Arm", "Disarm", "STOP", "Focus now", "Note", "Working distance up"):
            expect(page.get_by_role("button", name=name)).to_have_count(0)
        page.keyboard.press("Escape")
        assert page.evaluate(WISH) == 403
        last = page.evaluate("semagent.sequence()")
        until(page, f"semagent.sequence() > {last + 3}")
        expect(page.locator("#gate-state")).to_have_text("ARMED")

    with visit(armed.operator, TABLET) as page:
        expect(page.locator("#gate-state")).to_have_text("ARMED")
        other = page.context.new_page()
        other.goto("about:blank")
        address = urlsplit(armed.operator).netloc
        kept_out = other.evaluate(FOREIGN, [f"http://{address}", f"ws://{address}/live"])
        assert kept_out == ["kept out", "kept out"]
        expect(page.locator("#gate-state")).to_have_text("ARMED")

        page.keyboard.press("2")
        nothing = "Nothing is restored: the configuration has no section restoration."
        expect(page.locator("#veil")).to_have_text(nothing)
        page.keyboard.press("3")
        expect(page.locator("#tag-right")).to_have_text(nothing)
        page.keyboard.press("1")

        photograph(page, "console-tablet")
        for width, height in (WIDE, TABLET):
            page.set_viewport_size({"width": width, "height": height})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("document.documentElement.scrollHeight") <= height
            for name in ("STOP", "Disarm", "Focus now"):
                expect(page.get_by_role("button", name=name)).to_be_in_viewport(ratio=1)
        assert page.evaluate(NAMELESS) == []
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

        # A wrong token shows the sign-in and nothing else.
        page.context.clear_cookies()
        page.goto(f"http://{address}/?token=guess")
        expect(page.get_by_text("That token opens nothing here.")).to_be_visible()
        page.get_by_label("Token").fill(armed.viewer.partition("token=")[2])
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#chips")).to_contain_text("view only")

        # Nor has who follows the link from elsewhere to sign in by hand.
        page.context.clear_cookies()
        links = {"console": armed.operator, "page": f"http://{address}/sessions#here"}
        mail = "".join(f'<a href="{link}">{name}</a>' for name, link in links.items())
        page.route(
            "http://mail.example/", lambda route: route.fulfill(body=mail, content_type="text/html")
        )
        page.goto("http://mail.example/")
        page.get_by_role("link", name="console").click()
        expect(page.get_by_role("button", name="STOP")).to_be_visible()
        page.go_back()
        page.get_by_role("link", name="page").click()
        expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
        assert page.url == links["page"]


# What marks of this kind in a timeline are drawn with, colours left out.
MARK = """async (kind) => {
    const { Timeline } = await import("/static/timeline.js");
    const canvas = document.getElementById("timeline");
    const drawn = [];
    const context = canvas.getContext("2d");
    const frames = [0, 10].map((t_s) => ({ t_s, score: null, working_distance_m: null }));
    const timeline = new Timeline(canvas, () => {});
    context.fillRect = (x, y, width, height) => drawn.push([width, height]);
    timeline.show(frames.map((frame) => ({ ...frame, focus_m: null })), [{ kind, t_s: 5 }], 10);
    delete context.fillRect;
    return drawn;
}"""


def test_what_cannot_be_had_of_a_session(program: Start, browse: Start, visit: Start):
    expect = playwright.expect
    run = program("--mode", "observe", restored=False)
    with visit(run.operator) as page:
        until(page, "semagent.sequence() > 4")
    assert run.end() == 130
    damaged = run.session / "frames" / "frame-00000003.ome.tif"
    pixels = bytearray(damaged.read_bytes())
    pixels[len(pixels) // 2] ^= 1
    damaged.write_bytes(pixels)

    with visit(browse(run.session), LAPTOP) as page:
        page.get_by_role("link", name=run.session.name, exact=True).click()
        veil, facts = page.locator("#veil"), page.locator("#frame-facts div").first
        expect(facts).to_be_visible()  # the last one
        page.get_by_label("Frame", exact=True).press("Home")
        page.keyboard.press(".")
        expect(facts).to_have_text("frame2")
        page.keyboard.press(".")
        expect(veil).to_contain_text("are not those that were recorded")
        expect(facts).to_have_text("frame3")  # and nothing of the one before

        assert page.evaluate(MARK, "refused") != page.evaluate(MARK, "note")

        told: list[Any] = [{"state": "working"}]

        def tell(route: Any) -> None:
            if told[-1] is None:  # the line is cut for a moment
                route.abort()
            else:
                route.fulfill(json={"jobs": {"ome-tiff": told[-1]}, "report": False})

        page.route("**/work", tell)
        page.reload()
        made, button = page.locator("#made"), page.get_by_role("button", name="OME-TIFF")
        expect(made).to_contain_text("is being made")
        expect(button).to_be_disabled()
        told.append(None)
        expect(made).to_have_text("semagent cannot be reached.")
        told.append({"state": "done", "text": "here"})
        expect(made).to_have_text("OME-TIFF: here")
        expect(button).to_be_enabled()

        page.route("**/record/*", lambda route: route.abort())
        page.reload()
        expect(veil).to_have_text("semagent cannot be reached.")
