"""Everything that has to hold before a change lands, in the order of what fails fastest."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = [sys.executable, "-m"]
# What pip would do on one core while the others wait; nobody runs the tests of the libraries.
COMPILE = """
import compileall, re, sysconfig
tests = re.compile(r"[/\\\\]tests?[/\\\\]")
compileall.compile_dir(sysconfig.get_path("purelib"), quiet=2, workers=0, rx=tests)
"""
# Processes that begin at once would each rewrite the assertions of all tests.
COLLECT = """
import contextlib, io, sys, pytest
with contextlib.redirect_stdout(io.StringIO()) as said:
    failed = pytest.main(["--collect-only", "-qq"])
sys.exit(said.getvalue() if failed else 0)
"""
STEPS: tuple[dict[str, list[str]], ...] = (
    {
        "compiling what is installed": [sys.executable, "-c", COMPILE],
        "formatting": [*PYTHON, "ruff", "format", "--check", "."],
        "lint": [*PYTHON, "ruff", "check", "."],
        "arrows between the parts": [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as run; run()",
        ],
        "types": [*PYTHON, "mypy"],
        "types on Windows": [
            *PYTHON,
            *("mypy", "--platform", "win32", "--cache-dir", ".mypy_cache/win32"),
            # What runs beside a microscope; the rest would be read with all of PyTorch once more.
            *("-p", "semagent", "-p", "semagent_drivers"),
            *("-p", "semagent_engines.runtime", "-p", "semagent_engines.sharpness"),
        ],
        "collecting the tests": [sys.executable, "-c", COLLECT],
    },
    # Many tests wait for other programs: four processes keep two cores busy.
    {"tests": [*PYTHON, "pytest", "-n", "4", "--dist", "worksteal"]},
    {"faults in the safety gate": [*PYTHON, "tests.mutation.run"]},
)
"""One after the other; what stands together runs at once."""


def main() -> int:
    # Processes share two cores; threads of numerical libraries in each would be in the way.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    # Hundreds of processes are started: each would compile the same modules anew.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    for step in STEPS:
        print(f"== {', '.join(step)}", flush=True)
        started_s = time.perf_counter()
        running = {
            name: subprocess.Popen(command, cwd=ROOT, env=environment)
            for name, command in step.items()
        }
        failed = [name for name, process in running.items() if process.wait()]
        if failed:
            print(f"== {', '.join(failed)} failed")
            return 1
        print(f"== passed in {time.perf_counter() - started_s:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
