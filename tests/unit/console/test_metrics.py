"""``/metrics`` as Prometheus' own parser reads it."""

import time
from typing import Any

import numpy as np
import pytest

from semagent.testing.engines import figures_of
from semagent.types import FocusBelief, FrameHeader, GateStatus, Optics, Scan, StagePosition

from .bench import TOKENS, Run

parser = pytest.importorskip(
    "prometheus_client.parser", reason="Prometheus' own parser is not installed"
)


def metrics(run: Run) -> dict[str, Any]:
    answer = run.fetch("/metrics", Authorization=f"Bearer {TOKENS.viewer}")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        family.name: family
        for family in parser.text_string_to_metric_families(answer.body.decode())
    }


def value(families: dict[str, Any], name: str, **labels: str) -> float:
    (sample,) = [each for each in families[name].samples if each.labels == labels]
    return sample.value


def test_what_is_not_known_is_left_out(run: Run):
    families = metrics(run)
    assert value(families, "semagent_frames") == 0
    assert "semagent_focus_metres" not in families
    starting = {"role": "infer", "condition": "starting"}
    assert value(families, "semagent_role_condition", **starting) == 1


def test_facts_become_metrics(run: Run):
    header = FrameHeader(
        sequence=7,
        monotonic_ns=time.perf_counter_ns(),
        wall_ns=1,
        detector="SE2",
        scan=Scan(width_px=64, height_px=48, bit_depth=8, pixel_size_m=1e-8, dwell_s=1e-6),
        optics=Optics(working_distance_m=5e-3, beam_current_a=160.2176634e-12),
        stage=StagePosition(),
        settings_rev=1,
    )
    run.acquire.publish("frame", header, np.zeros((48, 64), np.uint8))
    belief = FocusBelief(sequence=7, settings_rev=1, frames=2, focus_m=5.1e-3, sigma_m=2e-6)
    run.control.publish("belief", belief)
    run.infer.publish("analysis", figures_of(header, focus_score=0.625, latency_s=0.25))
    run.acquire.publish("gate", GateStatus(armed=True, reason="", monotonic_ns=1))
    run.acquire.beat(busy=False, processed=7, skipped=0)
    run.infer.beat(busy=True, processed=5, skipped=2)
    deadline_s = time.perf_counter() + 10
    while value(families := metrics(run), "semagent_frames") != 7:
        assert time.perf_counter() < deadline_s
    assert value(families, "semagent_gate_armed") == 1
    assert value(families, "semagent_working_distance_metres") == 5e-3
    assert value(families, "semagent_focus_score") == 0.625
    assert value(families, "semagent_focus_metres") == 5.1e-3
    assert value(families, "semagent_focus_sigma_metres") == 2e-6
    assert value(families, "semagent_engine_latency_seconds", quantile="0.99") == 0.25
    assert 0 <= value(families, "semagent_frame_age_seconds") < 10
    assert value(families, "semagent_frames_skipped", role="infer") == 2
    assert value(families, "semagent_dose_electrons_per_nm2") == pytest.approx(70.0)
    busy = {"role": "infer", "condition": "busy"}
    assert value(families, "semagent_role_condition", **busy) == 1
    assert families["semagent_frames"].type == "counter"


def test_metrics_need_a_token(run: Run):
    assert run.fetch("/metrics").status == 401
