"""The published page is made of outcomes and nothing else."""

from pathlib import Path

import cv2
import pytest
from focusing import summary
from focusing.outcome import Outcome
from focusing.results import Settings

pytest.importorskip("matplotlib")

from focusing import publish


def outcome(method: str, number: int, *, final: float, frames: int) -> Outcome:
    return Outcome(
        experiment="focus",
        method=method,
        number=number,
        source="axons" if number % 2 else "fibres",
        real=number % 2 == 1,
        trial_dose=(400, 20)[number % 2],
        status="focused",
        frames=frames,
        moves=2,
        dose=frames * 100.0,
        start=10.0,
        final=final,
        start_astigmatism_px=1.0,
        final_astigmatism_px=0.1,
        wall_s=0.1,
        covered=True if method == summary.OURS else None,
        decide_s=[1e-3] * frames if method == summary.OURS else [],
    )


@pytest.fixture
def outcomes() -> list[Outcome]:
    ours = [outcome(summary.OURS, number, final=0.5, frames=4) for number in range(20)]
    peers = [outcome("Brent", number, final=3.0 * (number > 4), frames=9) for number in range(10)]
    return ours + peers


def test_methods_are_compared_on_the_states_they_share(outcomes: list[Outcome]) -> None:
    shared = summary.shared(outcomes)
    assert len(shared) == 20
    assert {each.number for each in shared} == set(range(10))


def test_the_best_peer_is_compared_state_by_state(outcomes: list[Outcome]) -> None:
    assert summary.beside_the_best(summary.shared(outcomes)) == (
        "semagent ends 5 states in focus that Brent does not, and 0 not that it does "
        "(sign test, p = 0.06)."
    )
    assert summary.beside_the_best(outcomes[:20]) == ""


def test_all_trials_of_ours_are_told_apart_by_source_and_dose(outcomes: list[Outcome]) -> None:
    lines = summary.ours_by_source(outcomes).splitlines()
    assert lines[0] == "| source | 400 e/px | 20 e/px |"
    assert lines[2:] == [
        "| all, 20 trials | 100 % in 4 | 100 % in 4 |",
        "| axons, 10 trials | – | 100 % in 4 |",
        "| fibres, 10 trials | 100 % in 4 | – |",
    ]


def test_columns_say_of_how_many_trials_they_are(outcomes: list[Outcome]) -> None:
    lines = summary.breakdown(summary.shared(outcomes), lambda each: each.source).splitlines()
    assert lines[0] == "| method (trials) | axons (5) | fibres (5) |"
    lines = summary.breakdown(outcomes, lambda each: each.source).splitlines()
    assert lines[0] == "| method (trials) | axons | fibres |"


def test_goals_are_measured_on_all_trials_of_ours(outcomes: list[Outcome]) -> None:
    lines = summary.goals(outcomes, outcomes).splitlines()
    assert any(
        line.startswith("| within half a depth of field, % | ≥ 99 | 100.0") for line in lines
    )
    assert any("| 4 / 4 | 20 |" in line for line in lines)
    assert any("| 1.0 / 1.0 | 20 |" in line for line in lines)
    assert not any("| hold:" in line for line in lines)


def test_the_page_has_tables_and_plots(
    outcomes: list[Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "docs" / "benchmarks.md"
    document.parent.mkdir()
    monkeypatch.setattr(publish, "MIN_TRIALS", 10)
    outcomes += [outcome("Hasty", number, final=0.0, frames=2) for number in range(9)]
    written = publish.write(outcomes, outcomes, Settings(split="train", seed=1), document)
    text = document.read_text(encoding="utf-8")
    assert "**of the training set**" in text
    assert "| Brent | 10 | 50.0 (" in text
    assert "On the 10 states" in text
    assert "Hasty" not in text
    for path in written[1:]:
        assert f"(images/{path.name})" in text
        picture = cv2.imread(str(path))
        assert picture is not None
        assert min(picture.shape[:2]) > 300
        assert picture.min() < 100
