"""The page around the drawings: one HTML file without scripts, fonts or links."""

from collections.abc import Sequence
from html import escape

from matplotlib import rc_context
from matplotlib.figure import Figure

from semagent import __version__
from semagent.lengths import show_distance, show_length
from semagent.report import figures
from semagent.report.story import Focusing, Step, Story
from semagent.report.words import (
    answer_in_words,
    belief_in_words,
    command_in_words,
)
from semagent.types import Outcome

MAX_FIGURES = 40
"""Focusings that are drawn; the table at the top lists all of them."""

_CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; background: #fff;
       max-width: 76rem; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
table { border-collapse: collapse; font-size: 13px; margin: .5rem 0 1rem; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #e5e7eb;
         vertical-align: top; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; } .bad { color: #b3401b; } .note { color: #6b7280; }
.focused { color: #047857; } .held { color: #92610a; } .failed { color: #b3401b; }
@media print { h2 { break-before: page; } }
"""


@rc_context({"text.parse_math": False})  # a vendor's "$" is one, and begins no formula
def render(story: Story) -> tuple[str, bytes]:
    """The page and the picture of all its drawings."""
    session = story.session
    drawings = [figures.overview(story)]
    body = [
        f"<h1>{escape(_instrument(story))}</h1>",
        _facts(story),
        figures.svg(drawings[0]),
        _focusing_list(story.focusings),
        _refusals(story),
    ]
    if not story.focusings and (story.estimate or any(step.belief for step in story.steps)):
        frames = Focusing(steps=story.steps)
        figure = figures.focusing_figure(frames, lambda seq: session.frame(seq).specimen)
        drawings.append(figure)
        body += [
            f"<h2>Frames</h2><p>{escape(story.estimate)}</p>",
            _left_out(frames),
            figures.svg(figure),
            _steps_table(frames.steps),
        ]
    for number, focusing in enumerate(story.focusings, 1):
        body.append(_head(number, focusing))
        if focusing.steps and number <= MAX_FIGURES:
            figure = figures.focusing_figure(focusing, lambda seq: session.frame(seq).specimen)
            drawings.append(figure)
            body += [_left_out(focusing), figures.svg(figure), _steps_table(focusing.steps)]
        elif focusing.steps:
            body.append(_steps_table(focusing.steps))
    title = escape(f"{session.folder.name} – semagent report")
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_CSS}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )
    return page, figures.stacked_png(_titled(drawings, story))


def _titled(drawings: Sequence[Figure], story: Story) -> Sequence[Figure]:
    """The drawings with headings of their own, since a picture has no page around it."""
    drawings[0].suptitle(_instrument(story), fontsize=12, x=0.01, ha="left")
    drawn = [
        (number, focusing) for number, focusing in enumerate(story.focusings, 1) if focusing.steps
    ]
    for figure, (number, focusing) in zip(drawings[1:], drawn, strict=False):
        heading = f"Focusing {number}: {_status(focusing)}, {_way(focusing)}"
        figure.suptitle(heading, fontsize=11, x=0.01, ha="left")
    if not story.focusings and len(drawings) > 1:
        drawings[1].suptitle(story.estimate or "Frames", fontsize=11, x=0.01, ha="left")
    return drawings


def _instrument(story: Story) -> str:
    manifest = story.session.manifest
    instrument = manifest.configuration.get("instrument", manifest.capabilities.microscope)
    simulated = " (simulated)" if manifest.capabilities.simulated else ""
    return f"{instrument}{simulated}, {manifest.started[:19].replace('T', ' ')} UTC"


def _facts(story: Story) -> str:
    manifest = story.session.manifest
    commands = sum(len(step.commands) for step in story.steps)
    unusable = sum(bool(step.header.faults) for step in story.steps)
    rows = [
        ("session", story.session.folder.name),
        (
            "microscope",
            f"{manifest.capabilities.microscope}, driver {manifest.capabilities.driver}",
        ),
        ("engine", manifest.engine.name),
        ("frames", f"{len(story.steps)}, {unusable} of them unusable"),
        ("commands of the agent", f"{commands}; {len(story.refused)} refused or failed"),
        ("software", f"recorded by semagent {manifest.semagent_version}, report by {__version__}"),
    ]
    if manifest.capabilities.verified_on is None:
        rows.append(("driver", "has never been run on its hardware"))
    rows += [("record", problem.message) for problem in story.session.problems]
    return _table([], [[escape(name), escape(value)] for name, value in rows])


def _focusing_list(focusings: Sequence[Focusing]) -> str:
    if not focusings:
        return '<p class="note">No focusing in this session.</p>'
    rows = [
        [
            f'<a href="#focusing-{number}">{number}</a>',
            f'<span class="{_status(focusing)}">{_status(focusing)}</span>',
            escape(_way(focusing)),
            str(focusing.result.frames_used if focusing.result else len(focusing.steps)),
            escape(focusing.result.reason if focusing.result else "the record ends before it"),
        ]
        for number, focusing in enumerate(focusings, 1)
    ]
    return _table(["focusing", "ended", "working distance", "frames", "reason"], rows)


def _refusals(story: Story) -> str:
    if not story.refused:
        return '<p class="note">Nothing was refused.</p>'
    rows = [
        [escape(command_in_words(reply.command)), escape(reply.code), escape(reply.reason)]
        for reply in story.refused
    ]
    return "<h2>Refused or failed</h2>" + _table(["command", "code", "reason"], rows)


def _head(number: int, focusing: Focusing) -> str:
    status = _status(focusing)
    return (
        f'<h2 id="focusing-{number}">Focusing {number}: <span class="{status}">{status}</span>'
        f"</h2><p>{escape(_outcome(focusing))}</p>"
    )


def _left_out(focusing: Focusing) -> str:
    hidden = len(focusing.steps) - len(figures.shown(focusing.steps))
    return f'<p class="note">{hidden} frames in the middle are not drawn.</p>' if hidden else ""


def _status(focusing: Focusing) -> str:
    return focusing.result.status if focusing.result else "unfinished"


def _way(focusing: Focusing) -> str:
    result = focusing.result
    if result is None:
        return "–"
    moved_m = result.final_working_distance_m - result.start_working_distance_m
    start, final = show_distance(result.start_working_distance_m), result.final_working_distance_m
    return f"{start} → {show_distance(final)} ({show_length(moved_m, sign=True)})"


def _outcome(focusing: Focusing) -> str:
    result = focusing.result
    if result is None:
        return "The record ends before it."
    sigma = "" if result.sigma_m is None else f", ± {show_length(result.sigma_m)}"
    return (
        f"{result.status}: {result.reason}. {_way(focusing)}{sigma}; {result.frames_used} frames, "
        f"{result.moves} moves."
    )


def _steps_table(steps: Sequence[Step]) -> str:
    rows = []
    for step in steps:
        optics, analysis = step.header.optics, step.analysis
        said = []
        for command, reply in step.commands:
            answer = answer_in_words(reply)
            bad = reply is None or reply.outcome is not Outcome.APPLIED
            words = escape(command_in_words(command) + (f" – {answer}" if answer else ""))
            said.append(f'<span class="bad">{words}</span>' if bad else words)
        stigmators = (
            "–"
            if optics.stigmator_x is None or optics.stigmator_y is None
            else f"{optics.stigmator_x:+.4f}, {optics.stigmator_y:+.4f}"
        )
        rows.append(
            [
                str(step.header.sequence),
                show_distance(optics.working_distance_m),
                stigmators,
                "–" if analysis is None else f"{analysis.focus_score:.3f}",
                escape(", ".join(step.header.faults)) or "–",
                escape(belief_in_words(step.belief)),
                "<br>".join(said) or "–",
            ]
        )
    columns = ["frame", "working distance", "stigmators", "score", "faults", "focus believed at"]
    table = _table([*columns, "commands and answers"], rows)
    return f"<details><summary>{len(rows)} frames in figures</summary>{table}</details>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; cells are HTML already."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"
