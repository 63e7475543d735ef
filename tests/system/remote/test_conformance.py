"""The remote driver passes the suite every driver has to pass."""

import contextlib
import threading
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from semagent.clock import SystemClock
from semagent.config import find_config, load_config
from semagent.remote.server import MicroscopeServer
from semagent.safety import AxisLimits
from semagent.testing import MicroscopeConformance
from semagent_drivers import simulated

SMALL = {"width_px": 256, "height_px": 192, "dwell_us": 0.1}
STAGE = AxisLimits(min=-1e-3, max=1e-3, max_step=1e-4, max_travel=1e-2)


@contextlib.contextmanager
def served(options):
    """The endpoint of a simulated microscope that somebody has armed."""
    clock, stop = SystemClock(), threading.Event()
    microscope = simulated.open_microscope(options, clock=clock)
    envelope = msgspec.structs.replace(
        load_config(find_config("simulated")).safety, stage_x_m=STAGE, stage_y_m=STAGE
    )
    server = MicroscopeServer(
        microscope, envelope, bind="tcp://127.0.0.1:*", keys=None, clock=clock
    )
    server.arm()
    thread = threading.Thread(target=server.run, args=(stop,))
    thread.start()
    yield server.endpoint
    stop.set()
    thread.join(10)
    microscope.close()


@pytest.fixture(scope="module")
def endpoint():
    with served({"speed": 0, "scan": SMALL}) as address:
        yield address


@pytest.fixture(scope="module")
def slow_endpoint():
    with served({"scan": {**SMALL, "dwell_us": 500.0}}) as address:
        yield address


class TestRemote(MicroscopeConformance):
    driver = "remote"

    @pytest.fixture
    def driver_options(self, endpoint, slow_endpoint) -> Mapping[str, Any]:
        self.slow_options = {"endpoint": slow_endpoint}
        return {"endpoint": endpoint}

    def test_capabilities_name_the_driver_and_say_where_it_was_verified(self, microscope):
        # Those of the driver that meets the hardware, not of the one in between.
        assert microscope.capabilities.driver == "simulated"
        assert microscope.capabilities.verified_on == "simulation"
