"""The mutation run itself: it makes the faults it says, and it can fail."""

import subprocess
import sys

import pytest

from .mutants import mutants
from .run import ROOT, survivors


def changes(source: str) -> list[str]:
    return [mutant.change.partition("  ->  ")[2] for mutant in mutants("m", source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f():\n    return a < b", ["return None", "return a <= b", "return a >= b"]),
        (
            "def f():\n    return a <= b < c",
            [
                "return None",
                "return a < b < c",
                "return a > b < c",
                "return a <= b <= c",
                "return a <= b >= c",
            ],
        ),
        (
            "def f():\n    return a and b and c",
            [
                "return None",
                "return a or b or c",
                "return b and c",
                "return a and c",
                "return a and b",
            ],
        ),
        ("def f():\n    return not a", ["return None", "return a"]),
        ("def f():\n    return abs(a)", ["return None", "return a"]),
        ("def f():\n    return min(a)", ["return None", "return max(a)"]),
        ("def f():\n    return a if b else c", ["return None", "return a", "return c"]),
        ("def f():\n    return True", ["return False"]),
        ("a = 7", ["pass", "a = 14", "a = 0"]),
        ("a = 0.5", ["pass", "a = 1.5", "a = -0.5"]),
        ("a += b", ["pass", "a -= b"]),
        ("a = b * -c", ["pass", "a = b / -c", "a = b * c"]),
        ("raise error", ["pass"]),
        ("if a:\n    call()", ["if True:", "if False:", "pass"]),
        ("for a in b:\n    continue", ["for a in []:", "break"]),
        ("while a:\n    break", ["while False:", "continue"]),
        ("class C:\n    a: Annotated[int, Meta(ge=1)]", ["a: Annotated[int, Meta(ge=2)]"]),
        ("import a", []),
        ('"""Says nothing."""', []),
        ("def f(a: int) -> int:\n    '''Says nothing.'''", []),
        ('a: Literal["b"]', []),
    ],
)
def test_the_faults_made_of_a_piece_of_code(source: str, expected: list[str]) -> None:
    found = changes(source)
    assert [change for change in found if change in expected] == expected
    assert len(found) == len(expected) or "Annotated" in source


def test_a_mutant_differs_in_one_place_only_and_says_where() -> None:
    source = "class C:\n    def f(self):\n        return a < b\n"
    first, second, third = mutants("m", source)
    assert first.source == "class C:\n\n    def f(self):\n        return None"
    assert second.source == "class C:\n\n    def f(self):\n        return a <= b"
    assert third.source == "class C:\n\n    def f(self):\n        return a >= b"
    assert str(second) == "line 3 of m C.f: return a < b  ->  return a <= b"


def test_what_makes_the_run_fail() -> None:
    first, second, third = mutants("m", "def f():\n    return a < b")
    todo = [first, second, third]
    assert survivors(todo, [True, True, True]) == []
    assert survivors(todo, [True, False, True]) == [f"SURVIVED {second}"]


@pytest.mark.parametrize(
    ("only", "code", "words"),
    [
        ("Track.book: self.position = target", 0, "1 mutants, 1 caught, 0 survived"),
        ("no such thing", 1, "0 mutants"),
    ],
)
def test_a_run_over_one_mutant(only: str, code: int, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutation.run", "--jobs=1", f"--only={only}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert words in done.stdout, done.stderr
    assert done.returncode == code
