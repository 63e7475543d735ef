"""The exit code says how a command ended, however late somebody asked it to end."""

import json
import signal
import threading
from pathlib import Path

import pytest
import yaml

from semagent.cli import exits, main
from semagent.cli.output import Output
from semagent.config import find_config
from semagent.session import SessionReader
from semagent_drivers.simulated.microscope import SimulatedMicroscope


@pytest.fixture
def ctrl_c_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the microscope is being closed."""
    close = SimulatedMicroscope.close

    def interrupted(microscope: SimulatedMicroscope) -> None:
        monkeypatch.undo()
        signal.raise_signal(signal.SIGINT)
        close(microscope)

    monkeypatch.setattr(SimulatedMicroscope, "close", interrupted)


@pytest.mark.usefixtures("ctrl_c_at_the_end")
@pytest.mark.parametrize(
    ("faults", "code", "status"),
    [
        ({}, exits.DONE, "focused"),
        ({"refused": {"at": list(range(2, 60))}}, exits.FAILED, "failed"),
    ],
)
def test_ctrl_c_when_all_is_over(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    faults: dict[str, object],
    code: int,
    status: str,
):
    raw = yaml.safe_load(find_config("simulated").read_text(encoding="utf-8"))
    options = raw["driver"]["options"]
    options |= {"speed": 0, "drift": {"z_nm_per_s": 0}, "faults": faults}
    options["scan"] |= {"width_px": 512, "height_px": 384}
    raw["engine"] = {"name": "sharpness"}
    config, record = tmp_path / "microscope.yaml", tmp_path / "session"
    config.write_text(yaml.safe_dump(raw), encoding="utf-8")

    assert main(["autofocus", str(config), "--arm", "--json", "--record", str(record)]) == code
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["status"] == status
    assert SessionReader(record).manifest.complete


def test_a_bar_has_no_thread_to_wait_for_when_an_error_ends_its_loop():
    before = threading.enumerate()
    with Output(json=False).track(range(3), 3, "counting") as numbers:
        assert [threading.enumerate() == before for _ in numbers] == [True] * 3
