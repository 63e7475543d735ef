"""The site is built from the pages without a warning, and needs nothing from a network."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import ROOT

pytest.importorskip("sphinx", reason="the extra 'docs' is not installed")
pytest.importorskip("furo", reason="the extra 'docs' is not installed")
pytest.importorskip("myst_parser", reason="the extra 'docs' is not installed")

# What a browser fetches by itself; links for people to follow are not among it.
_FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"(?:https?:)?//[^\"]*"
    r"|<link\b[^>]*\bhref=\"(?:https?:)?//[^\"]*"
    r"|@import[^;]*//[^;]*"
    r"|url\(['\"]?(?:https?:)?//[^)]*"
)


def test_the_site(tmp_path: Path):
    """One test, so that the site is built once however many workers share the tests."""
    run = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    every_page_is_there_and_lies_in_the_menu(tmp_path)
    nothing_comes_from_a_network(tmp_path)
    the_reference_says_what_the_docstrings_say(tmp_path)


def every_page_is_there_and_lies_in_the_menu(site: Path):
    menu = (site / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        place = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert (site / place).is_file()
        assert f'href="{place}"' in menu


def nothing_comes_from_a_network(site: Path):
    for file in (*site.rglob("*.html"), *site.rglob("*.css")):
        assert _FETCHED.findall(file.read_text(encoding="utf-8")) == [], file


def the_reference_says_what_the_docstrings_say(site: Path):
    text = (site / "api/values.html").read_text(encoding="utf-8")
    assert 'id="semagent.types.FrameHeader"' in text
    assert 'id="semagent.ports.Microscope.acquire"' in text
    assert "distance from the pole piece to the plane the beam is focused on" in text
