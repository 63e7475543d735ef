"""The drawings of a report. One row a frame: what was seen, believed and done."""

import io
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from semagent.lengths import show_distance
from semagent.report.posterior import Places, density_of
from semagent.report.story import Focusing, Step, Story
from semagent.report.words import answer_in_words, command_in_words
from semagent.types import FocusResult, Outcome, Pixels

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6b7280"
"""Okabe and Ito's colours, which everybody can tell apart."""

MAX_ROWS = 24
_ROW_IN, _WIDTH_IN = 0.62, 12.0
_TOP_IN, _BOTTOM_IN = 0.75, 0.6
_THUMB_PX = (128, 96)
_LINE = 78  # characters
_LINES, _LAST_LINES = 4, 2  # in a row, and of how a focusing ended
_DOTS_PER_INCH = 110
_STYLE: dict[str, Any] = {"fontsize": 8.5, "va": "center"}


def overview(story: Story) -> Figure:
    """Working distance and focus score of every frame over time, and what was refused."""
    figure = Figure(figsize=(_WIDTH_IN, 4.2), layout="constrained")
    if not story.steps:
        return figure
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    zero_ns = story.steps[0].header.monotonic_ns
    seconds = [(step.header.monotonic_ns - zero_ns) / 1e9 for step in story.steps]
    distances = [step.header.optics.working_distance_m * 1e3 for step in story.steps]
    for focusing in story.focusings:
        if focusing.steps:
            ends = [(focusing.steps[i].header.monotonic_ns - zero_ns) / 1e9 for i in (0, -1)]
            for axes in (top, bottom):
                axes.axvspan(*ends, color=BLUE, alpha=0.08, lw=0)
    top.plot(seconds, distances, color=ORANGE, lw=0.8, marker=".", ms=4, label="working distance")
    believed = _believed_m(story.steps)
    if np.isfinite(believed).any():
        top.plot(seconds, believed * 1e3, color=BLUE, lw=0.8, label="focus believed at")
    refused = [(reply.monotonic_ns - zero_ns) / 1e9 for reply in story.refused]
    for index, moment in enumerate(refused):
        top.axvline(moment, color=RED, lw=1, label=None if index else "refused or failed")
    scored = [(t, s.analysis) for t, s in zip(seconds, story.steps, strict=True) if s.analysis]
    if scored:
        times, analyses = zip(*scored, strict=True)
        bottom.plot(times, [a.focus_score for a in analyses], color=GREEN, marker=".", ms=4, lw=0.8)
    top.set_ylabel("working distance, mm")
    bottom.set_ylabel("focus score")
    bottom.set_ylim(0, 1)
    bottom.set_xlabel("time since the first frame, s")
    for axes in (top, bottom):
        _quiet(axes)
    top.ticklabel_format(axis="y", useOffset=False)
    top.legend(loc="upper right", fontsize=8, frameon=False, ncols=3)
    return figure


def _believed_m(steps: Sequence[Step]) -> Places:
    """Where focus was believed to be at each frame; NaN where that was a guess.

    A guess is what is less sure than the working distances lie apart.
    """
    span_m = float(np.ptp([step.header.optics.working_distance_m for step in steps]))
    places_m = np.full(len(steps), math.nan)
    for index, step in enumerate(steps):
        belief = step.belief
        if belief is None or belief.focus_m is None or belief.sigma_m is None:
            continue
        if belief.sigma_m < span_m:
            places_m[index] = belief.focus_m
    return places_m


def focusing_figure(focusing: Focusing, pixels: Callable[[int], Pixels]) -> Figure:
    """One focusing; ``pixels`` gives the raw frame of a sequence number.

    Room is left at the top for a heading.
    """
    steps = shown(focusing.steps)
    height_in = _ROW_IN * len(steps) + _TOP_IN + _BOTTOM_IN
    figure = Figure(figsize=(_WIDTH_IN, height_in))
    bottom, tall = _BOTTOM_IN / height_in, _ROW_IN * len(steps) / height_in
    seen = figure.add_axes((0.01, bottom, 0.13, tall))
    believed = figure.add_axes((0.15, bottom, 0.40, tall))
    done = figure.add_axes((0.56, bottom, 0.43, tall))
    for axes in (seen, believed, done):
        axes.set_ylim(len(steps), 0)
    for axes in (seen, done):
        axes.axis("off")
        axes.set_xlim(0, 1)
    _draw_frames(seen, steps, pixels)
    _draw_beliefs(believed, steps, focusing)
    _draw_decisions(done, steps, focusing)
    for axes, title in ((seen, "seen, score"), (believed, "believed"), (done, "done")):
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=GREY)
    return figure


