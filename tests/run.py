"""Everything that has to hold before a change lands, in the order of what fails fastest."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = [sys.executable, "-m"]
STEPS = {
    "formatting": [*PYTHON, "ruff", "format", "--check", "."],
    "lint": [*PYTHON, "ruff", "check", "."],
    "arrows between the parts": [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as run; run()",
    ],
    "types": [*PYTHON, "mypy"],
    "types, Windows": [*PYTHON, "mypy", "--platform", "win32", "--cache-dir", ".mypy_cache/win32"],
    "tests": [*PYTHON, "pytest", "-n", "2"],
    "faults in the safety gate": [*PYTHON, "tests.mutation.run"],
}


def main() -> int:
    # Two processes share two cores; threads of numerical libraries in each would be in the way.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    for name, command in STEPS.items():
        print(f"== {name}", flush=True)
        started_s = time.perf_counter()
        if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
            print(f"== {name} failed")
            return 1
        print(f"== {name} passed in {time.perf_counter() - started_s:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
