"""RemCon's driver over a byte stream, to a SmartSEM that answers its lines and saves images."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from semagent.testing import MicroscopeConformance, MicroscopeFaults, Rig
from semagent_drivers.zeiss_remcon.fake import FakeRemCon


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRemCon]:
    # pyserial gives a server time after closing, which this one does not need.
    monkeypatch.setattr("serial.urlhandler.protocol_socket.time", SimpleNamespace(sleep=id))
    with FakeRemCon(tmp_path, (96, 128)) as fake:
        yield fake


def _options(fake: FakeRemCon, folder: Path) -> Mapping[str, Any]:
    return {
        "port": f"socket://127.0.0.1:{fake.port}",
        "folder": str(folder),
        "width_px": 128,
        "height_px": 96,
        "focus_settle_s": 0,
        "stage_settle_s": 0,
        "x_range_mm": (0.0, 130.0),
        "y_range_mm": (0.0, 130.0),
        "z_range_mm": (0.0, 40.0),
    }


class TestRemCon(MicroscopeConformance):
    driver = "zeiss-remcon"
    slow_options: Mapping[str, Any] = {"call_timeout_s": 4.0}

    @pytest.fixture
    def driver_options(self, fake: FakeRemCon, tmp_path: Path) -> Mapping[str, Any]:
        return _options(fake, tmp_path)

    @pytest.mark.parametrize("patient", [False, True])
    def test_stop_ends_a_long_exposure_promptly(  # type: ignore[override]
        self, driver_options: Mapping[str, Any], fake: FakeRemCon, patient: bool
    ) -> None:
        fake.capture_s, fake.patient = 20.0, patient
        super().test_stop_ends_a_long_exposure_promptly(driver_options)


class TestRemConWithoutStigmators(MicroscopeConformance):
    driver = "zeiss-remcon"

    @pytest.fixture
    def driver_options(self, fake: FakeRemCon, tmp_path: Path) -> Mapping[str, Any]:
        fake.has_stigmator = False
        fake.wordless = True
        return _options(fake, tmp_path)


class TestRemConFaults(MicroscopeFaults):
    driver = "zeiss-remcon"
    hang_options = {"call_timeout_s": 0.3, "move_timeout_s": 0.3, "macro_timeout_s": 0.2}

    @pytest.fixture
    def rig(self, fake: FakeRemCon, tmp_path: Path) -> Iterator[Rig]:
        yield Rig(_options(fake, tmp_path), fake.trip, fake.optics)
        fake.trip.disarm()
