"""AutoScript's driver over an object model with AutoScript's names, units and habits."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from semagent.ports import Microscope
from semagent.testing import MicroscopeConformance, MicroscopeFaults, Rig
from semagent.types import Region, SetScan
from semagent_drivers.autoscript.fake import INSTRUMENTS, Instrument

_OPTIONS = {
    "sdk": "semagent_drivers.autoscript.fake",
    "host": "conformance",
    "focus_settle_s": 0,
    "degauss_settle_s": 0,
}


@pytest.fixture
def instrument() -> Iterator[Instrument]:
    instrument = Instrument(resolution="192x128")
    INSTRUMENTS["conformance"] = instrument
    yield instrument
    instrument.switch_off()
    del INSTRUMENTS["conformance"]


class TestAutoScript(MicroscopeConformance):
    driver = "autoscript"
    slow_options: Mapping[str, Any] = {"bit_depth": 16}

    @pytest.fixture
    def driver_options(self, instrument: Instrument) -> Mapping[str, Any]:
        return _OPTIONS

    def test_stop_ends_a_long_exposure_promptly(
        self, driver_options: Mapping[str, Any], instrument: Instrument
    ) -> None:
        instrument.realtime, instrument.dwell_s = True, 1e-3
        super().test_stop_ends_a_long_exposure_promptly(driver_options)


class TestAutoScriptThatDegausses(TestAutoScript):
    @pytest.fixture
    def instrument(self) -> Iterator[Instrument]:
        instrument = Instrument(resolution="192x128", has_no_degauss=False)
        INSTRUMENTS["conformance"] = instrument
        yield instrument
        instrument.switch_off()
        del INSTRUMENTS["conformance"]


class TestAutoScriptFaults(MicroscopeFaults):
    driver = "autoscript"
    within_s = 5.0
    hang_options = {"call_timeout_s": 0.3, "move_timeout_s": 0.3}

    @pytest.fixture
    def rig(self, instrument: Instrument) -> Iterator[Rig]:
        yield Rig(_OPTIONS, instrument.trip, instrument.optics)
        instrument.trip.disarm()


class TestAutoScriptFaultsInAReducedArea(TestAutoScriptFaults):
    """A grab of a part of the field leaves the beam blanked, unless it is put back."""

    def open_microscope(self, options: Mapping[str, Any]) -> Microscope:
        microscope = super().open_microscope(options)
        try:
            microscope.apply(SetScan(region=Region(left=0.25, top=0.25, width=0.51, height=0.51)))
        except BaseException:
            microscope.close()
            raise
        return microscope

    @pytest.mark.parametrize("fault", ["fail", "hang", "drop"])
    def test_a_fault_at_each_call_of(self, rig: Rig, fault: str) -> None:  # type: ignore[override]
        super().test_a_fault_at_each_call_of(rig, "acquire", fault)
