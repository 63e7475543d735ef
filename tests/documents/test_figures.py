"""Figures of the benchmark that other pages repeat are those of its own page."""

import re
from pathlib import Path

import pytest

from .pages import ROOT, name_of

_QUOTING = [ROOT / "README.md", ROOT / "docs" / "figures.md"]


def _rows(page: Path) -> dict[str, list[str]]:
    """The tables of a page, by the first cell; the first of those that share it."""
    rows: dict[str, list[str]] = {}
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            rows.setdefault(name, cells)
    return rows


def _number(cell: str) -> str:
    """A figure without the interval it may be in by chance."""
    return re.split(r" \(", cell)[0]


@pytest.mark.parametrize("page", _QUOTING, ids=name_of)
def test_autofocus(page: Path):
    rows = _rows(ROOT / "docs" / "benchmarks.md")
    success, sure, left_open = (
        _number(rows[name][1])
        for name in (
            "within half a depth of field, %",
            "the same where it says so, %",
            "the same where it says that astigmatism is open, %",
        )
    )
    median, most = rows["frames, median / 95th percentile"][1].split(" / ")
    (quoted,) = (cells for name, cells in _rows(page).items() if name.startswith("autofocus"))
    assert quoted[0].startswith(
        f"{success} % in focus, {median} frames (95th percentile {most}); right {sure} % of the "
        f"times it says so, and {left_open} % where it says that astigmatism is open"
    )
    methods = list(rows)
    ours, best = (rows[name] for name in methods[methods.index("semagent") :][:2])
    (count, shared, frames), (_, peer, of_peer) = (
        (cells[0], _number(cells[1]), cells[2].split(" / ")[0]) for cells in (ours, best)
    )
    assert quoted[1].startswith(f"best peer, on the first {count}: {peer} % in {of_peer} frames")
    assert f"(semagent on those {count}: {shared} % in {frames})" in quoted[1]
