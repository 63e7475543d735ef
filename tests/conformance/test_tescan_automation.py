"""The TESCAN Automation driver over an object model with its names, units and habits."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from semagent.testing import MicroscopeConformance, MicroscopeFaults, Rig
from semagent_drivers.tescan_automation.fake import INSTRUMENTS, Instrument

_SMALL = {"width_px": 192, "height_px": 128, "dwell_us": 0.1}
_OPTIONS = {
    "sdk": "semagent_drivers.tescan_automation.fake",
    "port": 1001,
    "beam_shift_range_um": 20.0,
    "x_range_mm": (-10.0, 10.0),
    "y_range_mm": (-10.0, 10.0),
    "stage_update_s": 0.05,
    "scan": _SMALL,
}


@pytest.fixture
def instrument() -> Iterator[Instrument]:
    instrument = Instrument(settle_s=0.02)
    INSTRUMENTS[1001] = instrument
    yield instrument
    instrument.switch_off()
    del INSTRUMENTS[1001]


class TestTescanAutomation(MicroscopeConformance):
    driver = "tescan-automation"
    slow_options = {"scan": {**_SMALL, "dwell_us": 1000.0}}

    @pytest.fixture
    def driver_options(self, instrument: Instrument) -> Mapping[str, Any]:
        instrument.realtime = True
        return _OPTIONS


class TestTescanAutomationFaults(MicroscopeFaults):
    driver = "tescan-automation"
    hang_options = {"call_timeout_s": 0.3, "move_timeout_s": 0.1}

    @pytest.fixture
    def rig(self, instrument: Instrument) -> Iterator[Rig]:
        instrument.settle_s = 0.0
        yield Rig(_OPTIONS, instrument.trip, instrument.optics)
        instrument.trip.disarm()
