"""The live view on a real pseudo terminal, and the plain lines where there is none."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pty = pytest.importorskip("pty", reason="pseudo terminals are POSIX")
fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

Config = Callable[..., Path]
ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


def on_a_terminal(
    *arguments: object,
    rows: int = 40,
    columns: int = 140,
    at: bytes | None = None,
    look: Callable[[int], None] = lambda _pid: None,
) -> tuple[int, bytes]:
    """Run semagent on a pseudo terminal of its own; return its exit code and all it wrote.

    As soon as it has written ``at``, ``look`` is called once with the number of its process.
    """
    near, far = pty.openpty()
    termios.tcsetwinsize(far, (rows, columns))
    environment = {**os.environ, "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "OPENBLAS_NUM_THREADS"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "semagent", *map(str, arguments)],
        stdin=far,
        stdout=far,
        stderr=far,
        env=environment,
        start_new_session=True,
    )
    os.close(far)
    wrote = bytearray()
    try:
        while True:
            try:
                part = os.read(near, 65536)
            except OSError:  # Linux says so when the other end is closed
                break
            if not part:
                break
            wrote += part
            if at is not None and at in wrote:
                at = None
                look(process.pid)
        return process.wait(timeout=30), bytes(wrote)
    finally:
        process.kill()
        os.close(near)


def text_of(wrote: bytes) -> str:
    """What was written, without colours; each picture of the screen begins on a line of its own."""
    rows = re.sub(r"\x1b\[(\?1049l|H)", "\n", wrote.decode())
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", rows)


def test_a_run_fills_the_screen_and_leaves_it_as_it_was(simulated_config: Config):
    config = simulated_config(speed=0.0, faults={"blank": {"at": [20]}})
    code, wrote = on_a_terminal(
        "run", config, "--mode", "hold", "--arm", "--frames", 60, "--no-console"
    )
    assert code == 0, wrote[-2000:]
    assert wrote.count(ENTER) == wrote.count(LEAVE) == 1
    live, after = (text_of(part) for part in wrote.split(LEAVE))
    for fact in (
        "ARMED",
        "mode hold",
        "holding: follows focus",
        "working distance",
        "believed focus",
        "electrons/nm²",
        "a second",
        "┃",
        "missing",
        "refused",
        "control: focused",
    ):
        assert fact in live, fact
    for role in ("acquire", "infer", "control"):
        assert re.search(rf"{role}\s+(idle|busy)\s+\d\.\d s\s+\d+", live), role
    assert "warning: frame 20 is not used" in after
    assert "60 frames, 1 unusable" in after


def takes_leftovers(process: psutil.Process) -> bool:
    """Whether all of it runs only when nobody else wants to."""
    if sys.platform != "linux":
        return process.nice() == 19
    return {os.sched_getscheduler(each.id) for each in process.threads()} == {os.SCHED_IDLE}


def test_a_low_and_narrow_terminal_shows_the_links_and_what_happened():
    """The demo as a newcomer starts it, in a terminal of the usual size, and what it starts."""
    pytest.importorskip("starlette", reason="the extra 'console' is not installed")
    roles: list[dict[str, Any]] = []

    def look(pid: int) -> None:
        children = psutil.Process(pid).children()
        started = [each for each in children if "spawn_main" in " ".join(each.cmdline())]
        for child in sorted(started, key=lambda each: each.create_time()):
            roles.append(
                {
                    "threads": child.environ().get("OPENBLAS_NUM_THREADS"),
                    "nice": child.nice(),
                    "leftovers": takes_leftovers(child),
                }
            )

    sized = {"rows": 24, "columns": 80}
    code, wrote = on_a_terminal("demo", "--frames", 40, **sized, at=b"control: focused", look=look)
    assert code == 0, wrote[-2000:]
    live = text_of(wrote.split(ENTER)[1].split(LEAVE)[0])
    assert all(len(row) <= 80 for row in live.splitlines())
    screen = live.split("Simulated SEM ·")[-1]
    for fact in ("console   http://127.0.0.1:", "view only http://127.0.0.1:", "control: focused"):
        assert fact in screen, screen
    # The loop goes before the console, and both before the restored picture; no numpy spins.
    assert [role["threads"] for role in roles] == ["1"] * 5
    assert [role["nice"] for role in roles[:4]] == [psutil.Process().nice()] * 3 + [5]
    assert [role["leftovers"] for role in roles] == [False] * 4 + [True]


def test_without_a_terminal_lines_are_printed(
    semagent: Callable[..., Any], simulated_config: Config
):
    run = semagent(
        "run",
        "--no-console",
        simulated_config(speed=0.0),
        "--arm",
        "--mode",
        "hold",
        "--frames",
        20,
    )
    assert run.code == 0, run.err
    assert "\x1b" not in run.out
    lines = run.out.splitlines()
    assert "control: mode hold" in lines
    assert any(line.startswith("mode hold, armed, frame ") for line in lines)


def test_simulate_shows_the_same_facts_below_its_table(drawn_stack: Path):
    code, wrote = on_a_terminal("simulate", drawn_stack, "--start-um", 4980)
    assert code == 0
    shown = text_of(wrote)
    assert "believed focus" in shown
    assert "beam current not reported" in shown
