"""The document with the figures: a page of Markdown, filled in from outcomes alone."""

from collections.abc import Sequence
from pathlib import Path

from focusing import summary
from focusing.methods import names
from focusing.outcome import Outcome
from focusing.plots import plot
from focusing.results import Settings
from focusing.trials import EXPERIMENTS, HOLD_FRAMES

PAGE = Path(__file__).with_name("page.md")
MIN_TRIALS = 20
"""Methods with fewer are left out of the comparison, which is on the states all have met."""

WHICH = {"test": " that were never used to tune anything", "train": " **of the training set**"}


def write(
    outcomes: Sequence[Outcome], timed: Sequence[Outcome], settings: Settings, document: Path
) -> list[Path]:
    """Write the document and its plots; returns all paths.

    Args:
        outcomes: of all methods.
        timed: those whose times count, as nothing else ran beside them.
        settings: of the outcomes.
        document: where to.
    """
    experiments = {
        name: [each for each in outcomes if each.experiment == name] for name in EXPERIMENTS
    }
    tried = summary.by_method(experiments["focus"])
    few = {name for name, own in tried.items() if len(own) < MIN_TRIALS}
    shared = summary.shared([each for each in experiments["focus"] if each.method not in few])
    plots = plot(shared, document.parent / "images")
    tables = {
        name: summary.table(name, own) if own else "Not run." for name, own in experiments.items()
    }
    missing = [name for name in names() if all(each.method != name for each in shared)]
    text = PAGE.read_text(encoding="utf-8").format(
        split=settings.split,
        which=WHICH[settings.split],
        shared=len({each.number for each in shared}),
        missing=f" Not run here: {'; '.join(missing)}." if missing else "",
        goals=summary.goals(outcomes, timed),
        ours_by_source=summary.ours_by_source(experiments["focus"]),
        comparison=summary.focus_table(shared),
        beside_the_best=summary.beside_the_best(shared),
        plots="\n\n".join(f"![{_title(path)}](images/{path.name})" for path in plots),
        by_dose=summary.breakdown(shared, lambda each: f"{each.trial_dose} e/px"),
        by_source=summary.breakdown(shared, lambda each: each.source),
        stigmation=summary.stigmation_table(
            [each for each in shared if each.method in summary.STIGMATING]
        ),
        hold_frames=HOLD_FRAMES,
        **{name: table for name, table in tables.items() if name != "focus"},
    )
    document.write_text(text, encoding="utf-8")
    return [document, *plots]


def _title(path: Path) -> str:
    return path.stem.replace("-", ", ")
