"""The page on the command line and ``--help`` say the same, and so does every other page."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from semagent.cli import main

from .pages import PAGES, ROOT, fences, name_of, spans

pytest.importorskip("torch", reason="the extra 'train' is not installed")

_OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_COMMAND = re.compile(r"semagent(?:\.exe)? ([a-z]+)(?: ([a-z]+))?(?![\w/.])")
_PROGRAM = re.compile(r"python (benchmarks/\w+\.py|-m semagent_[\w.]+)( [a-z]+)?([^#\n]*)")
_GROUPS = ("train", "engine")
_CLI = ROOT / "docs/cli.md"
_PAGES = [*PAGES, ROOT / "engines/semagent_engines/artefacts/tiny/MODEL_CARD.md"]


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """The options of every command, as its ``--help`` lists them."""
    found = {"": _options("--help")}
    for command in re.findall(r"^    ([a-z]+)(?:  |$)", _help("--help"), re.MULTILINE):
        if command not in _GROUPS:
            found[command] = _options(command, "--help")
    for group in _GROUPS:
        (verbs,) = re.findall(r"^  \{([a-z,]+)\}", _help(group, "--help"), re.MULTILINE)
        for verb in verbs.split(","):
            found[f"{group} {verb}"] = _options(group, verb, "--help")
    return found


def test_help_has_the_commands_one_expects(options: dict[str, set[str]]):
    assert {"demo", "run", "autofocus", "serve", "train adapt", "engine quality"} <= set(options)
    assert options["check"] == {"--json", "--schema"}


def test_the_page_lists_every_command_with_every_option(options: dict[str, set[str]]):
    listed: dict[str, set[str]] = {}
    for line in spans(_CLI):
        for command, given in _commands(line):
            listed.setdefault(command, set()).update(given)
    listed[""] = {"--version"} & set(" ".join(spans(_CLI)).split())
    assert listed == options


@pytest.mark.parametrize("page", _PAGES, ids=name_of)
def test_commands_in_the_text_exist(page: Path, options: dict[str, set[str]]):
    for line in _shown(page):
        for command, given in _commands(line.partition("#")[0]):
            if command not in _GROUPS:
                assert command in options, line
                assert given <= options[command], line


@pytest.mark.parametrize("page", _PAGES, ids=name_of)
def test_benchmarks_and_tools_in_the_text_take_what_they_are_given(page: Path):
    for program, what, rest in _PROGRAM.findall("\n".join(_shown(page))):
        if "NAME" in program:
            continue
        source = ROOT / program
        if program.startswith("-m "):
            found = importlib.util.find_spec(program.removeprefix("-m "))
            assert found is not None
            source = Path(str(found.origin))
        text = source.read_text(encoding="utf-8")
        if "import Sample" in text:  # which has the command line of more than one
            text += (ROOT / "benchmarks/focusing/sample.py").read_text(encoding="utf-8")
        words = set(re.findall(r"\"([\w-]+)\"", text))
        assert set(_OPTION.findall(rest)) <= words, (program, rest)
        if source.parent.name == "benchmarks" and what:
            assert what.strip() in words, (program, what)


def _shown(page: Path) -> list[str]:
    """Everything on a page that may be a command."""
    return [*spans(page), *(line for fence in fences(page) for line in fence.text.splitlines())]


def _commands(line: str) -> Iterator[tuple[str, set[str]]]:
    """The commands of semagent in a line, each with the options given to it."""
    for part in re.split(r"&&|;|\| ", line):
        match = re.match(r"(?:[$>] )?(?:[\w.\\/-]*[\\/])?" + _COMMAND.pattern, part.strip())
        if match:
            command = match[1]
            if command in _GROUPS and match[2]:
                command += f" {match[2]}"
            yield command, set(_OPTION.findall(part))


def _options(*arguments: str) -> set[str]:
    return set(_OPTION.findall(_help(*arguments))) - {"--help"}


def _help(*arguments: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setenv("COLUMNS", "1000")
        patch.setattr(
            "argparse.ArgumentParser._print_message", lambda _, text, *__: lines.append(text)
        )
        with pytest.raises(SystemExit):
            main(arguments)
    return "".join(lines)
