"""Frames in a browser: semagent's console beside a framework of widgets, NiceGUI.

    python -m venv /tmp/nicegui && /tmp/nicegui/bin/pip install nicegui opencv-python-headless
    python benchmarks/console_framework.py --nicegui /tmp/nicegui/bin/python

Both get 30 noisy frames of 1024 x 768 a second on this machine, one Chromium looks on. NiceGUI is
used as its documentation does for video: an ``interactive_image`` whose source becomes a new JPEG,
from a timer. Counted are the frames the browser has painted, and the processor time of the server.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
from nicegui_page import INTERVAL_S, make_frames
from playwright.sync_api import sync_playwright

from semagent.bus import LocalBus, LocalHub
from semagent.channels import Role
from semagent.clock import SystemClock
from semagent.config import ConsoleOptions, find_config, load_config
from semagent.console import Console, RunFacts, Tokens, listen
from semagent.testing.engines import frame_of
from semagent.types import Capabilities

SECONDS = 20.0
LOADS = """() => {
    window.shown = 0;
    const count = (event) => { window.shown += event.target.tagName === "IMG"; };
    document.addEventListener("load", count, true);
}"""


def serve_console() -> None:
    """The console, told of frames over a bus."""
    clock = SystemClock()
    hub = LocalHub(clock)
    acquire, bus = LocalBus(hub, Role.ACQUIRE), LocalBus(hub, Role.CONSOLE)
    listener = listen(ConsoleOptions(port=0))
    run = RunFacts(
        config=load_config(find_config("simulated")),
        capabilities=Capabilities(driver="none", microscope="none", verified_on=None),
        engine="none",
        session=None,
    )
    console = Console(bus, listener, run, Tokens(operator="operator", viewer="viewer"), clock)
    frames = [frame_of(pixels) for pixels in make_frames()]
    print(f"{listener.url}/?token=operator", flush=True)
    count, due_s = 0, time.perf_counter()
    while True:
        if time.perf_counter() >= due_s:
            count, due_s = count + 1, due_s + INTERVAL_S
            frame = frames[count % len(frames)]
            header = msgspec.structs.replace(
                frame.header, sequence=count, monotonic_ns=clock.monotonic_ns()
            )
            acquire.publish("frame", header, frame.pixels)
        console.step()
        bus.wait(0.003)


def measure(server: list[str], count: str, chromium: str) -> dict[str, float]:
    """Start a server, look on for a while, and say what it gave and what it took."""
    process = subprocess.Popen(server, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        link = process.stdout.readline().strip()
        time.sleep(5)
        with sync_playwright() as driver:
            flags = ["--no-sandbox", "--disable-gpu"]
            browser = driver.chromium.launch(executable_path=chromium, args=flags)
            page = browser.new_page(viewport={"width": 1600, "height": 900})
            page.goto(link)
            page.evaluate(LOADS)
            page.wait_for_timeout(5000)
            before, spent = page.evaluate(count), psutil.Process(process.pid).cpu_times()
            page.wait_for_timeout(1000 * SECONDS)
            shown = page.evaluate(count) - before
            used = psutil.Process(process.pid).cpu_times()
            browser.close()
    finally:
        process.kill()
        process.wait()
    busy_s = used.user + used.system - spent.user - spent.system
    return {
        "frames_per_s": round(shown / SECONDS, 1),
        "server_ms_per_frame": round(1000 * busy_s / max(1, shown), 1),
    }


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true", help="only serve the console")
    parser.add_argument("--nicegui", metavar="PYTHON", help="interpreter that has NiceGUI")
    arguments = parser.parse_args()
    if arguments.serve:
        serve_console()
    chromium = shutil.which("chromium") or parser.error("no chromium on the path")
    ours = [sys.executable, __file__, "--serve"]
    figures = {"console": measure(ours, "semagent.ages().length", chromium)}
    if arguments.nicegui:
        page = Path(__file__).with_name("nicegui_page.py")
        figures["nicegui"] = measure([arguments.nicegui, str(page)], "window.shown", chromium)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
