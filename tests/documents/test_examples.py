"""Pieces of configuration and of Python in the pages are right."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from semagent import registry
from semagent.config import check_parts, find_config, load_config

from .pages import PAGES, ROOT, Fence, fences, name_of

SCRIPTING = ROOT / "docs/scripting.md"
SESSIONS = ROOT / "docs/sessions.md"
PIECES = [(page, each) for page in PAGES for each in fences(page) if each.language == "yaml"]


@pytest.mark.parametrize(
    ("page", "piece"), PIECES, ids=[f"{name_of(page)}:{each.line}" for page, each in PIECES]
)
def test_a_piece_of_configuration_fits_into_a_whole_one(page: Path, piece: Fence, tmp_path: Path):
    shown = yaml.safe_load(piece.text)
    if shown is None:  # comments for an editor
        return
    whole = yaml.safe_load(find_config("simulated").read_text(encoding="utf-8"))
    path = tmp_path / "whole.yaml"
    path.write_text(yaml.safe_dump(_merged(whole, shown)), encoding="utf-8")
    config = load_config(path)
    if config.driver.name in registry.names(registry.DRIVERS):  # not that of a reader to come
        check_parts(path, config)


def _merged(whole: Any, shown: Any) -> Any:
    """What is shown in the place of what is there; a named part brings its own options."""
    if not (isinstance(whole, dict) and isinstance(shown, dict)) or "name" in shown:
        return shown
    return {**whole, **{key: _merged(whole.get(key), value) for key, value in shown.items()}}


def python(folder: Path, *arguments: str) -> str:
    """What Python says on standard output; it has to end well."""
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        check=False,
        timeout=100,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_session_is_read_as_the_page_says(tmp_path: Path):
    command = "semagent run simulated --mode observe --frames 3 --no-console --record DIR"
    pieces = [each.text for each in fences(SESSIONS) if each.language == "python"]
    assert len(pieces) >= 4
    python(tmp_path, "-m", *command.split())
    for piece in pieces:
        python(tmp_path, "-W", "error", "-c", piece)


def test_a_program_focuses_as_the_page_says(tmp_path: Path):
    [piece] = [each.text for each in fences(SCRIPTING) if each.language == "python"]
    said = python(tmp_path, "-W", "error", "-c", piece)
    assert said.startswith("focused 0.0049")
    assert "(768, 1024)" in said
