"""The real program, and a real Chromium that looks at its console."""

import io
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from semagent.config import find_config
from semagent.memory import Calibration, Matrix, Memory, Settings, as_text

pytest.importorskip("starlette", reason="the extra 'console' is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_START_S = 90.0
_WAIT_MS = 60_000
_SMALL = {"width_px": 512, "height_px": 384}
_FRAME_S = 0.25
# What `semagent calibrate` finds out of the stigmators of the simulated microscope.
_COILS = Matrix(xx=20e-6, xy=0, yx=0, yy=20e-6, sigma=0.2e-6)
_GREY_STEP = 16  # of pictures in the documents: finer ones would only keep the specimen's noise
NAMELESS = """() => [...document.querySelectorAll("button, input, select, [role=slider]")]
    .filter((one) => !one.textContent.trim() && !one.ariaLabel && !one.labels?.length)
    .map((one) => one.outerHTML)"""
WIDE, LAPTOP, SMALL, TABLET, PHONE = (1920, 1080), (1600, 900), (1280, 720), (1024, 768), (400, 800)


@dataclass(frozen=True)
class Program:
    """A run of semagent.

    Attributes:
        operator: link for whoever may command.
        viewer: link for looking only.
        session: folder of its record.
    """

    process: "subprocess.Popen[bytes]"
    operator: str
    viewer: str
    session: Path

    def end(self) -> int:
        """Have it end as on Ctrl-C; its exit code."""
        return _end(self.process)


@pytest.fixture
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts ``semagent run``; arguments are sections of the driver's options to be changed.

    Frames are small and do not hurry, but for pictures.
    """
    started: list[Program] = []

    def start(*arguments: str, restored: bool = True, **changes: dict[str, Any]) -> Program:
        raw = yaml.safe_load(find_config("simulated").read_text(encoding="utf-8"))
        options = raw["driver"]["options"]
        options["column"]["beam_current_pa"] = 400
        for name, change in changes.items():
            options[name] = {**options.get(name, {}), **change}
        if not restored:
            raw["restoration"] = None
        if request.config.getoption("--screenshots") is None:
            options["scan"] |= _SMALL
            raw["acquire"] = {"frame_interval_s": _FRAME_S}
        raw["safety"]["heartbeat_timeout_s"] = 15  # browser and program share a busy machine
        raw["console"] = {"port": 0}
        raw["record"] = {"sync": False}
        config, session = tmp_path / "microscope.yaml", tmp_path / "session"
        config.write_text(yaml.safe_dump(raw), encoding="utf-8")
        measured = Calibration(date="", frames=20, astigmatism_per_stigmator=_COILS)
        memory = as_text(Memory().with_calibration(Settings(), measured))
        config.with_suffix(".memory.yaml").write_text(memory, encoding="utf-8")
        log = tmp_path / "log"
        command = [sys.executable, "-m", "semagent", "run", str(config), "--record", str(session)]
        with log.open("wb") as out:
            process = subprocess.Popen([*command, *arguments], stdout=out, stderr=out)
        links = _links(process, log)
        started.append(Program(process, *links, session))
        return started[-1]

    yield start
    for run in started:
        if run.process.poll() is None:
            run.end()


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Starts ``semagent browse`` and gives the operator's link."""
    started: list[subprocess.Popen[bytes]] = []

    def start(folder: Path) -> str:
        log = tmp_path / "browse.log"
        command = [sys.executable, "-m", "semagent", "browse", str(folder), "--port", "0"]
        with log.open("wb") as out:
            started.append(subprocess.Popen(command, stdout=out, stderr=out))
        return _links(started[-1], log)[0]

    yield start
    assert [_end(process) for process in started] == [0] * len(started)


def _end(process: "subprocess.Popen[bytes]") -> int:
    process.terminate()
    return process.wait(30)


def _links(process: "subprocess.Popen[bytes]", log: Path) -> tuple[str, str]:
    until_s = time.perf_counter() + _START_S
    while process.poll() is None and time.perf_counter() < until_s:
        text = log.read_text(encoding="utf-8")
        found = re.search(r"(?:console|sessions): +(\S+)\s+view only: +(\S+)\s", text)
        if found:
            return found[1], found[2]
        time.sleep(0.05)
    process.kill()
    process.wait()
    raise AssertionError(f"the program did not say where its console is: {log.read_text()}")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium."""
    named = os.environ.get("SEMAGENT_CHROMIUM")
    path = named or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium; or set SEMAGENT_CHROMIUM)")
    playwright.expect.set_options(timeout=_WAIT_MS)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, headless=True, args=[*_FLAGS])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Callable[..., Any]:
    """Opens a page with a profile of its own; what its scripts complain about fails the test."""

    @contextmanager
    def opened(link: str, size: tuple[int, int] = WIDE) -> Iterator[Any]:
        width, height = size
        context = chromium.new_context(viewport={"width": width, "height": height})
        context.set_default_timeout(_WAIT_MS)
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(link)
        yield page
        context.close()
        assert errors == []

    return opened


def until(page: Any, expression: str) -> None:
    """Wait for a condition in the page. Playwright's own way needs ``eval``, which ours forbids."""
    end_s = time.perf_counter() + _WAIT_MS / 1000
    while not page.evaluate(expression):
        assert time.perf_counter() < end_s, expression
        page.wait_for_timeout(50)


@pytest.fixture
def photograph(request: pytest.FixtureRequest) -> Iterator[Callable[[Any, str], None]]:
    """Keeps a screenshot for the documents, if ``--screenshots FOLDER`` is given."""
    folder = request.config.getoption("--screenshots")
    taken: dict[str, bytes] = {}

    def take(page: Any, name: str) -> None:
        if folder is not None:
            taken[name] = page.screenshot()

    yield take
    for name, png in taken.items():
        _save_small(png, Path(folder) / f"{name}.png")


def _save_small(png: bytes, path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.array(image.open(io.BytesIO(png)).convert("RGB"))
    grey = np.ptp(pixels, axis=2) <= 1
    pixels[grey] = pixels[grey] // _GREY_STEP * _GREY_STEP + _GREY_STEP // 2
    # Greys stay grey, and rare colours are kept: a red mark must not come out yellow.
    steps = range(_GREY_STEP // 2, 256, _GREY_STEP)
    coloured = image.fromarray(pixels[~grey][np.newaxis])
    colours = coloured.quantize(256 - len(steps), image.Quantize.MAXCOVERAGE).getpalette()
    palette = image.new("P", (1, 1))
    palette.putpalette([level for step in steps for level in [step] * 3] + colours)
    small = image.fromarray(pixels).quantize(palette=palette, dither=image.Dither.NONE)
    small.save(path, optimize=True)