def shown(steps: Sequence[Step]) -> list[Step]:
    """The steps that are drawn: all, or the first and the last ones."""
    if len(steps) <= MAX_ROWS:
        return list(steps)
    return [*steps[: MAX_ROWS // 2], *steps[-MAX_ROWS // 2 :]]


def _draw_frames(axes: Axes, steps: Sequence[Step], pixels: Callable[[int], Pixels]) -> None:
    for row, step in enumerate(steps):
        axes.imshow(
            thumbnail(pixels(step.header.sequence)),
            cmap="gray",
            extent=(0.28, 0.98, row + 0.96, row + 0.04),
            aspect="auto",
            vmin=0,
            vmax=255,
        )
        axes.text(0.22, row + 0.38, str(step.header.sequence), ha="right", **_STYLE)
        if step.analysis is not None:
            score = f"{step.analysis.focus_score:.2f}"
            axes.text(0.22, row + 0.66, score, ha="right", color=GREY, **_STYLE)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(steps), 0)


def _draw_beliefs(axes: Axes, steps: Sequence[Step], focusing: Focusing) -> None:
    """The posterior after each frame, and where the frame was exposed."""
    zero_m = steps[0].header.optics.working_distance_m
    low, high = _span([_micrometres(step, zero_m) for step in steps], steps, zero_m)
    grid = np.linspace(low, high, 600)
    for row, step in enumerate(steps):
        base = row + 0.94
        belief = step.belief
        if belief and belief.focus_m is not None and belief.sigma_m and belief.interval90_m:
            density = density_of(belief, zero_m + grid * 1e-6)
            axes.fill_between(grid, base, base - 0.75 * density, color=BLUE, alpha=0.25, lw=0)
            ends = [(end - zero_m) * 1e6 for end in belief.interval90_m]
            axes.plot(ends, [base, base], color=BLUE, lw=2.5, solid_capstyle="butt")
        colour = RED if step.header.faults else ORANGE
        marker = "x" if step.header.faults else "v"
        axes.plot(_micrometres(step, zero_m), base - 0.1, marker, color=colour, ms=7)
    if focusing.result is not None:
        final = (focusing.result.final_working_distance_m - zero_m) * 1e6
        axes.axvline(final, color=GREEN, lw=1.2, ls="--")
    axes.set_xlim(low, high)
    axes.set_yticks([])
    axes.set_xlabel(
        f"working distance from {show_distance(zero_m)}, µm   ▼ frame   — 90 % interval   "
        "¦ left at",
        fontsize=8.5,
    )
    _quiet(axes)


def _draw_decisions(axes: Axes, steps: Sequence[Step], focusing: Focusing) -> None:
    for row, step in enumerate(steps):
        ending = focusing.result if row == len(steps) - 1 else None
        lines = decision_lines(step, ending)
        for index, (line, colour) in enumerate(lines):
            place = row + 0.5 + 0.24 * (index - (len(lines) - 1) / 2)
            axes.text(0.02, place, line, color=colour, **_STYLE)


def decision_lines(step: Step, ending: FocusResult | None) -> list[tuple[str, str]]:
    """What was done after a frame, and how the focusing ended if it did, with colours.

    As many lines as a row has room for; an ending is always among them.
    """
    lines: list[tuple[str, str]] = []
    if step.header.faults:
        lines.append((f"not used: {', '.join(step.header.faults)}", RED))
    for command, reply in step.commands:
        done = reply is not None and reply.outcome is Outcome.APPLIED
        words = " – ".join(filter(None, (command_in_words(command), answer_in_words(reply))))
        lines += [(line, "black" if done else RED) for line in textwrap.wrap(words, _LINE)]
    last: list[tuple[str, str]] = []
    if ending is not None:
        words = f"{ending.status}: {ending.reason}"
        colour = GREEN if ending.verified else RED
        cut = textwrap.wrap(words, _LINE, max_lines=_LAST_LINES, placeholder=" …")
        last = [(line, colour) for line in cut]
    room = _LINES - len(last)
    if len(lines) > room:
        words, colour = lines[room - 1]
        lines = [*lines[: room - 1], (f"{words} …", colour)]
    return [*lines, *last] or [("stay", GREY)]


def _micrometres(step: Step, zero_m: float) -> float:
    return (step.header.optics.working_distance_m - zero_m) * 1e6


def _span(places: Sequence[float], steps: Sequence[Step], zero_m: float) -> tuple[float, float]:
    """What is drawn: all frames and the last belief, with a margin."""
    marks = list(places)
    last = next((s.belief for s in reversed(steps) if s.belief and s.belief.interval90_m), None)
    if last is not None and last.interval90_m is not None:
        marks += [(end - zero_m) * 1e6 for end in last.interval90_m]
    low, high = min(marks), max(marks)
    margin = max(0.15 * (high - low), 1e-3)
    return low - margin, high + margin


def _quiet(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)
    axes.grid(axis="x", color="#e5e7eb", lw=0.6)
    axes.set_axisbelow(True)


def thumbnail(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """The middle of a frame, large enough to see the blur, stretched to all grey values."""
    height, width = pixels.shape
    wanted_w, wanted_h = 2 * _THUMB_PX[0], 2 * _THUMB_PX[1]
    top, left = max(0, (height - wanted_h) // 2), max(0, (width - wanted_w) // 2)
    middle = np.asarray(pixels[top : top + wanted_h, left : left + wanted_w], np.float32)
    low, high = np.percentile(middle, [0.5, 99.5])
    grey = (middle - low) * (255 / max(float(high - low), 1.0))
    small = cv2.resize(np.clip(grey, 0, 255), _THUMB_PX, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def svg(figure: Figure) -> str:
    """A figure as an SVG element to put into a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def stacked_png(figures: Sequence[Figure]) -> bytes:
    """Figures one below the other in one PNG."""
    pictures: list[npt.NDArray[np.uint8]] = []
    for figure in figures:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, facecolor="white")
        raw = np.frombuffer(buffer.getvalue(), np.uint8)
        pictures.append(np.asarray(cv2.imdecode(raw, cv2.IMREAD_COLOR), np.uint8))
    width = max(picture.shape[1] for picture in pictures)
    rows = [
        cv2.copyMakeBorder(
            picture, 0, 0, 0, width - picture.shape[1], cv2.BORDER_CONSTANT, value=(255,) * 3
        )
        for picture in pictures
    ]
    _, encoded = cv2.imencode(".png", np.vstack(rows))
    return encoded.tobytes()
