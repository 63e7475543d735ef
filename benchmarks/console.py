"""What the console costs the loop, and how old a frame is when an operator sees it.

    python benchmarks/console.py --minutes 30     # needs Chromium and Playwright

A simulated microscope gives 10 frames of 1024 x 768 a second, every role in a process of its own,
as `semagent run` has them. Two browsers look on, one at raw frames, one at raw and restored under
the slider. Before they come and after they have gone, the same run is measured without them.

- age: from the end of a frame's exposure until it has been painted in the browser, by the clock of
  the machine, for every frame that was shown;
- loop: from the end of exposure until control has said what it believes, less the time the engine
  took, as heard in the supervising process;
- memory: resident, of each role, medians of the first and the last quarter of the browsers' time.
"""

import argparse
import json
import multiprocessing
import platform
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from semagent.bus import Mailbox
from semagent.config import Part, RunConfig, find_config, load_config
from semagent.supervisor import Supervisor

INTERVAL_S = 0.1
WARM_UP_S = 10.0
MEMORY_S = 2.0
SIZE = {"width": 1920, "height": 1080}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


class Watch:
    """Hears what the loop does, and weighs its processes."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._analyses: Mailbox = supervisor.bus.subscribe("analysis")
        self._beliefs: Mailbox = supervisor.bus.subscribe("belief")
        self._began_ns: dict[int, float] = {}

    def follow(self, seconds: float) -> tuple[list[float], dict[str, list[int]]]:
        """Latencies of the loop in milliseconds, and bytes of each role over the time."""
        latencies_ms: list[float] = []
        memory: dict[str, list[int]] = {}
        end_s = time.perf_counter() + seconds
        weigh_s = 0.0
        while (now_s := time.perf_counter()) < end_s:
            self._supervisor.watch(0.0)
            self._supervisor.bus.wait(0.05)
            latencies_ms += self._heard()
            if now_s >= weigh_s:
                weigh_s = now_s + MEMORY_S
                for process in multiprocessing.active_children():
                    if process.name.startswith("semagent-") and process.pid is not None:
                        resident = psutil.Process(process.pid).memory_info().rss
                        memory.setdefault(process.name.removeprefix("semagent-"), []).append(
                            resident
                        )
        return latencies_ms, memory

    def _heard(self) -> Iterator[float]:
        while (message := self._analyses.take()) is not None:
            analysis = message.value
            self._began_ns = {
                analysis.header.sequence: analysis.header.monotonic_ns + analysis.latency_s * 1e9
            }
        while (message := self._beliefs.take()) is not None:
            began_ns = self._began_ns.pop(message.value.sequence, None)
            if began_ns is not None:
                yield (time.perf_counter_ns() - began_ns) / 1e6


def make_config(*, restored: bool) -> RunConfig:
    """The simulated microscope at 10 frames a second."""
    config = load_config(find_config("simulated"))
    options = {**config.driver.options, "drift": {"z_nm_per_s": 0}}
    options["scan"] = {**options["scan"], "dwell_us": 0.05}
    return msgspec.structs.replace(
        config,
        driver=Part(name=config.driver.name, options=options),
        acquire=msgspec.structs.replace(config.acquire, frame_interval_s=INTERVAL_S),
        console=msgspec.structs.replace(config.console, port=0),
        restoration=config.restoration if restored else None,
    )


@contextmanager
def looking_on(chromium: str, link: str, layouts: tuple[str, ...]) -> Iterator[list[Page]]:
    """Browsers at the console, each a program of its own."""
    with sync_playwright() as driver:
        browsers: list[Browser] = []
        pages: list[Page] = []
        for key in layouts:
            browsers.append(
                driver.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
            )
            pages.append(browsers[-1].new_page(viewport=SIZE))
            pages[-1].goto(link)
            pages[-1].keyboard.press(key)
        yield pages
        for browser in browsers:
            browser.close()


def percentiles(values: list[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    return {
        "p50": round(float(np.percentile(values, 50)), 1),
        "p99": round(float(np.percentile(values, 99)), 1),
    }


def growth(values: list[int]) -> dict[str, float]:
    """Megabytes at the begin, and what came on top."""
    quarter = max(1, len(values) // 4)
    first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
    return {"mib": round(first / 2**20, 1), "growth_mib": round((last - first) / 2**20, 1)}


def measure(chromium: str, minutes: float, *, restored: bool) -> dict[str, Any]:
    """All figures of one run."""
    supervisor = Supervisor(make_config(restored=restored), console=True)
    watch = Watch(supervisor)
    alone_s = max(20.0, 60.0 * minutes / 6)
    try:
        supervisor.start()
        assert supervisor.console_links is not None
        watch.follow(WARM_UP_S)
        alone, _ = watch.follow(alone_s)
        with looking_on(chromium, supervisor.console_links[0], ("1", "4")) as pages:
            watch.follow(WARM_UP_S)
            for page in pages:
                page.evaluate("semagent.forget()")
            dropped = [page.evaluate("semagent.dropped()") for page in pages]
            watched, memory = watch.follow(60.0 * minutes)
            ages = [page.evaluate("semagent.ages()") for page in pages]
            dropped = [
                page.evaluate("semagent.dropped()") - before
                for page, before in zip(pages, dropped, strict=True)
            ]
        watch.follow(WARM_UP_S)
        alone += watch.follow(alone_s)[0]
    finally:
        supervisor.close()
    without, beside = percentiles(alone), percentiles(watched)
    return {
        "minutes": minutes,
        "restoring": restored,
        "machine": f"{psutil.cpu_count()} cores, {platform.machine()}",
        "frames_shown": [len(each) for each in ages],
        "frames_dropped": dropped,
        "age_ms": [percentiles(each) for each in ages],
        "loop_ms": {"without browsers": without, "with two browsers": beside},
        "loop_p50_change_percent": round(100 * (beside["p50"] / without["p50"] - 1), 1),
        "memory": {role: growth(values) for role, values in sorted(memory.items())},
    }


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0, help="with browsers looking on")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the program")
    parser.add_argument("--no-restoration", action="store_true", help="leave the model out")
    arguments = parser.parse_args()
    if arguments.chromium is None:
        parser.error("no chromium on the path; say where it is with --chromium")
    figures = measure(arguments.chromium, arguments.minutes, restored=not arguments.no_restoration)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
