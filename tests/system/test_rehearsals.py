"""An operator's first autofocus, over each vendor's fake and with the configuration that ships."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from semagent.config import find_config
from semagent_drivers.micromanager.fake import FakeMicroManager
from semagent_drivers.sharksem.fake import FakeSharkSem

_HALF_DEPTH_OF_FIELD_M = 2e-6


@pytest.fixture
def micromanager():
    """The ports in its file, and where a fake of the microscope listens instead."""
    with FakeMicroManager() as fake:
        yield {" port: 4827": f" port: {fake.port}"}


@pytest.fixture
def sharksem():
    """The ports in its file, and where a fake of the microscope listens instead."""
    with FakeSharkSem() as fake:
        yield {
            " port: 8300": f" port: {fake.port}",
            " data_port: null": f" data_port: {fake.data_port}",
        }


@pytest.mark.parametrize(
    ("driver", "key", "focus_m"),
    [
        ("autoscript", "sdk", 5.02e-3),
        ("fibsem", "model", 4.02e-3),
        ("phenom", "sdk", 6.02e-3),
        ("smartsem", "sdk", 5.02e-3),
        ("tescan-automation", "sdk", 6.02e-3),
    ],
)
def test_a_rehearsal_with_a_fake_in_the_place_of_the_sdk(
    semagent, tmp_path: Path, driver: str, key: str, focus_m: float
):
    if driver == "fibsem":
        pytest.importorskip("fibsem")
    shipped = find_config(driver).read_text(encoding="utf-8")
    assert shipped.count(f"# {key}: semagent_drivers") == 1
    path = tmp_path / "rehearsal.yaml"
    path.write_text(shipped.replace(f"# {key}:", f"{key}:"), encoding="utf-8")
    rehearse(semagent, path, focus_m)


@pytest.mark.parametrize(("driver", "focus_m"), [("micromanager", 5.012e-3), ("sharksem", 8.02e-3)])
def test_a_rehearsal_with_a_fake_that_listens(
    semagent, tmp_path: Path, request: pytest.FixtureRequest, driver: str, focus_m: float
):
    shipped = find_config(driver).read_text(encoding="utf-8")
    for theirs, ours in request.getfixturevalue(driver).items():
        assert shipped.count(theirs) == 1
        shipped = shipped.replace(theirs, ours)
    path = tmp_path / "rehearsal.yaml"
    path.write_text(shipped, encoding="utf-8")
    rehearse(semagent, path, focus_m)


@pytest.mark.parametrize(
    ("driver", "folder", "port", "says"),
    [
        ("hitachi", "hitachi-images", "3000", "fake SEM PC calls"),
        ("zeiss-remcon", "remcon-images", "4001", "fake RemCon on"),
    ],
)
def test_a_rehearsal_with_a_sem_pc_that_saves_to_a_folder(
    semagent, tmp_path: Path, driver: str, folder: str, port: str, says: str
):
    with socket.create_server(("127.0.0.1", 0)) as found:
        free = str(found.getsockname()[1])
    images = tmp_path / "images"
    shipped = find_config(driver).read_text(encoding="utf-8")
    assert shipped.count(port) == 1
    path = tmp_path / "rehearsal.yaml"
    path.write_text(
        shipped.replace(f"folder: {folder}", f"folder: {images.as_posix()}").replace(port, free),
        encoding="utf-8",
    )
    module = f"semagent_drivers.{driver.replace('-', '_')}.fake"
    fake = subprocess.Popen(
        [sys.executable, "-m", module, f"--port={free}", f"--folder={images}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert fake.stdout is not None
        assert says in fake.stdout.readline()
        rehearse(semagent, path, 5.02e-3)
    finally:
        fake.terminate()
        fake.communicate(timeout=30)


def rehearse(semagent, path: Path, focus_m: float) -> None:
    doctor = semagent("doctor", path)
    assert doctor.code == 0, doctor.out
    assert "never run on its hardware" in doctor.out

    focused = semagent("autofocus", path, "--arm", "--json")
    assert focused.code == 0, focused.err
    result = focused.records[-1]
    assert result["status"] == "focused"
    assert result["final_working_distance_m"] == pytest.approx(focus_m, abs=_HALF_DEPTH_OF_FIELD_M)
    assert "stay at the microscope" in focused.err
