"""Results are added to, never rewritten, and never mixed."""

from pathlib import Path

import pytest
from focusing import summary
from focusing.outcome import Outcome
from focusing.results import Results, Settings, read

SETTINGS = Settings(split="train", seed=1)


def outcome(number: int, *, start: float = 10.0, final: float = 0.2, frames: int = 3) -> Outcome:
    return Outcome(
        experiment="focus",
        method="ours",
        number=number,
        source="axons",
        real=True,
        trial_dose=100,
        status="focused",
        frames=frames,
        moves=2,
        dose=300.0,
        start=start,
        final=final,
        start_astigmatism_px=0.0,
        final_astigmatism_px=0.0,
        wall_s=0.1,
        covered=True,
    )


def test_a_second_run_adds_what_is_missing(tmp_path: Path) -> None:
    Results(tmp_path, SETTINGS, (1, 2)).add(outcome(0))
    again = Results(tmp_path, SETTINGS, (2, 2))
    assert again.has("focus", "ours", 0)
    assert not again.has("focus", "brent", 0)
    again.add(outcome(1))
    assert again.has("focus", "ours", 1)
    assert [each.number for each in read(tmp_path)] == [0, 1]


def test_a_torn_line_is_no_outcome(tmp_path: Path) -> None:
    results = Results(tmp_path, SETTINGS, (1, 1))
    results.add(outcome(0))
    results.add(outcome(1))
    [path] = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    assert [each.number for each in read(tmp_path)] == [0]


@pytest.mark.parametrize(
    "others",
    [
        Settings(split="test", seed=1),
        Settings(split="train", seed=1, engine="onnxruntime"),
        Settings(split="train", seed=1, control={"autofocus": {"blind_search": True}}),
    ],
)
def test_results_of_other_settings_are_refused(tmp_path: Path, others: Settings) -> None:
    Results(tmp_path, SETTINGS, (1, 1))
    with pytest.raises(SystemExit, match=r"not of .*--results"):
        Results(tmp_path, others, (1, 1))


def test_worse_is_further_away_and_visibly_out_of_focus() -> None:
    assert outcome(0, start=0.2, final=0.9).worse is False
    assert outcome(0, start=0.2, final=1.1).worse is True
    assert outcome(0, start=-10, final=12).worse is True
    assert outcome(0, start=-10, final=10).worse is False


def test_tables_say_what_happened() -> None:
    outcomes = [outcome(n, final=0.5 if n < 9 else 30.0, frames=3 + n) for n in range(10)]
    table = summary.focus_table(outcomes).splitlines()[-1]
    assert table.startswith("| ours | 10 | 90.0 (")
    assert "| 8 / 12 |" in table
    assert "| 1 |" in table
