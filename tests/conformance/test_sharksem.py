"""The SharkSEM driver over real sockets, to a server that speaks the protocol with its habits."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from semagent.testing import MicroscopeConformance, MicroscopeFaults, Rig
from semagent_drivers.sharksem.fake import FakeSharkSem


def options_for(fake: FakeSharkSem) -> dict[str, Any]:
    return {
        "port": fake.port,
        "data_port": fake.data_port,
        "beam_shift_range_um": 20.0,
        "stage_update_s": 0.05,
        "scan": {"width_px": 192, "height_px": 128, "dwell_us": 0.1},
    }


@pytest.fixture
def fake() -> Iterator[FakeSharkSem]:
    with FakeSharkSem() as fake:
        yield fake


class TestSharkSem(MicroscopeConformance):
    driver = "sharksem"
    slow_options = {"scan": {"width_px": 192, "height_px": 128, "dwell_us": 1000.0}}

    @pytest.fixture
    def driver_options(self, fake: FakeSharkSem) -> Mapping[str, Any]:
        fake.instrument.settle_s = 0.02
        fake.instrument.move_s = 0.02
        return options_for(fake)


class TestSharkSemFaults(MicroscopeFaults):
    driver = "sharksem"

    @pytest.fixture
    def rig(self, fake: FakeSharkSem) -> Iterator[Rig]:
        yield Rig(options_for(fake), fake.trip, fake.instrument.optics)
        fake.trip.disarm()
