"""Figures from outcomes, as Markdown tables."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from scipy.stats import binomtest

from focusing.outcome import Outcome
from focusing.trials import HOLD_FRAMES

OURS = "semagent"
STIGMATING = (OURS, "MAPFoSt", "SBEMimage heuristic", "two-frame network")
"""Methods that set the stigmators."""

GOOD_ASTIGMATISM_PX = 0.3


def by(outcomes: Iterable[Outcome], key: Callable[[Outcome], str]) -> dict[str, list[Outcome]]:
    """Outcomes grouped by a key, in the order in which the keys first come."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[key(outcome)].append(outcome)
    return dict(groups)


def by_method(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes of each method: semagent's, then those of the peers, the most successful first."""
    groups = by(outcomes, lambda outcome: outcome.method)
    order = sorted(groups, key=lambda name: (name != OURS, -success(groups[name]), name))
    return {name: groups[name] for name in order}


def success(outcomes: Sequence[Outcome]) -> float:
    """Share of trials that ended within half a depth of field."""
    return float(np.mean([outcome.success for outcome in outcomes]))


def percent(flags: Sequence[bool]) -> str:
    """Share of true ones, with what it may be by chance (Wilson, 95 %)."""
    count = len(flags)
    if not count:
        return "–"
    share, z = sum(flags) / count, 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
    return f"{100 * share:.1f} ({100 * max(middle - half, 0.0):.1f}–{100 * (middle + half):.1f})"


def quantiles(values: Sequence[float], pattern: str = "{:.0f}") -> str:
    """Median and 95th percentile."""
    if not values:
        return "–"
    return " / ".join(pattern.format(np.quantile(values, q)) for q in (0.5, 0.95))


def overview(outcomes: Sequence[Outcome]) -> str:
    """All tables that the outcomes at hand allow, as text."""
    tables = []
    for experiment, own in by(outcomes, lambda outcome: outcome.experiment).items():
        tables.append(f"{experiment}\n\n{table(experiment, own)}")
        if experiment == "focus":
            tables.append(breakdown(own, lambda outcome: f"{outcome.trial_dose} e/px"))
            tables.append(breakdown(own, lambda outcome: outcome.source))
            tables.append(stigmation_table(own))
    if any(outcome.method == OURS for outcome in outcomes):
        tables.append(goals(outcomes, outcomes))
    return "\n\n".join(tables)


def table(experiment: str, outcomes: Sequence[Outcome]) -> str:
    """The main table of one experiment."""
    kinds = {
        "focus": focus_table,
        "beads": focus_table,
        "hold": hold_table,
        "uncalibrated": focus_table,
    }
    return kinds.get(experiment, still_table)(outcomes)


def shared(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes of the trials that every method was given."""
    methods = by_method(outcomes).values()
    common = set.intersection(*({each.number for each in own} for own in methods))
    return [outcome for outcome in outcomes if outcome.number in common]


def goals(outcomes: Sequence[Outcome], timed: Sequence[Outcome]) -> str:
    """What semagent is measured by, what is asked for, and what was found.

    Times are taken from ``timed``.
    """
    own = by((each for each in outcomes if each.method == OURS), lambda each: each.experiment)
    focus, noise, hold = (own.get(name, []) for name in ("focus", "noise", "hold"))
    lines = ["| figure | goal | measured | trials |", "|---|---|---|---|"]

    def line(figure: str, goal: str, measured: str, trials: int) -> None:
        lines.append(f"| {figure} | {goal} | {measured} | {trials:,} |")

    if focus:
        count = len(focus)
        line("within half a depth of field, %", "≥ 99", percent([e.success for e in focus]), count)
        ended = [each for each in focus if _focused(each)]
        for figure, verified in (
            ("the same where it says so, %", True),
            ("the same where it says that astigmatism is open, %", False),
        ):
            some = [each.success for each in ended if each.verified is verified]
            line(figure, "", percent(some), len(some))
        frames = quantiles([each.frames for each in focus])
        line("frames, median / 95th percentile", "≤ 3 / ≤ 6", frames, count)
        worse = [each for each in focus if each.worse]
        drifted = sum(each.put_back for each in worse)
        found = f"{len(worse)}, {drifted} of them put back, the specimen having drifted"
        line("worse than at the start", "0", found if worse else "0", count)
        covered = [each.covered for each in ended if each.covered is not None]
        line("90 % interval holds the truth, %", "85–95", percent(covered), len(covered))
    for some, more, least, most in (
        (focus, "", "≥ 95", "≤ 5"),
        (own.get("uncalibrated", []), "without `semagent calibrate`: ", "", ""),
    ):
        bad = [each for each in some if each.start_astigmatism_px > GOOD_ASTIGMATISM_PX]
        if bad:
            good = [each.final_astigmatism_px <= GOOD_ASTIGMATISM_PX for each in bad]
            line(f"{more}astigmatism ≤ 0.3 px left, %", least, percent(good), len(bad))
            frames = quantiles([each.frames for each in bad])
            line("frames of those, median / 95th percentile", most, frames, len(bad))
    if noise:
        moved = sum(each.moves > 0 for each in noise)
        line("moves on nothing but noise", "0", str(moved), len(noise))
    if hold:
        followed = [each for each in hold if _focused(each)]
        for figure, goal, some in (
            ("hold: frames within half a depth of field, %", "≥ 99", hold),
            ("the same on fields that it follows, %", "", followed),
        ):
            held = [each.held_frames or 0 for each in some]
            line(
                figure, goal, f"{100 * sum(held) / HOLD_FRAMES / max(len(held), 1):.1f}", len(held)
            )
        extra = np.mean(
            [(each.extra_dose or 0.0) / (HOLD_FRAMES * each.trial_dose) for each in hold]
        )
        line("hold: extra dose, %", "0", f"{100 * extra:z.1f}", len(hold))
    alone = [e for e in timed if e.method == OURS and e.experiment == "focus"]
    times = [time_s for each in alone for time_s in each.decide_s]
    if times:
        p50, p99 = np.quantile(times, (0.5, 0.99)) * 1e3
        found = f"{p50:.1f} / {p99:.1f}"
        line("estimator and policy, ms a frame, p50 / p99", "≤ 10", found, len(alone))
    return "\n".join(lines)


def _head(*columns: str, first: str = "method") -> list[str]:
    """The first two lines of a table, with one method a line if nothing else is said."""
    return [f"| {first} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]


def focus_table(outcomes: Sequence[Outcome]) -> str:
    """The main comparison, one line a method."""
    lines = _head(
        "trials",
        "success %",
        "frames median / p95",
        "dose e/px median / p95",
        "median error",
        "worse than start",
        "90 % interval holds %",
    )
    for method, own in by_method(outcomes).items():
        covered = [each.covered for each in own if each.covered is not None and _focused(each)]
        lines.append(
            f"| {method} | {len(own)} | {percent([each.success for each in own])} "
            f"| {quantiles([each.frames for each in own])} "
            f"| {quantiles([each.dose for each in own])} "
            f"| {np.median([abs(each.final) for each in own]):.2f} "
            f"| {sum(each.worse for each in own)} | {percent(covered)} |"
        )
    return "\n".join(lines)


def beside_the_best(outcomes: Sequence[Outcome]) -> str:
    """In words, how many states semagent and the most successful peer each bring into focus alone.

    Args:
        outcomes: of the states that all methods were given.
    """
    solved = {
        name: {each.number for each in own if each.success}
        for name, own in by_method(outcomes).items()
    }
    if len(solved) < 2:
        return ""
    ours, peer = list(solved)[:2]
    alone, of_peer = len(solved[ours] - solved[peer]), len(solved[peer] - solved[ours])
    chance = binomtest(alone, alone + of_peer).pvalue if alone + of_peer else 1.0
    return (
        f"{ours} ends {alone} states in focus that {peer} does not, and {of_peer} not that it does "
        f"(sign test, p = {chance:.2f})."
    )


def _focused(outcome: Outcome) -> bool:
    return outcome.status == "focused"


def breakdown(outcomes: Sequence[Outcome], key: Callable[[Outcome], str]) -> str:
    """Success and median frames of each method in groups of trials."""
    return _grid("method (trials)", by_method(outcomes), key)


def ours_by_source(outcomes: Sequence[Outcome]) -> str:
    """The same of all trials of semagent, of each source and by electrons a pixel and frame."""
    own = [each for each in outcomes if each.method == OURS]
    sources = {"all": own, **dict(sorted(by(own, lambda each: each.source).items()))}
    rows = {f"{name}, {len(some):,} trials": some for name, some in sources.items()}
    return _grid("source", rows, lambda each: f"{each.trial_dose} e/px")


def _grid(what: str, rows: Mapping[str, Sequence[Outcome]], key: Callable[[Outcome], str]) -> str:
    """Success and median frames; a column says of how many trials, where that is one number."""
    table = {name: by(own, key) for name, own in rows.items()}
    groups = sorted({group for parts in table.values() for group in parts}, key=_natural)
    counts = {group: {len(parts.get(group, [])) for parts in table.values()} for group in groups}
    heads = [
        f"{group} ({min(counts[group])})" if len(counts[group]) == 1 else group for group in groups
    ]
    lines = _head(*heads, first=what)
    for name, parts in table.items():
        cells = [
            f"{100 * np.mean([each.success for each in parts[group]]):.0f} % "
            f"in {np.median([each.frames for each in parts[group]]):.0f}"
            if group in parts
            else "–"
            for group in groups
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _natural(text: str) -> tuple[float, str]:
    head = text.split(" ", maxsplit=1)[0]
    return (-float(head) if head.isdecimal() else 0.0, text)


def stigmation_table(outcomes: Sequence[Outcome]) -> str:
    """Astigmatism left, over the trials that began with more than is good."""
    lines = _head("trials", "≤ 0.3 px left %", "left, px, median / p95", "frames median / p95")
    for method, own in by_method(outcomes).items():
        bad = [each for each in own if each.start_astigmatism_px > GOOD_ASTIGMATISM_PX]
        if not bad:
            continue
        left = [each.final_astigmatism_px for each in bad]
        lines.append(
            f"| {method} | {len(bad)} | {percent([px <= GOOD_ASTIGMATISM_PX for px in left])} "
            f"| {quantiles(left, '{:.2f}')} | {quantiles([each.frames for each in bad])} |"
        )
    return "\n".join(lines)


def still_table(outcomes: Sequence[Outcome]) -> str:
    """Fields on which nothing should move."""
    lines = _head(
        "trials", "moved at all", "ended elsewhere", "further from focus", "frames median / p95"
    )
    for method, own in by_method(outcomes).items():
        away = [each for each in own if abs(each.final - each.start) > 1]
        lines.append(
            f"| {method} | {len(own)} | {sum(each.moves > 0 for each in own)} | {len(away)} "
            f"| {sum(each.worse for each in own)} | {quantiles([each.frames for each in own])} |"
        )
    return "\n".join(lines)


def hold_table(outcomes: Sequence[Outcome]) -> str:
    """Following a specimen that drifts one depth of field in 20 frames."""
    lines = _head("trials", "frames within half a depth %", "worst trial %", "extra dose %")
    for method, own in by_method(outcomes).items():
        shares = [100 * (each.held_frames or 0) / HOLD_FRAMES for each in own]
        extra = [100 * (each.extra_dose or 0.0) / (HOLD_FRAMES * each.trial_dose) for each in own]
        lines.append(
            f"| {method} | {len(own)} | {np.mean(shares):.1f} | {min(shares):.1f} "
            f"| {np.mean(extra):z.1f} |"
        )
    return "\n".join(lines)
