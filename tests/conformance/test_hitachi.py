"""Hitachi's driver over real TCP, against a SEM PC that calls and saves images to a folder."""

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from semagent.testing import MicroscopeConformance, MicroscopeFaults, Rig
from semagent_drivers.hitachi.fake import FakeSem


@pytest.fixture
def sem(tmp_path: Path) -> Iterator[FakeSem]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with FakeSem(port, tmp_path, (96, 128)) as sem:
        yield sem


def _options(sem: FakeSem, folder: Path) -> Mapping[str, Any]:
    return {
        "folder": str(folder),
        "port": sem.port,
        "width_px": 128,
        "height_px": 96,
        "connect_timeout_s": 5.0,
    }


class TestHitachi(MicroscopeConformance):
    driver = "hitachi"
    working_distance_tolerance_m = 0.6e-6
    slow_options: Mapping[str, Any] = {"call_timeout_s": 4.0}

    @pytest.fixture
    def driver_options(self, sem: FakeSem, tmp_path: Path) -> Mapping[str, Any]:
        return _options(sem, tmp_path)

    def test_stop_ends_a_long_exposure_promptly(
        self, driver_options: Mapping[str, Any], sem: FakeSem
    ) -> None:
        sem.capture_s = 20.0
        super().test_stop_ends_a_long_exposure_promptly(driver_options)
        assert not sem.frozen


class TestHitachiFaults(MicroscopeFaults):
    driver = "hitachi"
    hang_options = {"call_timeout_s": 0.3, "move_timeout_s": 0.3}

    @pytest.fixture
    def rig(self, sem: FakeSem, tmp_path: Path) -> Iterator[Rig]:
        def press_run() -> None:
            sem.frozen = False

        yield Rig(_options(sem, tmp_path), sem.trip, sem.optics, press_run)
        sem.trip.disarm()
