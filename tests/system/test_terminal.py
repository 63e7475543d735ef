"""The live view on a real pseudo terminal, and the plain lines where there is none."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pty = pytest.importorskip("pty", reason="pseudo terminals are POSIX")
fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

Config = Callable[..., Path]
ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


def on_a_terminal(*arguments: object, rows: int = 40, columns: int = 140) -> tuple[int, bytes]:
    """Run semagent on a pseudo terminal of its own; return its exit code and all it wrote."""
    near, far = pty.openpty()
    termios.tcsetwinsize(far, (rows, columns))
    environment = {**os.environ, "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
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


def test_a_narrow_terminal_gets_one_column(simulated_config: Config):
    config = simulated_config(speed=0.0)
    code, wrote = on_a_terminal("run", config, "--frames", 20, "--no-console", rows=24, columns=80)
    assert code == 0
    assert all(len(row) <= 80 for row in text_of(wrote).splitlines())


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
