"""Two millimetres out of focus at low magnification, on the simulated SEM and through the gate."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from semagent import registry
from semagent.clock import ManualClock
from semagent.config import RunConfig, find_config, load_config
from semagent.control.options import HoldOptions
from semagent.lockstep import Lockstep
from semagent.safety import AxisLimits
from semagent.types import (
    Arm,
    FocusResult,
    Mode,
    Outcome,
    SetMode,
    SetWorkingDistance,
    StartAutofocus,
)

FOCUS_M, WIDTH_PX, CONVERGENCE_RAD = 10e-3, 512, 5e-3
ENVELOPE = {"min": 5e-3, "max": 15e-3, "max_step": 0.5e-3, "max_travel": 20e-3}


def configuration(
    autofocus: dict[str, Any], limits: dict[str, float], tolerance: dict[str, float]
) -> RunConfig:
    config = load_config(find_config("simulated"))
    search = msgspec.structs.replace(config.control.autofocus, **{"range_m": 4e-3, **autofocus})
    return msgspec.structs.replace(
        config,
        safety=msgspec.structs.replace(
            config.safety,
            working_distance_m=AxisLimits(**{**ENVELOPE, **limits}),
            readback_tolerance=msgspec.structs.replace(
                config.safety.readback_tolerance, **tolerance
            ),
        ),
        control=msgspec.structs.replace(
            config.control, autofocus=search, hold=HoldOptions(follow=False)
        ),
    )


@dataclass
class Search:
    """One search and where it left the microscope, in half depths of field from focus."""

    result: FocusResult
    error: float
    start_m: float
    left_m: float
    longest_m: float
    refusals: list[str]


def search(
    field_width_m: float,
    off_m: float,
    autofocus: dict[str, Any] | None = None,
    limits: dict[str, float] | None = None,
    column: dict[str, Any] | None = None,
    tolerance: dict[str, float] | None = None,
    break_at: Callable[[Any, int], None] = lambda microscope, frame: None,
    **specimen: Any,
) -> Search:
    clock, pixel_m = ManualClock(), field_width_m / WIDTH_PX
    options = {
        "seed": 3,
        "scan": {
            "width_px": WIDTH_PX,
            "height_px": 384,
            "pixel_size_nm": pixel_m * 1e9,
            "dwell_us": 0.3,
        },
        "column": {
            "working_distance_mm": (FOCUS_M + off_m) * 1e3,
            "convergence_mrad": CONVERGENCE_RAD * 1e3,
            **(column or {}),
        },
        "specimen": {
            "working_distance_mm": FOCUS_M * 1e3,
            "tile_px": 1024,
            "feature_size_nm": 20 * pixel_m * 1e9,
            **specimen,
        },
    }
    microscope: Any = registry.open_microscope("simulated", options, clock=clock)
    engine = registry.open_engine("sharpness", {})
    config = configuration(autofocus or {}, limits or {}, tolerance or {})
    with Lockstep(config, microscope, engine, clock) as lockstep:
        results, replies = lockstep.listen("result"), lockstep.listen("reply")
        assert lockstep.operate(Arm()).outcome is Outcome.APPLIED
        lockstep.request(SetMode(mode=Mode.HOLD))
        lockstep.request(StartAutofocus(stigmation=True))
        for frame in range(40):
            if (message := results.take()) is not None:
                break
            break_at(microscope, frame)
            lockstep.cycle()
        assert message is not None
        heard = [reply.value for reply in iter(replies.take, None)]
        left_m = microscope.read_state().optics.working_distance_m
        error_m = microscope.truth().defocus_m
    places_m = [FOCUS_M + off_m]
    for reply in heard:
        if isinstance(reply.command.action, SetWorkingDistance) and reply.state is not None:
            places_m.append(reply.state.optics.working_distance_m)
    return Search(
        result=message.value,
        error=error_m / (pixel_m / CONVERGENCE_RAD),
        start_m=places_m[0],
        left_m=left_m,
        longest_m=max(abs(b - a) for a, b in itertools.pairwise(places_m))
        if len(places_m) > 1
        else 0.0,
        refusals=[reply.code for reply in heard if reply.outcome is Outcome.REFUSED],
    )


def assert_put_back(found: Search) -> None:
    assert found.left_m == pytest.approx(found.start_m, abs=1e-9)
    assert found.result.final_working_distance_m == pytest.approx(found.start_m, abs=1e-9)
    assert "could not be put back" not in found.result.reason


@pytest.mark.parametrize("off_m", [-2e-3, 2e-3])
@pytest.mark.parametrize("field_width_m", [0.1e-3, 0.5e-3, 2e-3])
@pytest.mark.parametrize("kind", ["particles", "porous"])
def test_focus_is_found_from_both_sides(field_width_m: float, off_m: float, kind: str) -> None:
    found = search(field_width_m, off_m, kind=kind)
    assert found.result.status == "focused", found.result.reason
    assert abs(found.error) <= 1
    assert found.longest_m <= ENVELOPE["max_step"]
    assert found.refusals == []
    assert found.result.frames_used <= 10


@pytest.mark.parametrize("off_m", [-2e-3, 2e-3])
def test_focus_out_of_range_is_held_and_put_back(off_m: float) -> None:
    found = search(0.5e-3, off_m, autofocus={"range_m": 0.5e-3})
    assert found.result.status == "held"
    assert_put_back(found)


def test_a_featureless_specimen_is_held_and_put_back() -> None:
    found = search(1e-3, 2e-3, kind="flat")
    assert found.result.status == "held"
    assert_put_back(found)


def test_travel_that_is_used_up_is_said_and_focus_put_back() -> None:
    found = search(0.5e-3, 2e-3, limits={"max_step": 0.2e-3, "max_travel": 4e-3})
    assert found.result.status == "failed"
    assert "max_travel" in found.result.reason
    assert_put_back(found)


@pytest.mark.parametrize("off_m", [-2e-3, 2e-3])
def test_a_lens_slower_than_evidence_lasts_is_looked_at_on_the_way(off_m: float) -> None:
    """Twenty steps of 0.6 s take longer than the 10 s for which the gate believes a frame."""
    slow = {"lens_settle_ms": 600}
    found = search(1e-3, off_m, limits={"max_step": 0.2e-3}, column=slow)
    assert set(found.refusals) == {"expired"}
    assert found.result.status == "focused", found.result.reason
    assert abs(found.error) <= 1


def test_on_the_way_back_too() -> None:
    def lose_the_specimen(microscope: Any, frame: int) -> None:
        if frame == 1:
            microscope._column.blanked = True

    found = search(
        1e-3,
        2e-3,
        limits={"max_step": 0.2e-3, "max_travel": 40e-3},
        column={"lens_settle_ms": 600},
        break_at=lose_the_specimen,
    )
    assert found.result.status == "held", found.result.reason
    assert "expired" in found.refusals
    assert_put_back(found)


def test_a_way_that_is_a_whole_number_of_steps_passes_the_gate() -> None:
    """From 12 mm to the end of the range: ten steps, the longest of them above 0.5 mm by an ulp."""
    found = search(
        1e-3,
        2e-3,
        autofocus={"range_m": 7e-3},
        limits={"max_travel": 40e-3},
        column={"convergence_mrad": 2.0},
        tolerance={"working_distance_m": 0.0},
    )
    assert found.result.status == "focused", found.result.reason
    assert found.refusals == []
