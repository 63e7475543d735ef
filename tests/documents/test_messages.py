"""Every message that a page quotes stands in the code.

A quotation is a piece of code with a space in it that is no command; an ellipsis stands for what
differs from case to case.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from .pages import ROOT, name_of, spans

QUOTING = [ROOT / "docs/troubleshooting.md", ROOT / "docs/faq.md"]

_COMMAND = re.compile(r"(semagent|pip|python|ssh) |[\w.]+: ?[\w{\[./-]+$")


@pytest.mark.parametrize("page", QUOTING, ids=name_of)
def test_messages(page: Path):
    quoted = [text for text in spans(page) if " " in text and not _COMMAND.match(text)]
    assert quoted
    assert [text for text in quoted if not _is_written(text)] == []


def _is_written(quotation: str) -> bool:
    """Whether one string of the code holds all its parts, in order."""
    parts = [re.escape(part.strip()) for part in quotation.split("…") if part.strip(" .:")]
    pattern = re.compile(".*?".join(parts), re.DOTALL)
    return any(pattern.search(text) for text in _strings())


@cache
def _strings() -> frozenset[str]:
    """The strings of the programs, as they are put together, and the text of the web page."""
    found = set()
    for folder in ("semagent", "drivers", "engines"):
        for path in (ROOT / folder).rglob("*.py"):
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
            for node in nodes:
                if isinstance(node, ast.JoinedStr):
                    found.add("".join(_piece(value) for value in node.values))
                elif isinstance(node, ast.Constant) and id(node) not in docstrings:
                    found.add(str(node.value))
    for path in (ROOT / "semagent/console/static").glob("*.js"):
        found.update(path.read_text(encoding="utf-8").splitlines())
    return frozenset(found)


def _piece(value: ast.expr) -> str:
    return str(value.value) if isinstance(value, ast.Constant) else "…"
