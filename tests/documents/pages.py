"""The Markdown pages of this repository, as what is in them: headings, links, code."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Fence:
    """A block of code: its language, its text, and the line it begins in, from 1."""

    language: str
    text: str
    line: int


def name_of(page: Path) -> str:
    """How a page is called in the reports of tests."""
    return page.relative_to(ROOT).as_posix()


@cache
def tokens(page: Path) -> list[Token]:
    """The page in CommonMark with tables."""
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def fences(page: Path) -> Iterator[Fence]:
    """All fenced blocks of a page."""
    for token in tokens(page):
        if token.type == "fence":
            assert token.map is not None
            yield Fence(token.info.strip(), token.content, token.map[0] + 1)


def spans(page: Path) -> Iterator[str]:
    """Everything that stands in the text as code."""
    for token in tokens(page):
        for child in token.children or ():
            if child.type == "code_inline":
                yield child.content


def links(page: Path) -> Iterator[str]:
    """All targets of links and pictures."""
    for token in tokens(page):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if target is not None:
                yield str(target)


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors that GitHub and the site make of the headings of a page."""
    seen: Counter[str] = Counter()
    found = set()
    for token, inline in zip(tokens(page), tokens(page)[1:], strict=False):
        if token.type == "heading_open":
            text = "".join(
                c.content for c in inline.children or () if not c.type.startswith("link")
            )
            slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return frozenset(found)
