"""Plots of the comparison: one curve a method, told apart by colour, dash and order."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from focusing.outcome import Outcome
from focusing.summary import OURS, by, by_method, success

COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6A00", "#000000")
"""Of Okabe and Ito, who chose them for every kind of colour vision."""

OURS_COLOUR = "#0072B2"
DASHES: tuple[object, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.5, 1.5)),
    (0, (6, 1.5, 1.5, 1.5)),
    (0, (9, 3)),
    (0, (3, 1, 1, 1, 1, 1)),
)
TEXT, FAINT = "#333333", "#8a8a8a"

STYLE = {
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "text.color": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
}


def plot(outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
    """Write the plots that the outcomes allow, and return their paths."""
    ordered = by_method(outcomes)
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        return [
            _save(_spent(ordered), folder / "autofocus-success.png"),
            _save(_by_dose(ordered), folder / "autofocus-noise.png"),
            _save(_errors(ordered), folder / "autofocus-error.png"),
        ]


def _look(name: str, position: int) -> dict[str, object]:
    if name == OURS:
        return {"color": OURS_COLOUR, "linewidth": 3.0, "zorder": 5}
    turn, place = divmod(position - 1, len(COLOURS))
    colour, dash = COLOURS[place], DASHES[(2 * turn + place % 2) % len(DASHES)]
    return {"color": colour, "linestyle": dash, "linewidth": 1.5}


def _spent(methods: dict[str, list[Outcome]]) -> Figure:
    """Share of trials that a method has ended in focus, after so many frames and so much dose."""
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _cumulative(left, methods, lambda outcome: outcome.frames)
    left.set(
        title="Ended in focus within so many frames", xlabel="frames, the verifying one included"
    )
    _cumulative(right, methods, lambda outcome: outcome.dose)
    right.set(title="Ended in focus within so much dose", xlabel="dose, electrons a pixel")
    left.set_ylabel("trials")
    _legend(figure, left, methods)
    return figure


def _cumulative(
    axes: Axes, methods: dict[str, list[Outcome]], spent: Callable[[Outcome], float]
) -> None:
    most = 1.3 * max(spent(outcome) for own in methods.values() for outcome in own)
    least = min(spent(outcome) for own in methods.values() for outcome in own)
    for position, (name, own) in enumerate(methods.items()):
        costs = np.sort([spent(outcome) for outcome in own if outcome.success])
        shares = 100 * np.arange(1, len(costs) + 1) / len(own)
        x = np.concatenate([[0.7 * least], costs, [most]])
        y = np.concatenate([[0.0], shares, shares[-1:] if len(shares) else [0.0]])
        axes.step(x, y, where="post", label=name, **_look(name, position))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if most < 500:
        axes.set_xticks(
            [
                tick
                for tick in (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)
                if least <= tick <= most
            ]
        )
        axes.minorticks_off()
    axes.set_xlim(0.8 * least, most)
    _percent(axes)


def _by_dose(methods: dict[str, list[Outcome]]) -> Figure:
    """Success at each number of electrons a pixel and frame."""
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    counts = Counter(outcome.trial_dose for outcome in next(iter(methods.values())))
    doses = sorted(counts)
    for position, (name, own) in enumerate(methods.items()):
        groups = by(own, lambda outcome: str(outcome.trial_dose))
        shares = [
            100 * success(groups[str(dose)]) if str(dose) in groups else np.nan for dose in doses
        ]
        axes.plot(doses, shares, marker="o", markersize=4, label=name, **_look(name, position))
    axes.set_xscale("log")
    axes.set_xticks(doses, [f"{dose}\n{counts[dose]} trials" for dose in doses])
    axes.minorticks_off()
    axes.set(
        title="Ended in focus, by noise", xlabel="electrons a pixel and frame", ylabel="trials"
    )
    _percent(axes)
    _legend(figure, axes, methods)
    return figure


def _errors(methods: dict[str, list[Outcome]]) -> Figure:
    """How far from focus the methods end."""
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for position, (name, own) in enumerate(methods.items()):
        errors = np.sort([max(abs(outcome.final), 0.011) for outcome in own])
        shares = 100 * np.arange(1, len(errors) + 1) / len(errors)
        axes.step(errors, shares, where="post", label=name, **_look(name, position))
    axes.axvline(1, color=FAINT, linewidth=1)
    axes.annotate("half a depth of field ", (1, 101), ha="right", va="bottom", color=FAINT)
    axes.set_xscale("log")
    axes.set_xticks([0.01, 0.1, 1, 10, 100], ["0.01", "0.1", "1", "10", "100"])
    axes.set_xlim(0.01, 100)
    axes.set(
        xlabel="final distance from focus, half depths of field", ylabel="trials at most that far"
    )
    _percent(axes)
    _legend(figure, axes, methods)
    return figure


def _percent(axes: Axes) -> None:
    axes.set_ylim(0, 101)
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(decimals=0))
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def _legend(figure: Figure, axes: Axes, methods: dict[str, list[Outcome]]) -> None:
    """Beside the axes, best first, with the final share."""
    lines, _ = axes.get_legend_handles_labels()
    labels = [f"{100 * success(own):.1f} %  {name}" for name, own in methods.items()]
    figure.legend(lines, labels, loc="outside right center", frameon=False, handlelength=3.2)


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=130)
    return path
