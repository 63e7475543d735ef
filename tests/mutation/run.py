"""Check that the tests of the safety gate notice every small fault in it.

    python -m tests.mutation.run

Each mutant of ``semagent/safety`` is loaded in place of the original and the gate's unit tests,
without the random ones, are run on it. The run fails if they pass on any mutant.
"""

import argparse
import contextlib
import importlib.abc
import importlib.util
import io
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from .mutants import Mutant, mutants

ROOT = Path(__file__).parents[2]
PACKAGE = "semagent.safety"
TESTS = ROOT / "tests" / "unit" / "safety"
ORDER = {
    # The tests most likely to notice come first; all of them run on a mutant that survives.
    "axes": "limits",
    "envelope": "envelope",
    "evidence": "evidence",
    "gate": "gate",
    "limits": "messages",
    "readback": "messages",
    "refusal": "messages",
    "travel": "travel",
}
# What only costs time here: explanations of failures, and plug-ins.
UNUSED = (
    "cacheprovider",
    "hypothesispytest",
    "logging",
    "pytest_cov",
    "threadexception",
    "unraisableexception",
    "xdist",
)
PYTEST = ["-q", "-x", "-s", "--tb=no", "--assert=plain", *(f"-pno:{name}" for name in UNUSED)]


class _Noticed:
    """Lets the tests that have noticed a fault come first: the next fault is near the last one."""

    def __init__(self) -> None:
        # Of tests and their files, the lower the later they have noticed one.
        self._ranks: dict[str, int] = {}
        self._faults = 0

    def rank(self, node: str) -> int:
        return self._ranks.get(node, 0)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self.rank(item.nodeid))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._faults += 1
            file = report.nodeid.partition("::")[0]
            self._ranks |= dict.fromkeys((report.nodeid, file), -self._faults)


_noticed = _Noticed()


class _MutantLoader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the mutant where the original is asked for."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._mutant.source, str(self._mutant), "exec"), module.__dict__)  # noqa: S102


def is_caught(mutant: Mutant) -> bool:
    """Whether a test fails, or cannot even be imported, with the mutant in place."""
    first = TESTS / f"test_{ORDER[mutant.module.rpartition('.')[2]]}.py"
    files = sorted(
        TESTS.glob("test_*.py"),
        key=lambda file: (_noticed.rank(file.relative_to(ROOT).as_posix()), file != first),
    )
    with _loaded(mutant), contextlib.redirect_stdout(io.StringIO()):
        return any(
            pytest.main([*PYTEST, str(file)], plugins=[_noticed]) != pytest.ExitCode.OK
            for file in files
            if file.stem != "test_properties"
        )


@contextlib.contextmanager
def _loaded(mutant: Mutant) -> Iterator[None]:
    loader = _MutantLoader(mutant)
    sys.meta_path.insert(0, loader)
    _forget_modules()
    try:
        yield
    finally:
        sys.meta_path.remove(loader)
        _forget_modules()


def _forget_modules() -> None:
    for name in list(sys.modules):
        if name.startswith((PACKAGE, "tests.unit.safety")):
            del sys.modules[name]


def _quiet() -> None:
    # A mutant may print or warn while it is imported; only the outcome counts.
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def survivors(todo: Sequence[Mutant], caught: Sequence[bool]) -> list[str]:
    """What makes the run fail, a line each: the mutants that no test has noticed."""
    return [f"SURVIVED {mutant}" for mutant, found in zip(todo, caught, strict=True) if not found]


def main() -> int:
    """Run, report, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="only mutants whose description contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes to use")
    options = parser.parse_args()
    started_s = time.perf_counter()
    todo = [
        mutant
        for file in sorted((ROOT / "semagent" / "safety").glob("*.py"))
        if file.stem != "__init__"
        for mutant in mutants(f"{PACKAGE}.{file.stem}", file.read_text(encoding="utf-8"))
        if options.only in str(mutant)
    ]
    with multiprocessing.get_context("spawn").Pool(options.jobs, _quiet) as pool:
        caught = pool.map(is_caught, todo, chunksize=4)
    lines = survivors(todo, caught)
    print(
        *lines,
        f"{len(todo)} mutants, {sum(caught)} caught, {len(lines)} survived, "
        f"{time.perf_counter() - started_s:.0f} s",
        sep="\n",
    )
    return 1 if lines or not todo else 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
