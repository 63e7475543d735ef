"""What every microscope driver has to do, simulators included."""

import math
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest

from semagent import registry
from semagent.clock import SystemClock
from semagent.errors import (
    AcquisitionStoppedError,
    CommandRefusedError,
    ConfigError,
    DisconnectedError,
    SemagentError,
)
from semagent.ports import Microscope
from semagent.types import (
    MicroscopeAction,
    MicroscopeState,
    MoveStage,
    SetBeamShift,
    SetBlanked,
    SetScan,
    SetStigmator,
    SetWorkingDistance,
)

NAN = float("nan")


class MicroscopeConformance:
    """Subclass it with a name that starts with ``Test`` and fill in what differs.

    Attributes:
        driver: name of the entry point.
        options: options to open it with; override the fixture ``driver_options`` instead if
            they need other fixtures.
        working_distance_step_m: a change of the working distance it can make and undo.
        working_distance_tolerance_m: how far the read-back may lie from the set-point.
        stigmator_tolerance: how far the read-back may lie from the set-point, as a share of the
            full range.
        stage_step_m: a stage move along x, or y, it can make and undo.
        frame_timeout_s: longest time a frame takes.
        slow_options: changes to the options that make a frame take ten seconds to two minutes, for
            the test of ``stop``; ``None`` if it cannot be made slow.
        stop_within_s: how long ``stop`` may take.
    """

    driver: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    working_distance_step_m: ClassVar[float] = 5e-6
    working_distance_tolerance_m: ClassVar[float] = 1e-9
    stigmator_tolerance: ClassVar[float] = 1e-3
    stage_step_m: ClassVar[float] = 10e-6
    frame_timeout_s: ClassVar[float] = 30.0
    slow_options: ClassVar[Mapping[str, Any] | None] = None
    stop_within_s: ClassVar[float] = 1.0

    @pytest.fixture
    def driver_options(self) -> Mapping[str, Any]:
        """Options to open the driver with."""
        return self.options

    @pytest.fixture
    def microscope(self, driver_options: Mapping[str, Any]) -> Iterator[Microscope]:
        """The microscope, open."""
        microscope = registry.opener(self.driver)(driver_options, clock=SystemClock())
        yield microscope
        microscope.close()

    # -- opening ------------------------------------------------------------------------------

    def test_an_unknown_option_is_an_error_that_names_it(
        self, driver_options: Mapping[str, Any]
    ) -> None:
        with pytest.raises(ConfigError, match="no_such_option"):
            registry.opener(self.driver)(
                {**driver_options, "no_such_option": 1}, clock=SystemClock()
            )

    def test_capabilities_name_the_driver_and_say_where_it_was_verified(
        self, microscope: Microscope
    ) -> None:
        capabilities = microscope.capabilities
        assert capabilities.driver == self.driver
        assert capabilities.microscope
        assert capabilities.verified_on is None or capabilities.verified_on.strip()
        axes = {"x_m", "y_m", "z_m", "rotation_rad", "tilt_rad"}
        assert set(capabilities.stage_axes) <= axes

    # -- frames -------------------------------------------------------------------------------

    def test_the_header_matches_the_pixels(self, microscope: Microscope) -> None:
        frame = microscope.acquire(self.frame_timeout_s)
        scan = frame.header.scan
        assert frame.pixels.shape == (scan.height_px, scan.width_px)
        assert frame.pixels.dtype == (np.uint8 if scan.bit_depth == 8 else np.uint16)
        assert frame.pixels.flags.c_contiguous
        assert not frame.pixels.flags.writeable
        assert 0 <= frame.header.info_bar_px < scan.height_px
        assert not frame.header.faults

    def test_the_header_carries_the_measured_state(self, microscope: Microscope) -> None:
        header = microscope.acquire(self.frame_timeout_s).header
        state = microscope.read_state()
        assert header.optics.working_distance_m == pytest.approx(
            state.optics.working_distance_m, abs=max(self.working_distance_tolerance_m, 1e-12)
        )
        assert header.settings_rev == state.settings_rev
        assert header.scan == state.scan

    def test_what_it_says_can_be_sent_and_recorded(self, microscope: Microscope) -> None:
        header = microscope.acquire(self.frame_timeout_s).header
        for said in (microscope.capabilities, microscope.read_state(), header):
            # NumPy's numbers, which some packages return, cannot: float() makes them plain.
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(said), type=type(said)) == said

    def test_sequence_and_clock_only_grow(self, microscope: Microscope) -> None:
        headers = [microscope.acquire(self.frame_timeout_s).header for _ in range(3)]
        assert [header.sequence for header in headers] == [1, 2, 3]
        stamps = [header.monotonic_ns for header in headers]
        assert stamps == sorted(set(stamps))
        assert stamps[-1] <= time.perf_counter_ns() + 1_000_000

    def test_a_frame_is_never_written_to_again(self, microscope: Microscope) -> None:
        first = microscope.acquire(self.frame_timeout_s)
        copy = first.pixels.copy()
        second = microscope.acquire(self.frame_timeout_s)
        assert np.array_equal(first.pixels, copy)
        assert not np.shares_memory(first.pixels, second.pixels)

    def test_settings_rev_is_steady_while_nothing_changes(self, microscope: Microscope) -> None:
        revisions = {microscope.acquire(self.frame_timeout_s).header.settings_rev for _ in "123"}
        assert len(revisions) == 1

    # -- working distance ---------------------------------------------------------------------

    def test_working_distance_reads_back_as_set(self, microscope: Microscope) -> None:
        start_m = microscope.read_state().optics.working_distance_m
        for target_m in (
            start_m + self.working_distance_step_m,
            start_m - self.working_distance_step_m,
            start_m,
        ):
            target_m = self._reachable(microscope, target_m)  # noqa: PLW2901
            microscope.apply(SetWorkingDistance(working_distance_m=target_m))
            read_m = microscope.read_state().optics.working_distance_m
            assert read_m == pytest.approx(target_m, abs=self.working_distance_tolerance_m)
            frame = microscope.acquire(self.frame_timeout_s)
            assert frame.header.optics.working_distance_m == pytest.approx(
                read_m, abs=max(self.working_distance_tolerance_m, 1e-12)
            )

    def test_focusing_is_no_change_of_settings(self, microscope: Microscope) -> None:
        before = microscope.read_state()
        target_m = self._reachable(
            microscope, before.optics.working_distance_m + self.working_distance_step_m
        )
        microscope.apply(SetWorkingDistance(working_distance_m=target_m))
        assert microscope.read_state().settings_rev == before.settings_rev

    @pytest.mark.parametrize("wrong_m", [NAN, math.inf, -math.inf, -0.005, 1e3])
    def test_an_impossible_working_distance_is_refused(
        self, microscope: Microscope, wrong_m: float
    ) -> None:
        self._refused(microscope, SetWorkingDistance(working_distance_m=wrong_m))

    # -- everything else it says it can do, or cannot -----------------------------------------

    def test_stigmators(self, microscope: Microscope) -> None:
        if not microscope.capabilities.stigmator:
            self._refused(microscope, SetStigmator(x=0.01, y=0.01))
            return
        optics = microscope.read_state().optics
        assert optics.stigmator_x is not None
        assert optics.stigmator_y is not None
        for x, y in ((0.02, -0.01), (optics.stigmator_x, optics.stigmator_y)):
            microscope.apply(SetStigmator(x=x, y=y))
            read = microscope.read_state().optics
            assert read.stigmator_x == pytest.approx(x, abs=self.stigmator_tolerance)
            assert read.stigmator_y == pytest.approx(y, abs=self.stigmator_tolerance)
        self._refused(microscope, SetStigmator(x=NAN, y=0.0))
        self._refused(microscope, SetStigmator(x=0.0, y=1.5))

    def test_beam_shift(self, microscope: Microscope) -> None:
        if not microscope.capabilities.beam_shift:
            self._refused(microscope, SetBeamShift(x_m=1e-8, y_m=0.0))
            return
        microscope.apply(SetBeamShift(x_m=1e-7, y_m=-2e-7))
        optics = microscope.read_state().optics
        assert optics.beam_shift_x_m == pytest.approx(1e-7, rel=1e-3)
        assert optics.beam_shift_y_m == pytest.approx(-2e-7, rel=1e-3)
        self._refused(microscope, SetBeamShift(x_m=NAN, y_m=0.0))
        self._refused(microscope, SetBeamShift(x_m=1.0, y_m=0.0))

    def test_stage(self, microscope: Microscope) -> None:
        if "x_m" not in microscope.capabilities.stage_axes:
            self._refused(microscope, MoveStage(x_m=0.0))
            return
        for axis in [each for each in microscope.capabilities.stage_axes if each in ("x_m", "y_m")]:
            before = msgspec.structs.asdict(microscope.read_state().stage)
            target_m = before[axis] + self.stage_step_m
            microscope.apply(MoveStage(**{axis: target_m}))
            after = msgspec.structs.asdict(microscope.read_state().stage)
            # A move along one axis leaves the others alone; above all it never un-tilts the stage.
            assert after == pytest.approx({**before, axis: target_m}, abs=1e-7)
        self._refused(microscope, MoveStage(x_m=NAN))
        self._refused(microscope, MoveStage(x_m=1e3))

    def test_blanker(self, microscope: Microscope) -> None:
        if not microscope.capabilities.blanker:
            self._refused(microscope, SetBlanked(blanked=True))
            return
        microscope.apply(SetBlanked(blanked=True))
        assert microscope.read_state().optics.blanked is True
        microscope.apply(SetBlanked(blanked=False))
        assert microscope.read_state().optics.blanked is False

    def test_scan_control(self, microscope: Microscope) -> None:
        before = microscope.read_state()
        if not microscope.capabilities.scan_control:
            self._refused(microscope, SetScan(frame_averages=2))
            return
        microscope.apply(SetScan(frame_averages=2))
        after = microscope.read_state()
        assert after.scan.frame_averages == 2
        assert after.settings_rev > before.settings_rev
        self._refused(microscope, SetScan(dwell_s=NAN))
        self._refused(microscope, SetScan(frame_averages=0))

    # -- stopping and closing -----------------------------------------------------------------

    def test_stop_while_idle_changes_nothing(self, microscope: Microscope) -> None:
        before = microscope.read_state()
        microscope.stop()
        assert microscope.read_state() == before
        # A stop is for what goes on, not for what comes after it.
        here_m = before.optics.working_distance_m
        microscope.apply(SetWorkingDistance(working_distance_m=here_m))
        assert microscope.acquire(self.frame_timeout_s).header.sequence == 1

    def test_stop_ends_a_long_exposure_promptly(self, driver_options: Mapping[str, Any]) -> None:
        if self.slow_options is None:
            pytest.skip("this driver has no slow exposure to stop")
        microscope = registry.opener(self.driver)(
            {**driver_options, **self.slow_options}, clock=SystemClock()
        )
        timer = threading.Timer(0.3, microscope.stop)
        try:
            timer.start()
            started_s = time.perf_counter()
            with pytest.raises(AcquisitionStoppedError):
                microscope.acquire(120.0)
            assert time.perf_counter() - started_s < 0.3 + self.stop_within_s
        finally:
            timer.join()
            microscope.close()

    def test_after_close_everything_says_disconnected(self, microscope: Microscope) -> None:
        state = microscope.read_state()
        microscope.close()
        microscope.close()
        microscope.stop()
        with pytest.raises(DisconnectedError):
            microscope.read_state()
        with pytest.raises(DisconnectedError):
            microscope.acquire(self.frame_timeout_s)
        with pytest.raises(DisconnectedError):
            microscope.apply(SetWorkingDistance(working_distance_m=state.optics.working_distance_m))

    def test_it_leaves_the_microscope_as_it_is(self, microscope: Microscope) -> None:
        before = microscope.read_state()
        microscope.acquire(self.frame_timeout_s)
        assert microscope.read_state() == before

    # -- helpers ------------------------------------------------------------------------------

    def _reachable(self, microscope: Microscope, target_m: float) -> float:
        """The target, or the same distance the other way if the instrument's range ends."""
        low_m, high_m = microscope.capabilities.working_distance_range_m or (0.0, math.inf)
        now_m = microscope.read_state().optics.working_distance_m
        return target_m if low_m <= target_m <= high_m else 2 * now_m - target_m

    def _refused(self, microscope: Microscope, action: MicroscopeAction) -> None:
        before: MicroscopeState = microscope.read_state()
        with pytest.raises(SemagentError) as raised:
            microscope.apply(action)
        assert isinstance(raised.value, CommandRefusedError), raised.value
        assert microscope.read_state() == before
