"""What the console costs the loop, and how old a frame is when an operator sees it.

    python benchmarks/console.py --minutes 30     # needs Chromium

A simulated microscope gives 10 frames of 1024 x 768 a second, every role in a process of its own,
as `semagent run` has them. Two browsers look on, one at raw frames, one at raw and restored under
the slider. Before they come and after they have gone, the same run is measured without them.

- age: from the end of a frame's exposure until it has been painted in the browser, by the clock of
  the machine, for every frame that was shown;
- loop: from the end of exposure until control has said what it believes, as heard in the
  supervising process, and the same less the time the engine took;
- memory: resident, of each role, medians of the first and the last quarter of the browsers' time;
- cores: processor time of each role and of the browsers, a second, and of a browser for each
  frame it has shown.

The browsers paint without a graphics card, on the machine of the microscope. ``--nice 19`` lets
them step back behind the agent, which comes nearer to browsers on other desks.
"""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import msgspec
import numpy as np
import psutil
from websockets.sync.client import ClientConnection, connect

from semagent.bus import Mailbox
from semagent.config import Part, RunConfig, find_config, load_config
from semagent.supervisor import Supervisor

INTERVAL_S = 0.1
WARM_UP_S = 10.0
MEMORY_S = 2.0
BROWSER_START_S = 30.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--window-size=1920,1080",
    "--remote-debugging-port=0",
)
LAYOUT_KEYS = ("1", "4")


class Window(NamedTuple):
    """What was seen over some time.

    Attributes:
        loop_ms: the loop with and without the engine, frame by frame.
        memory: bytes of each role, over the time.
        cores: processor seconds a second, of each role.
    """

    loop_ms: list[tuple[float, float]]
    memory: dict[str, list[int]]
    cores: dict[str, float]


class Looker:
    """A Chromium at the console, a program of its own.

    It is spoken to over its DevTools socket and only before and after: a driver such as Playwright
    has every frame copied to itself while it is shown.
    """

    def __init__(self, process: psutil.Process, socket: ClientConnection) -> None:
        self.process = process
        self._socket = socket
        self._id = 0

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        self._id += 1
        parameters = {"expression": expression, "returnByValue": True}
        call = {"id": self._id, "method": "Runtime.evaluate", "params": parameters}
        self._socket.send(json.dumps(call))
        while (answer := json.loads(self._socket.recv(BROWSER_START_S))).get("id") != self._id:
            continue
        result = answer.get("result")
        if result is None or "exceptionDetails" in result:
            raise RuntimeError(f"the browser cannot say what {expression} is: {answer}")
        return result["result"].get("value")

    def shows(self) -> bool:
        """Whether a frame has been shown; a page that is just being loaded gives no answer."""
        try:
            return bool(self.evaluate("window.semagent?.sequence() > 0"))
        except RuntimeError:
            return False

    def cpu_s(self) -> float:
        """Processor seconds of all its processes so far."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(cpu_s(process) for process in family)


class Watch:
    """Hears what the loop does, and weighs its processes."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._analyses: Mailbox = supervisor.bus.subscribe("analysis")
        self._beliefs: Mailbox = supervisor.bus.subscribe("belief")
        self._analysed: dict[int, tuple[int, float]] = {}

    def follow(self, seconds: float) -> Window:
        """Watch for some time."""
        loop_ms: list[tuple[float, float]] = []
        memory: dict[str, list[int]] = {}
        began = {name: cpu_s(process) for name, process in roles()}
        end_s = time.perf_counter() + seconds
        weigh_s = 0.0
        while (now_s := time.perf_counter()) < end_s:
            self._supervisor.watch(0.0)
            self._supervisor.bus.wait(0.05)
            loop_ms += self._heard()
            if now_s >= weigh_s:
                weigh_s = now_s + MEMORY_S
                for name, process in roles():
                    memory.setdefault(name, []).append(process.memory_info().rss)
        cores = {name: (cpu_s(process) - began[name]) / seconds for name, process in roles()}
        return Window(loop_ms, memory, cores)

    def _heard(self) -> Iterator[tuple[float, float]]:
        while (message := self._analyses.take()) is not None:
            figures, header = message.value, message.value.header
            self._analysed = {header.sequence: (header.monotonic_ns, figures.latency_s)}
        while (message := self._beliefs.take()) is not None:
            analysed = self._analysed.pop(message.value.sequence, None)
            if analysed is not None:
                exposed_ns, engine_s = analysed
                loop_ms = (time.perf_counter_ns() - exposed_ns) / 1e6
                yield loop_ms, loop_ms - 1000 * engine_s


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


def roles() -> Iterator[tuple[str, psutil.Process]]:
    """The processes of the run."""
    for process in multiprocessing.active_children():
        if process.name.startswith("semagent-"):
            yield process.name.removeprefix("semagent-"), psutil.Process(process.pid)


