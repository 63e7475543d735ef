"""Micro-Manager's real core with its demo camera and stages, and pycro-manager's own client."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from semagent.config import find_config
from semagent.memory import load_memory

_HALF_DEPTH_OF_FIELD_M = 2e-6


@pytest.fixture
def demo(tmp_path: Path) -> Callable[..., Path]:
    """The configuration that ships, on the demo hardware with some of its properties set."""
    libs = Path(pytest.importorskip("mm_test_adapters").__file__).parent / "libs"

    def write(*properties: str) -> Path:
        hardware = (libs / "MMConfig_demo.cfg").read_text(encoding="utf-8")
        core = "Property,Core,Camera,Camera\n"
        assert core in hardware
        lines = "".join(f"Property,{each}\n" for each in properties)
        cfg = tmp_path / "demo.cfg"
        cfg.write_text(hardware.replace(core, core + lines), encoding="utf-8")
        raw = yaml.safe_load(find_config("micromanager").read_text(encoding="utf-8"))
        options = raw["driver"]["options"]
        del options["host"], options["port"]
        options |= {"backend": "python", "adapters": str(libs), "configuration": str(cfg)}
        path = tmp_path / "demo.yaml"
        path.write_text(yaml.safe_dump(raw), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("start_um", [25, -18])
@pytest.mark.parametrize(
    "faults", [(), ("Camera,DropPixels,1", "Camera,FractionOfPixelsToDropOrSaturate,0.002")]
)
def test_autofocus_on_fluorescent_beads(semagent, demo, start_um: int, faults: tuple[str, ...]):
    config = demo("Camera,Mode,Fluorescent Beads", f"Z,Position,{start_um}", *faults)
    done = semagent("autofocus", config, "--arm", "--json")
    assert done.code == 0, done.err
    result = done.records[-1]
    assert result["status"] == "focused"
    assert result["start_working_distance_m"] == pytest.approx(5e-3 + start_um * 1e-6)
    assert result["final_working_distance_m"] == pytest.approx(5e-3, abs=_HALF_DEPTH_OF_FIELD_M)


@pytest.mark.parametrize(
    ("z_um", "why"),
    [
        # Which of the two it is depends on the pixels that drop, and those on the time.
        (25, r"no focus between 5\.0050 and 5\.0450 mm|leaves .* of the logarithm of the power"),
        (-4, "blur does not change"),
    ],
)
def test_a_picture_that_no_beam_makes_is_not_calibrated_by(semagent, demo, tmp_path, z_um, why):
    """The demo camera's beads lose detail with the height, and without any noise."""
    config = demo(
        "Camera,Mode,Fluorescent Beads",
        "Camera,DropPixels,1",
        "Camera,FractionOfPixelsToDropOrSaturate,0.002",
        f"Z,Position,{z_um}",
    )
    done = semagent("calibrate", config, "--arm", "--output", tmp_path / "memory.yaml")
    assert done.code == 4, done.err
    assert re.search(why, done.err)
    assert load_memory(tmp_path / "memory.yaml").entries == ()


def test_a_device_adapter_that_crashes_takes_its_role_along_and_no_more(semagent, demo):
    config = demo("Camera,SimulateCrash,Dereference Null Pointer")
    done = semagent("run", config, "--frames", "3", "--no-console", "--json")
    assert done.code == 3
    assert "the acquire role died" in done.err


def test_an_exposure_beyond_what_the_camera_takes_is_told(semagent, demo):
    config = demo("Camera,Exposure,20000")
    done = semagent("doctor", config)
    assert done.code == 3
    assert "could not load its hardware" in done.out + done.err


_CLIENT = """
import sys
from pycromanager import Core

core = Core(port=int(sys.argv[1]))
core.set_position("Z", 7.0)
core.start_sequence_acquisition(1, 0.0, True)
while not core.get_remaining_image_count():
    pass
image, field = core.pop_next_image(), core.get_roi()
core.stop_sequence_acquisition()
try:
    core.set_position("Z", 1e4)
except Exception as error:
    print(str(error).splitlines()[0])
print(core.get_position("Z"), image.shape, image.dtype, field.width, field.height)
"""


def test_the_fake_serves_pycro_managers_own_client():
    """What our bridge is tested against is what Micro-Manager's own client can talk to."""
    pytest.importorskip("pycromanager")
    from semagent_drivers.micromanager.fake import FakeMicroManager  # noqa: PLC0415

    with FakeMicroManager() as fake:
        # It leaves sockets behind, so it gets a process of its own.
        done = subprocess.run(
            [sys.executable, "-c", _CLIENT, str(fake.port)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        'Error in device "Z": Position out of range (103)',
        "7.0 (49152,) uint8 256 192",
    ]
