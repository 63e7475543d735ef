"""The picture of a focus map: where focus is over the specimen, and how sure that is."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from semagent.lengths import show_distance
from semagent.report.figures import BLUE, GREEN, GREY, ORANGE, RED, stacked_png
from semagent.survey.work import Found

_GRID = 60
_MARGIN = 0.08  # of the extent of the area
_MARK: dict[str, Any] = {"ls": "none", "mec": "black", "mew": 0.8}  # seen on every colour
_COLOURS = {"focused": GREEN, "predicted": BLUE, "held": RED, "unusable": GREY}


def picture(found: Found) -> bytes:
    """A PNG: the map on the left, how well it predicted on the right."""
    figure = Figure(figsize=(12.0, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    _draw_map(figure, left, found)
    _draw_misses(right, found)
    return stacked_png([figure])


def _draw_map(figure: Figure, axes: Axes, found: Found) -> None:
    xs = np.array([visit.place.x_m for visit in found.visits])
    ys = np.array([visit.place.y_m for visit in found.visits])
    margin = _MARGIN * max(float(np.ptp(xs)), float(np.ptp(ys)), 1e-6)
    across = np.linspace(xs.min() - margin, xs.max() + margin, _GRID)
    down = np.linspace(ys.min() - margin, ys.max() + margin, _GRID)
    time_s, zero_m = found.surface.origin[2], found.surface.middle_m
    heights = np.array([[found.surface.at(x, y, time_s)[0] - zero_m for x in across] for y in down])
    filled = axes.contourf(across * 1e6, down * 1e6, heights * 1e6, levels=14, cmap="cividis")
    bar = figure.colorbar(filled, ax=axes)
    bar.set_label(f"focus from {show_distance(zero_m)}, µm", fontsize=8.5)
    unusable = np.array([visit.how == "unusable" for visit in found.visits])
    doubtful = np.array([visit.index in found.doubtful for visit in found.visits])
    for which, colour, label in (
        (~unusable & ~doubtful, "white", "acquired"),
        (doubtful, RED, "may be out of focus"),
        (unusable, GREY, "unusable"),
    ):
        if which.any():
            at = xs[which] * 1e6, ys[which] * 1e6
            axes.plot(*at, marker="s", color=colour, ms=4, label=label, **_MARK)
    for index, place in enumerate(found.focused):
        rejected = index in found.surface.rejected
        axes.plot(
            place.x_m * 1e6,
            place.y_m * 1e6,
            marker="X" if rejected else "o",
            color=RED if rejected else ORANGE,
            ms=8,
            **_MARK,
        )
    axes.plot([], [], marker="o", color=ORANGE, ms=8, label="focused here", **_MARK)
    if found.surface.rejected:
        label = "contradicts the others, left out"
        axes.plot([], [], marker="X", color=RED, ms=8, label=label, **_MARK)
    axes.set_xlabel("stage x, µm", fontsize=8.5)
    axes.set_ylabel("stage y, µm", fontsize=8.5)
    axes.set_aspect("equal")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.1), fontsize=8, frameon=False, ncols=3)


def _draw_misses(axes: Axes, found: Found) -> None:
    """Where frames were taken, from where the map had expected focus."""
    for how, colour in _COLOURS.items():
        visits = [visit for visit in found.visits if visit.how == how]
        if not visits:
            continue
        axes.errorbar(
            [visit.index for visit in visits],
            [(visit.working_distance_m - visit.predicted_m) * 1e6 for visit in visits],
            yerr=[1.645 * visit.sigma_m * 1e6 for visit in visits],
            fmt="o",
            ms=4,
            lw=0.8,
            color=colour,
            label={"focused": "looked for", "held": "looked for, not found"}.get(how, how),
        )
    axes.axhline(0, color=GREY, lw=0.6)
    axes.set_xlabel("position", fontsize=8.5)
    axes.set_ylabel("acquired at, from the prediction (bars: 90 %), µm", fontsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