def cpu_s(process: psutil.Process) -> float:
    """Processor seconds of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def stepping_back(nice: int) -> list[str]:
    """What starts a program at a priority that it cannot raise, as Chromium would for root."""
    command = ["nice", "-n", str(nice)] if nice else []
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("setpriv"):
        command += ["setpriv", "--inh-caps=-sys_nice", "--bounding-set=-sys_nice"]
    return command


@contextmanager
def looker(chromium: str, nice: int, link: str, key: str) -> Iterator[Looker]:
    """A browser that looks on, in the layout the key stands for."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [*stepping_back(nice), chromium, *FLAGS, f"--user-data-dir={folder}", link]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        try:
            with connect(find_page(Path(folder)), max_size=None) as socket:
                looking = Looker(psutil.Process(process.pid), socket)
                until(looking.shows)
                press = f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}))"
                looking.evaluate(press)
                yield looking
        finally:
            process.terminate()
            process.wait(BROWSER_START_S)


def find_page(folder: Path) -> str:
    """Where the page of a browser with this profile can be spoken to."""
    note = folder / "DevToolsActivePort"
    until(lambda: note.is_file() and note.read_text(encoding="utf-8").count("\n") > 0)
    port = int(note.read_text(encoding="utf-8").split()[0])

    def pages() -> list[str]:
        with urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            targets = json.load(answer)
        return [one["webSocketDebuggerUrl"] for one in targets if one["type"] == "page"]

    until(pages)
    return pages()[0]


def until(condition: Callable[[], object]) -> None:
    """Wait for what a browser does when it starts."""
    end_s = time.perf_counter() + BROWSER_START_S
    while not condition():
        if time.perf_counter() > end_s:
            raise TimeoutError(f"a browser has not started within {BROWSER_START_S:g} s")
        time.sleep(0.1)


def percentiles(values: list[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    return {
        "p50": round(float(np.percentile(values, 50)), 1),
        "p99": round(float(np.percentile(values, 99)), 1),
    }


def loop(before: Window, watched: Window, after: Window, part: int) -> dict[str, Any]:
    """What the browsers change; ``part`` is 0 with the engine, 1 without."""
    first, beside, last = ([each[part] for each in w.loop_ms] for w in (before, watched, after))
    without, seen = percentiles(first + last), percentiles(beside)
    return {
        "without browsers": without,
        "before": percentiles(first),
        "with two browsers": seen,
        "after": percentiles(last),
        "p50_change_percent": round(100 * (seen["p50"] / without["p50"] - 1), 1),
    }


def growth(values: list[int]) -> dict[str, float]:
    """Megabytes at the begin, and what came on top."""
    quarter = max(1, len(values) // 4)
    first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
    return {"mib": round(first / 2**20, 1), "growth_mib": round((last - first) / 2**20, 1)}


def measure(chromium: str, minutes: float, nice: int, *, restored: bool) -> dict[str, Any]:
    """All figures of one run."""
    supervisor = Supervisor(make_config(restored=restored), console=True)
    watch = Watch(supervisor)
    alone_s = max(20.0, 60.0 * minutes / 6)
    try:
        supervisor.start()
        assert supervisor.console_links is not None
        link = supervisor.console_links[0]
        watch.follow(WARM_UP_S)
        before = watch.follow(alone_s)
        with ExitStack() as stack:
            lookers = [
                stack.enter_context(looker(chromium, nice, link, key)) for key in LAYOUT_KEYS
            ]
            watch.follow(WARM_UP_S)
            dropped = [each.evaluate("semagent.forget(), semagent.dropped()") for each in lookers]
            browsers_s = sum(each.cpu_s() for each in lookers)
            watched = watch.follow(60.0 * minutes)
            browsers_s = sum(each.cpu_s() for each in lookers) - browsers_s
            ages = [each.evaluate("semagent.ages()") for each in lookers]
            dropped = [
                each.evaluate("semagent.dropped()") - so_far
                for each, so_far in zip(lookers, dropped, strict=True)
            ]
        watch.follow(WARM_UP_S)
        after = watch.follow(alone_s)
    finally:
        supervisor.close()
    return {
        "minutes": minutes,
        "restoring": restored,
        "browsers_nice": nice,
        "machine": f"{psutil.cpu_count()} cores, {platform.machine()}",
        "frames_shown": [len(each) for each in ages],
        "frames_dropped": dropped,
        "age_ms": [percentiles(each) for each in ages],
        "browser_ms_a_frame": round(1000 * browsers_s / sum(map(len, ages)), 1),
        "loop_ms": loop(before, watched, after, 0),
        "loop_without_engine_ms": loop(before, watched, after, 1),
        "memory": {role: growth(values) for role, values in sorted(watched.memory.items())},
        "cores": {
            "without browsers": rounded(before.cores),
            "with two browsers": rounded(
                {**watched.cores, "browsers": browsers_s / (60.0 * minutes)}
            ),
        },
    }


def rounded(values: dict[str, float]) -> dict[str, float]:
    """As printed."""
    return {name: round(value, 3) for name, value in sorted(values.items())}


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0, help="with browsers looking on")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the program")
    parser.add_argument("--nice", type=int, default=0, help="how far the browsers step back")
    parser.add_argument("--no-restoration", action="store_true", help="leave the model out")
    arguments = parser.parse_args()
    if arguments.chromium is None:
        parser.error("no chromium on the path; say where it is with --chromium")
    figures = measure(
        arguments.chromium,
        arguments.minutes,
        arguments.nice,
        restored=not arguments.no_restoration,
    )
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
