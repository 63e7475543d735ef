"""The agent inside a program of one's own."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from semagent import registry
from semagent.clock import SystemClock
from semagent.config import Part, RunConfig, find_config, load_config
from semagent.errors import GateRefusedError
from semagent.safety import AxisLimits
from semagent.scripting import open_agent
from semagent.session import SessionReader, verify
from semagent.types import Frame, MicroscopeState, SetWorkingDistance

SCAN = {"width_px": 384, "height_px": 256, "pixel_size_nm": 10, "dwell_us": 0.05}
OPTIONS: dict[str, Any] = {
    "scan": SCAN,
    "column": {"working_distance_mm": 5.02, "astigmatism_um": [4.0, 0.0]},
    "drift": {"z_nm_per_s": 0},
}
FOCUS_M = 5e-3
STAGE = AxisLimits(min=-1e-3, max=1e-3, max_step=100e-6, max_travel=1e-2)


def configuration(**safety: Any) -> RunConfig:
    config = load_config(find_config("simulated"))
    changed = {"stage_x_m": STAGE, "stage_y_m": STAGE, **safety}
    return msgspec.structs.replace(
        config,
        driver=Part(name="simulated", options=OPTIONS),
        engine=Part(name="sharpness"),
        safety=msgspec.structs.replace(config.safety, **changed),
    )


class Watched:
    """A simulated microscope that counts what it exposes, and whose user may press Ctrl-C."""

    def __init__(self, interrupted_at: int = 0) -> None:
        self._inner = registry.open_microscope("simulated", OPTIONS, clock=SystemClock())
        self._interrupted_at = interrupted_at
        self.exposed = 0
        self.left: MicroscopeState | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def acquire(self, *arguments: Any, **options: Any) -> Frame:
        self.exposed += 1
        if self.exposed == self._interrupted_at:
            signal.raise_signal(signal.SIGINT)
        return self._inner.acquire(*arguments, **options)

    def turn_focus_by_hand(self, way_m: float) -> None:
        here_m = self._inner.read_state().optics.working_distance_m
        self._inner.apply(SetWorkingDistance(working_distance_m=here_m + way_m))

    def close(self) -> None:
        self.left = self._inner.read_state()
        self._inner.close()


def test_a_program_moves_focuses_and_takes_frames_and_all_of_it_is_recorded(tmp_path: Path):
    record = tmp_path / "night"
    with open_agent(configuration(), arm=True, record=record) as agent:
        agent.move_stage(20e-6, -10e-6)
        result = agent.autofocus()
        seen = agent.acquire()
        assert (agent.state.stage.x_m, agent.state.stage.y_m) == pytest.approx((20e-6, -10e-6))
        assert agent.state.optics.working_distance_m == result.final_working_distance_m
        agent.set_working_distance(FOCUS_M + 3e-6)
        assert agent.state.optics.working_distance_m == pytest.approx(FOCUS_M + 3e-6)
    assert result.verified
    assert result.final_working_distance_m == pytest.approx(FOCUS_M, abs=2e-6)
    assert isinstance(seen.frame, Frame)
    assert seen.frame.pixels.shape == (256, 384)
    assert seen.analysis is not None
    assert seen.analysis.focus_score > 0.5
    assert not seen.fault
    assert verify(record) == []
    kept = {frame.header.sequence: frame for frame in SessionReader(record).frames()}
    assert kept[seen.frame.header.sequence].header == seen.frame.header
    assert (kept[seen.frame.header.sequence].pixels == seen.frame.pixels).all()


def test_what_the_program_asks_for_is_what_is_done():
    with open_agent(configuration(), arm=True) as agent:
        assert agent.autofocus(max_frames=1).frames_used == 1
        agent.autofocus(stigmation=False)
        assert agent.state.optics.stigmator_x == 0.0
        agent.set_working_distance(FOCUS_M + 20e-6)
        agent.autofocus()
        assert agent.state.optics.stigmator_x != 0.0


def test_nothing_is_exposed_or_moved_that_is_not_asked_for():
    microscope = Watched()
    with open_agent(configuration(), arm=True, microscope=microscope) as agent:
        start = agent.state
    assert microscope.exposed == 0
    assert microscope.left == start


def test_a_search_that_the_dose_budget_does_not_allow_takes_no_frame():
    config = configuration()
    search = msgspec.structs.replace(config.control.autofocus, max_dose_e_nm2=1e-6)
    control = msgspec.structs.replace(config.control, autofocus=search)
    microscope = Watched()
    config = msgspec.structs.replace(config, control=control)
    with open_agent(config, arm=True, microscope=microscope) as agent:
        result = agent.autofocus()
    assert result.status == "held"
    assert "dose" in result.reason
    assert microscope.exposed == 0


def test_a_driver_that_never_met_its_hardware_says_so():
    microscope = Watched()
    seen = msgspec.structs.replace(microscope.capabilities, verified_on=None)
    microscope.capabilities = seen  # type: ignore[misc]
    with (
        pytest.warns(UserWarning, match="has never been run on its hardware") as warned,
        open_agent(configuration(), microscope=microscope),
    ):
        pass
    assert warned[0].filename == __file__


def test_disarmed_it_looks_and_moves_nothing():
    microscope = Watched()
    with open_agent(configuration(), microscope=microscope) as agent:
        start = agent.state
        for ask in (
            agent.autofocus,
            lambda: agent.move_stage(1e-5, 1e-5),
            lambda: agent.set_working_distance(FOCUS_M),
        ):
            with pytest.raises(GateRefusedError, match="disarmed: not armed since"):
                ask()
        assert microscope.exposed == 0
        assert agent.acquire().analysis is not None
        assert agent.state == start


def test_the_gate_refuses_what_it_refuses_everybody():
    microscope = Watched()
    with open_agent(configuration(), arm=True, microscope=microscope) as agent:
        start = agent.state
        with pytest.raises(GateRefusedError, match="stage x 2 mm is outside -1 mm to 1 mm"):
            agent.move_stage(2e-3, 0.0)
        with pytest.raises(GateRefusedError, match="working distance 50 mm is outside"):
            agent.set_working_distance(50e-3)
        assert (agent.state, microscope.exposed) == (start, 0)


def test_a_hand_between_two_calls_closes_the_gate():
    microscope = Watched()
    with open_agent(configuration(), arm=True, microscope=microscope) as agent:
        agent.acquire()
        microscope.turn_focus_by_hand(10e-6)
        with pytest.raises(GateRefusedError, match="by hand"):
            agent.set_working_distance(FOCUS_M)
        with pytest.raises(GateRefusedError, match="disarmed: moved by hand"):
            agent.autofocus()


def test_a_program_may_take_its_time_between_two_calls():
    with open_agent(configuration(heartbeat_timeout_s=0.1), arm=True) as agent:
        for _ in range(2):
            time.sleep(0.3)
            assert agent.autofocus().verified
        time.sleep(0.3)
        agent.set_working_distance(FOCUS_M)
        time.sleep(0.3)
        assert agent.acquire().analysis is not None


@pytest.mark.parametrize("frame", [1, 2, 3])
def test_ctrl_c_in_a_search_puts_focus_back_and_is_raised(frame: int):
    microscope = Watched(interrupted_at=frame)
    before = signal.getsignal(signal.SIGINT)
    with open_agent(configuration(), arm=True, microscope=microscope) as agent:
        start_m = agent.state.optics.working_distance_m
        with pytest.raises(KeyboardInterrupt) as raised:
            agent.autofocus()
        assert raised.value.__notes__ == ["ended by the program that asked for it"]
        assert agent.state.optics.working_distance_m == pytest.approx(start_m, abs=1e-9)
        assert microscope.exposed == frame
        assert signal.getsignal(signal.SIGINT) is before
        assert agent.autofocus().verified  # if the program goes on


def test_it_works_in_a_thread_that_no_signal_reaches():
    found = []

    def program() -> None:
        with open_agent(configuration(), arm=True) as agent:
            found.append(agent.autofocus().verified)

    thread = threading.Thread(target=program)
    thread.start()
    thread.join()
    assert found == [True]
