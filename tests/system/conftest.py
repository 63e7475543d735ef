"""Programs as a user starts them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from semagent.config import find_config


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines; anything else there is an error."""
        return [json.loads(line) for line in self.out.splitlines()]


def _semagent(*arguments: object, timeout_s: float = 100.0) -> Finished:
    run = subprocess.run(
        [sys.executable, "-m", "semagent", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=timeout_s,
        check=False,
        env={**os.environ, "COLUMNS": "200", "PYTHONUTF8": "1"},
    )
    return Finished(run.returncode, run.stdout, run.stderr)


@pytest.fixture(scope="session")
def semagent() -> Callable[..., Finished]:
    """Runs a command to its end."""
    return _semagent


# On Windows: in the console of a process, of which all that run there hear it.
_PRESS = """
import ctypes, sys
console = ctypes.windll.kernel32
console.FreeConsole()
assert console.AttachConsole(int(sys.argv[1]))
console.SetConsoleCtrlHandler(None, 1)
assert console.GenerateConsoleCtrlEvent(0, 0)
"""


def _press_ctrl_c(process: subprocess.Popen[str]) -> None:
    if sys.platform == "win32":
        subprocess.run([sys.executable, "-c", _PRESS, str(process.pid)], check=True)
    else:
        process.send_signal(signal.SIGINT)


@pytest.fixture(scope="session")
def press_ctrl_c() -> Callable[[subprocess.Popen[str]], None]:
    """Press Ctrl-C for a program, which on Windows was started with `CREATE_NO_WINDOW`."""
    return _press_ctrl_c


@pytest.fixture
def simulated_config(tmp_path: Path) -> Callable[..., Path]:
    """Writes the configuration that ships, with a small microscope and some options changed.

    Arguments are sections of the driver's options, or sections of the file itself when their
    name starts with an underscore.
    """
    return partial(_simulated_config, tmp_path)


def _simulated_config(folder: Path, **changes: Any) -> Path:
    raw = yaml.safe_load(find_config("simulated").read_text(encoding="utf-8"))
    options = raw["driver"]["options"]
    options["scan"] |= {"width_px": 512, "height_px": 384, "dwell_us": 0.2}
    options["drift"] = {"z_nm_per_s": 0}
    for name, value in changes.items():
        if name.startswith("_"):
            raw[name[1:]] = {**raw.get(name[1:], {}), **value}
        elif isinstance(value, dict):
            options[name] = {**options.get(name, {}), **value}
        else:
            options[name] = value
    path = folder / "microscope.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def drawn_stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A through-focus stack of a drawn specimen, focus at 5003 um."""
    folder = tmp_path_factory.mktemp("stacks") / "drawn"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "semagent_drivers.simulated.stack",
            str(folder),
            "--focus-um=5003",
            "--tile-px=512",
            "--frames=33",
        ],
        check=True,
        timeout=100,
        capture_output=True,
    )
    return folder
