"""The live view of a run in a terminal: the facts of the console, as text."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from semagent.cli.ledger import Ledger
from semagent.cli.output import Output, counted
from semagent.config import RunConfig
from semagent.health import Condition, Health, RoleHealth
from semagent.lengths import show_distance, show_length
from semagent.report.posterior import density_of
from semagent.types import (
    Capabilities,
    Event,
    FocusBelief,
    FrameAnalysis,
    GateStatus,
    Intent,
    Level,
)

_REFRESH_S = 0.25
_LINE_S = 5.0
_WIDE = 140
FOCUS_ROWS, _NEWS_ROWS = 12, 6  # of the latter, at least
_LABELS, _FRAME = 16, 6  # columns that a panel's labels and its border take
_ENDS = 22  # columns that the ends of the posterior's range take
_LEAST_SPAN = 0.1  # a sparkline shows no smaller differences: they would be noise
_COLOURS = {Level.INFO: "", Level.WARNING: "yellow", Level.ERROR: "red"}
_CONDITIONS = {
    Condition.STARTING: "dim",
    Condition.IDLE: "green",
    Condition.BUSY: "green",
    Condition.HUNG: "bold red",
    Condition.SILENT: "bold red",
}


class LiveView:
    """Shows a run while it goes on; a context manager.

    A terminal gets a full-screen view, anything else a line every few seconds and for every
    event; with ``--json`` nothing is shown. Warnings given meanwhile would tear the screen: they
    stand among the news and are printed again at the end.

    Args:
        links: where the console is, for operators and for viewers, if there is one.
    """

    def __init__(
        self,
        output: Output,
        ledger: Ledger,
        config: RunConfig,
        capabilities: Capabilities,
        engine: str,
        links: tuple[str, str] | None = None,
    ) -> None:
        self._output = output
        self._ledger = ledger
        self._config = config
        names = (config.instrument, capabilities.microscope, f"engine {engine}")
        self._title = " · ".join(dict.fromkeys(names))
        self._simulated = capabilities.simulated
        self._links = links
        console = output.people
        self._full = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, auto_refresh=False, screen=self._full)
        self._started_s = time.perf_counter()
        self._next_s = 0.0
        self._told: Event | None = None

    def __enter__(self) -> Self:
        if self._full and not self._output.json:
            self._output.hold_warnings()
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()
        self._output.release_warnings()

    def update(self) -> None:
        """Show how things are now, if it is time."""
        if self._output.json:
            return
        if not self._full:
            self._tell_events()
        now_s = time.perf_counter()
        nothing_yet = not self._full and self._ledger.analysis is None
        if now_s < self._next_s or nothing_yet:
            return
        self._next_s = now_s + (_REFRESH_S if self._full else _LINE_S)
        if self._full:
            self._live.update(self._screen(), refresh=True)
        else:
            self._output.say(line(self._ledger))

    def _tell_events(self) -> None:
        news = list(self._ledger.news)
        fresh = news[news.index(self._told) + 1 :] if self._told in news else news
        for event in fresh:
            # Warnings have been printed already.
            if event.level is Level.INFO:
                self._output.say(f"{event.role}: {event.message}")
            self._told = event

    def _screen(self) -> Layout:
        ledger, console = self._ledger, self._output.people
        health = None if ledger.monitor is None else ledger.monitor.snapshot()
        roles = Panel(_roles(health), title="health", title_align="left")
        wide = console.width >= _WIDE
        headline = self._headline()
        head_rows = len(console.render_lines(headline))
        role_rows = 3 + (0 if health is None else len(health.roles))
        fixed_rows = head_rows + FOCUS_ROWS + role_rows + 1
        # A low screen shows what happened: a role that is not well is among the warnings there.
        low = not wide and console.height < fixed_rows + _NEWS_ROWS
        columns = console.width // 2 if wide else console.width
        focus = focus_panel(ledger, self._config, health, columns=columns, utf8=is_utf8(console))
        facts = Layout(size=FOCUS_ROWS if wide or low else FOCUS_ROWS + role_rows)
        if low:
            facts.update(focus)
        elif wide:
            facts.split_row(Layout(focus), Layout(roles))
        else:
            facts.split_column(Layout(focus, size=FOCUS_ROWS), Layout(roles, size=role_rows))
        screen = Layout()
        screen.split_column(
            Layout(headline, size=head_rows),
            facts,
            Layout(Panel(self._news(health), title="news", title_align="left")),
            Layout(Text(way_out(ledger.gate), style="dim"), size=1),
        )
        return screen

    def _headline(self) -> Group:
        text = Text(self._title, overflow="ellipsis", no_wrap=True)
        if self._simulated:
            text.append(" · simulated", style="cyan")
        gate = self._ledger.gate
        armed = gate is not None and gate.armed
        second = Text(overflow="ellipsis", no_wrap=True)
        second.append(" ARMED " if armed else " DISARMED ", "black on green" if armed else "on red")
        second.append(f"  mode {self._ledger.mode}", "bold")
        second.append(f"  {_duration(time.perf_counter() - self._started_s)}")
        if gate is not None and gate.reason:
            second.append(f"  {gate.reason}", "" if armed else "red")
        names = ("console  ", "view only")
        links = [f"{name} {link}" for name, link in zip(names, self._links or (), strict=False)]
        return Group(text, second, *(Text(link, overflow="fold") for link in links))

    def _news(self, health: Health | None) -> Text:
        text = Text()
        for warning in () if health is None else health.warnings:
            text.append(f"! {warning}\n", style="yellow")
        for warning in list(self._output.held_warnings)[-3:]:
            text.append(f"! {warning}\n", style="yellow")
        for event in reversed(self._ledger.news):
            text.append(f"{_clock_time(event)} {event.role}: {event.message}\n")
            text.stylize(_COLOURS[event.level], len(text) - len(event.message) - 1)
        return text


def way_out(gate: GateStatus | None) -> str:
    """What Ctrl-C does."""
    if gate is None or not gate.armed:
        return "Ctrl-C ends; while the gate is disarmed nothing is put back"
    return "Ctrl-C ends: a search goes back to its start, holding to its working point"


def line(ledger: Ledger) -> str:
    """One line about a run, for a terminal that cannot do more and for log files."""
    parts = [f"mode {ledger.mode}"]
    if ledger.gate is not None:
        parts.append("armed" if ledger.gate.armed else "disarmed")
    if ledger.analysis is not None:
        header = ledger.analysis.header
        parts.append(f"frame {header.sequence}")
        parts.append(f"working distance {show_distance(header.optics.working_distance_m)}")
        parts.append(f"score {_score(ledger.analysis)}")
    belief = ledger.belief
    if belief is not None and belief.focus_m is not None:
        parts.append(f"focus at {show_distance(belief.focus_m)} ± {show_length(belief.sigma_m)}")
    stale_s = None if ledger.monitor is None else ledger.monitor.snapshot().stale_s
    if stale_s is not None:
        parts.append(f"no frame analysed for {stale_s:.0f} s")
    if ledger.intent is not None and ledger.intent.proposal_m is not None:
        parts.append(f"proposes {show_distance(ledger.intent.proposal_m)}")
    if ledger.intent is not None and ledger.intent.doing == "paused":
        parts.append(f"rests until the next request: {ledger.intent.why}")
    return ", ".join(parts)


def focus_panel(
    ledger: Ledger, config: RunConfig, health: Health | None, *, columns: int, utf8: bool
) -> Panel:
    """Where the microscope is, where focus is believed to be, and what that has cost."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", width=_LABELS)
    width = max(16, columns - _LABELS - _FRAME)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=width)
    state, analysis, belief = ledger.state, ledger.analysis, ledger.belief
    here_m = None if state is None else state.optics.working_distance_m
    table.add_row("working distance", show_distance(here_m))
    if state is not None and state.optics.stigmator_x is not None:
        y = state.optics.stigmator_y or 0.0
        table.add_row("stigmators", f"x {state.optics.stigmator_x:+.4f}  y {y:+.4f}")
    old, style = "", ""
    if health is not None and health.stale_s is not None:
        old, style = f", {health.stale_s:.0f} s ago", "dim"
    if belief is None or belief.focus_m is None or here_m is None:
        table.add_row("focus", "not known yet")
    else:
        focus = f"{show_distance(belief.focus_m)} ± {show_length(belief.sigma_m)}{old}"
        table.add_row("believed focus", Text(focus, style))
        half_m = None
        if analysis is not None:
            half_m = config.half_depth_of(analysis.header)
        bar = posterior_bar(belief, here_m, half_m, width=max(9, width - _ENDS), utf8=utf8)
        table.add_row("", bar)
    # Reasons are no markup: a vendor's "[timeout]" is a word.
    table.add_row("agent", Text("-" if ledger.intent is None else _intent(ledger.intent)))
    score = "-" if analysis is None else f"{_score(analysis)}{old}"
    scores = list(ledger.scores)[-max(1, width - len(score) - 2) :]
    table.add_row("focus score", Text(f"{score}  {sparkline(scores, utf8=utf8)}", style))
    commands = f"{ledger.commands} given, {ledger.refusals.total()} refused or failed"
    if ledger.last_refusal is not None:
        commands += f": {ledger.last_refusal.reason}"
    table.add_row("commands", Text(commands))
    if health is not None:
        table.add_row("frames", _frames(health, ledger.flagged))
        table.add_row("dose", _dose(health))
        table.add_row("engine", _engine(health))
    return Panel(table, title="focus", title_align="left")


