"""Micro-Manager: its real core with its real demo camera, and its bridge served by the fake."""

import gc
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from semagent.clock import SystemClock
from semagent.registry import open_microscope
from semagent.testing import MicroscopeConformance, MicroscopeFaults, Rig
from semagent_drivers.micromanager.fake import FakeCore, FakeMicroManager

_RANGES = {
    "focus_range_um": [-200, 200],
    "x_range_um": [-500, 500],
    "y_range_um": [-500, 500],
    "exposure_range_ms": [0.5, 20000],
}


def _join() -> None:
    """Wait for cores that end later than their microscope."""
    for thread in threading.enumerate():
        if thread.name == "Micro-Manager calls":
            thread.join(20.0)


class TestDemoCamera(MicroscopeConformance):
    driver = "micromanager"
    stage_step_m = 100e-6
    slow_options = {"settle_timeout_s": 20}  # any: the exposure is in the hardware's file

    @pytest.fixture
    def driver_options(self) -> Mapping[str, Any]:
        adapters = pytest.importorskip("mm_test_adapters")
        libs = Path(adapters.__file__).parent / "libs"
        return {
            "adapters": str(libs),
            "configuration": str(libs / "MMConfig_demo.cfg"),
            **_RANGES,
        }

    def test_core_ends_with_the_microscope_and_not_in_a_garbage_collection(
        self, driver_options: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pymmcore = pytest.importorskip("pymmcore")
        cores: list[weakref.ref[Any]] = []

        class Watched(pymmcore.CMMCore):  # type: ignore[misc] # pymmcore has no types
            def __init__(self) -> None:
                super().__init__()
                cores.append(weakref.ref(self))

        monkeypatch.setattr(pymmcore, "CMMCore", Watched)
        gc.disable()
        try:
            microscope = open_microscope("micromanager", driver_options, clock=SystemClock())
            microscope.acquire(20.0)
            microscope.close()
            _join()
            assert [core() for core in cores] == [None]
        finally:
            gc.enable()

    def test_stop_ends_a_long_exposure_promptly(
        self, driver_options: Mapping[str, Any], tmp_path: Path
    ) -> None:
        hardware = Path(driver_options["configuration"]).read_text(encoding="utf-8")
        slow = tmp_path / "slow.cfg"
        slow.write_text(f"{hardware}\nProperty,Camera,Exposure,3000\n", encoding="utf-8")
        super().test_stop_ends_a_long_exposure_promptly(
            {**driver_options, "configuration": str(slow)}
        )
        # The camera ends its exposure first; the next test is not to meet it.
        _join()


class TestBridge(MicroscopeConformance):
    driver = "micromanager"
    working_distance_tolerance_m = 1e-8
    slow_options = {"exposure_range_ms": [0.5, 30000]}

    @pytest.fixture
    def fake(self) -> Iterator[FakeMicroManager]:
        with FakeMicroManager() as fake:
            yield fake

    @pytest.fixture
    def driver_options(self, fake: FakeMicroManager) -> Mapping[str, Any]:
        return {"backend": "java", "port": fake.port, **_RANGES}

    def test_stop_ends_a_long_exposure_promptly(
        self, driver_options: Mapping[str, Any], fake: FakeMicroManager
    ) -> None:
        fake.core.exposure_ms = 20_000.0
        super().test_stop_ends_a_long_exposure_promptly(driver_options)


class TestBridge16Bits(TestBridge):
    @pytest.fixture
    def fake(self) -> Iterator[FakeMicroManager]:
        with FakeMicroManager(core=FakeCore(bits=16)) as fake:
            yield fake


class TestBridgeFaults(MicroscopeFaults):
    driver = "micromanager"
    tolerance = {"working_distance_m": 1e-8}
    within_s = 5.0
    hang_options = {"call_timeout_s": 1.0}

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        with FakeMicroManager() as fake:
            # A broken ZMQ link looks like one that hangs.
            options = {"backend": "java", "port": fake.port, "call_timeout_s": 1.0, **_RANGES}
            yield Rig(options, fake.trip, fake.core.optics, fake.core.end_sequence)
