"""The Phenom's driver over an object model with PyPhenom's names, units and habits."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from semagent.testing import MicroscopeConformance, MicroscopeFaults, Rig
from semagent_drivers.phenom.fake import INSTRUMENTS, Instrument

_OPTIONS = {
    "sdk": "semagent_drivers.phenom.fake",
    "address": "conformance",
    "focus_settle_s": 0,
    "x_range_mm": (-10.0, 10.0),
    "y_range_mm": (-10.0, 10.0),
    "scan": {"width_px": 192, "height_px": 128},
}


@pytest.fixture
def instrument() -> Iterator[Instrument]:
    instrument = Instrument()
    INSTRUMENTS["conformance"] = instrument
    yield instrument
    instrument.switch_off()
    del INSTRUMENTS["conformance"]


class TestPhenom(MicroscopeConformance):
    driver = "phenom"
    slow_options = {"scan": {"width_px": 192, "height_px": 128, "dwell_us": 1000.0}}

    @pytest.fixture
    def driver_options(self, instrument: Instrument) -> Mapping[str, Any]:
        instrument.realtime = True
        return _OPTIONS


class TestPhenomFaults(MicroscopeFaults):
    driver = "phenom"
    within_s = 5.0
    hang_options = {"call_timeout_s": 0.3, "move_timeout_s": 0.3}

    @pytest.fixture
    def rig(self, instrument: Instrument) -> Iterator[Rig]:
        yield Rig(_OPTIONS, instrument.trip, instrument.optics)
        instrument.trip.disarm()
