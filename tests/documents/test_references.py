"""What the pages point at exists: pages, headings, pictures, files, modules."""

import importlib
import re
import typing
from pathlib import Path
from urllib.parse import unquote

import pytest

from semagent.config import RunConfig

from .pages import PAGES, ROOT, anchors, fences, links, name_of, spans

_FOLDERS = "drivers|engines|tests|docs|config|benchmarks"
_FILE = re.compile(rf"(?<![\w./-])(?:semagent/[\w/]+\.py|(?:{_FOLDERS})/[\w./*-]+[\w*])")
_MODULE = re.compile(r"\b(semagent|semagent_drivers|semagent_engines)((?:\.[A-Za-z]\w*)+)")
_KEY = re.compile(r"(?:acquire|console|control|infer|record|safety|sanity|scan)(?:\.\w+)+")
_PLACEHOLDER = re.compile(r"[A-Z]{4,}(?![a-z])")  # NAME, in a path that stands for many

each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@each_page
def test_links(page: Path):
    broken = []
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        if not (file.exists() and file.is_relative_to(ROOT)) or (
            anchor and anchor not in anchors(file)
        ):
            broken.append(target)
    assert not broken


@each_page
def test_files_named_in_the_text(page: Path):
    text = [*spans(page), *(fence.text for fence in fences(page))]
    named = {match for part in text for match in _FILE.findall(part)}
    missing = [
        name for name in named if not _PLACEHOLDER.search(name) and not list(ROOT.glob(name))
    ]
    assert not missing


@each_page
def test_modules_named_in_the_text(page: Path):
    text = [*spans(page), *(fence.text for fence in fences(page))]
    named = {(match[1], match[2]) for part in text for match in _MODULE.finditer(part)}
    missing = [
        package + rest
        for package, rest in named
        if not _PLACEHOLDER.search(rest) and not _exists(package, rest[1:].split("."))
    ]
    assert not missing


@each_page
def test_keys_of_the_configuration_named_in_the_text(page: Path):
    named = {text for text in spans(page) if _KEY.fullmatch(text)}
    assert [key for key in named if not _is_key(key.split("."))] == []


def _is_key(names: list[str]) -> bool:
    types: set[object] = {RunConfig}
    for name in names:
        hints = [typing.get_type_hints(each) for each in types if isinstance(each, type)]
        found = [hint[name] for hint in hints if name in hint]
        types = {part for each in found for part in (each, *typing.get_args(each))}
    return bool(types)


def _exists(package: str, names: list[str]) -> bool:
    """Whether it is an entry-point group or something that can be imported, or an attribute."""
    if package == "semagent" and names[0] in ("drivers", "engines", "tools"):
        return True
    found = importlib.import_module(package)
    for name in names:
        if not hasattr(found, name):
            try:
                importlib.import_module(f"{found.__name__}.{name}")
            except ImportError:
                return False
        found = getattr(found, name)
    return True
