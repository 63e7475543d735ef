"""The tutorials do what they say: every block of bash is run, in order.

A comment before a block, ``<!-- exit 4: held -->``, names its exit code and, a line each, what it
prints; without one it has to end with 0.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .pages import ROOT, name_of, tokens

TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.md"))
README = ROOT / "README.md"
BASH = "" if sys.platform == "win32" else shutil.which("bash") or ""

_EXPECTED = re.compile(r"<!-- exit (\d+): (.*?) -->", re.DOTALL)

pytestmark = pytest.mark.skipif(not BASH, reason="there is no bash")


@dataclass(frozen=True)
class Block:
    """Commands, and what they promise."""

    line: int
    script: str
    code: int = 0
    shown: tuple[str, ...] = ()


def blocks(page: Path) -> Iterator[Block]:
    before = None
    for token in tokens(page):
        if token.type == "fence" and token.info.strip() == "bash":
            assert token.map is not None
            expected = _EXPECTED.match(before.content) if before else None
            told = (int(expected[1]), tuple(expected[2].splitlines())) if expected else (0, ())
            yield Block(token.map[0] + 1, token.content, *told)
        before = token if token.type == "html_block" else None


@pytest.mark.parametrize("page", [README, *TUTORIALS], ids=name_of)
def test_the_commands_of_the_page(page: Path, tmp_path: Path):
    if page.stem == "your-images":
        pytest.importorskip("torch", reason="the extra 'train' is not installed")
    shutil.copytree(ROOT / "config", tmp_path / "config")
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "COLUMNS": "200",
        "OMP_NUM_THREADS": "1",
    }
    done = 0
    for block in blocks(page):
        if "venv" in block.script:  # installs; the tests run in what it has installed
            continue
        run = subprocess.run(
            [BASH, "-euo", "pipefail", "-c", block.script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        printed = run.stdout + run.stderr
        where = f"{name_of(page)}:{block.line}\n{block.script}{printed}"
        assert run.returncode == block.code, where
        for text in block.shown:
            assert text in printed, where
        done += 1
    assert done >= 2
