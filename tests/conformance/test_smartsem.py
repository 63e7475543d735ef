"""SmartSEM's driver over a COM control with its names, units, codes and habits."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from semagent.testing import MicroscopeConformance, MicroscopeFaults, Rig
from semagent_drivers.smartsem.facts import PROG_ID
from semagent_drivers.smartsem.fake import INSTRUMENTS, Instrument

_OPTIONS = {"sdk": "semagent_drivers.smartsem.fake", "focus_settle_s": 0, "stage": True}


@pytest.fixture
def instrument() -> Iterator[Instrument]:
    instrument = Instrument(store=(192, 128))
    INSTRUMENTS[PROG_ID] = instrument
    yield instrument
    instrument.trip.disarm()
    del INSTRUMENTS[PROG_ID]


class TestSmartSem(MicroscopeConformance):
    driver = "smartsem"
    slow_options: Mapping[str, Any] = {"call_timeout_s": 4.0}

    @pytest.fixture
    def driver_options(self, instrument: Instrument) -> Mapping[str, Any]:
        return _OPTIONS

    def test_stop_ends_a_long_exposure_promptly(
        self, driver_options: Mapping[str, Any], instrument: Instrument
    ) -> None:
        instrument.frame_s = 20.0
        super().test_stop_ends_a_long_exposure_promptly(driver_options)
        assert not instrument.frozen


class TestSmartSemFaults(MicroscopeFaults):
    driver = "smartsem"
    within_s = 5.0
    hang_options = {"call_timeout_s": 0.3, "move_timeout_s": 0.3}

    @pytest.fixture
    def rig(self, instrument: Instrument) -> Iterator[Rig]:
        yield Rig(_OPTIONS, instrument.trip, instrument.optics)
        instrument.trip.disarm()
