"""The bridge to OpenFIBSEM: over its own demo microscope, and over that with faults."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from semagent.testing import MicroscopeConformance, MicroscopeFaults, Rig

pytest.importorskip("fibsem", reason="OpenFIBSEM is not installed: pip install 'semagent[fibsem]'")

_OPTIONS = {
    "host": "conformance",
    "focus_settle_s": 0,
    "working_distance_range_mm": (2.0, 20.0),
    "stigmator_full_range": 1.0,
    "beam_shift_range_um": (-50.0, 50.0),
    "x_range_mm": (-10.0, 10.0),
    "y_range_mm": (-10.0, 10.0),
    "scan": {"width_px": 192, "height_px": 128},
}


class TestDemo(MicroscopeConformance):
    driver = "fibsem"
    options = {**_OPTIONS, "manufacturer": "Demo"}

    @pytest.fixture(autouse=True)
    def no_delay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FIBSEM_SIM_NO_DELAY", "1")


@pytest.fixture
def instrument() -> Iterator[Any]:
    from semagent_drivers.fibsem.fake import INSTRUMENTS, Instrument  # noqa: PLC0415

    instrument = Instrument()
    INSTRUMENTS["conformance"] = instrument
    yield instrument
    instrument.switch_off()
    del INSTRUMENTS["conformance"]


_FAKE = {**_OPTIONS, "manufacturer": "Demo", "model": "semagent_drivers.fibsem.fake:Model"}


class TestFake(MicroscopeConformance):
    driver = "fibsem"
    slow_options = {"scan": {"width_px": 192, "height_px": 128, "dwell_us": 1000.0}}

    @pytest.fixture
    def driver_options(self, instrument: Any) -> Mapping[str, Any]:
        instrument.realtime = True
        return _FAKE


class TestFaults(MicroscopeFaults):
    driver = "fibsem"
    within_s = 5.0
    hang_options = {"call_timeout_s": 0.3, "settle_timeout_s": 0.3, "move_timeout_s": 0.3}

    @pytest.fixture
    def rig(self, instrument: Any) -> Iterator[Rig]:
        yield Rig(_FAKE, instrument.trip, instrument.optics)
        instrument.trip.disarm()