def posterior_bar(
    belief: FocusBelief, here_m: float, half_depth_m: float | None, *, width: int, utf8: bool
) -> Text:
    """The belief as a row of blocks; the microscope's place stands out, likely in focus if green.

    The row spans four standard deviations, or as far as the microscope is away; the depth of
    field around the likeliest place is underlined.
    """
    focus_m, sigma_m = belief.focus_m or 0.0, belief.sigma_m or 0.0
    depth_m = half_depth_m or 0.0
    reach_m = max(4 * sigma_m, 1.2 * abs(here_m - focus_m), 1.5 * depth_m, 1e-12)
    places_m = focus_m + reach_m * np.linspace(-1.0, 1.0, width)
    density = density_of(belief, places_m, narrowest_m=reach_m / width)
    deep = np.abs(places_m - belief.mixture[0].focus_m) <= depth_m
    here = int(np.abs(places_m - here_m).argmin())
    near = belief.below(here_m + depth_m) - belief.below(here_m - depth_m) > 0.5
    text = Text(f"{show_length(-reach_m)} ")
    for i in range(width):
        if i == here:
            text.append("┃" if utf8 else "|", "bold green" if near else "bold red")
        else:
            text.append(_block(density[i], utf8=utf8), "cyan underline" if deep[i] else "cyan")
    return text.append(f" {show_length(reach_m, sign=True)}")


