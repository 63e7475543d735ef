"""``/metrics``: the health of the run in the text format that Prometheus collects (0.0.4).

Prometheus signs in with one of the tokens as its ``authorization: credentials``. Labels take
their values from closed lists (roles, conditions), so the number of series is bounded.
"""

from collections.abc import Iterator, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from semagent.console.facts import Board
from semagent.health import Condition, Health, RoleHealth
from semagent.types import Value

_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[str, float | None]
"""Labels in braces, or nothing, and a value; ``None`` is left out."""


def routes(board: Board) -> Sequence[BaseRoute]:
    """What it serves."""

    async def show(_request: Request) -> Response:
        return Response(exposition(board), media_type=_TYPE)

    return [Route("/metrics", show)]


def exposition(board: Board) -> str:
    """All metrics as text."""
    families = [*_of_run(board), *_of_health(board.monitor.snapshot())]
    return "".join(_family(*family) for family in families)


def _of_run(board: Board) -> Iterator[tuple[str, str, str, list[Sample]]]:
    yield "gate_armed", "gauge", "1 if commands pass the safety gate", _of(board.gate, "armed")
    yield "commands_applied", "counter", "Moves the agent made", _one(board.moves)
    yield "commands_refused", "counter", "Commands refused or failed", _one(board.refused)
    yield "frames_flagged", "counter", "Frames not fit for use", _one(board.flagged)
    yield "focus_score", "gauge", "0 to 1", _of(board.analysis, "focus_score")
    yield "working_distance_metres", "gauge", "As measured", _of(board.optics, "working_distance_m")
    yield "focus_metres", "gauge", "Where focus is believed to be", _of(board.belief, "focus_m")
    yield "focus_sigma_metres", "gauge", "Its uncertainty", _of(board.belief, "sigma_m")


def _of_health(health: Health) -> Iterator[tuple[str, str, str, list[Sample]]]:
    yield "frames", "counter", "Frames exposed", _one(health.frames)
    yield (
        "frame_age_seconds",
        "gauge",
        "Since the newest frame's exposure",
        _one(health.frame_age_s),
    )
    yield "frames_per_second", "gauge", "Over the last frames", _one(health.frames_per_s)
    yield (
        "engine_latency_seconds",
        "gauge",
        "Of the last 1000 frames",
        [
            ('{quantile="0.5"}', health.latency_p50_s),
            ('{quantile="0.99"}', health.latency_p99_s),
        ],
    )
    yield "dose_electrons_per_nm2", "gauge", "Of the field in view", _one(health.dose["here_e_nm2"])
    yield "warnings", "gauge", "Warnings that stand", _one(len(health.warnings))
    yield (
        "role_condition",
        "gauge",
        "1 for the condition a role is in",
        [
            (f'{{role="{role.role}",condition="{condition}"}}', role.condition is condition)
            for role in health.roles
            for condition in Condition
        ],
    )
    roles = health.roles
    yield "heartbeat_age_seconds", "gauge", "Since the last one", _each(roles, "age_s")
    yield "frames_processed", "counter", "By each role", _each(roles, "processed")
    yield "frames_skipped", "counter", "Newer ones had come", _each(roles, "skipped")
    yield "messages_missing", "counter", "Sent to a role and lost", _each(roles, "missing")
    yield "messages_refused", "counter", "Not readable by a role", _each(roles, "refused")
    yield "memory_bytes", "gauge", "Resident, of each process", _each(roles, "rss_bytes")


def _one(value: float | None) -> list[Sample]:
    return [("", value)]


def _of(whole: Value | None, field: str) -> list[Sample]:
    return _one(None if whole is None else getattr(whole, field))


def _each(roles: Sequence[RoleHealth], field: str) -> list[Sample]:
    return [(f'{{role="{role.role}"}}', getattr(role, field)) for role in roles]


def _family(name: str, kind: str, about: str, samples: list[Sample]) -> str:
    known = [(labels, float(value)) for labels, value in samples if value is not None]
    if not known:
        return ""
    name = f"semagent_{name}" + ("_total" if kind == "counter" else "")
    head = f"# HELP {name} {about}.\n# TYPE {name} {kind}\n"
    return head + "".join(f"{name}{labels} {value!r}\n" for labels, value in known)