def sparkline(values: Sequence[float], *, utf8: bool) -> str:
    """Values as a row of blocks, from the lowest to the highest of them."""
    low = min(values, default=0.0)
    span = max(max(values, default=0.0) - low, _LEAST_SPAN)
    return "".join(_block((value - low) / span, utf8=utf8) for value in values)


def is_utf8(console: Console) -> bool:
    """Whether blocks and lines can be drawn."""
    return console.encoding.lower().startswith("utf")


def _block(share: float, *, utf8: bool) -> str:
    ramp = "▁▂▃▄▅▆▇█" if utf8 else "_.-:=+*#"
    return ramp[min(len(ramp) - 1, max(0, int(share * len(ramp))))]


def _roles(health: Health | None) -> Table:
    table = Table(box=None, padding=(0, 1), expand=True)
    for name in ("role", "is", "heard", "frames", "skipped", "missing", "refused", "memory"):
        table.add_column(name, justify="left" if name in ("role", "is") else "right")
    for role in () if health is None else health.roles:
        table.add_row(*_role(role), style=_CONDITIONS[role.condition] if _bad(role) else "")
    return table


def _bad(role: RoleHealth) -> bool:
    return role.condition in (Condition.HUNG, Condition.SILENT)


def _role(role: RoleHealth) -> list[RenderableType]:
    counts = (role.processed, role.skipped, role.missing, role.refused)
    return [
        role.role,
        Text(str(role.condition), _CONDITIONS[role.condition]),
        "-" if role.age_s is None else f"{max(0.0, role.age_s):.1f} s",
        *map(str, counts),
        f"{role.rss_bytes / 2**20:.0f} MiB" if role.rss_bytes else "-",
    ]


def _intent(intent: Intent) -> str:
    proposes = "" if intent.proposal_m is None else f", proposes {show_distance(intent.proposal_m)}"
    return f"{intent.doing}{proposes}: {intent.why}"


def _frames(health: Health, flagged: int) -> str:
    parts = [str(health.frames)]
    if health.frames_per_s is not None:
        parts.append(f"{health.frames_per_s:.1f} a second")
    if health.frame_age_s is not None:
        parts.append(f"newest {max(0.0, health.frame_age_s):.1f} s old")
    return ", ".join([*parts, f"{flagged} unusable"])


def _dose(health: Health) -> str:
    dose = health.dose
    here = f"{counted(dose['frames_here'], 'frame')} of this field"
    if dose["here_e_nm2"] is None:
        return f"{here}; beam current not reported"
    return f"{dose['here_e_nm2']:.1f} electrons/nm² in {here}"


def _engine(health: Health) -> str:
    if health.latency_p50_s is None or health.latency_p99_s is None:
        return "-"
    return f"{health.latency_p50_s * 1e3:.1f} ms median, {health.latency_p99_s * 1e3:.1f} ms p99"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _clock_time(event: Event) -> str:
    return time.strftime("%H:%M:%S", time.localtime(event.wall_ns / 1e9))


def _score(analysis: FrameAnalysis) -> str:
    """Noise and bands may look sharp: of a frame without a specimen the score says nothing."""
    return f"{analysis.focus_score:.3f}{', nothing to see' if analysis.empty else ''}"
